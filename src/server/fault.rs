//! Why the process cannot start.

use crate::config::address::ListenAddress;

/// What the system, or who set it up, does not give. The reason is the error's source.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// With the key that names the address.
    #[error("cannot listen on {address} ({key})")]
    Listen { address: ListenAddress, key: String },
    #[error("{0}")]
    Authorities(String),
    #[error("cannot start a runtime")]
    Runtime,
    #[error("this process may open only {max} files, and needs {needed}: raise the limit (`ulimit -n`, LimitNOFILE=)")]
    Files { max: u64, needed: u64 },
    #[error("Linux {0} is too old: 3.9 or later is needed")]
    Kernel(String),
}
