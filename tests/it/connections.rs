//! Connections: kept after our own answers, shared upstream, bodies in both directions.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::harness::{
    Connection, Gateway, Origin, eventually, h2,
    origin::ok,
    wire::{Framing, Wire},
};

const TEXT: &str =
    "upstreams: {}\nroutes: { hello: { match: { path: /hello, methods: [GET] }, to: { respond: { body: hello } } } }";

#[test]
fn own_answers_keep_the_connection() {
    let gateway = Gateway::start(TEXT);
    let mut connection = gateway.connect();
    for (head, status) in [
        ("GET /hello HTTP/1.1\nHost: a", 200),
        ("GET /none HTTP/1.1\nHost: a", 404),
        ("PUT /hello HTTP/1.1\nHost: a\nContent-Length: 0", 405),
        ("HEAD /none HTTP/1.1\nHost: a", 404),
        ("GET /hello HTTP/1.1\nHost: a", 200),
    ] {
        let reply = connection.ask(head);
        assert_eq!(reply.status, status, "{head}");
        assert_ne!(reply.field("connection"), Some("close"), "{head}");
    }
}

#[test]
fn an_own_answer_to_a_request_with_a_body_leaves_the_connection_in_order() {
    let gateway = Gateway::start(TEXT);
    let mut connection = gateway.connect();
    connection.send("POST /none HTTP/1.1\r\nHost: a\r\nContent-Length: 30\r\n\r\nGET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(connection.response("POST").status, 404);
    // Either the body was read to its end and the connection lives, or it is closed. Never is the body a request.
    connection.0.send("GET /hello HTTP/1.1\r\nHost: b\r\n\r\n").ok();
    match connection.try_response("GET") {
        Ok(reply) => {
            assert_eq!((reply.status, reply.text().as_str()), (200, "hello"));
            assert!(!connection.0.closes_within(Duration::from_millis(1)), "one answer to one request");
        }
        Err(e) => assert!(matches!(e.kind(), std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::ConnectionReset), "{e}"),
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let origin = Origin::answer(|request| ok(request.target()));
    let gateway = Gateway::before(&origin);
    let mut connection = gateway.connect();
    connection.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\nGET /3 HTTP/1.1\r\nHost: a\r\n\r\n");
    for expected in ["/1", "/2", "/3"] {
        assert_eq!(connection.response("GET").text(), expected);
    }
}

#[test]
fn a_client_that_asks_to_close_is_closed() {
    let origin = Origin::text("x");
    let gateway = Gateway::before(&origin);
    let mut connection = gateway.connect();
    connection.send("GET /hello HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    connection.response("GET");
    assert!(connection.0.closes_within(Duration::from_secs(5)));
}

#[test]
fn upstream_connections_are_used_again() {
    let origin = Origin::text("x");
    let gateway = Gateway::before(&origin);
    for _ in 0..20 {
        gateway.get("/");
    }
    // The next request may come before the connection of the last is back in the pool.
    assert_eq!(origin.count(), 20);
    assert!(origin.connections() <= 4, "{} connections", origin.connections());
}

#[test]
fn an_upstream_that_closes_after_each_answer_is_met_by_new_connections() {
    let origin = Origin::script(|visit| {
        visit.request()?;
        visit.wire.send("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil the end")
    });
    let gateway = Gateway::before(&origin);
    for _ in 0..5 {
        assert_eq!(gateway.get("/").text(), "until the end");
    }
    assert_eq!(origin.connections(), 5);
}

#[test]
fn an_upstream_may_drop_an_idle_pooled_connection() {
    let origin = Origin::script(|visit| {
        visit.request()?;
        visit.wire.send(ok("x"))
    });
    let gateway = Gateway::before(&origin);
    for _ in 0..10 {
        assert_eq!(gateway.get("/").status, 200);
    }
}

#[test]
fn a_body_is_answered_while_it_is_still_sent() {
    let origin = Origin::script(|visit| {
        visit.head()?;
        visit.wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        while let Some(chunk) = visit.wire.chunk()? {
            visit.wire.send_chunk(chunk.to_ascii_uppercase())?;
        }
        visit.wire.send("0\r\n\r\n")
    });
    let gateway = Gateway::before(&origin);
    let mut connection = gateway.connect();
    connection.send_head("POST / HTTP/1.1\nHost: a\nTransfer-Encoding: chunked");
    let head = connection.head();
    assert_eq!(head.response_framing("POST").unwrap(), Framing::Chunked);
    for word in ["one", "two", "three"] {
        connection.0.send_chunk(word).unwrap();
        assert_eq!(connection.0.chunk().unwrap().unwrap(), word.to_uppercase().into_bytes());
    }
    connection.send("0\r\n\r\n");
    assert_eq!(connection.0.chunk().unwrap(), None);
}

#[test]
fn an_expected_100_is_sent_before_the_body() {
    let origin = Origin::echo();
    let gateway = Gateway::before(&origin);
    let mut connection = gateway.connect();
    connection.send_head("PUT / HTTP/1.1\nHost: a\nExpect: 100-continue\nContent-Length: 4");
    let head = connection.0.head().unwrap().unwrap();
    assert_eq!(head.status().unwrap(), 100);
    connection.send("body");
    assert!(connection.response("PUT").text().ends_with("\nbody"));
}

#[test]
fn websocket_style_upgrades_pass_in_both_directions() {
    let origin = Origin::shouting();
    let gateway = Gateway::before(&origin);
    let mut connection = gateway.upgraded("/chat");
    for words in ["hello", "there"] {
        connection.send(words);
        assert_eq!(connection.exactly(5), words.to_uppercase().as_bytes());
    }
    drop(connection);
    assert_eq!(origin.last().field("upgrade"), Some("websocket"));
    gateway.logged(|entry| entry["status"] == 101 && entry["bytes_sent"].as_u64() >= Some(12));
}

#[test]
fn an_upgrade_to_anything_else_is_not_passed_on() {
    let origin = Origin::text("plain");
    let gateway = Gateway::before(&origin);
    let reply = gateway
        .ask("GET / HTTP/1.1\nHost: a\nConnection: Upgrade, HTTP2-Settings\nUpgrade: h2c\nHTTP2-Settings: AAMAAABkAAQAAP__");
    assert_eq!(reply.text(), "plain");
    let seen = origin.last();
    assert_eq!((seen.field("upgrade"), seen.field("connection"), seen.field("http2-settings")), (None, None, None));
}

#[test]
fn an_upgrade_meets_the_policies_as_every_request_does() {
    let origin = Origin::text("x");
    let gateway = Gateway::start(&format!(
        "upstreams: {{ one: {{ endpoints: [\"{origin}\"] }} }}
policies: {{ request_limits: {{ headers: 200B }} }}
routes: {{ all: {{ match: {{ methods: [GET] }}, to: {{ upstream: one }} }} }}"
    ));
    let upgrade = "Connection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 13";
    let long = "x".repeat(200);
    assert_eq!(gateway.ask(&format!("GET /x HTTP/1.1\nHost: a\n{upgrade}\nX: {long}")).status, 431);
    assert_eq!(gateway.ask(&format!("POST /x HTTP/1.1\nHost: a\nContent-Length: 0\n{upgrade}")).status, 405);
    assert_eq!(origin.count(), 0);
}

#[test]
fn large_bodies_pass_in_bounded_memory() {
    const SIZE: usize = 200 << 20;
    const PIECE: usize = 1 << 20;
    let origin = Origin::script(|visit| {
        visit.head()?;
        let (mut left, mut buffer) = (SIZE, vec![0; PIECE]);
        while left > 0 {
            left -= visit.wire.some(&mut buffer)?;
        }
        visit.wire.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n"))?;
        (0..SIZE / PIECE).try_for_each(|_| visit.wire.send(&buffer))
    });
    let gateway = Gateway::before(&origin);
    let before = gateway.memory("VmHWM");
    let mut connection = gateway.connect();
    connection.send_head(&format!("POST / HTTP/1.1\nHost: a\nContent-Length: {SIZE}"));
    let piece = vec![b'x'; PIECE];
    for _ in 0..SIZE / PIECE {
        connection.send(&piece);
    }
    assert_eq!(connection.response("POST").body.len(), SIZE);
    let grown = gateway.memory("VmHWM") - before;
    assert!(grown < 32 << 10, "memory grew by {grown} KiB");
}

/// Bytes that the tests of slow sides want to move; far more than sockets and the gateway may hold.
const MUCH: usize = 200 << 20;

/// What one side has sent, to see it stand still.
#[derive(Clone, Default)]
struct Sent(Arc<AtomicUsize>);

impl Sent {
    /// Sends all, counting.
    fn all(&self, wire: &mut Wire) -> io::Result<()> {
        let piece = vec![b'x'; 1 << 20];
        (0..MUCH / piece.len()).try_for_each(|_| {
            wire.send(&piece)?;
            self.0.fetch_add(piece.len(), Ordering::SeqCst);
            Ok(())
        })
    }

    /// Waits until no more can be sent, which must be long before all is.
    #[track_caller]
    fn stands_still(&self) {
        let mut last = (usize::MAX, Instant::now());
        eventually("the sender is held back", || {
            let now = self.0.load(Ordering::SeqCst);
            if now != last.0 {
                last = (now, Instant::now());
            }
            (last.1.elapsed() > Duration::from_millis(500)).then_some(())
        });
        assert!(last.0 < MUCH / 4, "{} MiB went into the gateway", last.0 >> 20);
    }
}

#[track_caller]
fn assert_grew_little(gateway: &Gateway, before: u64) {
    let grown = gateway.memory("VmHWM") - before;
    assert!(grown < 32 << 10, "memory grew by {grown} KiB");
}

/// A service that sends much.
fn generous(sent: &Sent) -> Origin {
    let sent = sent.clone();
    Origin::script(move |visit| {
        visit.head()?;
        visit.wire.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {MUCH}\r\n\r\n"))?;
        sent.all(&mut visit.wire)
    })
}

#[test]
fn a_slow_reader_holds_the_service_back_and_not_the_gateways_memory() {
    let sent = Sent::default();
    let origin = generous(&sent);
    let gateway = Gateway::before(&origin);
    let before = gateway.memory("VmHWM");
    let mut connection = gateway.connect();
    connection.send_head("GET / HTTP/1.1\nHost: a");
    connection.head();
    sent.stands_still();
    assert_grew_little(&gateway, before);
    let mut body = Vec::new();
    connection.0.body(Framing::Length(MUCH as u64), &mut body).unwrap();
    assert_eq!(body.len(), MUCH);
}

#[test]
fn a_slow_http2_reader_holds_the_service_back_too() {
    let sent = Sent::default();
    let origin = generous(&sent);
    let gateway = Gateway::before(&origin);
    let before = gateway.memory("VmHWM");
    let client = thread::spawn({
        let (address, sent) = (gateway.web(), sent.clone());
        move || {
            h2::play(async {
                let mut client = h2::h2c(address).await;
                let response = client.send_request(http::Request::get("http://a/").body(h2::full("")).unwrap()).await.unwrap();
                tokio::task::spawn_blocking(move || sent.stands_still()).await.unwrap();
                drop(response);
            });
        }
    });
    client.join().unwrap();
    assert_grew_little(&gateway, before);
}

#[test]
fn a_slow_service_holds_the_client_back_and_not_the_gateways_memory() {
    let (go, may_go) = std::sync::mpsc::channel();
    let may_go = std::sync::Mutex::new(may_go);
    let origin = Origin::script(move |visit| {
        visit.head()?;
        let () = may_go.lock().unwrap().recv().map_err(io::Error::other)?;
        let mut body = Vec::new();
        visit.wire.body(Framing::Length(MUCH as u64), &mut body)?;
        visit.wire.send(ok("all of it"))
    });
    let gateway = Gateway::before(&origin);
    let before = gateway.memory("VmHWM");
    let sent = Sent::default();
    let client = thread::spawn({
        let (mut connection, sent) = (gateway.connect(), sent.clone());
        move || {
            connection.send_head(&format!("POST / HTTP/1.1\nHost: a\nContent-Length: {MUCH}"));
            sent.all(&mut connection.0).unwrap();
            connection.response("POST").text()
        }
    });
    origin.wait_for(1);
    sent.stands_still();
    assert_grew_little(&gateway, before);
    go.send(()).unwrap();
    assert_eq!(client.join().unwrap(), "all of it");
}

#[test]
fn a_request_of_http10_without_a_host_is_whole_when_it_goes_on() {
    let origin = Origin::text("x");
    let gateway = Gateway::before(&origin);
    assert_eq!(gateway.ask("GET /x HTTP/1.0\nUser-Agent: an old one").status, 200);
    let seen = origin.last();
    assert_eq!(seen.head.line, "GET /x HTTP/1.1");
    assert!(seen.field("host").is_some(), "HTTP/1.1 needs a Host: {seen:?}");
}

#[test]
fn the_shortest_head_is_answered() {
    let origin = Origin::text("x");
    let gateway = Gateway::before(&origin);
    assert_eq!(gateway.ask("GET / HTTP/1.0").status, 200);
}

#[test]
fn a_request_line_and_fields_may_come_in_pieces() {
    let origin = Origin::text("x");
    let gateway = Gateway::before(&origin);
    let mut connection = Connection::open(gateway.web());
    for byte in b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" {
        connection.send([*byte]);
    }
    assert_eq!(connection.response("GET").status, 200);
}

#[test]
fn one_thread_and_ipv6_will_do() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        return;
    }
    let gateway = Gateway::start(
        "process: { threads: 1 }
listeners: { web: { address: 127.0.0.1:<web> }, six: { address: \"[::1]:<six>\" } }
routes: { all: { to: { redirect: { location: \"https://{host}{path}\" } } } }",
    );
    let address = std::net::SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, gateway.address("six").port()));
    let reply = Connection::open(address).ask("GET /x HTTP/1.1\nHost: [::1]:80");
    assert_eq!(reply.field("location"), Some("https://[::1]/x"));
    assert_eq!(gateway.logged_path("/x")["client"], "::1");
}

#[test]
fn a_client_of_http10_gets_no_chunks() {
    let origin =
        Origin::answer(|_| "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n there\r\n0\r\n\r\n");
    let gateway = Gateway::before(&origin);
    let reply = gateway.ask("GET / HTTP/1.0\nHost: a");
    assert_eq!((reply.field("transfer-encoding"), reply.text().as_str()), (None, "hello there"));
}

#[test]
fn what_an_answer_says_of_its_connection_is_true() {
    let gateway = Gateway::start(&format!(
        "upstreams: {{ dead: {{ endpoints: [\"{}\"] }} }}
routes:
  dead: {{ match: {{ path: /dead }}, to: {{ upstream: dead }} }}
  small: {{ match: {{ path: /small }}, policies: {{ request_limits: {{ body: 1B }} }}, to: {{ respond: {{}} }} }}",
        crate::harness::origin::nobody()
    ));
    for (head, status) in [
        ("GET /dead HTTP/1.1\nHost: a", 502),
        ("GET /none HTTP/1.1\nHost: a", 404),
        ("GET /a%2fb HTTP/1.1\nHost: a", 400),
        ("GET /x HTTP/1.1\nX: no host", 400),
        ("POST /small HTTP/1.1\nHost: a\nContent-Length: 1000000", 413),
        ("POST /none HTTP/1.1\nHost: a\nExpect: 100-continue\nContent-Length: 5", 404),
    ] {
        let mut connection = gateway.connect();
        let reply = connection.ask(head);
        assert_eq!(reply.status, status, "{head}");
        match reply.field("connection") {
            Some("close") => assert!(connection.0.closes_within(Duration::from_secs(5)), "{head}"),
            _ => assert_eq!(connection.ask("GET /none HTTP/1.1\nHost: a").status, 404, "{head}"),
        }
    }
}
