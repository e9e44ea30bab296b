//! TLS towards services: who they are, who we are, and which connections may be shared.

use bytes::Bytes;
use http::{Request, Response};
use rcgen::date_time_ymd;
use rustls::pki_types::CertificateDer;

use crate::harness::{
    Gateway,
    cert::{self, Asking, Authority, Leaf},
    gateway::Start,
    h2::{Body, Service, full},
    reception::{Reception, Terms},
};

fn hello(_: &Request<Bytes>) -> Response<Body> {
    Response::new(full("hello"))
}

/// An authority for services and one for their clients, with two certificates of ours.
struct Houses {
    services: Authority,
    clients: Authority,
    own: [Leaf; 2],
}

impl Houses {
    fn new() -> Self {
        let clients = Authority::new();
        let own = [clients.leaf(&["gateway.example"]), clients.leaf(&["gateway.example"])];
        Self { services: Authority::new(), clients, own }
    }

    /// A service named `inner.example`.
    fn service(&self, alpn: &str, asking: Asking) -> Reception {
        let leaf = self.services.leaf(&["inner.example"]);
        let tls = leaf.server_asking(&[alpn], self.clients.roots(), asking);
        Reception::start(Terms { tls: Some(tls), ..Terms::default() }, hello)
    }

    /// Beside `ca.pem`: our certificates `own-1` and `own-2`.
    fn start(&self, yaml: &str) -> Gateway {
        let [first, second] = &self.own;
        let start = Start::on(yaml).file("ca.pem", &self.services.pem());
        let start = start.file("own-1.pem", &first.cert).file("own-1.key", &first.key);
        start.file("own-2.pem", &second.cert).file("own-2.key", &second.key).ready()
    }

    fn ders(&self) -> [CertificateDer<'static>; 2] {
        self.own.each_ref().map(Leaf::der)
    }
}

/// One upstream, with this more of `tls`.
fn one(service: &Reception, protocol: &str, more: &str) -> String {
    format!(
        "upstreams: {{ one: {{ protocol: {protocol}, endpoints: [\"{service}\"], tls: {{ server_name: inner.example, ca: ca.pem{more} }} }} }}
routes: {{ all: {{ to: {{ upstream: one }} }} }}"
    )
}

const OWN: &str = ", client_certificate: { cert: own-1.pem, key: own-1.key }";

#[test]
fn a_service_that_requires_a_certificate_is_shown_ours() {
    let houses = Houses::new();
    for (protocol, alpn) in [("http1", "http/1.1"), ("h2", "h2")] {
        let service = houses.service(alpn, Asking::Requires);
        let gateway = houses.start(&one(&service, protocol, OWN));
        // Over one connection: the next request is read only when the one before has given its connection back.
        let mut connection = gateway.connect();
        for path in ["/x", "/y"] {
            assert_eq!(connection.ask(&format!("GET {path} HTTP/1.1\nHost: a")).text(), "hello");
        }
        assert_eq!(service.requests(), [["GET /x", "GET /y"]], "{protocol}: pooled");
        assert_eq!(service.guest_of("GET /x").certificate, Some(houses.ders()[0].clone()));
    }
}

#[test]
fn a_service_that_requires_a_certificate_gets_nothing_without() {
    let houses = Houses::new();
    for (protocol, alpn) in [("http1", "http/1.1"), ("h2", "h2")] {
        let service = houses.service(alpn, Asking::Requires);
        let gateway = houses.start(&one(&service, protocol, ""));
        assert_eq!((gateway.get("/x").status, &gateway.logged_path("/x")["flag"]), (502, &"UC".into()), "{protocol}");
        assert!(service.guests().is_empty(), "{protocol}");
    }
}

#[test]
fn a_certificate_of_a_stranger_is_refused() {
    let houses = Houses::new();
    let stranger = Houses { services: Authority::new(), clients: Authority::new(), own: Houses::new().own };
    let service = houses.service("http/1.1", Asking::Requires);
    let [leaf, _] = &stranger.own;
    let start = Start::on(&one(&service, "http1", OWN)).file("ca.pem", &houses.services.pem());
    let gateway = start.file("own-1.pem", &leaf.cert).file("own-1.key", &leaf.key).ready();
    assert_eq!(gateway.get("/x").status, 502);
    assert!(service.guests().is_empty());
}

#[test]
fn health_checks_show_our_certificate() {
    let houses = Houses::new();
    let service = houses.service("http/1.1", Asking::Requires);
    let yaml = one(&service, "http1", OWN);
    let yaml = yaml.replace("protocol: http1", "health: { http: { path: /healthz, interval: 20ms, unhealthy_after: 1 } }");
    let gateway = houses.start(&yaml);
    assert_eq!(service.guest_of("GET /healthz").certificate, Some(houses.ders()[0].clone()));
    assert_eq!(gateway.get("/x").text(), "hello");
}

