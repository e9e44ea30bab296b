//! Whether the listeners are open. Pingora does not tell, so it is tried.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use crate::config::Config;

/// Longest wait for a listener of our own.
const PATIENCE: Duration = Duration::from_millis(200);

/// The addresses that clients connect to.
pub struct Doors {
    addresses: Vec<SocketAddr>,
    /// Seen open once: they stay so until the process ends.
    open: AtomicBool,
}

impl Doors {
    pub fn of(config: &Config) -> Self {
        Self {
            addresses: config.listeners.values().map(|listener| reachable(listener.address)).collect(),
            open: AtomicBool::new(false),
        }
    }

    /// The listeners that do not accept yet.
    pub fn closed(&self) -> Vec<String> {
        if self.open.load(Relaxed) {
            return Vec::new();
        }
        let accepts = |address: &&SocketAddr| TcpStream::connect_timeout(address, PATIENCE).is_ok();
        let closed = self.addresses.iter().filter(|address| !accepts(address));
        let closed: Vec<_> = closed.map(|address| format!("the listener at {address} is not open yet")).collect();
        self.open.store(closed.is_empty(), Relaxed);
        closed
    }
}

/// An address that listens everywhere is reached on the loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(v4) if v4.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(v6) if v6.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}
