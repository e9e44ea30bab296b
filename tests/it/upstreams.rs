//! Balancing, health and failing services.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use hyper::body::Frame;

use crate::harness::{
    Gateway, Origin, eventually,
    h2::{self, Service},
    origin::{Visit, nobody, ok},
    wire::Response,
};

fn before(endpoints: &str, more: &str) -> Gateway {
    Gateway::start(&format!(
        "upstreams: {{ one: {{ endpoints: [{endpoints}]{more} }} }}\nroutes: {{ all: {{ to: {{ upstream: one }} }} }}"
    ))
}

#[track_caller]
fn assert_bad_gateway(gateway: &Gateway, reply: &Response, flag: &str) {
    assert_eq!(reply.status, 502, "{}", reply.text());
    assert_eq!(reply.field("content-type"), Some("application/problem+json"));
    assert_eq!(gateway.logged(|entry| entry["status"] == 502)["flag"], flag);
}

#[test]
fn weights_are_kept_and_spread_smoothly() {
    let (three, one, none) = (Origin::text("3"), Origin::text("1"), Origin::text("0"));
    let gateway = before(&format!("{{ address: \"{three}\", weight: 3 }}, \"{one}\", {{ address: \"{none}\", weight: 0 }}"), "");
    let turns: String = (0..40).map(|_| gateway.get("/").text()).collect();
    assert_eq!((three.count(), one.count(), none.count()), (30, 10, 0));
    assert!(!turns.contains("3333333"), "smooth, not in blocks: {turns}");
}

#[test]
fn equal_endpoints_take_turns() {
    let origins = [Origin::text("a"), Origin::text("b"), Origin::text("c")];
    let endpoints: Vec<_> = origins.iter().map(|origin| format!("\"{origin}\"")).collect();
    let gateway = before(&endpoints.join(", "), "");
    (0..30).for_each(|_| drop(gateway.get("/")));
    assert_eq!(origins.each_ref().map(Origin::count), [10, 10, 10]);
}

#[test]
fn a_split_draws_by_weight() {
    let (many, few, none) = (Origin::text("many"), Origin::text("few"), Origin::text("none"));
    let gateway = Gateway::start(&format!(
        "upstreams: {{ many: {{ endpoints: [\"{many}\"] }}, few: {{ endpoints: [\"{few}\"] }}, none: {{ endpoints: [\"{none}\"] }} }}
routes: {{ all: {{ to: {{ split: [{{ upstream: many, weight: 80 }}, {{ upstream: few, weight: 20 }}, {{ upstream: none, weight: 0 }}] }} }} }}"
    ));
    let mut connection = gateway.connect();
    let mut drawn = BTreeMap::<String, u32>::new();
    for _ in 0..500 {
        *drawn.entry(connection.ask("GET / HTTP/1.1\nHost: a").text()).or_default() += 1;
    }
    // 100 expected, standard deviation 9: six of them.
    assert!((46..155).contains(&drawn["few"]), "{drawn:?}");
    assert_eq!(drawn.get("none"), None);
}