#[test]
fn connections_of_different_identities_are_never_shared() {
    let houses = Houses::new();
    for (protocol, alpn) in [("http1", "http/1.1"), ("h2", "h2")] {
        let service = houses.service(alpn, Asking::Takes);
        let upstream = |name: &str, tls: &str| {
            let tls = format!("tls: {{ server_name: inner.example, {tls} }}");
            format!("  {name}: {{ protocol: {protocol}, endpoints: [\"{service}\"], {tls} }}\n")
        };
        let own = |number: u8| format!("client_certificate: {{ cert: own-{number}.pem, key: own-{number}.key }}");
        let names = ["first", "second", "nobody", "other-ca"];
        let upstreams = [
            upstream("first", &format!("ca: ca.pem, {}", own(1))),
            upstream("second", &format!("ca: ca.pem, {}", own(2))),
            upstream("nobody", "ca: ca.pem"),
            upstream("other-ca", "ca: cas.pem"),
        ];
        let routes = names.map(|name| format!("  {name}: {{ match: {{ path: /{name} }}, to: {{ upstream: {name} }} }}\n"));
        let yaml = format!("upstreams:\n{}routes:\n{}", upstreams.concat(), routes.concat());
        let [first, second] = &houses.own;
        let gateway = Start::on(&yaml)
            .file("ca.pem", &houses.services.pem())
            .file("cas.pem", &format!("{}{}", houses.services.pem(), Authority::new().pem()))
            .file("own-1.pem", &first.cert)
            .file("own-1.key", &first.key)
            .file("own-2.pem", &second.cert)
            .file("own-2.key", &second.key)
            .ready();
        for name in names.iter().chain(&names) {
            assert_eq!(gateway.get(&format!("/{name}")).text(), "hello", "{protocol} {name}");
        }
        let expected = names.map(|name| vec![format!("GET /{name}"); 2]);
        assert_eq!(service.requests(), expected, "{protocol}");
        let shown: Vec<_> = service.guests().into_iter().map(|guest| guest.certificate).collect();
        let [first, second] = houses.ders();
        assert_eq!(shown, [Some(first), Some(second), None, None], "{protocol}");
    }
}

#[test]
fn a_changed_certificate_file_is_shown_on_new_connections() {
    let houses = Houses::new();
    let service = houses.service("http/1.1", Asking::Requires);
    let gateway = houses.start(&one(&service, "http1", OWN));
    assert_eq!(gateway.get("/before").text(), "hello");
    let [_, next] = &houses.own;
    let before = gateway.generation();
    // Between the two the files do not belong together: that candidate is refused, and the running one goes on.
    gateway.replace("own-1.pem", &next.cert);
    gateway.replace("own-1.key", &next.key);
    gateway.wait_past(before);
    assert_eq!(gateway.get("/after").text(), "hello");
    assert_eq!(service.requests(), [["GET /before"], ["GET /after"]]);
    let shown: Vec<_> = service.guests().into_iter().filter_map(|guest| guest.certificate).collect();
    assert_eq!(shown, houses.ders());
}

#[test]
fn a_service_that_cannot_be_verified_gets_nothing() {
    let authority = Authority::new();
    let dated = |from, to| {
        let mut params = cert::params(&["inner.example"]);
        (params.not_before, params.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(to, 1, 1));
        authority.leaf_of(params)
    };
    let cases = [
        ("of another authority", Authority::new().leaf(&["inner.example"])),
        ("of another name", authority.leaf(&["other.example", "sub.inner.example"])),
        ("expired", dated(2001, 2002)),
        ("not yet valid", dated(2900, 2901)),
        ("self-signed", Leaf::self_signed(&["inner.example"])),
    ];
    for (what, leaf) in cases {
        let service = Service::tls(leaf.server(&["http/1.1"]), hello);
        let gateway = Start::on(&format!(
            "upstreams: {{ one: {{ endpoints: [\"{service}\"], tls: {{ server_name: inner.example, ca: ca.pem }} }} }}
routes: {{ all: {{ to: {{ upstream: one }} }} }}"
        ))
        .file("ca.pem", &authority.pem())
        .ready();
        let reply = gateway.get("/x");
        assert_eq!((reply.status, &gateway.logged_path("/x")["flag"]), (502, &"UF".into()), "{what}");
        assert!(service.requests().is_empty(), "{what}");
    }
}

/// Answers once a connection.
fn farewell(_: &Request<Bytes>) -> Response<Body> {
    Response::builder().header("connection", "close").body(full("hello")).unwrap()
}

#[test]
fn sessions_are_resumed_where_the_systems_authorities_vouch() {
    let authority = Authority::new();
    let tls = authority.leaf(&["inner.example"]).server(&["http/1.1"]);
    for (ca, expected) in [("", [false, true, true]), (", ca: ca.pem", [false; 3])] {
        let service = Reception::start(Terms { tls: Some(tls.clone()), ..Terms::default() }, farewell);
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ca.pem");
        std::fs::write(&file, authority.pem()).unwrap();
        let yaml = one(&service, "http1", "").replace(", ca: ca.pem", ca);
        let gateway = Start::on(&yaml).dir(dir).env("SSL_CERT_FILE", file.to_str().unwrap()).ready();
        (0..3).for_each(|_| assert_eq!(gateway.get("/x").text(), "hello"));
        let resumed: Vec<_> = service.guests().into_iter().map(|guest| guest.resumed).collect();
        assert_eq!(resumed, expected, "{ca}");
    }
}
