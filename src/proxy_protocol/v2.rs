//! Version 2: a binary header (§2.2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Addresses, Header, Parsed, expect};

/// What only this version begins with.
pub(super) const FIRST: u8 = b'\r';

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Signature, version and command, family and transport, length of what follows.
const FIXED: usize = SIGNATURE.len() + 4;

/// Longest header that we take, in bytes; the length has room for 64 KiB. Senders stay below 536 (§2), but for client certificates.
const HEADER_MAX: usize = 4096;

/// Type of the checksum's vector (§2.2.3).
const CRC32C: u8 = 3;

const SHORT: Parsed = Parsed::Bad("the PROXY header is shorter than its addresses");

/// What follows the fixed part.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Block {
    /// To be passed over, whatever it is.
    Ignored,
    Inet,
    Inet6,
    Unix,
}

impl Block {
    const fn size(self) -> usize {
        match self {
            Self::Ignored => 0,
            Self::Inet => 2 * (4 + 2),
            Self::Inet6 => 2 * (16 + 2),
            Self::Unix => 2 * 108,
        }
    }
}

/// Reads a header.
pub(super) fn read(bytes: &[u8]) -> Header {
    expect(bytes, SIGNATURE, "the connection does not begin with a PROXY header")?;
    let mut rest = bytes.get(SIGNATURE.len()..).unwrap_or_default();
    let [command] = take(&mut rest)?;
    let local = is_local(command)?;
    let [kind] = take(&mut rest)?;
    let block = if local { Block::Ignored } else { block(kind)? };
    let length = FIXED + usize::from(u16::from_be_bytes(take(&mut rest)?));
    if length > HEADER_MAX {
        return Err(Parsed::Bad("the PROXY header is longer than 4096 bytes"));
    }
    if length < FIXED + block.size() {
        return Err(SHORT);
    }
    let header = bytes.get(..length).ok_or(Parsed::Partial)?;
    let (addresses, vectors) = header.get(FIXED..).and_then(|rest| rest.split_at_checked(block.size())).ok_or(SHORT)?;
    if block != Block::Ignored {
        check_vectors(header, vectors)?;
    }
    Ok((length, read_addresses(block, addresses)?))
}

/// The next bytes, if they have come.
fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], Parsed> {
    let (taken, left) = rest.split_first_chunk::<N>().ok_or(Parsed::Partial)?;
    *rest = left;
    Ok(*taken)
}

/// Whether the sender speaks for itself.
const fn is_local(command: u8) -> Result<bool, Parsed> {
    match command {
        0x20 => Ok(true),
        0x21 => Ok(false),
        0x22..=0x2f => Err(Parsed::Bad("the PROXY header has a command that is not known")),
        _ => Err(Parsed::Bad("the PROXY header is not of version 2")),
    }
}

/// The block of a family and transport. Datagrams are refused: what follows came over a stream.
const fn block(kind: u8) -> Result<Block, Parsed> {
    match kind {
        0x00 => Ok(Block::Ignored),
        0x11 => Ok(Block::Inet),
        0x21 => Ok(Block::Inet6),
        0x31 => Ok(Block::Unix),
        _ => Err(Parsed::Bad("the PROXY header has a family and transport that do not belong together, or not to a stream")),
    }
}

fn read_addresses(block: Block, bytes: &[u8]) -> Result<Option<Addresses>, Parsed> {
    match block {
        Block::Ignored | Block::Unix => Ok(None),
        Block::Inet => pair::<4, Ipv4Addr>(bytes).map(Some),
        Block::Inet6 => pair::<16, Ipv6Addr>(bytes).map(Some),
    }
}

/// Both addresses of `N` bytes, then both ports.
fn pair<const N: usize, A: From<[u8; N]> + Into<IpAddr>>(mut bytes: &[u8]) -> Result<Addresses, Parsed> {
    let (source, destination): ([u8; N], [u8; N]) = (take(&mut bytes)?, take(&mut bytes)?);
    let (source_port, destination_port) = (u16::from_be_bytes(take(&mut bytes)?), u16::from_be_bytes(take(&mut bytes)?));
    Ok(Addresses {
        source: SocketAddr::new(A::from(source).into(), source_port),
        destination: SocketAddr::new(A::from(destination).into(), destination_port),
    })
}

/// Checks that the type-length-value vectors fill the header, and its checksum if there is one. None is used.
fn check_vectors(header: &[u8], mut vectors: &[u8]) -> Result<(), Parsed> {
    const UNEVEN: Parsed = Parsed::Bad("the vectors of the PROXY header do not fill it");
    let mut checked = false;
    while !vectors.is_empty() {
        let ([kind, high, low], rest) = vectors.split_first_chunk().ok_or(UNEVEN)?;
        let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([*high, *low]))).ok_or(UNEVEN)?;
        if *kind == CRC32C && (std::mem::replace(&mut checked, true) || !is_checksum(header, value, rest.len())) {
            return Err(Parsed::Bad("the checksum of the PROXY header is wrong"));
        }
        vectors = rest;
    }
    Ok(())
}

/// Whether the value, which this many bytes follow, is the checksum of the header with zeros in its place.
fn is_checksum(header: &[u8], value: &[u8], follow: usize) -> bool {
    let Ok(stated) = <[u8; 4]>::try_from(value) else { return false };
    let Some((before, _)) = header.split_at_checked(header.len() - follow - value.len()) else { return false };
    let Some((_, after)) = header.split_at_checked(header.len() - follow) else { return false };
    crc32c(before.iter().chain(&[0; 4]).chain(after)) == u32::from_be_bytes(stated)
}

/// CRC-32C (Castagnoli), RFC 4960 appendix B, bit by bit: a header is short and comes once a connection.
fn crc32c<'a>(bytes: impl Iterator<Item = &'a u8>) -> u32 {
    const REVERSED_POLYNOMIAL: u32 = 0x82f6_3b78;
    !bytes.fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (REVERSED_POLYNOMIAL & (crc & 1).wrapping_neg()))
    })
}

/// Writes a header. Both addresses are of one family.
pub(super) fn write(addresses: Option<Addresses>) -> Vec<u8> {
    let mut header = SIGNATURE.to_vec();
    match addresses.map(|a| (a.source.ip(), a.destination.ip(), a.source.port(), a.destination.port())) {
        Some((IpAddr::V4(from), IpAddr::V4(to), from_port, to_port)) => {
            header.extend([0x21, 0x11, 0, 12]);
            header.extend(from.octets().into_iter().chain(to.octets()));
            header.extend(from_port.to_be_bytes().into_iter().chain(to_port.to_be_bytes()));
        }
        Some((IpAddr::V6(from), IpAddr::V6(to), from_port, to_port)) => {
            header.extend([0x21, 0x21, 0, 36]);
            header.extend(from.octets().into_iter().chain(to.octets()));
            header.extend(from_port.to_be_bytes().into_iter().chain(to_port.to_be_bytes()));
        }
        _ => header.extend([0x20, 0x00, 0, 0]),
    }
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    /// "123456789" is what every description of a CRC gives; the others are of RFC 3720 §B.4.
    #[test]
    fn checksum_is_crc32c() {
        assert_eq!(crc32c(b"123456789".iter()), 0xe306_9283);
        assert_eq!(crc32c([0; 32].iter()), 0x8a91_36aa);
        assert_eq!(crc32c([0xff; 32].iter()), 0x62a8_ab43);
    }
}
