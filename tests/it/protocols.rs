//! HTTP/1.1 and HTTP/2 on both sides, TLS on both sides.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, Version};
use http_body_util::BodyExt;
use hyper::body::Frame;

use crate::harness::{
    Connection, Gateway, Origin,
    cert::Authority,
    gateway::Start,
    h2::{self, Body, Service, ask, frames, full, play},
};

/// Answers with what it saw, as text.
fn mirror(request: &Request<Bytes>) -> Response<Body> {
    let text = format!("{:?} {} {}", request.version(), request.method(), request.uri().path());
    Response::builder().header("x-body-length", request.body().len()).body(full(text)).unwrap()
}

fn secure(authority: &Authority, upstream: &str) -> Gateway {
    let dir = tempfile::tempdir().unwrap();
    authority.leaf(&["shop.example", "*.wild.example"]).write(dir.path(), "shop");
    authority.leaf(&["other.example"]).write(dir.path(), "other");
    let listeners = "listeners:
  web: { address: 127.0.0.1:<web> }
  secure: { address: 127.0.0.1:<secure>, tls: { certificates: [{ cert: shop.pem, key: shop.key }, { cert: other.pem, key: other.key }] } }";
    let yaml = format!("{listeners}\nupstreams: {{ one: {upstream} }}\nroutes: {{ all: {{ to: {{ upstream: one }} }} }}");
    Start::on(&yaml).dir(dir).ready()
}

fn plain(origin: impl std::fmt::Display) -> String {
    format!("{{ endpoints: [\"{origin}\"] }}")
}

fn request(uri: &str) -> http::request::Builder {
    Request::builder().uri(uri)
}

#[test]
fn http2_by_prior_knowledge_is_carried_to_http1() {
    let origin = Origin::echo();
    let gateway = Gateway::before(&origin);
    let answer = play(async {
        let mut client = h2::h2c(gateway.web()).await;
        let request = request("http://shop.example/a?b").method("POST").header("x-kept", "yes").body(full("body")).unwrap();
        ask(&mut client, request).await
    });
    assert_eq!((answer.head.status.as_u16(), answer.head.version), (200, Version::HTTP_2));
    let seen = origin.last();
    assert_eq!((seen.head.line.as_str(), seen.body.as_slice()), ("POST /a?b HTTP/1.1", &b"body"[..]));
    assert_eq!((seen.field("host"), seen.field("x-kept")), (Some("shop.example"), Some("yes")));
}

#[test]
fn http2_streams_are_carried_side_by_side() {
    let origin = Origin::echo();
    let gateway = Gateway::before(&origin);
    play(async {
        let client = h2::h2c(gateway.web()).await;
        let asked = (0..50).map(|n| {
            let mut client = client.clone();
            let request = request(&format!("http://a/{n}")).body(full("")).unwrap();
            tokio::spawn(async move { (n, ask(&mut client, request).await) })
        });
        for asked in asked.collect::<Vec<_>>() {
            let (n, answer) = asked.await.unwrap();
            assert!(answer.text().starts_with(&format!("GET /{n} HTTP/1.1\n")), "{}", answer.text());
        }
    });
}

#[test]
fn cookies_split_by_http2_are_one_field_for_http1() {
    let origin = Origin::echo();
    let gateway = Gateway::before(&origin);
    play(async {
        let mut client = h2::h2c(gateway.web()).await;
        ask(&mut client, request("http://a/").header("cookie", "a=1").header("cookie", "b=2").body(full("")).unwrap()).await;
    });
    assert_eq!(origin.last().field("cookie"), Some("a=1; b=2"));
}

#[test]
fn tls_listener_offers_http2_and_http11_by_alpn() {
    let authority = Authority::new();
    let origin = Origin::echo();
    let gateway = secure(&authority, &plain(&origin));
    let address = gateway.address("secure");
    let answer = play(async {
        let mut client = h2::h2(address, "shop.example", authority.client(&["h2", "http/1.1"])).await;
        ask(&mut client, request("https://shop.example/x").body(full("")).unwrap()).await
    });
    assert_eq!(answer.head.status, 200);
    assert_eq!(origin.last().field("x-forwarded-proto"), Some("https"));
    for alpn in [&["http/1.1"][..], &[]] {
        let mut client = Connection::tls(address, "shop.example", authority.client(alpn)).unwrap();
        assert_eq!(client.ask("GET /x HTTP/1.1\nHost: shop.example").status, 200);
    }
}

