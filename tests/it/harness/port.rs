//! Free ports on the loopback address.

use std::{
    net::TcpListener,
    sync::atomic::{AtomicU32, Ordering},
};

/// Ports we hand out lie below the range from which the kernel takes those of outgoing connections and of `bind(0)`, so
/// that nothing takes one between our look at it and the gateway's bind.
const FIRST: u32 = 10_000;
const COUNT: u32 = 22_000;

/// A port that nothing listens on; given to nobody else in this process.
pub fn free() -> u16 {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let start = std::process::id().wrapping_mul(997);
    for _ in 0..COUNT {
        let next = start.wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed)) % COUNT;
        let port = u16::try_from(FIRST + next).expect("below 32000");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port from {FIRST} to {}", FIRST + COUNT);
}
