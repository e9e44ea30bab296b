//! Streams are not held back, and the five timeouts cut what they should and nothing else.

use std::{
    io,
    sync::{Mutex, mpsc},
    time::{Duration, Instant},
};

use crate::harness::{
    Gateway, Origin,
    origin::{Visit, ok},
};

fn gateway(origin: &Origin, timeouts: &str, route: &str) -> Gateway {
    Gateway::start(&format!(
        "upstreams: {{ one: {{ endpoints: [\"{origin}\"], timeouts: {{ {timeouts} }} }} }}
routes: {{ all: {{ timeouts: {{ {route} }}, to: {{ upstream: one }} }} }}"
    ))
}

/// Never answers; ends when the gateway closes.
fn silent(visit: &mut Visit) -> io::Result<()> {
    visit.head()?;
    visit.wire.rest();
    Ok(())
}

/// Answers a chunked head, then says `words` with `pause` before each.
fn talk(visit: &mut Visit, words: usize, pause: Duration) -> io::Result<()> {
    visit.head()?;
    visit.wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
    for _ in 0..words {
        std::thread::sleep(pause);
        visit.wire.send_chunk("x")?;
    }
    visit.wire.send("0\r\n\r\n")
}

#[test]
fn each_event_arrives_before_the_next_is_sent() {
    let (go, may_go) = mpsc::channel();
    let may_go = Mutex::new(may_go);
    let origin = Origin::script(move |visit| {
        visit.head()?;
        visit.wire.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")?;
        for n in 0..5 {
            visit.wire.send(format!("data: {n}\n\n"))?;
            let () = may_go.lock().unwrap().recv().map_err(io::Error::other)?;
        }
        Ok(())
    });
    let gateway = Gateway::before(&origin);
    let mut connection = gateway.connect();
    connection.send_head("GET /events HTTP/1.1\nHost: a\nAccept: text/event-stream");
    let head = connection.head();
    assert_eq!(head.field("content-type"), Some("text/event-stream"));
    for n in 0..5 {
        assert_eq!(connection.0.chunk().unwrap().unwrap(), format!("data: {n}\n\n").into_bytes());
        go.send(()).unwrap();
    }
    assert_eq!(connection.0.chunk().unwrap(), None);
}

#[test]
fn a_head_arrives_before_the_body_begins() {
    let (go, may_go) = mpsc::channel();
    let may_go = Mutex::new(may_go);
    let origin = Origin::script(move |visit| {
        visit.head()?;
        visit.wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        let () = may_go.lock().unwrap().recv().map_err(io::Error::other)?;
        visit.wire.send("4\r\nbody\r\n0\r\n\r\n")
    });
    let gateway = Gateway::before(&origin);
    let mut connection = gateway.connect();
    connection.send_head("GET / HTTP/1.1\nHost: a");
    let head = connection.head();
    go.send(()).unwrap();
    let mut body = Vec::new();
    connection.0.body(head.response_framing("GET").unwrap(), &mut body).unwrap();
    assert_eq!(body, b"body");
}

#[test]
fn a_service_that_does_not_answer_in_time_gives_504() {
    let origin = Origin::script(silent);
    let gateway = gateway(&origin, "response: 300ms", "");
    let started = Instant::now();
    let reply = gateway.get("/x");
    assert_eq!(reply.status, 504);
    assert!((Duration::from_millis(250)..Duration::from_secs(5)).contains(&started.elapsed()), "{:?}", started.elapsed());
    assert_eq!(gateway.logged_path("/x")["flag"], "UT");
    assert_eq!(origin.count(), 1, "not sent twice");
}

#[test]
fn the_routes_response_timeout_replaces_the_upstreams() {
    let origin = Origin::script(silent);
    let gateway = gateway(&origin, "response: 30s", "response: 200ms");
    assert_eq!(gateway.get("/x").status, 504);
}

#[test]
fn the_request_timeout_ends_the_wait_for_a_head() {
    let origin = Origin::script(silent);
    let gateway = gateway(&origin, "response: 30s", "request: 300ms");
    let reply = gateway.get("/x");
    assert_eq!(reply.status, 504);
    assert_eq!(gateway.logged_path("/x")["flag"], "DT");
}

