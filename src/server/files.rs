//! What the system must give before anything is opened: a kernel that is not too old, and files enough.

use std::fs;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::fault::Fault;
use crate::config::Config;

/// Oldest kernel, for SO_REUSEPORT. Source: socket(7).
const KERNEL_MIN: (u32, u32) = (3, 9);

/// Fewest files with which the process can start: runtimes, signals, logs, listeners. Without them a runtime would panic.
const FILES_MIN: u64 = 64;

/// Files that a connection needs: its own, and the one to the service.
const FILES_PER_CONNECTION: u64 = 2;

/// Raises the limit of open files as far as the process may; what it is then.
///
/// # Errors
/// The kernel is too old, or there are too few files to start.
pub fn prepare() -> Result<u64, Fault> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    if is_too_old(&release) {
        return Err(Fault::Kernel(release.trim().to_owned()));
    }
    let max = raise();
    if max < FILES_MIN { Err(Fault::Files { max, needed: FILES_MIN }) } else { Ok(max) }
}

/// Connections that find no file are not accepted: better said now.
pub fn warn_if_few(max: u64, config: &Config) {
    let connections = config.listeners.values().map(|listener| listener.limits.connections as u64);
    let needed = connections.sum::<u64>().saturating_mul(FILES_PER_CONNECTION);
    if max < needed {
        tracing::warn!(
            max,
            needed,
            "fewer files may be opened than the listeners' `connections` need: raise LimitNOFILE= or `ulimit -n`"
        );
    }
}

fn raise() -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return u64::MAX };
    match soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() {
        true => {
            tracing::info!(before = soft, now = hard, "raised the limit of open files");
            hard
        }
        false => soft,
    }
}

/// Of a release that cannot be read nothing is believed.
fn is_too_old(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    matches!((numbers.next(), numbers.next()), (Some(Ok(major)), Some(Ok(minor))) if (major, minor) < KERNEL_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_too_old_before_3_9() {
        let check = |release: &str, expected: bool| assert_eq!(is_too_old(release), expected, "{release}");
        check("2.6.32-754.el6.x86_64\n", true);
        check("3.8.0", true);
        check("3.9", false);
        check("3.10.0-1160", false);
        check("6.1.0", false);
        check("", false);
        check("x", false);
    }
}
