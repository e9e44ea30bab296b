//! The `banyan` command: see `banyan::cli`.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Pages of 2 MiB make the process twice as large with 1,000 routes, and it is not seen to be faster (docs/decisions/0009-performance.md).
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    banyan::cli::main()
}
