//! The end of the process: what was begun is finished, nothing new is taken, and nobody waits longer than is needed.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use http::Request;

use crate::harness::{
    Connection, Gateway, Origin, PATIENCE, barrier::Barrier, eventually, gateway::Start, h2, origin::ok, wire::Framing,
};

/// A service that answers at once below `/quick`, and elsewhere once the barrier is open.
fn held(barrier: &Barrier) -> Origin {
    let barrier = barrier.clone();
    Origin::answer(move |request| {
        if !request.target().starts_with("/quick") {
            barrier.pass();
        }
        ok("whole")
    })
}

fn before(origin: &Origin, drain: &str) -> Gateway {
    let upstream = format!("upstreams: {{ one: {{ endpoints: [\"{origin}\"] }} }}");
    Start::on(&format!("process: {{ drain: {drain} }}\n{upstream}\nroutes: {{ all: {{ to: {{ upstream: one }} }} }}")).ready()
}

/// A request that is in flight.
fn asking(gateway: &Gateway, path: &str) -> Connection {
    let mut connection = gateway.connect();
    connection.send_head(&format!("GET {path} HTTP/1.1\nHost: a"));
    connection
}

#[track_caller]
fn wait_until_refused(gateway: &Gateway) {
    eventually("connections are refused", || TcpStream::connect(gateway.web()).is_err().then_some(()));
}

/// How long the process still lives.
#[track_caller]
fn time_to_end(gateway: &mut Gateway) -> Duration {
    let begun = Instant::now();
    assert!(gateway.exit().success());
    begun.elapsed()
}

