//! The load-test suite's program: see `loadtests/README.md`. All of it is in `mod.rs`, which the tests take in too.

#[path = "mod.rs"]
mod suite;

fn main() -> std::process::ExitCode {
    suite::main()
}
