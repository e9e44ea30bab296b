//! Version 1: one line of text, `PROXY TCP4 192.0.2.1 198.51.100.1 56324 443` (§2.1).

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use super::{Addresses, Header, Parsed, expect};

/// What only this version begins with.
pub(super) const FIRST: u8 = b'P';

const START: &[u8] = b"PROXY ";

/// Longest line, its end included. Source: §2.1, worst case.
const LINE_MAX: usize = 107;

/// Digits of the largest port.
const PORT_DIGITS_MAX: usize = 5;

const END: &[u8] = b"\r\n";

const NO_FAMILY: &str = "the PROXY line names no family that is known";
const NOT_EXACT: &str = "the PROXY line does not have two addresses and two ports";

/// What stands after `PROXY `.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    Tcp4,
    Tcp6,
    Unknown,
}

const FAMILIES: [(&[u8], Family); 3] = [(b"TCP4 ", Family::Tcp4), (b"TCP6 ", Family::Tcp6), (b"UNKNOWN", Family::Unknown)];

/// Reads a line.
pub(super) fn read(bytes: &[u8]) -> Header {
    expect(bytes, START, "the connection does not begin with a PROXY header")?;
    let after = bytes.get(START.len()..).unwrap_or_default();
    let (family, word) = family(after)?;
    let before = START.len() + word.len();
    let rest = after.get(word.len()..).unwrap_or_default();
    let text = line(rest, LINE_MAX - before, family)?;
    let addresses = match family {
        Family::Tcp4 => Some(addresses::<Ipv4Addr>(text)?),
        Family::Tcp6 => Some(addresses::<Ipv6Addr>(text)?),
        Family::Unknown => None,
    };
    Ok((before + text.len() + END.len(), addresses))
}

/// The family, and its word with what must follow it.
fn family(after: &[u8]) -> Result<(Family, &'static [u8]), Parsed> {
    let mut verdict = Parsed::Bad(NO_FAMILY);
    for (word, family) in FAMILIES {
        match expect(after, word, NO_FAMILY) {
            Ok(()) => return Ok((family, word)),
            Err(Parsed::Partial) => verdict = Parsed::Partial,
            Err(_) => {}
        }
    }
    Err(verdict)
}

/// What stands before the end of the line, of which this many bytes are left.
fn line(rest: &[u8], left: usize, family: Family) -> Result<&[u8], Parsed> {
    let rest = rest.get(..left).unwrap_or(rest);
    let belongs = |byte: &u8| match family {
        Family::Unknown => !END.contains(byte),
        _ => byte.is_ascii_hexdigit() || b" .:".contains(byte),
    };
    if family == Family::Unknown && rest.first().is_some_and(|byte| !b" \r".contains(byte)) {
        return Err(Parsed::Bad(NO_FAMILY));
    }
    let Some(at) = rest.iter().position(|byte| !belongs(byte)) else {
        return Err(if rest.len() < left { Parsed::Partial } else { Parsed::Bad("the PROXY line is longer than 107 bytes") });
    };
    let (text, end) = rest.split_at_checked(at).unwrap_or((rest, &[]));
    match expect(end, END, "the PROXY line holds what does not belong there, or does not end with CR and LF") {
        Err(Parsed::Partial) if rest.len() == left => Err(Parsed::Bad("the PROXY line is longer than 107 bytes")),
        verdict => verdict.map(|()| text),
    }
}

/// Reads two addresses and two ports, with exactly one space between.
fn addresses<A: FromStr + Into<IpAddr>>(text: &[u8]) -> Result<Addresses, Parsed> {
    let text = std::str::from_utf8(text).map_err(|_| Parsed::Bad(NOT_EXACT))?;
    let mut words = text.split(' ');
    let [Some(source), Some(destination), Some(source_port), Some(destination_port), None] =
        std::array::from_fn(|_| words.next())
    else {
        return Err(Parsed::Bad(NOT_EXACT));
    };
    Ok(Addresses {
        source: SocketAddr::new(address::<A>(source)?, port(source_port)?),
        destination: SocketAddr::new(address::<A>(destination)?, port(destination_port)?),
    })
}

/// The standard library refuses what the specification does: zeros before a decimal number, zones, too few or too many groups.
fn address<A: FromStr + Into<IpAddr>>(word: &str) -> Result<IpAddr, Parsed> {
    word.parse::<A>().map(Into::into).map_err(|_| Parsed::Bad("the PROXY line has an address that is not one of its family"))
}

fn port(word: &str) -> Result<u16, Parsed> {
    let plain =
        word == "0" || !word.starts_with('0') && word.len() <= PORT_DIGITS_MAX && word.bytes().all(|b| b.is_ascii_digit());
    word.parse().ok().filter(|_| plain).ok_or(Parsed::Bad("the PROXY line has a port that is not one"))
}

/// Writes a line. Both addresses are of one family.
pub(super) fn write(addresses: Option<Addresses>) -> Vec<u8> {
    let Some(Addresses { source, destination }) = addresses else { return b"PROXY UNKNOWN\r\n".to_vec() };
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    let (from, to) = (Spelled(source.ip()), Spelled(destination.ip()));
    format!("PROXY {family} {from} {to} {} {}\r\n", source.port(), destination.port()).into_bytes()
}

/// An address as the line has it. The standard library spells the last of `::ffff:c000:201` as IPv4, which not every reader takes.
struct Spelled(IpAddr);

impl std::fmt::Display for Spelled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            IpAddr::V6(address) if address.to_ipv4_mapped().is_some() => {
                let [.., high, low] = address.segments();
                write!(f, "::ffff:{high:x}:{low:x}")
            }
            address => address.fmt(f),
        }
    }
}