#[test]
fn connections_are_taken_during_the_delay_and_refused_after_it() {
    let barrier = Barrier::default();
    let origin = held(&barrier);
    let mut gateway = before(&origin, "{ delay: 3s }");
    let mut slow = asking(&gateway, "/slow");
    origin.wait_for(1);
    gateway.signal("TERM");
    let ready = eventually("readiness fails", || Some(gateway.admin("/readyz")).filter(|ready| ready.status == 503));
    assert_eq!(ready.json()["reasons"], serde_json::json!(["draining"]));
    let reply = gateway.get("/quick");
    assert_eq!((reply.status, reply.field("connection")), (200, Some("keep-alive")), "as before");
    wait_until_refused(&gateway);
    assert_eq!(gateway.admin("/healthz").status, 200, "the admin listener tells of it to the end");
    barrier.open();
    let reply = slow.response("GET");
    assert_eq!((reply.text().as_str(), reply.field("connection")), ("whole", Some("close")));
    let took = time_to_end(&mut gateway);
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[test]
fn connections_without_a_request_are_closed() {
    let origin = held(&Barrier::default());
    let mut gateway = before(&origin, "{ deadline: 1m }");
    let mut idle = asking(&gateway, "/quick");
    idle.response("GET");
    let mut silent = gateway.connect();
    let mut secure = h2_silence(&gateway);
    gateway.signal("TERM");
    assert!(idle.0.closes_within(PATIENCE));
    assert!(silent.0.closes_within(PATIENCE));
    let took = time_to_end(&mut gateway);
    assert!(took < Duration::from_secs(15), "{took:?}");
    let mut said = Vec::new();
    let _ = secure.read_to_end(&mut said);
    assert!(said.windows(9).any(|frame| frame[3] == 7), "GOAWAY in {}", said.escape_ascii());
}

/// A client of HTTP/2 that never says anything after its settings, no answer to a PING either.
fn h2_silence(gateway: &Gateway) -> TcpStream {
    let mut silence = TcpStream::connect(gateway.web()).unwrap();
    silence.set_read_timeout(Some(PATIENCE)).unwrap();
    silence.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    let mut settings = [0; 9];
    silence.read_exact(&mut settings).unwrap();
    silence
}

#[test]
fn two_hundred_requests_in_flight_are_answered_and_logged() {
    const MANY: usize = 200;
    let barrier = Barrier::default();
    let origin = held(&barrier);
    let mut gateway = before(&origin, "{ deadline: 1m }");
    let mut asking: Vec<_> = (0..MANY).map(|n| asking(&gateway, &format!("/slow/{n}"))).collect();
    origin.wait_for(MANY);
    gateway.signal("TERM");
    wait_until_refused(&gateway);
    barrier.open();
    for connection in &mut asking {
        let reply = connection.response("GET");
        assert_eq!((reply.text().as_str(), reply.field("connection")), ("whole", Some("close")));
    }
    let took = time_to_end(&mut gateway);
    assert!(took < Duration::from_secs(5), "{took:?}");
    let log = gateway.stdout.ended();
    assert_eq!(log.lines().filter(|line| line.contains("/slow/")).count(), MANY, "{log}");
}

#[test]
fn a_long_download_comes_whole() {
    let barrier = Barrier::default();
    let wall = barrier.clone();
    let origin = Origin::script(move |visit| {
        visit.head()?;
        visit.wire.send("HTTP/1.1 200 OK\r\ncontent-length: 2000000\r\n\r\n")?;
        visit.wire.send([b'a'; 1_000_000])?;
        wall.pass();
        visit.wire.send([b'b'; 1_000_000])
    });
    let mut gateway = before(&origin, "{ deadline: 1m }");
    let mut download = asking(&gateway, "/large");
    let head = download.head();
    gateway.signal("TERM");
    wait_until_refused(&gateway);
    barrier.open();
    let mut body = Vec::new();
    download.0.body(head.response_framing("GET").unwrap(), &mut body).unwrap();
    assert_eq!((body.len(), body.last()), (2_000_000, Some(&b'b')));
    assert!(time_to_end(&mut gateway) < Duration::from_secs(5));
}

#[test]
fn a_request_that_is_still_being_sent_is_carried() {
    let origin = Origin::echo();
    let mut gateway = before(&origin, "{ deadline: 1m }");
    let mut head = gateway.connect();
    head.send("GET /head HTTP/1.1\r\nHo");
    let mut upload = gateway.connect();
    upload.send_head("POST /body HTTP/1.1\nHost: a\nContent-Length: 10").send("12345");
    eventually("both are read", || (gateway.metric("banyan_connections{listener=\"web\"}") == Some(2.0)).then_some(()));
    gateway.signal("TERM");
    wait_until_refused(&gateway);
    let told = head.send("st: a\r\n\r\n").response("GET");
    assert_eq!((told.status, told.field("connection")), (200, Some("close")));
    let told = upload.send("67890").response("POST");
    assert!(told.text().ends_with("1234567890"), "{}", told.text());
    assert!(time_to_end(&mut gateway) < Duration::from_secs(5));
}

#[test]
fn a_stream_of_http2_is_finished_and_no_other_is_begun() {
    let barrier = Barrier::default();
    let origin = held(&barrier);
    let mut gateway = before(&origin, "{ deadline: 1m }");
    h2::play(async {
        let request = |path: &str| Request::get(format!("http://a{path}")).body(h2::full("")).unwrap();
        let mut sender = h2::h2c(gateway.web()).await;
        sender.ready().await.unwrap();
        let slow = tokio::spawn(sender.send_request(request("/slow")));
        while origin.count() == 0 {
            tokio::task::yield_now().await;
        }
        gateway.signal("TERM");
        while sender.send_request(request("/quick")).await.is_ok() {}
        assert!(!slow.is_finished(), "GOAWAY does not end what was begun");
        barrier.open();
        assert_eq!(h2::read(slow.await.unwrap().unwrap()).await.text(), "whole");
    });
    let took = time_to_end(&mut gateway);
    assert!(took < Duration::from_secs(5), "{took:?}");
}

/// The code and reason of a Close frame of a server.
fn close_frame(connection: &mut Connection) -> (u16, Vec<u8>) {
    let head = connection.exactly(2);
    assert_eq!(head[0], 0x88, "a Close frame: {}", head.escape_ascii());
    let payload = connection.exactly(usize::from(head[1]));
    (u16::from_be_bytes([payload[0], payload[1]]), payload[2..].to_vec())
}

const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

fn websocket(gateway: &Gateway) -> Connection {
    let mut connection = gateway.connect();
    connection.send_head("GET /ws HTTP/1.1\nHost: a\nConnection: Upgrade\nUpgrade: websocket");
    assert_eq!(connection.0.head().unwrap().unwrap().status().unwrap(), 101);
    connection
}

#[test]
fn a_websocket_is_closed_behind_a_whole_frame_and_the_service_hears_the_client() {
    let barrier = Barrier::default();
    let (wall, heard) = (barrier.clone(), Arc::new(Mutex::new(Vec::new())));
    let hears = heard.clone();
    let origin = Origin::script(move |visit| {
        visit.head()?;
        visit.wire.send(SWITCHING)?;
        visit.wire.send(b"\x81\x05he")?;
        wall.pass();
        visit.wire.send(b"llo\x81\x04late")?;
        let mut buffer = [0; 64];
        let read = visit.wire.some(&mut buffer)?;
        hears.lock().unwrap().extend_from_slice(&buffer[..read]);
        visit.wire.send(b"\x88\x02\x03\xe9")
    });
    let mut gateway = before(&origin, "{ deadline: 1m }");
    let mut socket = websocket(&gateway);
    assert_eq!(socket.exactly(4), b"\x81\x05he");
    gateway.signal("TERM");
    wait_until_refused(&gateway);
    barrier.open();
    assert_eq!(socket.exactly(3), b"llo", "the frame that was begun");
    assert_eq!(close_frame(&mut socket), (1001, b"going away".to_vec()));
    let reply = b"\x88\x82\x01\x02\x03\x04\x02\xeb";
    socket.send(reply);
    assert!(socket.0.closes_within(PATIENCE), "nothing stands behind a Close");
    let took = time_to_end(&mut gateway);
    assert!(took < Duration::from_secs(4), "{took:?}");
    assert_eq!(*heard.lock().unwrap(), reply);
    assert_eq!(gateway.logged_path("/ws")["status"], 101);
}

#[test]
fn a_websocket_client_that_does_not_answer_is_waited_for_some_seconds() {
    let origin = Origin::script(|visit| {
        visit.head()?;
        visit.wire.send(SWITCHING)?;
        visit.wire.rest();
        Ok(())
    });
    let mut gateway = before(&origin, "{ deadline: 1m }");
    let mut socket = websocket(&gateway);
    gateway.signal("TERM");
    assert_eq!(close_frame(&mut socket).0, 1001);
    let took = time_to_end(&mut gateway);
    assert!(took < Duration::from_secs(12), "{took:?}");
    gateway.logged_path("/ws");
}

#[test]
fn what_hangs_is_cut_at_the_deadline_and_logged() {
    let barrier = Barrier::default();
    let origin = held(&barrier);
    let mut gateway = before(&origin, "{ deadline: 2s }");
    let mut slow = asking(&gateway, "/slow");
    origin.wait_for(1);
    gateway.signal("TERM");
    let took = time_to_end(&mut gateway);
    assert!((Duration::from_millis(1900)..Duration::from_secs(6)).contains(&took), "{took:?}");
    assert!(slow.try_head().is_err());
    assert_eq!(gateway.logged_path("/slow")["flag"], "DC");
    gateway.said("the deadline of the drain has come");
    barrier.open();
}

#[test]
fn an_interrupt_or_a_second_termination_waits_for_nothing() {
    for signals in [&["INT"][..], &["TERM", "INT"], &["TERM", "TERM"]] {
        let barrier = Barrier::default();
        let origin = held(&barrier);
        let mut gateway = before(&origin, "{ deadline: 5m }");
        let mut slow = asking(&gateway, "/slow");
        origin.wait_for(1);
        for (n, signal) in signals.iter().enumerate() {
            if n > 0 {
                gateway.said("draining");
            }
            gateway.signal(signal);
        }
        let took = time_to_end(&mut gateway);
        assert!(took < Duration::from_secs(5), "{signals:?}: {took:?}");
        assert!(slow.try_head().is_err(), "{signals:?}");
        gateway.logged_path("/slow");
        barrier.open();
    }
}

#[test]
fn a_reload_changes_how_the_process_ends() {
    let barrier = Barrier::default();
    let origin = held(&barrier);
    let mut gateway = before(&origin, "{ deadline: 5m }");
    let upstream = format!("upstreams: {{ one: {{ endpoints: [\"{origin}\"] }} }}");
    gateway.reload(&format!(
        "process: {{ drain: {{ deadline: 1s }} }}\n{upstream}\nroutes: {{ all: {{ to: {{ upstream: one }} }} }}"
    ));
    let _slow = asking(&gateway, "/slow");
    origin.wait_for(1);
    gateway.signal("TERM");
    let took = time_to_end(&mut gateway);
    assert!(took < Duration::from_secs(6), "{took:?}");
    barrier.open();
}

#[test]
fn a_body_that_ends_with_its_connection_is_not_cut_short() {
    let barrier = Barrier::default();
    let wall = barrier.clone();
    let origin = Origin::script(move |visit| {
        visit.head()?;
        visit.wire.send("HTTP/1.1 200 OK\r\n\r\nfirst ")?;
        wall.pass();
        visit.wire.send("last")
    });
    let mut gateway = before(&origin, "{ deadline: 1m }");
    let mut connection = asking(&gateway, "/");
    let head = connection.head();
    let framing = head.response_framing("GET").unwrap();
    assert_ne!(framing, Framing::None);
    gateway.signal("TERM");
    wait_until_refused(&gateway);
    barrier.open();
    let mut body = Vec::new();
    connection.0.body(framing, &mut body).unwrap();
    assert_eq!(body, b"first last");
    assert!(time_to_end(&mut gateway) < Duration::from_secs(5));
}
