//! A key as a text that is the same on every node, and that people can read.

use std::{fmt::Write, net::Ipv6Addr};

use sha2::{Digest, Sha256};

use crate::{
    exchange::Inbound,
    limit::key::{Kind, Parts, Sink},
};

/// The text of a request's key: its parts, each with what it is. No two keys have the same.
pub fn text(parts: &Parts, inbound: &Inbound<'_>) -> String {
    let mut text = Text(String::new());
    parts.write(inbound, &mut text);
    text.0
}

struct Text(String);

impl Sink for Text {
    fn part(&mut self, kind: Kind, bytes: &[u8]) {
        if !self.0.is_empty() {
            self.0.push(',');
        }
        match (kind, bytes) {
            (Kind::V4, [a, b, c, d]) => drop(write!(self.0, "{a}.{b}.{c}.{d}")),
            (Kind::V6, _) => drop(<[u8; 16]>::try_from(bytes).map(|bits| write!(self.0, "{}", Ipv6Addr::from(bits)))),
            // A field, cookie or parameter may be a secret, which is not for whoever can look into the store.
            (Kind::Value, _) => self.hex(kind, Sha256::digest(bytes).get(..16).unwrap_or_default()),
            // What can be read is written as it is; a comma or a percent sign never is.
            (Kind::Credential | Kind::Number | Kind::List | Kind::Map, _) => self.hex(kind, bytes),
            _ => self.readable(kind, bytes),
        }
    }
}

impl Text {
    fn readable(&mut self, kind: Kind, bytes: &[u8]) {
        let _ = write!(self.0, "{}=", word(kind));
        for byte in bytes {
            match byte {
                b'-' | b'_' | b'.' | b':' | b'@' | b'/' => self.0.push(char::from(*byte)),
                byte if byte.is_ascii_alphanumeric() => self.0.push(char::from(*byte)),
                byte => drop(write!(self.0, "%{byte:02x}")),
            }
        }
    }

    fn hex(&mut self, kind: Kind, bytes: &[u8]) {
        let _ = write!(self.0, "{}=", word(kind));
        for byte in bytes {
            let _ = write!(self.0, "{byte:02x}");
        }
    }
}

/// What a part is, in short.
const fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Absent => "-",
        Kind::End => "end",
        Kind::V4 | Kind::V6 => "ip",
        Kind::Consumer => "consumer",
        Kind::Scheme => "scheme",
        Kind::Credential => "credential",
        Kind::Plan => "plan",
        Kind::Route => "route",
        Kind::Value => "value",
        Kind::Null => "null",
        Kind::Bool => "bool",
        Kind::Number => "number",
        Kind::Text => "text",
        Kind::List => "list",
        Kind::Map => "map",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(parts: &[(Kind, &[u8])], expected: &str) {
        let mut text = Text(String::new());
        parts.iter().for_each(|(kind, bytes)| text.part(*kind, bytes));
        assert_eq!(text.0, expected);
    }

    #[test]
    fn keys_can_be_read_and_not_be_confused() {
        check(&[(Kind::V4, &[192, 0, 2, 1])], "192.0.2.1");
        check(&[(Kind::V6, &Ipv6Addr::LOCALHOST.octets())], "::1");
        check(&[(Kind::Consumer, b"acme"), (Kind::Text, b"a,b=c%")], "consumer=acme,text=a%2cb%3dc%25");
        check(&[(Kind::Consumer, b"acme,text=x")], "consumer=acme%2ctext%3dx");
        check(&[(Kind::Value, b"a secret")], "value=984ca5162200734c592148f1820b7105");
        check(&[(Kind::Absent, b""), (Kind::Credential, &[1, 255])], "-=,credential=01ff");
    }
}
