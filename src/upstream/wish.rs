//! What a request brings to the choice of its endpoint: the key that is hashed, the session that a cookie names.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use sha2::{Digest, Sha256};

use super::balance::sticky::{self, Token};
use crate::{
    caller::Caller,
    config::{
        self,
        route::Scheme,
        upstream::{Balance, HashKey},
    },
    exchange::Facts,
};

/// What of a request is looked at.
#[derive(Debug)]
pub(super) struct Wishes {
    key: Option<KeyOf>,
    sticky: Option<Sticky>,
}

#[derive(Debug)]
enum KeyOf {
    ClientIp,
    Consumer,
    Path,
    Header(HeaderName),
    Cookie(Box<str>),
}

#[derive(Debug)]
struct Sticky {
    cookie: Box<str>,
    names: sticky::Sticky,
}

/// What one request wishes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wish<'a> {
    pub(super) key: Option<Key<'a>>,
    pub(super) session: Option<Token>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Key<'a> {
    Bytes(&'a [u8]),
    V4([u8; 4]),
    V6([u8; 16]),
}

impl Key<'_> {
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::V4(octets) => octets,
            Self::V6(octets) => octets,
        }
    }
}

impl Wishes {
    /// `drawn`: what endpoints are named under where the file has no secret.
    pub fn of(config: &config::Upstream, drawn: &[u8; 32]) -> Self {
        let key = match &config.balance {
            Balance::Hash(hash) => KeyOf::of(&hash.key),
            _ => None,
        };
        let sticky = config.sticky.as_ref().map(|sticky| Sticky {
            cookie: sticky.cookie.as_str().into(),
            names: sticky::Sticky::new(match &sticky.secret {
                Some(secret) => Sha256::digest(secret.reveal()).into(),
                None => *drawn,
            }),
        });
        Self { key, sticky }
    }

    /// An endpoint's name in a cookie.
    pub fn token(&self, address: std::net::SocketAddr) -> Token {
        self.sticky.as_ref().map_or_else(Token::default, |sticky| sticky.names.token(address))
    }

    pub fn of_request<'a>(&self, headers: &'a HeaderMap, facts: &'a Facts, caller: &'a Caller) -> Wish<'a> {
        let key = self.key.as_ref().and_then(|key| key.of_request(headers, facts, caller));
        let cookie = self.sticky.as_ref().and_then(|sticky| cookie(headers, &sticky.cookie));
        Wish { key, session: cookie.and_then(Token::read) }
    }

    /// The cookie that keeps a session with an endpoint. For as long as the browser's session lasts.
    pub fn cookie(&self, token: Token, scheme: Scheme) -> Option<HeaderValue> {
        let name = &self.sticky.as_ref()?.cookie;
        let secure = if scheme == Scheme::Https { "; Secure" } else { "" };
        HeaderValue::from_str(&format!("{name}={token}; Path=/; HttpOnly; SameSite=Lax{secure}")).ok()
    }
}

impl KeyOf {
    fn of(key: &HashKey) -> Option<Self> {
        Some(match key {
            HashKey::ClientIp => Self::ClientIp,
            HashKey::Consumer => Self::Consumer,
            HashKey::Path => Self::Path,
            HashKey::Header(name) => Self::Header(HeaderName::try_from(name).ok()?),
            HashKey::Cookie(name) => Self::Cookie(name.as_str().into()),
        })
    }

    fn of_request<'a>(&self, headers: &'a HeaderMap, facts: &'a Facts, caller: &'a Caller) -> Option<Key<'a>> {
        match self {
            Self::ClientIp => Some(match facts.client {
                IpAddr::V4(ip) => Key::V4(ip.octets()),
                IpAddr::V6(ip) => Key::V6(ip.octets()),
            }),
            Self::Consumer => caller.consumer.as_ref().map(|consumer| Key::Bytes(consumer.name.as_str().as_bytes())),
            Self::Path => Some(Key::Bytes(facts.path.as_bytes())),
            Self::Header(name) => headers.get(name).map(|value| Key::Bytes(value.as_bytes())),
            Self::Cookie(name) => cookie(headers, name).map(Key::Bytes),
        }
    }
}

/// The value of a cookie (RFC 6265 §4.2.1).
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let mut pairs = headers.get_all(header::COOKIE).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    pairs.find_map(|pair| {
        let mut halves = pair.trim_ascii().splitn(2, |byte| *byte == b'=');
        let found = halves.next()? == name.as_bytes();
        found.then(|| halves.next()).flatten()
    })
}
