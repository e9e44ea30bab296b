//! The PROXY protocol towards services.

use std::net::SocketAddr;

use banyan::proxy_protocol::{Addresses, Parsed, parse};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use hyper::body::Frame;

use crate::harness::{
    Connection, Gateway,
    cert::Authority,
    eventually,
    gateway::Start,
    h2::{self, Body, full, play},
    origin::nobody,
    reception::{Guest, Reception, Terms},
};

fn hello(_: &Request<Bytes>) -> Response<Body> {
    Response::new(full("hello"))
}

fn plain() -> Reception {
    Reception::start(Terms { header: true, ..Terms::default() }, hello)
}

fn before(service: &Reception, more: &str) -> Gateway {
    Gateway::start(&format!(
        "trusted_proxies: []
upstreams: {{ one: {{ endpoints: [\"{service}\"], {more} }} }}\nroutes: {{ all: {{ to: {{ upstream: one }} }} }}"
    ))
}

/// What a guest said of whom it came for.
#[track_caller]
fn named(guest: &Guest) -> Option<Addresses> {
    let Parsed::Done { source, .. } = parse(&guest.header) else { panic!("{}", guest.header.escape_ascii()) };
    source
}

fn local(connection: &Connection) -> SocketAddr {
    connection.0.socket().local_addr().unwrap()
}

#[test]
fn a_connection_begins_with_the_line_of_its_client() {
    let service = plain();
    let gateway = before(&service, "proxy_protocol: v1");
    let mut client = gateway.connect();
    assert_eq!(client.ask("GET /x HTTP/1.1\nHost: a").text(), "hello");
    let expected = format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\n", local(&client).port(), gateway.web().port());
    assert_eq!(String::from_utf8(service.guest_of("GET /x").header).unwrap(), expected);
}

#[test]
fn a_connection_begins_with_the_binary_header_of_its_client() {
    let service = plain();
    let gateway = before(&service, "proxy_protocol: v2");
    let mut client = gateway.connect();
    assert_eq!(client.ask("GET /x HTTP/1.1\nHost: a").text(), "hello");
    let ports = [local(&client).port().to_be_bytes(), gateway.web().port().to_be_bytes()].concat();
    let expected = [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x01\x7f\0\0\x01", &*ports].concat();
    assert_eq!(service.guest_of("GET /x").header.escape_ascii().to_string(), expected.escape_ascii().to_string());
}

#[test]
fn no_client_gets_a_connection_that_names_another() {
    let authority = Authority::new();
    let leaf = authority.leaf(&["inner.example"]);
    let tls = "tls: { server_name: inner.example, ca: ca.pem }";
    let cases = [
        (Terms::default(), "protocol: http1".to_owned()),
        (Terms { h2c: true, ..Terms::default() }, "protocol: h2c".to_owned()),
        (Terms { tls: Some(leaf.server(&["http/1.1"])), ..Terms::default() }, tls.to_owned()),
        (Terms { tls: Some(leaf.server(&["h2"])), ..Terms::default() }, format!("protocol: h2, {tls}")),
    ];
    for (terms, more) in cases {
        let service = Reception::start(Terms { header: true, ..terms }, hello);
        let gateway = Start::on(&format!(
            "upstreams: {{ one: {{ endpoints: [\"{service}\"], proxy_protocol: v2, {more} }} }}
routes: {{ all: {{ to: {{ upstream: one }} }} }}"
        ))
        .file("ca.pem", &authority.pem())
        .ready();
        let (mut one, mut other) = (gateway.connect(), gateway.connect());
        for path in ["/1", "/2"] {
            for (client, name) in [(&mut one, "one"), (&mut other, "other")] {
                assert_eq!(client.ask(&format!("GET /{name}{path} HTTP/1.1\nHost: a")).text(), "hello", "{more}");
            }
        }
        assert_eq!(service.requests(), [["GET /one/1", "GET /one/2"], ["GET /other/1", "GET /other/2"]], "{more}: pooled apart");
        let sources: Vec<_> = service.guests().iter().map(|guest| named(guest).unwrap().source).collect();
        assert_eq!(sources, [local(&one), local(&other)], "{more}");
    }
}

#[test]
fn the_client_is_the_one_that_a_trusted_proxy_names() {
    let service = plain();
    let gateway = Gateway::start(&format!(
        "trusted_proxies: [127.0.0.0/8]
upstreams: {{ one: {{ endpoints: [\"{service}\"], proxy_protocol: v1 }} }}\nroutes: {{ all: {{ to: {{ upstream: one }} }} }}"
    ));
    let mut proxy = gateway.connect();
    for (path, client) in [("/a", "192.0.2.7"), ("/b", "2001:db8::7"), ("/c", "192.0.2.7")] {
        proxy.ask(&format!("GET {path} HTTP/1.1\nHost: a\nX-Forwarded-For: {client}"));
    }
    assert_eq!(service.requests(), [vec!["GET /a", "GET /c"], vec!["GET /b"]]);
    let lines: Vec<_> = service.guests().into_iter().map(|guest| String::from_utf8(guest.header).unwrap()).collect();
    let port = gateway.web().port();
    let expected =
        [format!("PROXY TCP4 192.0.2.7 127.0.0.1 0 {port}\r\n"), format!("PROXY TCP6 2001:db8::7 ::ffff:7f00:1 0 {port}\r\n")];
    assert_eq!(lines, expected);
}

#[test]
fn a_client_cannot_name_another() {
    let service = plain();
    let gateway = before(&service, "proxy_protocol: v2");
    let mut client = gateway.connect();
    client.ask("GET /x HTTP/1.1\nHost: a\nX-Forwarded-For: 192.0.2.7\nForwarded: for=192.0.2.8");
    assert_eq!(named(&service.guest_of("GET /x")).unwrap().source, local(&client));
}

#[test]
fn health_checks_come_in_the_gateways_own_name() {
    for version in ["v1", "v2"] {
        let service = plain();
        let health = "health: { http: { path: /healthz, interval: 20ms, unhealthy_after: 1 } }";
        let gateway = before(&service, &format!("proxy_protocol: {version}, {health}"));
        let guest = service.guest_of("GET /healthz");
        match version {
            "v2" => assert_eq!(named(&guest), None),
            _ => assert_eq!(named(&guest).unwrap().destination, service.address),
        }
        eventually("more checks", || (service.guests().len() > 3).then_some(()));
        assert_eq!(gateway.get("/x").text(), "hello", "{version}");
    }
}

#[test]
fn connection_checks_come_in_the_gateways_own_name() {
    let service = plain();
    let gateway = before(&service, "proxy_protocol: v2, health: { tcp: { interval: 20ms, unhealthy_after: 1 } }");
    eventually("checks", || (service.guests().len() > 3).then_some(()));
    assert!(service.guests().iter().all(|guest| named(guest).is_none()));
    assert_eq!(gateway.get("/x").text(), "hello");
}

#[test]
fn a_service_that_is_not_there_is_left_for_another() {
    let service = plain();
    let gateway = Gateway::start(&format!(
        "upstreams: {{ one: {{ endpoints: [\"{}\", \"{service}\"], proxy_protocol: v1 }}, none: {{ endpoints: [\"{}\"], proxy_protocol: v1 }} }}
routes: {{ all: {{ to: {{ upstream: one }} }}, none: {{ match: {{ path: /none }}, to: {{ upstream: none }} }} }}",
        nobody(),
        nobody()
    ));
    (0..4).for_each(|_| assert_eq!(gateway.get("/x").text(), "hello"));
    assert_eq!(gateway.get("/none").status, 502);
    assert_eq!(gateway.logged_path("/none")["flag"], "UF");
}

#[test]
fn a_reload_that_asks_for_the_header_makes_new_connections() {
    let without = Reception::start(Terms::default(), hello);
    let yaml = |more: &str| {
        format!("upstreams: {{ one: {{ endpoints: [\"{without}\"]{more} }} }}\nroutes: {{ all: {{ to: {{ upstream: one }} }} }}")
    };
    let mut gateway = Gateway::start(&yaml(""));
    assert_eq!(gateway.get("/x").text(), "hello");
    gateway.reload(&yaml(", proxy_protocol: v1"));
    assert_ne!(gateway.get("/x").text(), "hello", "the service takes the header for a broken request");
}

/// What a gRPC service answers: a message, and its status in trailers.
fn grpc(_: &Request<Bytes>) -> Response<Body> {
    let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static("0"))]);
    let body = h2::frames([Frame::data(Bytes::from_static(b"\0\0\0\0\x02hi")), Frame::trailers(trailers)]);
    Response::builder().header("content-type", "application/grpc").body(body).unwrap()
}

#[test]
fn grpc_passes_behind_the_header() {
    let service = Reception::start(Terms { header: true, h2c: true, ..Terms::default() }, grpc);
    let gateway = before(&service, "protocol: h2c, proxy_protocol: v2");
    let (first, second) = play(async {
        let mut client = h2::h2c(gateway.web()).await;
        let call = || {
            let request = Request::post("http://a/inventory.Stock/Get").header("content-type", "application/grpc");
            request.header("te", "trailers").body(full("\0\0\0\0\0")).unwrap()
        };
        (h2::ask(&mut client, call()).await, h2::ask(&mut client, call()).await)
    });
    for answer in [first, second] {
        assert_eq!(answer.body, &b"\0\0\0\0\x02hi"[..]);
        assert_eq!(answer.trailers.unwrap()["grpc-status"], "0");
    }
    assert_eq!(service.guests().len(), 1, "both calls of one client on one connection");
}
