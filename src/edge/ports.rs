//! Where a listener listens, in Pingora's terms.

use std::net::SocketAddr;

use pingora_core::{listeners::ListenerConfig, protocols::l4::socket::SocketAddr as Local};

use crate::config::{
    Listener,
    address::{FileMode, ListenAddress},
};

/// The endpoint of a listener, without TLS. Its socket, with its options, is opened by `server`: Pingora finds it by the address.
pub fn endpoint(listener: &Listener) -> ListenerConfig {
    at(&listener.address, listener.mode)
}

/// The endpoint at an address. Of a Unix socket Pingora sets the permissions once more, which would be 0666 if it was not told.
pub fn at(address: &ListenAddress, mode: Option<FileMode>) -> ListenerConfig {
    match address {
        ListenAddress::Tcp(_) => ListenerConfig::tcp(address.key()),
        ListenAddress::Unix(_) => ListenerConfig::uds(address.key()).permissions(mode.unwrap_or(FileMode::SHARED).permissions()),
    }
}

/// Whether a connection whose own end is `local` came by the listener at `address`.
pub fn is_local(address: &ListenAddress, local: &Local) -> bool {
    match (address, local) {
        (ListenAddress::Tcp(address), Local::Inet(local)) => *address == *local || is_wildcard_of(address, local),
        (ListenAddress::Unix(path), Local::Unix(local)) => local.as_pathname() == Some(path),
        _ => false,
    }
}

/// A socket at `[::]` gives IPv6 addresses, of IPv4 connections too.
fn is_wildcard_of(address: &SocketAddr, local: &SocketAddr) -> bool {
    address.ip().is_unspecified() && address.port() == local.port() && address.is_ipv4() == local.is_ipv4()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(address: &str, local: &str, expected: bool) {
        let address: ListenAddress = address.parse().unwrap();
        let local = match local.strip_prefix('/') {
            Some(_) => Local::Unix(std::os::unix::net::SocketAddr::from_pathname(local).unwrap()),
            None => Local::Inet(local.parse().unwrap()),
        };
        assert_eq!(is_local(&address, &local), expected, "{address} and {local}");
    }

    #[test]
    fn a_connection_belongs_to_the_listener_that_it_came_by() {
        check("127.0.0.1:80", "127.0.0.1:80", true);
        check("127.0.0.1:80", "127.0.0.1:81", false);
        check("0.0.0.0:80", "127.0.0.1:80", true);
        check("0.0.0.0:80", "[::1]:80", false);
        check("[::]:80", "[::1]:80", true);
        check("[::]:80", "[::ffff:127.0.0.1]:80", true);
        check("[::]:80", "127.0.0.1:80", false);
        check("[::1]:80", "[::1]:80", true);
        check("unix:/run/a", "/run/a", true);
        check("unix:/run/a", "/run/b", false);
        check("unix:/run/a", "127.0.0.1:80", false);
    }
}
