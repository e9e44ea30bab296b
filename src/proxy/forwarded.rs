//! `X-Forwarded-*` (de facto) and `Forwarded` (RFC 7239): read from trusted proxies, written for services.
//!
//! What a client says of itself is dropped: only the peer's address, and what trusted proxies say, is passed on.

use std::{
    fmt::Write,
    net::{IpAddr, SocketAddr},
};

use http::{HeaderMap, HeaderName, HeaderValue, header::FORWARDED};
use pingora_http::RequestHeader;

use super::facts::Connection;
use crate::{config::route::Scheme, exchange::Facts};

static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Headers by which proxies speak of the client beside the ones we write. Services believe them, so they go unless the peer is trusted.
static DROPPED: [HeaderName; 16] = [
    HeaderName::from_static("client-ip"),
    HeaderName::from_static("true-client-ip"),
    HeaderName::from_static("x-cluster-client-ip"),
    HeaderName::from_static("x-forwarded-client-cert"),
    HeaderName::from_static("x-forwarded-user"),
    // These replace the path in some frameworks, so rules about paths would be passed by.
    HeaderName::from_static("x-original-url"),
    HeaderName::from_static("x-rewrite-url"),
    HeaderName::from_static("x-original-host"),
    // CGI hands it on as HTTP_PROXY (httpoxy, CVE-2016-5385).
    HeaderName::from_static("proxy"),
    HeaderName::from_static("x-forwarded-port"),
    HeaderName::from_static("x-forwarded-prefix"),
    HeaderName::from_static("x-forwarded-server"),
    HeaderName::from_static("x-forwarded-scheme"),
    HeaderName::from_static("x-forwarded-ssl"),
    HeaderName::from_static("x-real-ip"),
    HeaderName::from_static("x-client-ip"),
];

/// Most earlier hops that we read and pass on; a longer chain keeps its last ones.
const HOPS_MAX: usize = 32;

/// What trusted proxies said of the way that a request came.
#[derive(Clone, Debug, Default)]
pub struct Hops {
    /// Whether the peer is trusted at all.
    trusted: bool,
    /// Addresses from the client to the proxy before us, as far back as they can be read.
    addresses: Vec<IpAddr>,
    scheme: Option<Scheme>,
    /// The X-Forwarded-Host that came.
    host: Option<HeaderValue>,
    /// The Forwarded elements that came, joined.
    forwarded: Option<String>,
}

impl Hops {
    /// The scheme that the client used, by the word of a proxy.
    pub fn scheme(&self) -> Option<Scheme> {
        self.scheme
    }

    /// The client: the rightmost address that is not trusted; the leftmost one if all are.
    pub fn client(&self, connection: Connection, is_trusted: impl Fn(&IpAddr) -> bool) -> IpAddr {
        if !connection.trusted {
            return connection.peer.ip();
        }
        let untrusted = self.addresses.iter().rev().find(|address| !is_trusted(address));
        untrusted.or(self.addresses.first()).copied().unwrap_or_else(|| connection.peer.ip())
    }
}

/// Reads what came. With X-Forwarded-For there, Forwarded is not believed: a proxy that writes the one may pass on the other as a
/// client sent it.
pub fn read(headers: &HeaderMap) -> Hops {
    let listed = joined(headers, &X_FORWARDED_FOR);
    let forwarded = joined(headers, &FORWARDED).filter(|elements| listed.is_none() && is_balanced(elements));
    let elements = forwarded.as_deref().unwrap_or_default();
    let addresses = match &listed {
        Some(list) => readable(list.split(',')),
        None => readable(elements.split(',').map(|element| parameter(element, "for").unwrap_or_default())),
    };
    let last = |name: &HeaderName| headers.get_all(name).iter().next_back();
    let proto = last(&X_FORWARDED_PROTO).and_then(|value| value.to_str().ok()).and_then(|list| list.rsplit(',').next());
    let proto = proto.or_else(|| elements.rsplit(',').next().and_then(|element| parameter(element, "proto")));
    Hops { trusted: true, addresses, scheme: proto.and_then(scheme), host: last(&X_FORWARDED_HOST).cloned(), forwarded }
}

