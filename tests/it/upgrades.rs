//! Upgrades (RFC 9110 §7.8): which are followed, and that none is lost.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::harness::{Gateway, Origin};

#[test]
fn what_a_client_sends_before_its_upgrade_is_accepted_is_not_lost() {
    let origin = Origin::shouting();
    let gateway = Gateway::before(&origin);
    let mut connection = gateway.connect();
    connection.send("GET /x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nearly");
    assert_eq!(connection.0.head().unwrap().unwrap().status().unwrap(), 101);
    connection.send(" and late");
    assert_eq!(connection.exactly(14), b"EARLY AND LATE");
}

/// pingora-proxy closes some at once, unless it is kept from hearing the service before it has noted the end of the request.
#[test]
fn no_upgraded_connection_is_closed_at_once() {
    let origin = Origin::shouting();
    let gateway = Gateway::before(&origin);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..250).for_each(|_| drop(gateway.upgraded("/x"))));
        }
    });
}

#[test]
fn an_upgrade_that_cannot_be_followed_is_a_plain_request() {
    let origin = Origin::echo();
    let gateway = Gateway::before(&origin);
    let mut connection = gateway.connect();
    for fields in [
        "Upgrade: websocket",
        "Upgrade: websocket\r\nConnection: keep-alive",
        "Upgrade: websocket, h2c\r\nConnection: Upgrade",
        "Upgrade: TLS/1.0\r\nConnection: Upgrade",
    ] {
        connection.send(format!("GET /x HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert!(connection.response("GET").text().starts_with("GET /x "), "{fields}");
        assert!(origin.requests().iter().all(|request| request.field("upgrade").is_none()), "{fields}");
        assert!(connection.response("GET").text().starts_with("GET /next "), "what follows is the next request: {fields}");
    }
}

#[test]
fn an_upgrade_with_a_body_carries_the_body_and_does_not_upgrade() {
    let origin = Origin::echo();
    let gateway = Gateway::before(&origin);
    let mut connection = gateway.connect();
    let upgrade = "Host: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n";
    let next = "GET /next HTTP/1.1\r\nHost: a\r\n\r\n";
    connection.send(format!("POST /x HTTP/1.1\r\n{upgrade}Content-Length: 4\r\n\r\nbody{next}"));
    assert!(connection.response("POST").text().ends_with("\nbody"));
    assert!(connection.response("GET").text().starts_with("GET /next "));
    connection.send(format!("GET /x HTTP/1.1\r\n{upgrade}Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n{next}"));
    assert!(connection.response("GET").text().ends_with("\nbody"));
    assert!(connection.response("GET").text().starts_with("GET /next "));
    assert!(origin.requests().iter().all(|request| request.field("upgrade").is_none()));
}

#[test]
fn an_upgrade_that_is_not_accepted_is_answered_as_any_request() {
    let origin = Origin::text("no");
    let gateway = Gateway::before(&origin);
    let mut connection = gateway.connect();
    for _ in 0..3 {
        let reply = connection.ask("GET /x HTTP/1.1\nHost: a\nUpgrade: websocket\nConnection: Upgrade");
        assert_eq!((reply.status, reply.text().as_str()), (200, "no"));
    }
    assert_eq!(origin.last().field("upgrade"), Some("websocket"));
}

/// The same on connections that begin with a PROXY header, which Pingora does not open.
#[test]
fn no_upgraded_connection_with_a_proxy_header_is_closed_at_once() {
    let origin = Origin::script(|visit| {
        let mut head = Vec::new();
        let mut buffer = [0; 1024];
        while !head.ends_with(b"\r\n\r\n") {
            let read = visit.wire.some(&mut buffer)?;
            head.extend_from_slice(&buffer[..read]);
        }
        visit.wire.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")?;
        let read = visit.wire.some(&mut buffer)?;
        visit.wire.send(buffer[..read].to_ascii_uppercase())
    });
    let gateway = Gateway::start(&format!(
        "upstreams: {{ one: {{ endpoints: [\"{origin}\"], proxy_protocol: v1 }} }}\nroutes: {{ all: {{ to: {{ upstream: one }} }} }}"
    ));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..100).for_each(|_| drop(gateway.upgraded("/x"))));
        }
    });
}

#[test]
fn a_connection_that_refused_an_upgrade_is_not_used_for_another() {
    let visits = AtomicUsize::new(0);
    let origin = Origin::script(move |visit| {
        let first = visits.fetch_add(1, Relaxed).is_multiple_of(2);
        visit.head()?;
        if first {
            visit.wire.send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")?;
            assert!(visit.head().map_or(true, |head| head.is_none()), "another upgrade on this connection");
            return Ok(());
        }
        visit.wire.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")?;
        let mut buffer = [0; 16];
        let read = visit.wire.some(&mut buffer)?;
        visit.wire.send(buffer[..read].to_ascii_uppercase())
    });
    let gateway = Gateway::before(&origin);
    for _ in 0..100 {
        let refused = gateway.connect().ask("GET /x HTTP/1.1\nHost: a\nConnection: Upgrade\nUpgrade: websocket");
        assert_eq!(refused.status, 401);
        gateway.upgraded("/x");
    }
}
