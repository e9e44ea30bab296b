//! Clients that mean no good: nothing they send ends the process or reaches a service it should not.

use std::{io::Write, net::TcpStream, time::Duration};

use crate::harness::{Connection, Gateway, Origin, PATIENCE};

#[test]
fn random_bytes_never_end_the_process() {
    let origin = Origin::text("x");
    let mut gateway = Gateway::before(&origin);
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..300 {
        let mut bytes: Vec<u8> = (0..random.usize(1..2000)).map(|_| random.u8(..)).collect();
        let start: &[u8] = [
            &b""[..],
            b"GET / HTTP/1.1\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"\x16\x03\x01",
        ][random.usize(..5)];
        bytes.splice(..0, start.iter().copied());
        let mut stream = TcpStream::connect(gateway.web()).unwrap();
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
    }
    assert_eq!(gateway.get("/").status, 200);
    gateway.assert_sound();
}

#[test]
fn broken_heads_get_400_or_are_closed() {
    let origin = Origin::text("x");
    let mut gateway = Gateway::before(&origin);
    let heads: [&[u8]; 18] = [
        b"\r\n\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET * HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
        b"G\x00T / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX\x00: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n folded: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\nX: bare\r\r\n\r\n",
        b"GET / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ];
    for head in heads {
        let mut connection = gateway.connect();
        let _ = connection.0.send(head);
        let _ = connection.0.socket().shutdown(std::net::Shutdown::Write);
        if let Ok(reply) = connection.try_response("GET") {
            assert!((400..600).contains(&reply.status), "{} got {}", head.escape_ascii(), reply.status);
            let text = format!("{}{}", reply.head.text(), reply.text()).to_lowercase();
            assert!(!text.contains("pingora"), "what we are made of is nobody's business: {text}");
        }
    }
    gateway.assert_sound();
    assert_eq!(origin.count(), 0, "{:?}", origin.requests());
}

#[test]
fn no_smuggled_request_reaches_a_service() {
    let origin = Origin::echo();
    let mut gateway = Gateway::before(&origin);
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let bodies = [
        format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"),
        format!(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: {}\r\n\r\n0\r\n\r\n{smuggled}",
            5 + smuggled.len()
        ),
        format!(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\nContent-Length: {}\r\n\r\n{smuggled}",
            smuggled.len()
        ),
        format!(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\nContent-Length: {}\r\n\r\n{smuggled}",
            smuggled.len()
        ),
        format!(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n{smuggled}"
        ),
        format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: {}\r\n\r\n{smuggled}", smuggled.len()),
        format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {0}, {0}\r\n\r\n{smuggled}", smuggled.len()),
    ];
    for body in bodies {
        let mut connection = gateway.connect();
        connection.send(&body);
        let reply = connection.try_response("POST");
        assert!(reply.as_ref().map_or(true, |reply| reply.status == 400), "{body} got {reply:?}");
        assert!(connection.0.closes_within(PATIENCE), "after ambiguous framing the connection ends: {body}");
    }
    assert_eq!(origin.count(), 0, "{:?}", origin.requests());
    gateway.assert_sound();
}

#[test]
fn a_chunked_body_that_breaks_off_does_not_look_whole_to_the_service() {
    let origin = Origin::script(|visit| {
        assert!(visit.request().is_err(), "the body must not end well");
        Ok(())
    });
    let mut gateway = Gateway::before(&origin);
    let mut connection = gateway.connect();
    connection.send("POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfour\r\nzz\r\n");
    if let Ok(reply) = connection.try_response("POST") {
        assert_eq!(reply.status, 400);
    }
    gateway.assert_sound();
    assert_eq!(origin.count(), 0, "recorded only when whole");
}

#[test]
fn too_many_or_too_long_fields_are_refused() {
    let origin = Origin::text("x");
    let mut gateway = Gateway::before(&origin);
    let many: String = (0..300).map(|n| format!("x-{n}: y\r\n")).collect();
    let long = format!("x: {}\r\n", "y".repeat(2 << 20));
    for fields in [many, long] {
        let mut connection = gateway.connect();
        let _ = connection.0.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
        if let Ok(reply) = connection.try_response("GET") {
            assert!([400, 431].contains(&reply.status), "{}", reply.status);
        }
    }
    assert_eq!(origin.count(), 0);
    gateway.assert_sound();
}

#[test]
fn a_client_that_leaves_is_noted_and_its_service_released() {
    let origin = Origin::script(|visit| {
        visit.head()?;
        visit.wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        loop {
            visit.wire.send_chunk([b'x'; 1000])?;
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    let gateway = Gateway::before(&origin);
    let mut connection = gateway.connect();
    connection.send_head("GET /x HTTP/1.1\nHost: a");
    connection.head();
    drop(connection);
    assert_eq!(gateway.logged_path("/x")["flag"], "DC");
}

#[test]
fn a_client_that_leaves_before_the_answer_frees_the_service() {
    let (left, was_left) = std::sync::mpsc::channel();
    let left = std::sync::Mutex::new(left);
    let origin = Origin::script(move |visit| {
        visit.head()?;
        visit.wire.rest();
        let _ = left.lock().unwrap().send(());
        Ok(())
    });
    let gateway = Gateway::start(&format!(
        "upstreams: {{ one: {{ endpoints: [\"{origin}\"] }} }}\nroutes: {{ x: {{ match: {{ path: /x }}, to: {{ upstream: one }} }} }}"
    ));
    let mut connection = gateway.connect();
    connection.send_head("GET /nowhere HTTP/1.1\nHost: a");
    connection.send_head("GET /x HTTP/1.1\nHost: a");
    origin.wait_for(1);
    // Closed with an answer unread, the connection is reset. One that only ends its sending would wait for its answer.
    drop(connection);
    was_left.recv_timeout(PATIENCE).expect("the gateway leaves too");
    let entry = gateway.logged_path("/x");
    assert_eq!((&entry["flag"], &entry["status"]), (&"DC".into(), &0.into()), "{entry}");
}

#[test]
fn a_client_that_ends_its_sending_gets_its_answer() {
    let (ended, was_ended) = std::sync::mpsc::channel::<()>();
    let was_ended = std::sync::Mutex::new(was_ended);
    let origin = Origin::script(move |visit| {
        visit.head()?;
        was_ended.lock().unwrap().recv_timeout(PATIENCE).expect("the client ends its sending first");
        visit.wire.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
    });
    let gateway = Gateway::before(&origin);
    let mut connection = gateway.connect();
    connection.send_head("GET /x HTTP/1.1\nHost: a");
    connection.0.socket().shutdown(std::net::Shutdown::Write).unwrap();
    origin.wait_for(1);
    ended.send(()).unwrap();
    assert_eq!(connection.response("GET").text(), "hi");
}

#[test]
fn an_idle_connection_and_half_a_head_do_no_harm() {
    let origin = Origin::text("x");
    let mut gateway = Gateway::before(&origin);
    let idle: Vec<_> = (0..100).map(|_| TcpStream::connect(gateway.web()).unwrap()).collect();
    let half: Vec<_> = (0..100)
        .map(|_| {
            let mut connection = Connection::open(gateway.web());
            connection.send("GET / HTTP/1.1\r\nHo");
            connection
        })
        .collect();
    assert_eq!(gateway.get("/").status, 200);
    drop((idle, half));
    gateway.assert_sound();
}
