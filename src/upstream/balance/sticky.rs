//! Sessions that stay with an endpoint: what a cookie calls it.
//!
//! A token is a keyed hash of the address. It tells a client nothing of the network behind the gateway; under one secret, all gateways of a fleet
//! and the same gateway after a restart give the same one.

use std::{fmt, net::SocketAddr};

use sha2::{Digest, Sha256};

/// What tokens are made under.
#[derive(Clone)]
pub struct Sticky {
    secret: [u8; 32],
}

/// An endpoint's name in a cookie: 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Token(u64);

/// Which member a token names.
#[derive(Debug, Default)]
pub(super) struct Names(Box<[(Token, usize)]>);

impl fmt::Debug for Sticky {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sticky([redacted])")
    }
}

impl Sticky {
    pub const fn new(secret: [u8; 32]) -> Self {
        Self { secret }
    }

    /// SHA-256 of the secret, which is as long as its hash, and the address; 64 bits of it. Too few are shown to extend it, and whoever finds
    /// a token by trying only chooses an endpoint for himself.
    pub fn token(&self, address: SocketAddr) -> Token {
        let digest = Sha256::new().chain_update(self.secret).chain_update(address.to_string()).finalize();
        Token(digest.iter().take(8).fold(0, |token, byte| token << 8 | u64::from(*byte)))
    }
}

impl Token {
    /// Reads a cookie's value. `None` if it is none of ours.
    pub fn read(text: &[u8]) -> Option<Self> {
        let digit = |byte: &u8| char::from(*byte).to_digit(16).filter(|_| !byte.is_ascii_uppercase());
        if text.len() != 16 {
            return None;
        }
        text.iter().try_fold(0, |token, byte| Some(token << 4 | u64::from(digit(byte)?))).map(Self)
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Names {
    pub fn of(tokens: impl Iterator<Item = Token>) -> Self {
        let mut names: Vec<_> = tokens.enumerate().map(|(position, token)| (token, position)).collect();
        names.sort_unstable();
        Self(names.into())
    }

    pub fn find(&self, token: Token) -> Option<usize> {
        let at = self.0.binary_search_by_key(&token, |(token, _)| *token).ok()?;
        self.0.get(at).map(|(_, position)| *position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> SocketAddr {
        ([10, 0, 0, 1], port).into()
    }

    #[test]
    fn a_token_is_read_as_it_was_written_and_tells_no_address() {
        let token = Sticky::new([7; 32]).token(address(80));
        assert_eq!(Token::read(token.to_string().as_bytes()), Some(token));
        assert_ne!(token, Sticky::new([8; 32]).token(address(80)), "another secret");
        assert_ne!(token, Sticky::new([7; 32]).token(address(81)), "another address");
    }

    #[test]
    fn what_is_no_token_is_none() {
        for text in ["", "0", "000000000000000g", "00000000000000AB", "00000000000000000", "+123456789abcdef"] {
            assert_eq!(Token::read(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn names_are_found_and_only_those() {
        let sticky = Sticky::new([1; 32]);
        let names = Names::of((1..=50).map(|port| sticky.token(address(port))));
        assert!((1..=50).all(|port| names.find(sticky.token(address(port))) == Some(usize::from(port) - 1)));
        assert_eq!(names.find(sticky.token(address(51))), None);
    }
}