#[test]
fn a_connect_failure_is_retried_on_another_endpoint() {
    let origin = Origin::echo();
    let gateway = before(&format!("\"{}\", \"{origin}\"", nobody()), "");
    for n in 0..10 {
        let reply = gateway.ask(&format!("POST /{n} HTTP/1.1\nHost: a\nContent-Length: 4\n\nbody"));
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
    assert_eq!(origin.count(), 10);
}

#[test]
fn no_service_at_all_gives_502() {
    let gateway = before(&format!("\"{}\", \"{}\"", nobody(), nobody()), "");
    let reply = gateway.get("/x");
    assert_bad_gateway(&gateway, &reply, "UF");
    assert!(!reply.text().contains("127.0.0.1"), "{}", reply.text());
}

/// An origin that is healthy while the switch is on.
fn switched() -> (Arc<AtomicBool>, Origin) {
    let healthy = Arc::new(AtomicBool::new(true));
    let switch = healthy.clone();
    let origin = Origin::answer(move |request| match (request.target(), switch.load(Ordering::SeqCst)) {
        ("/healthz", false) => "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n".to_owned(),
        _ => ok("x"),
    });
    (healthy, origin)
}

const HTTP_HEALTH: &str =
    ", health: { http: { path: /healthz, interval: 50ms, timeout: 1s, healthy_after: 1, unhealthy_after: 1 } }";

/// How many of these endpoints got real requests while we asked ten times.
fn reached(gateway: &Gateway, origins: [&Origin; 2]) -> [bool; 2] {
    let real = |origin: &Origin| origin.requests().iter().filter(|request| request.target() == "/").count();
    let before = origins.map(real);
    (0..10).for_each(|_| assert_eq!(gateway.get("/").status, 200));
    std::array::from_fn(|n| real(origins[n]) > before[n])
}

#[test]
fn http_health_takes_an_endpoint_out_and_back() {
    let ((first_healthy, first), (_second_healthy, second)) = (switched(), switched());
    let gateway = before(&format!("\"{first}\", \"{second}\""), HTTP_HEALTH);
    assert_eq!(reached(&gateway, [&first, &second]), [true, true]);
    first_healthy.store(false, Ordering::SeqCst);
    eventually("it is out", || (reached(&gateway, [&first, &second]) == [false, true]).then_some(()));
    first_healthy.store(true, Ordering::SeqCst);
    eventually("it is back", || (reached(&gateway, [&first, &second]) == [true, true]).then_some(()));
}

#[test]
fn no_healthy_endpoint_gives_503_at_once() {
    let (healthy, origin) = switched();
    let gateway = before(&format!("\"{origin}\""), HTTP_HEALTH);
    assert_eq!(gateway.get("/").status, 200);
    healthy.store(false, Ordering::SeqCst);
    let reply = eventually("it is out", || Some(gateway.get("/")).filter(|reply| reply.status != 200));
    assert_eq!(reply.status, 503);
    assert_eq!(gateway.logged(|entry| entry["status"] == 503)["flag"], "UH");
}

#[test]
fn tcp_health_takes_a_dead_endpoint_out_and_back() {
    let second = Origin::text("second");
    let address = nobody();
    let first = Origin::answer_at(address, |_| ok("first"));
    let health = ", health: { tcp: { interval: 50ms, timeout: 1s, healthy_after: 1, unhealthy_after: 1 } }";
    let gateway = before(&format!("\"{first}\", \"{second}\""), health);
    drop(first);
    let unhealthy = |line: &str| {
        line.starts_with("banyan_upstream")
            && line.contains("health")
            && line.contains(&address.to_string())
            && line.ends_with(" 0")
    };
    eventually("its death shows", || gateway.admin("/metrics").text().lines().any(unhealthy).then_some(()));
    (0..10).for_each(|_| assert_eq!(gateway.get("/").text(), "second"));
    let _first = Origin::answer_at(address, |_| ok("first"));
    eventually("it is back", || (gateway.get("/").text() == "first").then_some(()));
}

/// Sends these bytes in answer to a head, then ends the connection.
fn says(bytes: &'static [u8]) -> Origin {
    Origin::script(move |visit: &mut Visit| {
        visit.head()?;
        visit.wire.send(bytes)
    })
}

#[test]
fn what_is_not_http_gives_502() {
    for garbage in [
        &b"SSH-2.0-OpenSSH_9.2\r\n\r\n"[..],
        b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon here\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nBad Name: 1\r\nContent-Length: 0\r\n\r\n",
    ] {
        let origin = says(garbage);
        let mut gateway = Gateway::before(&origin);
        let reply = gateway.get("/x");
        assert_eq!(reply.status, 502, "{}", garbage.escape_ascii());
        let flag = gateway.logged_path("/x")["flag"].clone();
        assert!(flag == "UPE" || flag == "UC", "{} after {}", flag, garbage.escape_ascii());
        gateway.assert_sound();
    }
}

#[test]
fn a_service_that_breaks_the_protocol_is_flagged() {
    let origin = says(b"SSH-2.0-OpenSSH_9.2\r\n\r\n");
    let gateway = Gateway::before(&origin);
    let reply = gateway.get("/x");
    assert_bad_gateway(&gateway, &reply, "UPE");
}

#[test]
fn a_service_that_closes_without_an_answer_gives_502() {
    let origin = says(b"");
    let gateway = Gateway::before(&origin);
    let reply = gateway.ask("POST /x HTTP/1.1\nHost: a\nContent-Length: 0");
    assert_bad_gateway(&gateway, &reply, "UC");
    assert_eq!(origin.count(), 1, "what may have been done is not sent twice");
}

#[test]
fn a_service_that_closes_inside_its_head_gives_502() {
    let origin = says(b"HTTP/1.1 200 OK\r\nContent-Le");
    let gateway = Gateway::before(&origin);
    let reply = gateway.get("/x");
    assert_bad_gateway(&gateway, &reply, "UC");
}

#[test]
fn a_service_that_resets_gives_502() {
    let origin = Origin::script(|visit| {
        visit.head()?;
        visit.reset();
        Ok(())
    });
    let gateway = Gateway::before(&origin);
    let reply = gateway.get("/x");
    assert_bad_gateway(&gateway, &reply, "UC");
}

#[test]
fn an_answer_that_dies_in_its_body_does_not_look_whole() {
    let cut: [&'static [u8]; 2] = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nonly this\r\n",
    ];
    for bytes in cut {
        let origin = says(bytes);
        let mut gateway = Gateway::before(&origin);
        let mut connection = gateway.connect();
        connection.send_head("GET /x HTTP/1.1\nHost: a");
        let head = connection.head();
        assert_eq!(head.status().unwrap(), 200);
        let mut body = Vec::new();
        let end = connection.0.body(head.response_framing("GET").unwrap(), &mut body);
        assert!(end.is_err(), "{}", body.escape_ascii());
        assert_eq!(gateway.logged_path("/x")["flag"], "UC");
        gateway.assert_sound();
    }
}

#[test]
fn a_broken_chunk_does_not_look_whole() {
    let origin = says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfour\r\nzz\r\n");
    let gateway = Gateway::before(&origin);
    let mut connection = gateway.connect();
    connection.send_head("GET /x HTTP/1.1\nHost: a");
    assert!(connection.try_response("GET").is_err());
}

#[test]
fn a_dying_service_is_left_for_another() {
    let dies = Origin::script(|visit| {
        visit.head()?;
        visit.wire.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this")
    });
    let lives = Origin::text("alive");
    let gateway = before(&format!("\"{dies}\", \"{lives}\""), "");
    let whole = (0..10).filter(|_| gateway.connect().send_head("GET / HTTP/1.1\nHost: a").try_response("GET").is_ok()).count();
    assert_eq!(whole, 5);
}

#[test]
fn an_early_answer_to_an_unfinished_body_reaches_the_client() {
    let origin = Origin::script(|visit| {
        visit.head()?;
        visit.wire.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
    });
    let gateway = Gateway::before(&origin);
    let mut connection = gateway.connect();
    connection.send("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nbegun");
    let reply = connection.response("POST");
    assert_eq!((reply.status, reply.text().as_str()), (403, "no"));
}

#[test]
fn interim_responses_do_not_end_the_exchange() {
    let origin = says(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let gateway = Gateway::before(&origin);
    assert_eq!(gateway.get("/x").text(), "ok");
}

#[test]
fn a_response_without_a_body_leaves_the_connection_in_order() {
    let origin = Origin::answer(|request| match request.target() {
        "/204" => "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
        "/304" => "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n".to_owned(),
        "/head" => "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n".to_owned(),
        _ => ok("next"),
    });
    let gateway = Gateway::before(&origin);
    let mut connection = gateway.connect();
    for (head, status) in [("GET /204 HTTP/1.1", 204), ("GET /304 HTTP/1.1", 304), ("HEAD /head HTTP/1.1", 200)] {
        assert_eq!(connection.ask(&format!("{head}\nHost: a")).status, status);
        assert_eq!(connection.ask("GET /next HTTP/1.1\nHost: a").text(), "next");
    }
    assert_eq!(origin.connections(), 1);
}

#[test]
fn doubtful_framing_of_a_service_never_reaches_the_client() {
    for head in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 500\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        "Content-Length: 5, 6\r\n\r\nhello!",
        "Content-Length: five\r\n\r\nhello",
        "Content-Length: -5\r\n\r\nhello",
        "Transfer-Encoding: gzip\r\n\r\nhello",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ] {
        let origin = Origin::script(move |visit| {
            visit.head()?;
            visit.wire.send(format!("HTTP/1.1 200 OK\r\n{head}"))
        });
        let mut gateway = Gateway::before(&origin);
        let mut connection = gateway.connect();
        connection.send_head("GET /x HTTP/1.1\nHost: a");
        match connection.try_response("GET") {
            Ok(reply) if reply.status == 200 => assert_eq!(reply.text(), "hello", "{head}"),
            Ok(reply) => assert_eq!(reply.status, 502, "{head}"),
            Err(e) => panic!("{e}: {head}"),
        }
        gateway.assert_sound();
    }
}

#[test]
fn a_service_that_does_not_speak_the_protocol_configured_gives_502() {
    let origin = Origin::text("HTTP/1.1 only");
    let gateway = before(&format!("\"{origin}\""), ", protocol: h2c");
    let reply = gateway.get("/x");
    assert_eq!(reply.status, 502, "{}", reply.text());
    let flag = gateway.logged_path("/x")["flag"].clone();
    assert!(["UPE", "UC", "UF"].contains(&flag.as_str().unwrap()), "{flag}");
}

#[test]
fn timeouts_hold_for_http2_services_too() {
    let silent = Origin::script(|visit| {
        visit.wire.rest();
        Ok(())
    });
    let gateway = before(&format!("\"{silent}\""), ", protocol: h2c, timeouts: { response: 300ms }");
    let reply = gateway.get("/x");
    assert_eq!((reply.status, &gateway.logged_path("/x")["flag"]), (504, &"UT".into()));
}

#[test]
fn a_silent_http2_stream_is_cut() {
    let falls_silent = Service::h2c(|_| {
        let (sender, body) = h2::stream();
        sender.send(Frame::data(Bytes::from_static(b"begun"))).unwrap();
        // Never dropped: the stream does not end.
        std::mem::forget(sender);
        http::Response::new(body)
    });
    let gateway = before(&format!("\"{falls_silent}\""), ", protocol: h2c, timeouts: { idle: 300ms }");
    let mut connection = gateway.connect();
    connection.send_head("GET /x HTTP/1.1\nHost: a");
    connection.head();
    assert_eq!(connection.0.chunk().unwrap().unwrap(), b"begun");
    assert!(connection.0.chunk().is_err(), "an answer that was cut must not look whole");
    assert_eq!(gateway.logged_path("/x")["flag"], "SI");
}
