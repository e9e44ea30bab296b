//! What an attacker found from outside, each once more.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use hyper::body::Frame;

use crate::harness::{
    Gateway, Origin, eventually,
    h2::{self, Service},
    origin::ok,
};

/// A gateway that lets bodies of 100 bytes pass to this service.
#[track_caller]
fn limited(service: &str) -> Gateway {
    Gateway::start(&format!(
        "upstreams: {{ one: {{ {service} }} }}\nroutes: {{ all: {{ policies: {{ request_limits: {{ body: 100B }} }}, to: {{ upstream: one }} }} }}"
    ))
}

fn post(path: &str) -> http::request::Builder {
    Request::post(format!("http://a.example{path}"))
}

#[test]
fn an_empty_last_frame_of_http2_ends_the_body_once() {
    let origin = Origin::echo();
    let mut gateway = Gateway::before(origin.address());
    let web = gateway.web();
    for _ in 0..5 {
        let answer = h2::play(async move {
            let mut client = h2::h2c(web).await;
            let frames = [Frame::data(Bytes::from("abcde")), Frame::data(Bytes::new())];
            let (sender, body) = h2::stream();
            for frame in frames {
                sender.send(frame).unwrap();
            }
            drop(sender);
            h2::ask(&mut client, post("/upload").body(body).unwrap()).await
        });
        assert_eq!(answer.head.status, 200);
        assert!(answer.text().ends_with("abcde"), "{}", answer.text());
        // The next one uses the pooled connection: it must not find a second end of the first one's body before it.
        assert_eq!(gateway.get("/next").status, 200);
    }
    assert_eq!(origin.requests().iter().filter(|request| request.target() == "/next").count(), 5);
    gateway.assert_sound();
}

#[test]
fn a_body_that_is_sent_again_counts_once() {
    // Keeps a connection for one request, then closes it while the second is read: the gateway tries again on a new one.
    let origin = Origin::script(|visit| {
        if visit.request()?.is_some() {
            visit.wire.send(ok("first"))?;
            visit.request()?;
        }
        Ok(())
    });
    let mut gateway = limited(&format!("endpoints: [\"{}\"]", origin.address()));
    let put = format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 60\r\n\r\n{}", "x".repeat(60));
    for _ in 0..4 {
        let mut connection = gateway.connect();
        connection.send(&put);
        assert_eq!(connection.response("PUT").status, 200);
    }
    assert!(origin.count() > 4, "some were sent again");
    gateway.assert_sound();
}

#[test]
fn a_limit_on_bodies_does_not_end_a_websocket() {
    let origin = Origin::shouting();
    let mut gateway = limited(&format!("endpoints: [\"{}\"]", origin.address()));
    let mut connection = gateway.upgraded("/socket");
    for _ in 0..10 {
        connection.send("a frame of thirty bytes, about");
        assert_eq!(connection.exactly(30), b"A FRAME OF THIRTY BYTES, ABOUT");
    }
    gateway.assert_sound();
}

#[test]
fn the_host_of_an_absolute_target_goes_to_the_service() {
    let origin = Origin::text("ok");
    let mut gateway = Gateway::before(origin.address());
    let reply = gateway.ask("GET http://x.example:81/a HTTP/1.0\nX: y");
    assert_eq!(reply.status, 200);
    let seen = origin.last();
    assert_eq!(
        (seen.target(), seen.field("host"), seen.field("x-forwarded-host")),
        ("/a", Some("x.example:81"), Some("x.example:81"))
    );
    gateway.assert_sound();
}

#[test]
fn a_streamed_body_over_the_limit_ends_at_once_before_an_http2_service() {
    let service = Service::h2c(|_| http::Response::new(h2::full("ok")));
    let mut gateway = limited(&format!("protocol: h2c, endpoints: [\"{}\"]", service.address));
    let chunk = format!("C8\r\n{}\r\n0\r\n\r\n", "a".repeat(200));
    for _ in 0..3 {
        let mut connection = gateway.connect();
        connection.send(format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}"));
        assert_eq!(connection.response("POST").status, 413);
    }
    eventually("no request is left behind", || {
        (gateway.metric("banyan_requests_in_flight{route=\"all\"}") == Some(0.0)).then_some(())
    });
    gateway.assert_sound();
}

