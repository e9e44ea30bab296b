//! From a request head to [`Facts`]: who asks, by which name, for which path.

use std::{
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Version, header::HOST};
use pingora_http::RequestHeader;
use pingora_proxy::Session;

use super::forwarded::{self, Hops};
use crate::{
    config::{paths::EncodedSlashes, route::Scheme},
    exchange::{self, Facts, Stop},
    live::Snapshot,
    observe::digits,
    proxy_protocol::Addresses,
    route::{host, path},
};

/// What the connection tells about a request, which its head cannot forge.
#[derive(Clone, Copy, Debug)]
pub struct Connection {
    pub peer: SocketAddr,
    pub scheme: Scheme,
    /// Whether the peer is one of `trusted_proxies`.
    pub trusted: bool,
}

/// What the connection says of itself.
///
/// # Errors
/// It is gone.
pub fn connection(session: &Session, snapshot: &Snapshot) -> Result<Connection, Stop> {
    let peer = exchange::peer(session.client_addr(), session.server_addr());
    let peer = peer.ok_or_else(|| Stop::Fault(anyhow::anyhow!("a connection without an address")))?;
    let tls = session.digest().is_some_and(|digest| digest.ssl_digest.is_some());
    let scheme = if tls { Scheme::Https } else { Scheme::Http };
    Ok(Connection { peer, scheme, trusted: snapshot.is_trusted(&peer.ip()) })
}

/// Longest X-Request-Id that we accept from a trusted proxy, in bytes.
const REQUEST_ID_MAX: usize = 128;

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Reads the facts of a request.
///
/// # Errors
/// A head that can be understood in more ways than one, or none; a tunnel is asked for, whose target is no path.
pub fn read(
    head: &RequestHeader,
    connection: Connection,
    hops: &Hops,
    is_trusted: impl Fn(&IpAddr) -> bool,
    slashes: EncodedSlashes,
    request_id: HeaderValue,
    started: Instant,
) -> Result<Facts, Stop> {
    if head.method == Method::CONNECT {
        return Err(Stop::Tunnel);
    }
    let (authority, target) = split_target(head)?;
    let (raw_path, query) = split_query(target)?;
    let path = path::normalise(raw_path.as_bytes(), slashes).map_err(Stop::Malformed)?;
    if path == "*" && head.method != Method::OPTIONS {
        return Err(Stop::Malformed("The target `*` is for OPTIONS only."));
    }
    let (host, port) = named_host(head, authority)?;
    Ok(Facts {
        method: head.method.clone(),
        scheme: hops.scheme().filter(|_| connection.trusted).unwrap_or(connection.scheme),
        host,
        port,
        path: path.into_owned(),
        query: query.map(str::to_owned),
        version: head.version,
        client: hops.client(connection, is_trusted),
        peer: connection.peer,
        request_id,
        started,
    })
}

/// The id of a request: the one that a trusted proxy gave, or a new one of 128 random bits.
pub fn request_id(headers: &HeaderMap, trusted: bool) -> HeaderValue {
    let given = if trusted { headers.get(&REQUEST_ID) } else { None };
    given.filter(|id| is_request_id(id)).cloned().unwrap_or_else(new_request_id)
}

fn is_request_id(id: &HeaderValue) -> bool {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-_.:/+=~@".contains(b);
    !id.is_empty() && id.len() <= REQUEST_ID_MAX && id.as_bytes().iter().all(plain)
}

fn new_request_id() -> HeaderValue {
    HeaderValue::from_bytes(&digits::hex::<32>(fastrand::u128(..))).unwrap_or(HeaderValue::from_static("-"))
}

/// The authority of an absolute-form target (RFC 9112 §3.2.2) or of HTTP/2, and the path with its query.
fn split_target(head: &RequestHeader) -> Result<(Option<&str>, &str), Stop> {
    let text = std::str::from_utf8(head.raw_path()).map_err(|_| Stop::Malformed("The request target is not UTF-8."))?;
    if text.starts_with('/') || text == "*" {
        return Ok((head.uri.authority().map(http::uri::Authority::as_str), text));
    }
    let (scheme, rest) = text.split_once("://").ok_or(Stop::Malformed("The request target is neither a path nor a URL."))?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Err(Stop::Malformed("The request target's scheme is not http or https."));
    }
    let (authority, target) = rest.find(['/', '?']).and_then(|at| rest.split_at_checked(at)).unwrap_or((rest, "/"));
    Ok((Some(authority), target))
}

