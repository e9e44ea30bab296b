//! `X-Forwarded-*` (de facto) and `Forwarded` (RFC 7239): read from trusted proxies, written for services.
//!
//! What a client says of itself is dropped: only the peer's address, and what trusted proxies say, is passed on.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName, HeaderValue, header::FORWARDED};
use pingora_http::RequestHeader;

use super::facts::Connection;
use crate::{config::route::Scheme, exchange::Facts, observe::digits};

static X_FORWARDED_FOR: HeaderName = HeaderName::from_static(FOR);
static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static(PROTO);
static X_FORWARDED_HOST: HeaderName = HeaderName::from_static(HOST);

/// Pingora takes a name to write as text: without a copy of it, if it is static.
const FOR: &str = "x-forwarded-for";
const PROTO: &str = "x-forwarded-proto";
const HOST: &str = "x-forwarded-host";

/// Room for a usual `Forwarded`, so that it is allocated once.
const USUAL_ELEMENT: usize = 128;

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
    let mut text = Vec::with_capacity(USUAL_ELEMENT);
    chain(&hops.addresses, facts.peer, &mut text);
    head.insert_header(FOR, &text[..])?;
    head.insert_header(PROTO, HeaderValue::from_static(facts.scheme.as_str()))?;
    text.clear();
    element(facts, hops, authority.as_ref(), &mut text);
    head.insert_header(FORWARDED, &text[..])?;
    match hops.host.clone().or(authority) {
        Some(host) => head.insert_header(HOST, host),
        None => {
            head.remove_header(&X_FORWARDED_HOST);
            Ok(())
        }
    }
}

/// Takes out what only a proxy may say, in the spelling with underscores too: CGI and WSGI take the two for one. Nearly always there is
/// nothing, so it is not looked for by name.
fn drop_claims(head: &mut RequestHeader) {
    let is_claimed = |name: &&HeaderName| match name.as_str() {
        spelled if spelled.contains('_') => is_own(&spelled.replace('_', "-")),
        name => is_claim(name),
    };
    let claimed: Vec<HeaderName> = head.headers.keys().filter(is_claimed).cloned().collect();
    for name in &claimed {
        head.remove_header(name);
    }
}

/// Headers by which proxies speak of the client beside the ones we write. Services believe them, so they go unless the peer is trusted.
fn is_claim(name: &str) -> bool {
    matches!(
        name,
        "client-ip"
            | "true-client-ip"
            | "x-cluster-client-ip"
            | "x-forwarded-client-cert"
            | "x-forwarded-user"
            // These replace the path in some frameworks, so rules about paths would be passed by.
            | "x-original-url"
            | "x-rewrite-url"
            | "x-original-host"
            // CGI hands it on as HTTP_PROXY (httpoxy, CVE-2016-5385).
            | "proxy"
            | "x-forwarded-port"
            | "x-forwarded-prefix"
            | "x-forwarded-server"
            | "x-forwarded-scheme"
            | "x-forwarded-ssl"
            | "x-real-ip"
            | "x-client-ip"
    )
}

/// What nobody but us may say, or only HTTP itself.
fn is_own(name: &str) -> bool {
    is_claim(name) || matches!(name, FOR | PROTO | HOST | "content-length" | "transfer-encoding")
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

fn chain(earlier: &[IpAddr], peer: SocketAddr, text: &mut Vec<u8>) {
    for address in earlier {
        digits::address(*address, text);
        text.extend_from_slice(b", ");
    }
    digits::address(peer.ip(), text);
}

/// `for=192.0.2.7;host="shop.example";proto=http` after what came, or after the same way told by X-Forwarded-For.
fn element(facts: &Facts, hops: &Hops, authority: Option<&HeaderValue>, text: &mut Vec<u8>) {
    match &hops.forwarded {
        Some(earlier) => {
            text.extend_from_slice(earlier.as_bytes());
            text.extend_from_slice(b", ");
        }
        None => hops.addresses.iter().for_each(|address| {
            node(*address, text);
            text.extend_from_slice(b", ");
        }),
    }
    node(facts.peer.ip(), text);
    if let Some(host) = authority.and_then(|host| host.to_str().ok()).filter(|host| !host.contains(['"', '\\'])) {
        text.extend_from_slice(b";host=\"");
        text.extend_from_slice(host.as_bytes());
        text.push(b'"');
    }
    text.extend_from_slice(b";proto=");
    text.extend_from_slice(facts.scheme.as_str().as_bytes());
}

/// IPv6 addresses stand in brackets and quotes (RFC 7239 §6).
fn node(address: IpAddr, text: &mut Vec<u8>) {
    let (before, after): (&[u8], &[u8]) = if address.is_ipv6() { (b"for=\"[", b"]\"") } else { (b"for=", b"") };
    text.extend_from_slice(before);
    digits::address(address, text);
    text.extend_from_slice(after);
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