#[test]
fn a_client_that_pauses_in_its_upload_is_not_the_services_fault() {
    let origin = Origin::echo();
    let mut gateway = Gateway::start(&format!(
        "upstreams: {{ one: {{ endpoints: [\"{}\"], timeouts: {{ response: 300ms, idle: 300ms }} }} }}\nroutes: {{ all: {{ timeouts: {{ request: 400ms }}, to: {{ upstream: one }} }} }}",
        origin.address()
    ));
    let web = gateway.web();
    let answer = h2::play(async move {
        let mut client = h2::h2c(web).await;
        let (sender, body) = h2::stream();
        sender.send(Frame::data(Bytes::from("begun, "))).unwrap();
        let pause = tokio::spawn(async move {
            // Longer than every timeout of the route: the passing of time is what is tested.
            tokio::time::sleep(Duration::from_millis(900)).await;
            sender.send(Frame::data(Bytes::from("done"))).unwrap();
        });
        let answer = h2::ask(&mut client, post("/slow").body(body).unwrap()).await;
        pause.await.unwrap();
        answer
    });
    assert_eq!(answer.head.status, 200, "{}", answer.text());
    assert!(answer.text().ends_with("begun, done"));
    gateway.assert_sound();
}

#[test]
fn a_101_that_nobody_asked_for_is_no_answer() {
    let origin = Origin::answer(|_| "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: evil\r\n\r\n");
    let mut gateway = Gateway::before(origin.address());
    assert_eq!(gateway.get("/").status, 502);
    gateway.assert_sound();
}

#[test]
fn captures_bring_no_parameters_into_a_query() {
    let origin = Origin::text("ok");
    let mut gateway = Gateway::start(&format!(
        "upstreams: {{ one: {{ endpoints: [\"{}\"] }} }}\nroutes: {{ all: {{ match: {{ path: \"/find/{{term}}\" }}, rewrite: {{ path: \"/search?role=user&q={{term}}\" }}, to: {{ upstream: one }} }} }}",
        origin.address()
    ));
    assert_eq!(gateway.get("/find/a&role=admin+b").status, 200);
    assert_eq!(origin.last().target(), "/search?role=user&q=a%26role%3Dadmin%2Bb");
    gateway.assert_sound();
}

#[test]
fn a_client_that_reads_slowly_does_not_make_the_service_silent() {
    const BODY: usize = 32 << 20;
    let origin = Origin::script(|visit| {
        if visit.request()?.is_some() {
            visit.wire.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {BODY}\r\n\r\n"))?;
            visit.wire.send(vec![b'x'; BODY])?;
        }
        Ok(())
    });
    let mut gateway = Gateway::start(&format!(
        "upstreams: {{ one: {{ endpoints: [\"{}\"], timeouts: {{ idle: 300ms }} }} }}\nroutes: {{ all: {{ to: {{ upstream: one }} }} }}",
        origin.address()
    ));
    let mut connection = gateway.connect();
    connection.send_head("GET / HTTP/1.1\nHost: a");
    assert_eq!(connection.head().status().unwrap(), 200);
    // Longer than `idle`: the passing of time is what is tested.
    std::thread::sleep(Duration::from_millis(1000));
    assert_eq!(connection.exactly(BODY).len(), BODY);
    gateway.assert_sound();
}

#[test]
fn what_an_answer_says_of_the_connection_is_true() {
    let nobody = crate::harness::origin::nobody();
    let closing = Origin::script(|visit| visit.head().map(drop));
    let mut gateway = Gateway::start(&format!(
        "upstreams: {{ dead: {{ endpoints: [\"{nobody}\"] }}, closing: {{ endpoints: [\"{}\"] }} }}\nroutes: {{ dead: {{ match: {{ path: /dead }}, to: {{ upstream: dead }} }}, closing: {{ match: {{ path: /closing }}, to: {{ upstream: closing }} }} }}",
        closing.address()
    ));
    for (path, status) in [("/dead", 502), ("/closing", 502), ("/nowhere", 404)] {
        let mut connection = gateway.connect();
        let reply = connection.ask(&format!("GET {path} HTTP/1.1\nHost: a"));
        assert_eq!(reply.status, status);
        match reply.field("connection") {
            Some("close") => assert!(connection.0.closes_within(crate::harness::PATIENCE), "{path}"),
            _ => assert_eq!(connection.ask("GET /nowhere HTTP/1.1\nHost: a").status, 404, "{path}"),
        }
    }
    gateway.assert_sound();
}

#[test]
fn a_client_that_was_told_to_continue_is_still_told_that_its_body_is_too_large() {
    let origin = Origin::echo();
    let mut gateway = limited(&format!("endpoints: [\"{}\"]", origin.address()));
    let mut connection = gateway.connect();
    connection.send_head("PUT / HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\nExpect: 100-continue");
    assert_eq!(connection.0.head().unwrap().unwrap().status().unwrap(), 100);
    connection.send(format!("C8\r\n{}\r\n0\r\n\r\n", "a".repeat(200)));
    assert_eq!(connection.response("PUT").status, 413);
    gateway.assert_sound();
}
