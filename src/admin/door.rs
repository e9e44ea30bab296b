//! Who may come in by the admin listener: no page of a browser that was sent here, and for changes only who has the token.

use std::net::{Ipv4Addr, Ipv6Addr};

use http::{StatusCode, header, uri::Authority};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{Asked, Problem};
use crate::config;

/// The rules of the door, compiled.
pub(super) struct Door {
    /// In lower case, without a trailing dot.
    hosts: Vec<String>,
    /// Digest of the token, so that a comparison takes the same time for any length.
    token: Option<[u8; 32]>,
}

const FOREIGN_HOST: Problem = Problem::new(
    StatusCode::MISDIRECTED_REQUEST,
    "unknown_host",
    "The admin listener answers to IP addresses, `localhost` and the names in `admin.hosts` only.",
);

const UNCLEAR_HOST: Problem =
    Problem::new(StatusCode::BAD_REQUEST, "unclear_host", "The request must name one host, in one Host header.");

const FOREIGN_ORIGIN: Problem =
    Problem::new(StatusCode::FORBIDDEN, "foreign_origin", "Pages of other origins may not change anything here.");

const NO_TOKEN: Problem = Problem::new(
    StatusCode::FORBIDDEN,
    "no_token_configured",
    "Calls that change something are switched off: no `admin.token` is configured.",
);

const WRONG_TOKEN: Problem =
    Problem::new(StatusCode::UNAUTHORIZED, "token_needed", "This call needs `Authorization: Bearer` with the admin token.");

impl Door {
    pub fn new(config: &config::Admin) -> Self {
        let hosts = config.hosts.iter().map(|host| bare(host)).collect();
        Self { hosts, token: config.token.as_ref().map(|token| digest(token.reveal().as_bytes())) }
    }

    /// Against DNS rebinding: a page can make a browser send any name that its owner lets point here, but never an
    /// address, nor a name that is not its owner's. No host at all (HTTP/1.0) comes from no browser.
    pub fn knows(&self, hosts: &[Vec<u8>]) -> Result<(), Problem> {
        let [first, others @ ..] = hosts else { return Ok(()) };
        if others.iter().any(|other| !other.eq_ignore_ascii_case(first)) {
            return Err(UNCLEAR_HOST);
        }
        let host = authority(first).ok_or(UNCLEAR_HOST)?;
        let host = bare(host.host());
        match is_address(&host) || host == "localhost" || self.hosts.contains(&host) {
            true => Ok(()),
            false => Err(FOREIGN_HOST),
        }
    }

    /// For calls that change something, after [`Door::knows`].
    pub fn may_change(&self, asked: &Asked) -> Result<(), Problem> {
        same_origin(asked)?;
        let token = self.token.as_ref().ok_or(NO_TOKEN)?;
        let given = asked.authorization.as_deref().and_then(bearer).map(digest);
        match given.is_some_and(|given| given.ct_eq(token).into()) {
            true => Ok(()),
            false => Err(WRONG_TOKEN.with(header::WWW_AUTHENTICATE, "Bearer realm=\"banyan admin\"")),
        }
    }
}

/// A browser names the origin of the page that sends a POST; anything else sends none.
fn same_origin(asked: &Asked) -> Result<(), Problem> {
    let Some(origin) = &asked.origin else { return Ok(()) };
    let place = origin.strip_prefix(b"http://").or_else(|| origin.strip_prefix(b"https://"));
    let same = place.zip(asked.hosts.first()).is_some_and(|(place, host)| place.eq_ignore_ascii_case(host));
    if same { Ok(()) } else { Err(FOREIGN_ORIGIN) }
}

/// Host and port, without a user.
fn authority(host: &[u8]) -> Option<Authority> {
    Authority::try_from(host).ok().filter(|authority| !authority.as_str().contains('@'))
}

fn bare(host: &str) -> String {
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

fn is_address(host: &str) -> bool {
    let v6 = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    host.parse::<Ipv4Addr>().is_ok() || v6.is_some_and(|v6| v6.parse::<Ipv6Addr>().is_ok())
}

/// The token of `Authorization: Bearer <token>` (RFC 6750).
fn bearer(authorization: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = authorization.split_at_checked(b"bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(token.trim_ascii())
}

fn digest(token: &[u8]) -> [u8; 32] {
    Sha256::digest(token).into()
}