/// The path and the query. A query may hold what RFC 3986 allows and what browsers send unencoded, but nothing that ends a line.
fn split_query(target: &str) -> Result<(&str, Option<&str>), Stop> {
    if target.contains('#') {
        return Err(Stop::Malformed("The request target has a fragment."));
    }
    let Some((path, query)) = target.split_once('?') else { return Ok((target, None)) };
    let path = if path.is_empty() { "/" } else { path };
    if query.bytes().any(|b| b <= b' ' || b == 0x7f) {
        return Err(Stop::Malformed("The query holds a space or a control character."));
    }
    Ok((path, Some(query)))
}

/// The host that the client named. HTTP/1.1 and HTTP/2 must name one (RFC 9112 §3.2, RFC 9113 §8.3.1).
fn named_host(head: &RequestHeader, authority: Option<&str>) -> Result<(String, Option<u16>), Stop> {
    let mut fields = head.headers.get_all(HOST).iter();
    let (field, second) = (fields.next(), fields.next());
    if second.is_some() {
        return Err(Stop::Malformed("There is more than one Host field."));
    }
    let field = field.map(|value| value.to_str().map_err(|_| Stop::Malformed("The Host field is not a host."))).transpose()?;
    if let (Some(authority), Some(field)) = (authority, field)
        && !authority.eq_ignore_ascii_case(field)
    {
        return Err(Stop::Malformed("The Host field and the request target name different hosts."));
    }
    match authority.or(field) {
        Some("") | None if head.version < Version::HTTP_11 => Ok((String::new(), None)),
        None => Err(Stop::Malformed("The Host field is missing.")),
        Some(text) => host::parse(text).map(|(host, port)| (host.into_owned(), port)).map_err(Stop::Malformed),
    }
}

/// Reads what earlier proxies said, if the peer is trusted to say it.
pub fn hops(headers: &HeaderMap, trusted: bool) -> Hops {
    if trusted { forwarded::read(headers) } else { Hops::default() }
}

/// The ends of the client's connection, for a service that is told them. A client behind other proxies has no port that we know.
pub fn ends(facts: &Facts, local: Option<&SocketAddr>) -> Addresses {
    let port = if facts.client == facts.peer.ip() { facts.peer.port() } else { 0 };
    let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
    Addresses { source: (facts.client, port).into(), destination: local.copied().unwrap_or(unknown) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::testing;

    fn check(target: &str, headers: &[(&'static str, &str)], expected: &str) {
        let mut head = testing::head("GET", "/", headers);
        head.set_raw_path(target.as_bytes()).unwrap();
        let connection = Connection { peer: "192.0.2.7:5000".parse().unwrap(), scheme: Scheme::Http, trusted: false };
        let id = HeaderValue::from_static("id");
        let facts = read(&head, connection, &Hops::default(), |_| false, EncodedSlashes::Refuse, id, Instant::now());
        let shown = match facts {
            Ok(f) => format!("{} {:?} {} {:?}", f.host, f.port, f.path, f.query),
            Err(Stop::Malformed(rule)) => rule.to_owned(),
            Err(stop) => format!("{stop:?}"),
        };
        assert_eq!(shown, expected, "{target}");
    }

    #[test]
    fn host_and_path_are_read_in_one_way_only() {
        check("/a?b=c", &[("host", "Shop.Example.:8080")], r#"shop.example Some(8080) /a Some("b=c")"#);
        check("http://shop.example/a/../b", &[("host", "shop.example")], "shop.example None /b None");
        check("http://shop.example?b=c", &[("host", "shop.example")], r#"shop.example None / Some("b=c")"#);
        check("http://shop.example", &[("host", "shop.example")], "shop.example None / None");
        check("*", &[("host", "a.example")], "The target `*` is for OPTIONS only.");
        check("/a", &[], "The Host field is missing.");
        check("/a", &[("host", "a.example"), ("host", "a.example")], "There is more than one Host field.");
        check("http://a.example/", &[("host", "b.example")], "The Host field and the request target name different hosts.");
    }

    #[test]
    fn request_ids_are_taken_from_trusted_proxies_only() {
        let head = testing::head("GET", "/", &[("x-request-id", "abc-1")]);
        assert_eq!(request_id(&head.headers, true), "abc-1");
        assert_ne!(request_id(&head.headers, false), "abc-1");
        let odd = testing::head("GET", "/", &[("x-request-id", "a b<script>")]);
        assert_eq!(request_id(&odd.headers, true).len(), 32);
    }
}