/// Writes how the request came to us into what goes to the service, in place of anything the client said.
pub fn write(head: &mut RequestHeader, facts: &Facts, hops: &Hops) -> pingora_core::Result<()> {
    if !hops.trusted {
        drop_claims(head);
    }
    let authority = head.headers.get(http::header::HOST).cloned();
    head.insert_header(&X_FORWARDED_FOR, chain(&hops.addresses, facts.peer))?;
    head.insert_header(&X_FORWARDED_PROTO, HeaderValue::from_static(facts.scheme.as_str()))?;
    head.insert_header(FORWARDED, element(facts, hops, authority.as_ref()))?;
    match hops.host.clone().or(authority) {
        Some(host) => head.insert_header(&X_FORWARDED_HOST, host),
        None => {
            head.remove_header(&X_FORWARDED_HOST);
            Ok(())
        }
    }
}

/// Takes out what only a proxy may say, in the spelling with underscores too: CGI and WSGI take the two for one.
fn drop_claims(head: &mut RequestHeader) {
    for name in &DROPPED {
        head.remove_header(name);
    }
    let spelled = |name: &&HeaderName| name.as_str().contains('_') && is_claim(&name.as_str().replace('_', "-"));
    let spelled: Vec<HeaderName> = head.headers.keys().filter(spelled).cloned().collect();
    for name in &spelled {
        head.remove_header(name);
    }
}

/// What only a proxy may say, or only HTTP itself.
fn is_claim(name: &str) -> bool {
    matches!(name, "content-length" | "transfer-encoding")
        || [&X_FORWARDED_FOR, &X_FORWARDED_PROTO, &X_FORWARDED_HOST]
            .into_iter()
            .chain(&DROPPED)
            .any(|claim| claim.as_str() == name)
}

/// Whether every quote is closed, so that what we add stands outside of it.
fn is_balanced(elements: &str) -> bool {
    let mut quoted = false;
    let mut bytes = elements.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => quoted = !quoted,
            b'\\' if quoted => drop(bytes.next()),
            _ => {}
        }
    }
    !quoted
}

fn chain(earlier: &[IpAddr], peer: SocketAddr) -> String {
    let mut chain = String::with_capacity(16 * (earlier.len() + 1));
    for address in earlier {
        let _ = write!(chain, "{address}, ");
    }
    let _ = write!(chain, "{}", peer.ip());
    chain
}

/// `for=192.0.2.7;host="shop.example";proto=http` after what came, or after the same way told by X-Forwarded-For.
fn element(facts: &Facts, hops: &Hops, authority: Option<&HeaderValue>) -> String {
    let mut text = String::with_capacity(80);
    match &hops.forwarded {
        Some(earlier) => {
            let _ = write!(text, "{earlier}, ");
        }
        None => hops.addresses.iter().for_each(|address| {
            node(&mut text, address);
            text.push_str(", ");
        }),
    }
    node(&mut text, &facts.peer.ip());
    if let Some(host) = authority.and_then(|host| host.to_str().ok()).filter(|host| !host.contains(['"', '\\'])) {
        let _ = write!(text, ";host=\"{host}\"");
    }
    let _ = write!(text, ";proto={}", facts.scheme.as_str());
    text
}

/// IPv6 addresses stand in brackets and quotes (RFC 7239 §6).
fn node(text: &mut String, address: &IpAddr) {
    let _ = match address {
        IpAddr::V4(v4) => write!(text, "for={v4}"),
        IpAddr::V6(v6) => write!(text, "for=\"[{v6}]\""),
    };
}

fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let mut values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    let mut list = values.next()?.to_owned();
    for value in values {
        list.push_str(", ");
        list.push_str(value);
    }
    Some(list)
}

/// The addresses of a list from its end back to the first that cannot be read: beyond it, nothing can be trusted.
fn readable<'a>(list: impl DoubleEndedIterator<Item = &'a str>) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = list.rev().take(HOPS_MAX).map_while(address).collect();
    addresses.reverse();
    addresses
}

