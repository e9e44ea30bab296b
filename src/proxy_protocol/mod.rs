//! The PROXY protocol, versions 1 and 2, read and written: who opened the connection that another proxy passes on.
//!
//! As HAProxy's `doc/proxy-protocol.txt` has it. The reader takes nothing that is not exactly in it, and says so as soon as it can be
//! known, so that a connection that begins otherwise is not waited for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

mod v1;
mod v2;

/// Both ends of a connection, as the proxy that accepted it saw them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Addresses {
    /// Who opened the connection: the client.
    pub source: SocketAddr,
    /// What it was opened to. Unspecified (`0.0.0.0`, `::`) where that is not known.
    pub destination: SocketAddr,
}

/// What the first bytes of a connection are. [`Done`](Self::Done) and [`Bad`](Self::Bad) stay what they are, whatever follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Parsed {
    /// The beginning of a header: more bytes are needed. Never said of more than 4 KiB.
    Partial,
    /// A header.
    Done {
        /// Its bytes; what follows is the connection's own.
        length: usize,
        /// None where the sender speaks for itself (LOCAL) or does not know (UNKNOWN, AF_UNSPEC, Unix sockets): the connection's own
        /// addresses stand. IPv4 addresses that came as IPv6 (`::ffff:192.0.2.1`) are IPv4 here.
        source: Option<Addresses>,
    },
    /// No header, and why.
    Bad(&'static str),
}

/// A header's length and what it says, or why there is none (yet).
type Header = Result<(usize, Option<Addresses>), Parsed>;

/// Reads a header of either version from the beginning of a connection.
pub fn parse(bytes: &[u8]) -> Parsed {
    let header = match bytes.first() {
        None => return Parsed::Partial,
        Some(&v1::FIRST) => v1::read(bytes),
        Some(&v2::FIRST) => v2::read(bytes),
        Some(_) => return Parsed::Bad("the connection does not begin with a PROXY header"),
    };
    match header {
        Ok((length, source)) => Parsed::Done { length, source: source.map(Addresses::canonical) },
        Err(parsed) => parsed,
    }
}

/// The header of version 1 (text), at most 107 bytes. None: `UNKNOWN`, which some services refuse.
///
/// Both addresses go out in the family of the source: see [`write_v2`].
pub fn write_v1(addresses: Option<Addresses>) -> Vec<u8> {
    v1::write(addresses.map(Addresses::alike))
}

/// The header of version 2 (binary), at most 52 bytes. None: `LOCAL`, the connection is the sender's own.
///
/// Both addresses go out in the family of the source, since the service decides by it: a destination of IPv4 is mapped into IPv6; one
/// of IPv6 cannot be said in IPv4, and is `0.0.0.0`.
pub fn write_v2(addresses: Option<Addresses>) -> Vec<u8> {
    v2::write(addresses.map(Addresses::alike))
}

impl Addresses {
    fn canonical(self) -> Self {
        let plain = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
        Self { source: plain(self.source), destination: plain(self.destination) }
    }

    /// The same in the family of the source.
    fn alike(self) -> Self {
        let Self { source, mut destination } = self.canonical();
        match (source.ip(), destination.ip()) {
            (IpAddr::V4(_), IpAddr::V6(_)) => destination.set_ip(Ipv4Addr::UNSPECIFIED.into()),
            (IpAddr::V6(_), IpAddr::V4(plain)) if plain.is_unspecified() => destination.set_ip(Ipv6Addr::UNSPECIFIED.into()),
            (IpAddr::V6(_), IpAddr::V4(plain)) => destination.set_ip(plain.to_ipv6_mapped().into()),
            _ => {}
        }
        Self { source, destination }
    }
}

/// Whether the bytes begin with a text that is always there. Bad as soon as they cannot.
fn expect(bytes: &[u8], text: &[u8], otherwise: &'static str) -> Result<(), Parsed> {
    match bytes.len() < text.len() {
        _ if !bytes.iter().zip(text).all(|(a, b)| a == b) => Err(Parsed::Bad(otherwise)),
        true => Err(Parsed::Partial),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests;
