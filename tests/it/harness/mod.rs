//! What the tests stand on: a gateway process, services behind it, clients before it.
//!
//! Everything blocks and has a deadline; nothing sleeps to let something else happen.

pub mod barrier;
pub mod case;
pub mod cert;
pub mod chat;
pub mod client;
pub mod ear;
pub mod frames;
pub mod gateway;
pub mod h2;
pub mod lines;
pub mod meet;
pub mod ocsp;
pub mod origin;
pub mod port;
pub mod reception;
pub mod redis;
pub mod issuer;
pub mod tool;
pub mod wire;

use std::time::{Duration, Instant};

pub use self::{
    client::Connection,
    gateway::Gateway,
    origin::{Origin, Request},
    wire::Response,
};

/// Longest wait for anything that should happen at once. Only a failing test waits that long.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Time between two looks at a state that cannot be waited for.
const LOOK: Duration = Duration::from_millis(10);

/// Looks until `look` gives something.
///
/// # Panics
/// When nothing came in time; the message says what was waited for.
#[track_caller]
pub fn eventually<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, look).unwrap_or_else(|| panic!("waited {PATIENCE:?} in vain: {what}"))
}

/// Looks until `look` gives something or the time is over.
pub fn within<T>(time: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + time;
    loop {
        let found = look();
        if found.is_some() || Instant::now() > deadline {
            return found;
        }
        std::thread::sleep(LOOK);
    }
}