#[test]
fn certificates_are_chosen_by_sni() {
    let authority = Authority::new();
    let origin = Origin::text("x");
    let gateway = secure(&authority, &plain(&origin));
    let connect = |name| Connection::tls(gateway.address("secure"), name, authority.client(&[]));
    for name in ["shop.example", "other.example", "a.wild.example"] {
        assert!(connect(name).is_ok(), "{name}");
    }
    let error = connect("unknown.example").err().expect("the default certificate is for another name");
    assert!(error.to_string().contains("NotValidForName") || error.to_string().contains("not valid for name"), "{error}");
}

#[test]
fn a_route_can_ask_for_the_scheme() {
    let authority = Authority::new();
    let dir = tempfile::tempdir().unwrap();
    authority.leaf(&["a"]).write(dir.path(), "a");
    let gateway = Start::on(
        "listeners:
  web: { address: 127.0.0.1:<web> }
  secure: { address: 127.0.0.1:<secure>, tls: { certificates: [{ cert: a.pem, key: a.key }] } }
routes:
  up: { match: { scheme: http }, to: { redirect: { location: \"https://{host}:<secure>{path}\" } } }
  here: { match: { scheme: https }, to: { respond: { body: secure } } }",
    )
    .dir(dir)
    .ready();
    let moved = gateway.ask("GET /x?y HTTP/1.1\nHost: a");
    let secure = gateway.address("secure");
    assert_eq!((moved.status, moved.field("location")), (308, Some(format!("https://a:{}/x?y", secure.port()).as_str())));
    let mut client = Connection::tls(secure, "a", authority.client(&[])).unwrap();
    assert_eq!(client.ask("GET /x?y HTTP/1.1\nHost: a").text(), "secure");
}

#[test]
fn http2_upstream_without_tls() {
    let service = Service::h2c(mirror);
    let gateway = Gateway::start(&format!(
        "upstreams: {{ one: {{ protocol: h2c, endpoints: [\"{service}\"] }} }}\nroutes: {{ all: {{ to: {{ upstream: one }} }} }}"
    ));
    let reply = gateway.ask("POST /x HTTP/1.1\nHost: a\nContent-Length: 0");
    assert_eq!(reply.text(), "HTTP/2.0 POST /x");
    assert_eq!(service.last().uri().authority().unwrap(), "a");
    let mut connection = gateway.connect();
    connection.send("POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
    assert_eq!(connection.response("POST").field("x-body-length"), Some("3"));
}

#[test]
fn http2_upstream_connection_carries_many_requests() {
    let service = Service::h2c(mirror);
    let gateway = Gateway::start(&format!(
        "upstreams: {{ one: {{ protocol: h2c, endpoints: [\"{service}\"] }} }}\nroutes: {{ all: {{ to: {{ upstream: one }} }} }}"
    ));
    for _ in 0..20 {
        assert_eq!(gateway.get("/").status, 200);
    }
    assert!(service.connections() <= 4, "{} connections", service.connections());
}

#[test]
fn upstream_tls_in_each_protocol_is_verified_against_its_authority() {
    let authority = Authority::new();
    let leaf = authority.leaf(&["inner.example"]);
    for (protocol, alpn, version) in [("http1", "http/1.1", "HTTP/1.1"), ("h2", "h2", "HTTP/2.0")] {
        let service = Service::tls(leaf.server(&[alpn]), mirror);
        let gateway = Start::on(&format!(
            "upstreams: {{ one: {{ protocol: {protocol}, endpoints: [\"{service}\"], tls: {{ server_name: inner.example, ca: ca.pem }} }} }}
routes: {{ all: {{ rewrite: {{ host: upstream }}, to: {{ upstream: one }} }} }}"
        ))
        .file("ca.pem", &authority.pem())
        .ready();
        let mut connection = gateway.connect();
        for path in ["/x", "/y"] {
            let reply = connection.ask(&format!("GET {path} HTTP/1.1\nHost: a"));
            assert_eq!(reply.text(), format!("{version} GET {path}"));
        }
        assert_eq!(service.connections(), 1, "{protocol}: pooled");
        let seen = service.last();
        let host = seen.headers().get("host").map(|host| host.to_str().unwrap().to_owned());
        assert_eq!(host.or(seen.uri().authority().map(ToString::to_string)).as_deref(), Some("inner.example"));
    }
}

#[test]
fn an_upstream_with_a_wrong_name_or_authority_is_not_used() {
    let authority = Authority::new();
    let leaf = authority.leaf(&["inner.example"]);
    let stranger = Authority::new().pem();
    for (name, ca) in [("other.example", authority.pem()), ("inner.example", stranger)] {
        let service = Service::tls(leaf.server(&["http/1.1"]), mirror);
        let gateway = Start::on(&format!(
            "upstreams: {{ one: {{ endpoints: [\"{service}\"], tls: {{ server_name: {name}, ca: ca.pem }} }} }}
routes: {{ all: {{ to: {{ upstream: one }} }} }}"
        ))
        .file("ca.pem", &ca)
        .ready();
        let reply = gateway.get("/x");
        assert_eq!(reply.status, 502, "{name}");
        assert!(!reply.text().to_lowercase().contains("cert"), "{}", reply.text());
        assert_eq!(gateway.logged_path("/x")["flag"], "UF");
        assert_eq!(service.requests().len(), 0);
    }
}

#[test]
fn an_upstream_without_its_own_authority_is_verified_by_the_systems() {
    let leaf = Authority::new().leaf(&["inner.example"]);
    let service = Service::tls(leaf.server(&["http/1.1"]), mirror);
    let gateway = Gateway::start(&format!(
        "upstreams: {{ one: {{ endpoints: [\"{service}\"], tls: {{ server_name: inner.example }} }} }}
routes: {{ all: {{ to: {{ upstream: one }} }} }}"
    ));
    assert_eq!(gateway.get("/x").status, 502);
    assert_eq!(service.requests().len(), 0);
}

#[test]
fn two_upstreams_at_one_address_do_not_share_trust() {
    let authority = Authority::new();
    let service = Service::tls(authority.leaf(&["inner.example"]).server(&["http/1.1"]), mirror);
    let gateway = Start::on(&format!(
        "upstreams:
  trusted: {{ endpoints: [\"{service}\"], tls: {{ server_name: inner.example, ca: ca.pem }} }}
  strange: {{ endpoints: [\"{service}\"], tls: {{ server_name: inner.example, ca: stranger.pem }} }}
routes:
  trusted: {{ match: {{ path: /trusted }}, to: {{ upstream: trusted }} }}
  strange: {{ match: {{ path: /strange }}, to: {{ upstream: strange }} }}"
    ))
    .file("ca.pem", &authority.pem())
    .file("stranger.pem", &Authority::new().pem())
    .ready();
    assert_eq!(gateway.get("/trusted").status, 200);
    assert_eq!(gateway.get("/strange").status, 502, "a pooled connection of the other upstream is not taken");
    assert_eq!(gateway.get("/trusted").status, 200);
}

/// What a gRPC service answers: a message, and its status in trailers.
fn grpc(_: &Request<Bytes>) -> Response<Body> {
    let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static("0"))]);
    let body = frames([Frame::data(Bytes::from_static(b"\0\0\0\0\x02hi")), Frame::trailers(trailers)]);
    Response::builder().header("content-type", "application/grpc").body(body).unwrap()
}

#[test]
fn grpc_passes_with_trailers_from_http2_to_http2() {
    let service = Service::h2c(grpc);
    let gateway = Gateway::start(&format!(
        "upstreams: {{ one: {{ protocol: h2c, endpoints: [\"{service}\"] }} }}\nroutes: {{ all: {{ to: {{ upstream: one }} }} }}"
    ));
    let answer = play(async {
        let mut client = h2::h2c(gateway.web()).await;
        let request = request("http://a/inventory.Stock/Get")
            .method("POST")
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        ask(&mut client, request.body(full("\0\0\0\0\0")).unwrap()).await
    });
    assert_eq!(answer.body.as_ref(), b"\0\0\0\0\x02hi");
    assert_eq!(answer.trailers.expect("trailers").get("grpc-status").unwrap(), "0");
    assert_eq!(service.last().headers().get("te").unwrap(), "trailers");
}

#[test]
fn grpc_errors_of_our_own_are_trailers_only() {
    let dead = crate::harness::origin::nobody();
    let gateway = Gateway::start(&format!(
        "upstreams: {{ dead: {{ endpoints: [\"{dead}\"] }} }}
routes: {{ dead: {{ match: {{ path: \"/dead/**\" }}, to: {{ upstream: dead }} }} }}"
    ));
    // UNIMPLEMENTED for no route, UNAVAILABLE for no service: grpc's http-grpc-status-mapping.
    for (path, status) in [("/none/Get", "12"), ("/dead/Get", "14")] {
        let answer = play(async {
            let mut client = h2::h2c(gateway.web()).await;
            let request = request(&format!("http://a{path}")).method("POST").header("content-type", "application/grpc+proto");
            ask(&mut client, request.body(full("\0\0\0\0\0")).unwrap()).await
        });
        assert_eq!(answer.head.status, 200, "{path}");
        assert!(answer.head_only, "the head ends the stream: {answer:?}");
        assert!(answer.field("content-type").unwrap().starts_with("application/grpc"));
        assert_eq!(answer.field("grpc-status"), Some(status), "{path}");
        assert!(answer.field("grpc-message").is_some());
        assert!(answer.field("x-request-id").is_some());
    }
}

#[test]
fn http2_server_sent_events_arrive_one_by_one() {
    let (go, may_go) = std::sync::mpsc::channel();
    let may_go = std::sync::Mutex::new(may_go);
    let origin = Origin::script(move |visit| {
        visit.head()?;
        visit.wire.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        for _ in 0..3 {
            visit.wire.send_chunk("data: x\n\n")?;
            let () = may_go.lock().unwrap().recv().map_err(std::io::Error::other)?;
        }
        visit.wire.send("0\r\n\r\n")
    });
    let gateway = Gateway::before(&origin);
    play(async {
        let mut client = h2::h2c(gateway.web()).await;
        let mut response = client.send_request(request("http://a/events").body(full("")).unwrap()).await.unwrap();
        for _ in 0..3 {
            let frame = response.body_mut().frame().await.expect("an event before the next is sent").unwrap();
            assert_eq!(frame.into_data().unwrap().as_ref(), b"data: x\n\n");
            go.send(()).unwrap();
        }
    });
}

#[test]
fn an_http2_body_of_unknown_length_is_streamed_to_http1() {
    let origin = Origin::script(|visit| {
        visit.head()?;
        visit.wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        while let Some(chunk) = visit.wire.chunk()? {
            visit.wire.send_chunk(chunk.to_ascii_uppercase())?;
        }
        visit.wire.send("0\r\n\r\n")
    });
    let gateway = Gateway::before(&origin);
    play(async {
        let mut client = h2::h2c(gateway.web()).await;
        let (sender, body) = h2::stream();
        let mut response = client.send_request(request("http://a/").method("POST").body(body).unwrap()).await.unwrap();
        for word in ["one", "two"] {
            sender.send(Frame::data(Bytes::from_static(word.as_bytes()))).unwrap();
            let frame = response.body_mut().frame().await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), word.to_uppercase());
        }
        drop(sender);
        let rest = response.into_body().collect().await.unwrap();
        assert!(rest.to_bytes().is_empty());
    });
}

#[test]
fn http2_bodies_over_the_limit_get_413() {
    let origin = Origin::echo();
    let gateway = Gateway::start(&format!(
        "upstreams: {{ one: {{ endpoints: [\"{origin}\"] }} }}
policies: {{ request_limits: {{ body: 1KiB }} }}
routes: {{ all: {{ to: {{ upstream: one }} }} }}"
    ));
    play(async {
        let mut client = h2::h2c(gateway.web()).await;
        let declared = request("http://a/").method("POST").body(full(vec![b'x'; 2000])).unwrap();
        assert_eq!(ask(&mut client, declared).await.head.status, 413);
        let pieces = (0..2).map(|_| Frame::data(Bytes::from(vec![b'x'; 1000])));
        let streamed = request("http://a/").method("POST").body(frames(pieces)).unwrap();
        assert_eq!(ask(&mut client, streamed).await.head.status, 413);
        let fitting = request("http://a/").method("POST").body(full(vec![b'x'; 1000])).unwrap();
        assert_eq!(ask(&mut client, fitting).await.head.status, 200, "the connection lives on");
    });
}

#[test]
fn a_large_http2_download_is_carried_whole() {
    const SIZE: usize = 50 << 20;
    let origin = Origin::answer(|_| {
        [format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n").into_bytes(), vec![b'x'; SIZE]].concat()
    });
    let gateway = Gateway::before(&origin);
    let before = gateway.memory("VmHWM");
    let answer = play(async {
        let mut client = h2::h2c(gateway.web()).await;
        ask(&mut client, request("http://a/").body(full("")).unwrap()).await
    });
    assert_eq!(answer.body.len(), SIZE);
    let grown = gateway.memory("VmHWM") - before;
    assert!(grown < 24 << 10, "memory grew by {grown} KiB");
}

#[test]
fn http2_paths_are_normalised_as_others_are() {
    let (public, secret) = (Origin::text("public"), Origin::text("secret"));
    let gateway = Gateway::start(&format!(
        "upstreams: {{ public: {{ endpoints: [\"{public}\"] }}, secret: {{ endpoints: [\"{secret}\"] }} }}
routes:
  public: {{ match: {{ path: \"/public/**\" }}, to: {{ upstream: public }} }}
  secret: {{ match: {{ path: \"/secret/**\" }}, to: {{ upstream: secret }} }}"
    ));
    for (path, status, reached) in [
        ("/public/%2e%2e/secret", 200, "/secret"),
        ("//public//x/./y", 200, "/public/x/y"),
        ("/public/..%2fsecret", 400, ""),
        ("/public/..;/secret", 400, ""),
    ] {
        let before = public.count() + secret.count();
        let answer = play(async {
            let mut client = h2::h2c(gateway.web()).await;
            ask(&mut client, request(&format!("http://a{path}")).body(full("")).unwrap()).await
        });
        assert_eq!(answer.head.status, status, "{path}");
        let seen: Vec<_> = public.requests().into_iter().chain(secret.requests()).collect();
        match status {
            200 => assert!(seen.iter().any(|request| request.target() == reached), "{path}: {seen:?}"),
            _ => assert_eq!(seen.len(), before, "{path}: {seen:?}"),
        }
    }
}

#[test]
fn an_http2_request_that_names_two_hosts_is_refused() {
    let origin = Origin::echo();
    let mut gateway = Gateway::before(&origin);
    let answer = play(async {
        let mut client = h2::h2c(gateway.web()).await;
        ask(&mut client, request("http://one.example/").header("host", "two.example").body(full("")).unwrap()).await
    });
    assert_eq!((answer.head.status.as_u16(), origin.count()), (400, 0));
    gateway.assert_sound();
}

#[test]
fn a_client_of_tls_12_is_served() {
    let authority = Authority::new();
    let origin = Origin::text("x");
    let gateway = secure(&authority, &plain(&origin));
    let old = authority.client_of(&[&rustls::version::TLS12]);
    let mut client = Connection::tls(gateway.address("secure"), "shop.example", old).unwrap();
    assert_eq!(client.ask("GET /old HTTP/1.1\nHost: shop.example").text(), "x");
    assert_eq!(gateway.logged_path("/old")["tls_version"], "TLSv1.2");
}

#[test]
fn plain_text_on_a_tls_listener_does_no_harm() {
    let authority = Authority::new();
    let origin = Origin::text("x");
    let mut gateway = secure(&authority, &plain(&origin));
    let mut connection = Connection::open(gateway.address("secure"));
    connection.send("GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    assert!(connection.try_response("GET").is_err());
    assert_eq!(origin.count(), 0);
    gateway.assert_sound();
}
