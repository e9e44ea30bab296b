//! Time and number: how long a listener waits for what a client owes it, how long a connection lasts, and how many there are.

use std::{
    io,
    net::Shutdown,
    sync::{Mutex, mpsc},
    time::{Duration, Instant},
};

use rustls::{ClientConnection, pki_types::ServerName};

use crate::harness::{
    Connection, Gateway, Origin, PATIENCE,
    cert::Authority,
    eventually,
    frames::{
        CONTINUATION, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, GET, GOAWAY, HEADERS, NO_ERROR, PING, PREFACE, Raw, block,
        frame,
    },
    gateway::Start,
    h2,
    origin::ok,
};

/// What `header_timeout` is here.
const LIMIT: Duration = Duration::from_secs(1);

/// A gateway whose listeners have these limits, before this service.
fn limited(origin: &Origin, listener: &str) -> Gateway {
    Gateway::start(&format!(
        "listeners: {{ web: {{ address: 127.0.0.1:<web>, {listener} }} }}
trusted_proxies: [127.0.0.3]
upstreams: {{ one: {{ endpoints: [\"{origin}\"] }} }}
routes: {{ all: {{ to: {{ upstream: one }} }} }}"
    ))
}

fn hasty(origin: &Origin) -> Gateway {
    limited(origin, "limits: { header_timeout: 1s }")
}

/// It took the limit, and not much more: a machine under load is slow, but no second limit fits in.
#[track_caller]
fn assert_took(limit: Duration, since: Instant) {
    let taken = since.elapsed();
    assert!((limit.mul_f64(0.9)..limit + Duration::from_secs(9)).contains(&taken), "{taken:?}, not {limit:?}");
}

#[track_caller]
fn assert_counted(gateway: &Gateway, sample: &str, count: u32) {
    let sample = format!("banyan_{sample}");
    eventually(&format!("{sample} is {count}"), || gateway.metric(&sample).filter(|&found| found == f64::from(count)));
}

fn refused(reason: &str) -> String {
    format!("connections_refused_total{{listener=\"web\",reason=\"{reason}\"}}")
}

const LATE_HEADS: &str = "request_heads_refused_total{listener=\"web\",reason=\"header_timeout\"}";

/// Sends a byte now and then until something comes.
fn drip(connection: &mut Connection, bytes: &[u8]) {
    for byte in bytes.iter().cycle() {
        connection.0.socket().set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        if connection.0.socket().peek(&mut [0]).is_ok() || connection.0.send([*byte]).is_err() {
            break;
        }
    }
    connection.0.socket().set_read_timeout(Some(PATIENCE)).unwrap();
}

#[track_caller]
fn assert_late(connection: &mut Connection) {
    let reply = connection.response("GET");
    assert_eq!((reply.status, reply.field("connection")), (408, Some("close")), "{}", reply.text());
    assert_eq!(reply.json()["code"], "header_timeout");
    assert!(connection.0.closes_within(PATIENCE));
}

#[test]
fn a_head_that_does_not_begin_is_not_waited_for() {
    let origin = Origin::text("x");
    let gateway = hasty(&origin);
    let started = Instant::now();
    let mut connection = gateway.connect();
    assert!(connection.0.closes_within(PATIENCE), "in silence");
    assert_took(LIMIT, started);
    assert_counted(&gateway, &refused("timeout"), 1);
    assert_eq!(gateway.stdout.all(), [""; 0]);
}

#[test]
fn a_head_that_does_not_end_is_not_waited_for() {
    let origin = Origin::text("x");
    let gateway = hasty(&origin);
    for half in ["G", "GET / HTTP/1.1\r\nHo", "GET / HTTP/1.1\r\nHost: a\r\n\r"] {
        let started = Instant::now();
        let mut connection = gateway.connect();
        connection.send(half);
        assert_late(&mut connection);
        assert_took(LIMIT, started);
    }
    assert_counted(&gateway, LATE_HEADS, 3);
    let entry = gateway.logged(|entry| entry["path"] == "/");
    assert_eq!((&entry["status"], &entry["flag"], &entry["method"]), (&408.into(), &"DPE".into(), &"GET".into()), "{entry}");
    assert_eq!(origin.connections(), 0);
}

#[test]
fn a_head_that_trickles_has_no_more_time_than_any_other() {
    let origin = Origin::text("x");
    let gateway = hasty(&origin);
    let started = Instant::now();
    let mut connection = gateway.connect();
    connection.send("GET / HTTP/1.1\r\n");
    drip(&mut connection, b"X: y\r\n");
    assert_late(&mut connection);
    assert_took(LIMIT, started);
    assert_eq!(origin.connections(), 0);
}

#[test]
fn a_later_head_has_its_time_from_its_first_byte() {
    let origin = Origin::text("x");
    let gateway = hasty(&origin);
    let mut connection = gateway.connect();
    assert_eq!(connection.ask("GET / HTTP/1.1\nHost: a").status, 200);
    // Longer than a head may take: between requests another limit counts.
    std::thread::sleep(LIMIT.mul_f64(1.3));
    assert_eq!(connection.ask("GET / HTTP/1.1\nHost: a").status, 200);
    let started = Instant::now();
    connection.send("GET / HTTP/1.1\r\n");
    drip(&mut connection, b"X: y\r\n");
    assert_late(&mut connection);
    assert_took(LIMIT, started);
    assert_eq!(origin.count(), 2);
}

#[test]
fn a_pipelined_head_that_does_not_end_is_not_waited_for() {
    let origin = Origin::text("x");
    let gateway = hasty(&origin);
    let mut connection = gateway.connect();
    let started = Instant::now();
    connection.send("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /half HTTP/1.1\r\nHo");
    assert_eq!(connection.response("GET").status, 200);
    assert_late(&mut connection);
    assert_took(LIMIT, started);
    assert_eq!(origin.count(), 1);
}

#[test]
fn an_idle_connection_is_kept_so_long() {
    let origin = Origin::text("x");
    let gateway = limited(&origin, "limits: { keepalive: 1s }");
    let mut connection = gateway.connect();
    for _ in 0..3 {
        assert_eq!(connection.ask("GET / HTTP/1.1\nHost: a").status, 200);
        std::thread::sleep(Duration::from_millis(500));
    }
    assert_eq!(connection.ask("GET / HTTP/1.1\nHost: a").status, 200, "each request begins the time anew");
    let started = Instant::now();
    assert!(connection.0.closes_within(PATIENCE), "in silence");
    assert_took(LIMIT, started);
}

#[test]
fn a_request_that_takes_longer_than_an_idle_connection_is_kept_is_answered() {
    let origin = Origin::answer(|_| {
        std::thread::sleep(Duration::from_millis(1500));
        ok("late")
    });
    let gateway = limited(&origin, "limits: { keepalive: 500ms, header_timeout: 500ms }");
    assert_eq!(gateway.get("/").text(), "late");
    let answer = h2::play(async {
        let mut client = h2::h2c(gateway.web()).await;
        h2::ask(&mut client, http::Request::get("http://a/").body(h2::full("")).unwrap()).await
    });
    assert_eq!(answer.text(), "late");
}

/// A gateway with a TLS listener.
fn secure(limits: &str) -> (Gateway, Authority) {
    let authority = Authority::new();
    let dir = tempfile::tempdir().unwrap();
    authority.leaf(&["a"]).write(dir.path(), "a");
    let gateway = Start::on(&format!(
        "listeners: {{ web: {{ address: 127.0.0.1:<web>, limits: {{ {limits} }}, tls: {{ certificates: [{{ cert: a.pem, key: a.key }}] }} }} }}
routes: {{ all: {{ to: {{ respond: {{ body: here }} }} }} }}"
    ));
    (gateway.dir(dir).ready(), authority)
}

#[test]
fn a_handshake_is_not_waited_for_longer_than_a_head() {
    let (gateway, authority) = secure("header_timeout: 1s");
    let mut client = ClientConnection::new(authority.client(&[]), ServerName::try_from("a").unwrap()).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    let started = Instant::now();
    let mut connections = [&[][..], &hello[..1], &hello[..hello.len() / 2]].map(|sent| {
        let mut connection = gateway.connect();
        connection.send(sent);
        connection
    });
    for connection in &mut connections {
        assert!(connection.0.closes_within(PATIENCE), "in silence");
        assert_took(LIMIT, started);
    }
    assert_counted(&gateway, &refused("timeout"), 3);
}

/// The handshake's time is the head's too: a client that has taken it all gets no second limit.
#[test]
fn a_handshake_that_took_its_time_leaves_the_head_the_rest() {
    let (gateway, authority) = secure("header_timeout: 1s");
    let started = Instant::now();
    let mut connection = Connection::tls(gateway.web(), "a", authority.client(&[])).unwrap();
    connection.send("GET / HT");
    assert_late(&mut connection);
    assert_took(LIMIT, started);
    let started = Instant::now();
    let mut connection = Connection::tls(gateway.web(), "a", authority.client(&[])).unwrap();
    assert!(connection.0.closes_within(PATIENCE), "one that says nothing is left in silence");
    assert_took(LIMIT, started);
}

#[test]
fn a_proxy_protocol_header_is_not_waited_for_longer_than_a_head() {
    let origin = Origin::text("x");
    let gateway = Gateway::start(&format!(
        "listeners: {{ web: {{ address: 127.0.0.1:<web>, proxy_protocol: required, limits: {{ header_timeout: 1s }} }} }}
trusted_proxies: [127.0.0.1]
upstreams: {{ one: {{ endpoints: [\"{origin}\"] }} }}
routes: {{ all: {{ to: {{ upstream: one }} }} }}"
    ));
    let started = Instant::now();
    let mut connections = ["", "PROXY TCP4 192.0", "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"].map(|sent| {
        let mut connection = gateway.connect();
        connection.send(sent);
        connection
    });
    for connection in &mut connections {
        assert!(connection.0.closes_within(PATIENCE), "in silence");
        assert_took(LIMIT, started);
    }
    assert_counted(&gateway, &refused("timeout"), 3);
    assert_eq!(origin.connections(), 0);
}

#[test]
fn http2_that_does_not_begin_is_not_waited_for() {
    let origin = Origin::text("x");
    let gateway = hasty(&origin);
    let started = Instant::now();
    let mut raws = [1, PREFACE.len() - 1].map(|length| {
        let mut raw = Raw::unspoken(&gateway);
        raw.send(&PREFACE[..length]);
        raw
    });
    for raw in &mut raws {
        assert!(raw.ends());
        assert_took(LIMIT, started);
    }
    assert_counted(&gateway, &refused("timeout"), 2);
}

#[test]
fn a_part_of_http2_that_does_not_come_is_not_waited_for() {
    let origin = Origin::text("x");
    let gateway = hasty(&origin);
    let headers = frame(HEADERS, END_STREAM | END_HEADERS, 1, &block(&GET));
    let halves = [
        headers[..5].to_vec(),
        headers[..headers.len() - 1].to_vec(),
        frame(HEADERS, END_STREAM, 1, &block(&GET)),
        [frame(HEADERS, END_STREAM, 1, &block(&GET)), frame(CONTINUATION, 0, 1, &block(&[("x", "y")]))].concat(),
        frame(PING, 0, 0, &[0; 8])[..12].to_vec(),
    ];
    let mut raws = halves.map(|half| {
        let mut raw = Raw::open(&gateway);
        raw.send(&half);
        (raw, Instant::now())
    });
    for (raw, started) in &mut raws {
        let goaway = raw.until(|frame| frame.kind == GOAWAY).expect("a last word");
        assert_eq!(goaway.code(), ENHANCE_YOUR_CALM);
        assert_took(LIMIT, *started);
        assert!(raw.ends());
    }
    assert_counted(&gateway, LATE_HEADS, 5);
    assert_eq!(origin.connections(), 0);
}

#[test]
fn an_idle_http2_connection_is_kept_so_long() {
    let origin = Origin::text("x");
    let gateway = limited(&origin, "limits: { keepalive: 1s }");
    for asks in [true, false] {
        let mut raw = Raw::open(&gateway);
        if asks {
            raw.send(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &block(&GET)));
            raw.until(|frame| frame.stream == 1 && frame.flags & END_STREAM != 0).expect("an answer");
        }
        let started = Instant::now();
        let goaway = raw.until(|frame| frame.kind == GOAWAY).expect("a last word");
        assert_eq!(goaway.code(), NO_ERROR);
        assert_took(LIMIT, started);
        assert!(raw.until(|_| false).is_none(), "and the end");
    }
}

/// A service that answers once it is told to.
fn held() -> (Origin, mpsc::Sender<()>) {
    let (go, may_go) = mpsc::channel();
    let may_go = Mutex::new(may_go);
    let origin = Origin::script(move |visit| {
        while visit.request()?.is_some() {
            may_go.lock().unwrap().recv_timeout(PATIENCE).map_err(io::Error::other)?;
            visit.wire.send(ok("whole"))?;
        }
        Ok(())
    });
    (origin, go)
}

#[test]
fn an_old_connection_ends_with_its_next_answer() {
    let origin = Origin::text("x");
    let gateway = limited(&origin, "limits: { connection_age: 1s }");
    let started = Instant::now();
    let mut connection = gateway.connect();
    let mut asked = 0;
    let last = eventually("an answer that is the last", || {
        let reply = connection.ask("GET / HTTP/1.1\nHost: a");
        asked += 1;
        (reply.field("connection") == Some("close")).then_some(reply)
    });
    assert_eq!(last.status, 200);
    assert_took(LIMIT.mul_f64(0.9), started);
    assert!(connection.0.closes_within(PATIENCE));
    assert!(asked > 1, "it was kept before");
    assert_eq!(origin.count(), asked);
}

#[test]
fn an_old_http2_connection_ends_with_its_last_stream() {
    let (origin, go) = held();
    let gateway = limited(&origin, "limits: { connection_age: 1s }");
    let started = Instant::now();
    let mut raw = Raw::open(&gateway);
    raw.send(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &block(&GET)));
    let goaway = raw.until(|frame| frame.kind == GOAWAY).expect("it is asked to leave");
    assert_eq!(goaway.code(), NO_ERROR);
    assert_took(LIMIT.mul_f64(0.9), started);
    go.send(()).unwrap();
    let head = raw.until(|frame| (frame.kind, frame.stream) == (HEADERS, 1)).expect("what goes on is not cut");
    assert_eq!(head.status(), "200");
    assert!(raw.until(|_| false).is_none(), "then the end");
    assert_eq!(origin.count(), 1);
}

#[test]
fn a_connection_carries_so_many_requests() {
    let origin = Origin::text("x");
    let gateway = limited(&origin, "limits: { requests_per_connection: 3 }");
    let mut connection = gateway.connect();
    connection.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(4));
    let said: Vec<_> = (0..3).map(|_| connection.response("GET").field("connection") == Some("close")).collect();
    assert_eq!(said, [false, false, true]);
    assert!(connection.0.closes_within(PATIENCE));
    assert_eq!(origin.count(), 3);
}

#[test]
fn an_http2_connection_carries_so_many_requests() {
    let (origin, go) = held();
    let gateway = limited(&origin, "limits: { requests_per_connection: 3 }");
    let mut raw = Raw::open(&gateway);
    for stream in [1, 3, 5] {
        raw.send(&frame(HEADERS, END_STREAM | END_HEADERS, stream, &block(&GET)));
    }
    let goaway = raw.until(|frame| frame.kind == GOAWAY).expect("it is asked to leave");
    assert_eq!(goaway.code(), NO_ERROR);
    (0..3).for_each(|_| go.send(()).unwrap());
    let mut answered: Vec<_> =
        std::iter::from_fn(|| raw.frame()).filter(|frame| frame.kind == HEADERS).map(|frame| frame.stream).collect();
    answered.sort_unstable();
    assert_eq!(answered, [1, 3, 5], "all are answered, then the end");
}

/// A connection that has carried a request, and is open.
#[track_caller]
fn settled(mut connection: Connection) -> Connection {
    assert_eq!(connection.ask("GET / HTTP/1.1\nHost: a").status, 200);
    connection
}

#[track_caller]
fn assert_turned_away(mut connection: Connection) {
    assert!(connection.0.closes_within(PATIENCE), "in silence");
}

/// Waits until the listener has only so many connections.
#[track_caller]
fn wait_for_room(gateway: &Gateway, open: u32) {
    assert_counted(gateway, "connections{listener=\"web\"}", open);
}

#[test]
fn a_listener_takes_so_many_connections() {
    let origin = Origin::text("x");
    let gateway = limited(&origin, "limits: { connections: 3 }");
    wait_for_room(&gateway, 0);
    let mut held: Vec<_> = (0..3).map(|_| settled(gateway.connect())).collect();
    for count in 1..4 {
        assert_turned_away(gateway.connect());
        assert_counted(&gateway, &refused("connections"), count);
    }
    for connection in &mut held {
        assert_eq!(connection.ask("GET / HTTP/1.1\nHost: a").status, 200, "those that are there stay");
    }
    held.pop();
    wait_for_room(&gateway, 2);
    settled(gateway.connect());
    drop(held);
    wait_for_room(&gateway, 0);
    let _anew: Vec<_> = (0..3).map(|_| settled(gateway.connect())).collect();
    assert_counted(&gateway, &refused("connections"), 3);
}

#[test]
fn a_client_has_so_many_connections() {
    let origin = Origin::text("x");
    let gateway = limited(&origin, "limits: { connections_per_ip: 2 }");
    wait_for_room(&gateway, 0);
    let mut held: Vec<_> = (0..2).map(|_| settled(gateway.connect())).collect();
    assert_turned_away(gateway.connect());
    assert_turned_away(gateway.connect());
    assert_counted(&gateway, &refused("connections_per_ip"), 2);
    let _others: Vec<_> = (0..2).map(|_| settled(Connection::open_from([127, 0, 0, 2], gateway.web()))).collect();
    assert_turned_away(Connection::open_from([127, 0, 0, 2], gateway.web()));
    let _trusted: Vec<_> = (0..5).map(|_| settled(Connection::open_from([127, 0, 0, 3], gateway.web()))).collect();
    assert_counted(&gateway, &refused("connections_per_ip"), 3);
    held.pop();
    wait_for_room(&gateway, 8);
    held.push(settled(gateway.connect()));
    assert_turned_away(gateway.connect());
}

#[test]
fn connections_of_every_end_free_their_place() {
    let origin = Origin::text("x");
    let gateway = limited(&origin, "limits: { connections: 1, header_timeout: 300ms }");
    let bad = "GET / HTTP/1.1\r\nHost : a\r\n\r\n";
    let ends: [fn(Connection); 6] = [
        drop,
        |mut connection| drop(connection.send("GET / HT").response("GET")),
        |mut connection| assert!(connection.0.closes_within(PATIENCE)),
        |connection| {
            connection.0.socket().shutdown(Shutdown::Write).unwrap();
            assert_turned_away(connection);
        },
        |mut connection| assert_eq!(connection.ask("GET / HTTP/1.1\nHost: a\nConnection: close").status, 200),
        |mut connection| {
            connection.send(PREFACE);
        },
    ];
    for end in ends {
        wait_for_room(&gateway, 0);
        end(gateway.connect());
        wait_for_room(&gateway, 0);
        let mut connection = gateway.connect();
        connection.send(bad);
        assert_eq!(connection.response("GET").status, 400);
    }
}

#[test]
fn a_client_that_a_proxy_names_is_the_one_that_counts() {
    let origin = Origin::text("x");
    let gateway = Gateway::start(&format!(
        "listeners: {{ web: {{ address: 127.0.0.1:<web>, proxy_protocol: required, limits: {{ connections_per_ip: 1 }} }} }}
trusted_proxies: [127.0.0.1, 198.51.100.9]
upstreams: {{ one: {{ endpoints: [\"{origin}\"] }} }}
routes: {{ all: {{ to: {{ upstream: one }} }} }}"
    ));
    let of = |family: &str, client: &str, to: &str| {
        let mut connection = gateway.connect();
        connection.send(format!("PROXY {family} {client} {to} 4321 80\r\n"));
        connection
    };
    let _first = settled(of("TCP4", "192.0.2.1", "192.0.2.9"));
    assert_turned_away(of("TCP4", "192.0.2.1", "192.0.2.9"));
    let _second = settled(of("TCP4", "192.0.2.2", "192.0.2.9"));
    let _third = settled(of("TCP6", "2001:db8::1", "2001:db8::9"));
    assert_turned_away(of("TCP6", "2001:db8::ffff:2", "2001:db8::9"));
    let _trusted: Vec<_> = (0..3).map(|_| settled(of("TCP4", "198.51.100.9", "192.0.2.9"))).collect();
    assert_counted(&gateway, &refused("connections_per_ip"), 2);
}