#[test]
fn the_request_timeout_does_not_cut_a_response_that_began() {
    let origin = Origin::script(|visit| talk(visit, 6, Duration::from_millis(100)));
    let gateway = gateway(&origin, "response: 5s, idle: 5s", "request: 300ms");
    assert_eq!(gateway.get("/x").text(), "xxxxxx");
}

#[test]
fn the_request_timeout_does_not_stop_a_client_that_keeps_sending() {
    let origin = Origin::script(|visit| {
        visit.request()?;
        visit.wire.send(ok("whole"))
    });
    let gateway = gateway(&origin, "response: 300ms", "request: 30s");
    let mut connection = gateway.connect();
    connection.send_head("POST / HTTP/1.1\nHost: a\nContent-Length: 6");
    for _ in 0..6 {
        std::thread::sleep(Duration::from_millis(100));
        connection.send("x");
    }
    assert_eq!(connection.response("POST").text(), "whole", "the response timeout begins when the request is sent");
}

#[test]
fn a_stream_that_keeps_talking_is_not_cut() {
    let origin = Origin::script(|visit| talk(visit, 12, Duration::from_millis(150)));
    let gateway = gateway(&origin, "response: 500ms, idle: 500ms, connect: 500ms", "request: 500ms");
    assert_eq!(gateway.get("/x").text(), "xxxxxxxxxxxx");
    assert_eq!(gateway.logged_path("/x")["flag"], "-");
}

#[test]
fn a_silent_stream_is_cut_after_the_idle_timeout() {
    let origin = Origin::script(|visit| {
        visit.head()?;
        visit.wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        visit.wire.send_chunk("x")?;
        visit.wire.rest();
        Ok(())
    });
    let gateway = gateway(&origin, "idle: 300ms", "");
    let mut connection = gateway.connect();
    connection.send_head("GET /x HTTP/1.1\nHost: a");
    connection.head();
    assert_eq!(connection.0.chunk().unwrap().unwrap(), b"x");
    let started = Instant::now();
    assert!(connection.0.chunk().is_err(), "an answer that was cut must not look whole");
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    assert_eq!(gateway.logged_path("/x")["flag"], "SI");
}

#[test]
fn an_upgraded_connection_is_not_cut_by_the_timeouts_of_its_head() {
    let origin = Origin::shouting();
    let gateway = gateway(&origin, "response: 200ms, connect: 200ms", "request: 200ms");
    let mut connection = gateway.upgraded("/x");
    std::thread::sleep(Duration::from_secs(1));
    connection.send("still here");
    assert_eq!(connection.exactly(10), b"STILL HERE");
}

#[test]
fn a_connection_that_cannot_be_made_in_time_gives_504() {
    // A listener whose queue is full answers no SYN: Linux drops it.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    while let Ok(stream) = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        queued.push(stream);
    }
    let gateway = Gateway::start(&format!(
        "upstreams: {{ one: {{ endpoints: [\"{address}\"], timeouts: {{ connect: 300ms }} }} }}\nroutes: {{ all: {{ to: {{ upstream: one }} }} }}"
    ));
    let started = Instant::now();
    assert_eq!(gateway.get("/x").status, 504);
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    assert_eq!(gateway.logged_path("/x")["flag"], "UF");
}

#[test]
fn an_idle_pooled_connection_is_closed_after_keepalive() {
    let (closed, was_closed) = mpsc::channel();
    let closed = Mutex::new(closed);
    let origin = Origin::script(move |visit| {
        visit.request()?;
        visit.wire.send(ok("x"))?;
        visit.wire.rest();
        let _ = closed.lock().unwrap().send(Instant::now());
        Ok(())
    });
    let gateway = gateway(&origin, "keepalive: 300ms", "");
    let started = Instant::now();
    gateway.get("/");
    let ended = was_closed.recv_timeout(crate::harness::PATIENCE).expect("the gateway closes it");
    assert!(ended - started < Duration::from_secs(10));
}