/// An address, with or without port, brackets and quotes.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim().trim_matches('"');
    let bare = text.strip_prefix('[').and_then(|rest| rest.split_once(']')).map_or(text, |(address, _)| address);
    bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

/// A parameter of a Forwarded element; names are case-insensitive (RFC 7239 §4).
fn parameter<'a>(element: &'a str, name: &str) -> Option<&'a str> {
    element
        .split(';')
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim_matches('"'))
}

fn scheme(text: &str) -> Option<Scheme> {
    match text.trim() {
        s if s.eq_ignore_ascii_case("http") => Some(Scheme::Http),
        s if s.eq_ignore_ascii_case("https") => Some(Scheme::Https),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::testing;

    const PROXY: Connection = Connection {
        peer: SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)), 5000),
        scheme: Scheme::Http,
        trusted: true,
    };

    fn client(headers: &[(&'static str, &str)]) -> String {
        let is_trusted = |address: &IpAddr| matches!(address, IpAddr::V4(v4) if v4.octets()[0] == 10);
        read(&testing::head("GET", "/", headers).headers).client(PROXY, is_trusted).to_string()
    }

    #[test]
    fn the_client_is_the_rightmost_untrusted_address() {
        assert_eq!(client(&[("x-forwarded-for", "1.1.1.1, 2.2.2.2, 10.0.0.9")]), "2.2.2.2");
        assert_eq!(client(&[("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "2.2.2.2:80")]), "2.2.2.2");
        assert_eq!(client(&[("x-forwarded-for", "10.0.0.8, 10.0.0.9")]), "10.0.0.8");
        assert_eq!(client(&[("x-forwarded-for", "1.1.1.1, rubbish, 10.0.0.9")]), "10.0.0.9");
        assert_eq!(client(&[("forwarded", "for=1.1.1.1, for=\"[2001:db8::1]:80\";proto=https")]), "2001:db8::1");
        assert_eq!(client(&[]), "10.0.0.1");
    }

    #[test]
    fn an_untrusted_peer_is_the_client_whatever_it_says() {
        let peer = Connection { trusted: false, ..PROXY };
        assert_eq!(Hops::default().client(peer, |_| true).to_string(), "10.0.0.1");
    }

    fn written(headers: &[(&'static str, &str)], trusted: bool) -> String {
        let mut head = testing::head("GET", "/", headers);
        let hops = super::super::facts::hops(&head.headers, trusted);
        let facts = Facts { peer: PROXY.peer, ..testing::facts("GET", "/") };
        write(&mut head, &facts, &hops).unwrap();
        let mut lines: Vec<String> = head.headers.iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap())).collect();
        lines.sort();
        lines.join(" | ")
    }

    #[test]
    fn what_a_client_claims_is_dropped() {
        let claims = [
            ("host", "a"),
            ("x-forwarded-for", "6.6.6.6"),
            ("x-forwarded-host", "evil"),
            ("forwarded", "for=6.6.6.6"),
            ("x-real-ip", "6.6.6.6"),
            ("x_forwarded_for", "6.6.6.6"),
            ("proxy", "evil"),
        ];
        assert_eq!(
            written(&claims, false),
            "forwarded: for=10.0.0.1;host=\"a\";proto=http | host: a | x-forwarded-for: 10.0.0.1 | x-forwarded-host: a | x-forwarded-proto: http"
        );
    }

    #[test]
    fn what_a_trusted_proxy_says_is_passed_on_with_our_own_hop() {
        let said = [
            ("host", "a"),
            ("forwarded", "for=6.6.6.6;host=\"passed on from the client"),
            ("x-forwarded-for", "1.1.1.1, 2001:db8::1"),
            ("x-forwarded-host", "shop.example"),
        ];
        assert_eq!(
            written(&said, true),
            "forwarded: for=1.1.1.1, for=\"[2001:db8::1]\", for=10.0.0.1;host=\"a\";proto=http | host: a | x-forwarded-for: 1.1.1.1, 2001:db8::1, 10.0.0.1 | x-forwarded-host: shop.example | x-forwarded-proto: http"
        );
    }
}
