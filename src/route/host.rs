//! Hosts: of requests, and the patterns that routes name.
//!
//! A request's host is what RFC 3986 §3.2.2 and RFC 9110 §7.2 allow, in one form: lower case, no dot at the end, IPv6
//! in the form of RFC 5952. Stricter than the grammar: no percent-encoding and no `!$&'()*+,;=`, which no service has
//! in its name and which readers of the Host header disagree on.

use std::{borrow::Cow, net::Ipv6Addr};

/// Longest host, in bytes. Source: RFC 1035 §2.3.4 bounds a name to 255 octets.
const HOST_MAX: usize = 255;

/// Reads an authority or Host header: the host in its one form, and the port if one is named.
///
/// # Errors
/// The rule that it breaks; never the text itself.
pub fn parse(authority: &str) -> Result<(Cow<'_, str>, Option<u16>), &'static str> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (address, port) = rest.split_once(']').ok_or("an IPv6 address without a closing bracket in the host")?;
        return Ok((ipv6(address)?, after_colon(port)?));
    }
    match authority.split_once(':') {
        Some((host, digits)) => Ok((name(host)?, port(digits)?)),
        None => Ok((name(authority)?, None)),
    }
}

/// A host without port in its one form.
pub(super) fn bare(text: &str) -> Result<Cow<'_, str>, &'static str> {
    match parse(text)? {
        (host, None) if !text.ends_with(':') => Ok(host),
        _ => Err("a port in the host"),
    }
}

fn after_colon(text: &str) -> Result<Option<u16>, &'static str> {
    match text.strip_prefix(':') {
        Some(digits) => port(digits),
        None if text.is_empty() => Ok(None),
        None => Err("text after the IPv6 address in the host"),
    }
}

/// An empty port is none, RFC 3986 §3.2.3.
fn port(digits: &str) -> Result<Option<u16>, &'static str> {
    if digits.is_empty() {
        return Ok(None);
    }
    match digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse()) {
        Some(Ok(port)) => Ok(Some(port)),
        _ => Err("a port that is no number up to 65535 in the host"),
    }
}

fn ipv6(text: &str) -> Result<Cow<'_, str>, &'static str> {
    let address: Ipv6Addr = text.parse().map_err(|_| "an IPv6 address that is none in the host")?;
    Ok(Cow::Owned(format!("[{address}]")))
}

fn name(text: &str) -> Result<Cow<'_, str>, &'static str> {
    let host = text.strip_suffix('.').unwrap_or(text);
    if host.len() > HOST_MAX {
        return Err("more than 255 characters in the host");
    }
    // Looked at once: each request names a host.
    let (mut before, mut has_empty, mut is_odd, mut is_raised) = (b'.', false, false, false);
    for byte in host.bytes() {
        has_empty |= before == b'.' && byte == b'.';
        is_odd |= !(byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~'));
        is_raised |= byte.is_ascii_uppercase();
        before = byte;
    }
    match (has_empty || before == b'.', is_odd) {
        (true, _) => Err("an empty label in the host"),
        (_, true) => Err("a character that no host has in the host"),
        _ if is_raised => Ok(Cow::Owned(host.to_ascii_lowercase())),
        _ => Ok(Cow::Borrowed(host)),
    }
}

/// Hosts that a route names.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Pattern {
    /// This one.
    Exact(Box<str>),
    /// Those that end in a dot and this: one or more labels before it.
    Under(Box<str>),
    /// Every one, and requests that name none.
    Any,
}

impl Pattern {
    /// Reads `shop.example`, `*.shop.example` or `*`.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        match (text, text.strip_prefix("*.")) {
            ("*", _) => Ok(Self::Any),
            (_, Some(rest)) if rest.starts_with('[') => Err("a wildcard before an IPv6 address in the host"),
            (_, Some(rest)) => Ok(Self::Under(bare(rest)?.into())),
            (host, None) if host.contains('*') => Err("a `*` in the host that is not the whole first label"),
            (host, None) => Ok(Self::Exact(bare(host)?.into())),
        }
    }

    /// Whether it takes a host in its one form.
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(name) => **name == *host,
            Self::Under(parent) => {
                host.strip_suffix(&**parent).and_then(|front| front.strip_suffix('.')).is_some_and(|front| !front.is_empty())
            }
            Self::Any => true,
        }
    }

    /// How specific it is: exact, longer wildcard, any. More is more specific.
    pub fn rank(&self) -> usize {
        match self {
            Self::Exact(_) => usize::MAX,
            Self::Under(parent) => labels(parent),
            Self::Any => 0,
        }
    }
}

/// How many labels a host has.
pub(super) fn labels(host: &str) -> usize {
    host.split('.').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(authority: &str, host: &str, port: Option<u16>) {
        let parsed = parse(authority);
        assert_eq!(parsed, Ok((host.into(), port)), "{authority}");
        assert_eq!(parse(host), Ok((host.into(), None)), "{authority} is not settled");
    }

    #[test]
    fn hosts_have_one_form() {
        check("shop.example", "shop.example", None);
        check("SHOP.Example.:8080", "shop.example", Some(8080));
        check("shop.example:", "shop.example", None);
        check("127.0.0.1:80", "127.0.0.1", Some(80));
        check("a_b-c~d", "a_b-c~d", None);
        check("[2001:DB8:0::1]:443", "[2001:db8::1]", Some(443));
        check("[::1]", "[::1]", None);
    }

    #[test]
    fn what_is_no_host_is_refused() {
        let long = "a".repeat(256);
        for bad in [
            "",
            ".",
            "a..b",
            ".a",
            "a..",
            "user@a",
            "a/b",
            "a b",
            "a,b",
            "a%41",
            "ü",
            "a:b",
            "a:65536",
            "a:-1",
            "a:+1",
            "a:80:80",
            "[::1",
            "[::1]x",
            "[::1]:x",
            "[v1.x]",
            "[fe80::1%25eth0]",
            "::1",
            "*",
            "a\0",
            "a\\b",
            "a?b",
            "a#b",
            &long,
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn wildcards_take_one_or_more_labels_and_not_the_apex() {
        let pattern = Pattern::parse("*.Shop.example.").unwrap();
        for host in ["a.shop.example", "a.b.shop.example"] {
            assert!(pattern.matches(host), "{host}");
        }
        for host in ["shop.example", "ashop.example", ".shop.example", "shop.example.org", ""] {
            assert!(!pattern.matches(host), "{host}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for bad in ["", "*a", "a.*", "*.*", "**", "*.", "*.[::1]", "a:80", "*.a:80", "[::1]:80", "a:"] {
            assert!(Pattern::parse(bad).is_err(), "{bad}");
        }
    }
}
