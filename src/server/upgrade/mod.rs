//! A new process takes the place of an old one without a refused connection or a cut request.
//!
//! `banyan run --upgrade` starts the successor, SIGQUIT permits the old one to hand over; either may come first, by half a minute. Then,
//! over a Unix socket in the runtime directory (`channel`):
//!
//! 1. the successor, whose configuration is good, says `hello`; the old process looks whose process it is, and offers its listening sockets;
//! 2. the successor opens what is not among them, waits for its first health checks, begins to accept and says `ready`;
//! 3. the old process says `yours`, names the successor to systemd, closes its listeners and drains.
//!
//! Both hold the same sockets, so what waits in a queue is accepted by one or the other. Until `yours` the old process changes nothing of
//! its own: whatever becomes of the successor, it carries on.

use std::path::PathBuf;

pub use self::{
    channel::Estate,
    handover::{Handover, Spare},
    takeover::{Accession, Bequest},
};

mod channel;
mod handover;
pub mod summon;
mod takeover;

/// The variable in which systemd names the runtime directory; several are separated by colons.
const DIRECTORY: &str = "RUNTIME_DIRECTORY";

/// Where the upgrade socket is without it: the directory that the unit of ours has.
const DIRECTORY_DEFAULT: &str = "/run/banyan";

/// Longest wait of each for the other.
const MEET_MAX: std::time::Duration = std::time::Duration::from_secs(30);

/// Where old process and successor meet.
fn meeting_point() -> PathBuf {
    runtime_directory().join("upgrade.sock")
}

/// Where only our own user may write.
pub fn runtime_directory() -> PathBuf {
    runtime_directory_of(&std::env::var(DIRECTORY).unwrap_or_default())
}

/// The first of these directories.
pub fn runtime_directory_of(list: &str) -> PathBuf {
    let first = list.split(':').next().filter(|first| !first.is_empty());
    PathBuf::from(first.unwrap_or(DIRECTORY_DEFAULT))
}
