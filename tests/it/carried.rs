//! What is carried is carried whole, for as long as it may last and no longer: gRPC calls, uploads, answers of every kind.

use std::{
    sync::{Mutex, mpsc},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Frame;

use crate::harness::{
    Gateway, Origin, PATIENCE,
    h2::{self, Answer, Body, Service, ask, frames, full, play},
    origin::ok,
};

/// Before a service that speaks HTTP/2, with these keys of its route.
fn before(service: &Service, route: &str) -> Gateway {
    Gateway::start(&format!(
        "upstreams: {{ one: {{ protocol: h2c, endpoints: [\"{service}\"] }} }}\nroutes: {{ all: {{ {route} to: {{ upstream: one }} }} }}"
    ))
}

fn call(path: &str, timeout: &str) -> http::request::Builder {
    let call = Request::post(format!("http://a{path}")).header("content-type", "application/grpc").header("te", "trailers");
    if timeout.is_empty() { call } else { call.header("grpc-timeout", timeout) }
}

/// A stream that never ends.
fn endless() -> Body {
    let (sender, body) = h2::stream();
    sender.send(Frame::data(Bytes::from_static(b"\0\0\0\0\x02hi"))).unwrap();
    std::mem::forget(sender);
    body
}

fn streaming(_: &Request<Bytes>) -> Response<Body> {
    Response::builder().header("content-type", "application/grpc").body(endless()).unwrap()
}

fn told(_: &Request<Bytes>) -> Response<Body> {
    let trailers = http::HeaderMap::from_iter([("grpc-status".parse().unwrap(), http::HeaderValue::from_static("0"))]);
    Response::builder().header("content-type", "application/grpc").body(frames([Frame::trailers(trailers)])).unwrap()
}

#[track_caller]
fn assert_trailers_only(answer: &Answer, status: &str) {
    assert_eq!((answer.head.status.as_u16(), answer.field("grpc-status")), (200, Some(status)), "{answer:?}");
    assert!(answer.head_only, "the head ends the stream: {answer:?}");
    assert_eq!(answer.field("content-type"), Some("application/grpc"));
    assert!(answer.field("content-length").is_none());
    let message = answer.field("grpc-message").expect("a message");
    assert!(message.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'%'), "{message}");
}

#[test]
fn a_grpc_call_that_is_not_answered_in_its_time_is_told_so() {
    let (left, was_left) = mpsc::channel();
    let left = Mutex::new(left);
    let origin = Origin::script(move |visit| {
        visit.head()?;
        visit.wire.rest();
        left.lock().unwrap().send(Instant::now()).map_err(std::io::Error::other)
    });
    let gateway = Gateway::before(&origin);
    let started = Instant::now();
    let answer = play(async {
        let mut client = h2::h2c(gateway.web()).await;
        ask(&mut client, call("/x", "300m").body(full("\0\0\0\0\0")).unwrap()).await
    });
    assert_trailers_only(&answer, "4");
    assert!((Duration::from_millis(290)..Duration::from_secs(10)).contains(&started.elapsed()), "{:?}", started.elapsed());
    was_left.recv_timeout(PATIENCE).expect("the service is left");
    assert_eq!(gateway.logged_path("/x")["flag"], "DT");
    assert_eq!(gateway.metric("banyan_requests_flagged_total{flag=\"DT\"}"), Some(1.0));
}

#[test]
fn the_time_of_a_grpc_call_ends_a_stream_that_keeps_talking() {
    let origin = Origin::script(|visit| {
        visit.head()?;
        visit.wire.send("HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        loop {
            visit.wire.send_chunk("\0\0\0\0\x01x")?;
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let gateway = Gateway::before(&origin);
    let ended = play(async {
        let mut client = h2::h2c(gateway.web()).await;
        let response = client.send_request(call("/x", "400m").body(full("")).unwrap()).await.unwrap();
        response.into_body().collect().await.err()
    });
    let error = ended.expect("the stream is reset, it does not look whole");
    assert!(format!("{error:?}").contains("Reset"), "{error:?}");
    assert_eq!(gateway.logged_path("/x")["flag"], "DT");
}

#[test]
fn the_time_of_a_grpc_call_ends_a_stream_to_which_the_client_still_sends() {
    let service = Origin::script(|visit| {
        visit.head()?;
        while visit.wire.chunk()?.is_some() {}
        Ok(())
    });
    let gateway = Gateway::before(&service);
    let answer = play(async {
        let mut client = h2::h2c(gateway.web()).await;
        let (sender, body) = h2::stream();
        let sending = tokio::spawn(async move {
            while sender.send(Frame::data(Bytes::from_static(b"\0\0\0\0\x01x"))).is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let answer = ask(&mut client, call("/x", "400m").body(body).unwrap()).await;
        sending.abort();
        answer
    });
    assert_trailers_only(&answer, "4");
    assert_eq!(gateway.logged_path("/x")["flag"], "DT");
}

#[test]
fn a_grpc_stream_in_both_directions_ends_with_its_time() {
    let service = Service::h2c(streaming);
    let gateway = before(&service, "");
    play(async {
        let mut client = h2::h2c(gateway.web()).await;
        let response = client.send_request(call("/x", "500m").body(full("")).unwrap()).await.unwrap();
        assert_eq!(response.status(), 200);
        assert!(response.into_body().collect().await.is_err(), "reset");
    });
    assert_eq!(gateway.logged_path("/x")["flag"], "DT");
}

#[test]
fn the_service_is_told_what_is_left_of_a_grpc_calls_time() {
    let service = Service::h2c(told);
    let gateway = before(&service, "");
    play(async {
        let mut client = h2::h2c(gateway.web()).await;
        let answer = ask(&mut client, call("/x", "10S").body(full("")).unwrap()).await;
        assert_eq!(answer.trailers.unwrap()["grpc-status"], "0");
    });
    let seen = service.last().headers()["grpc-timeout"].to_str().unwrap().to_owned();
    let micros: u64 = seen.strip_suffix('u').expect("microseconds").parse().unwrap();
    assert!((5_000_000..10_000_000).contains(&micros), "{seen}");
    assert_eq!(gateway.logged_path("/x")["flag"], "-");
}

#[test]
fn the_sooner_of_the_calls_and_the_routes_time_counts() {
    let origin = Origin::script(|visit| {
        visit.head()?;
        visit.wire.rest();
        Ok(())
    });
    let gateway = Gateway::start(&format!(
        "upstreams: {{ one: {{ endpoints: [\"{origin}\"] }} }}
routes: {{ all: {{ timeouts: {{ request: 300ms }}, to: {{ upstream: one }} }} }}"
    ));
    let started = Instant::now();
    let answer = play(async {
        let mut client = h2::h2c(gateway.web()).await;
        ask(&mut client, call("/x", "1H").body(full("")).unwrap()).await
    });
    assert_trailers_only(&answer, "4");
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_grpc_timeout_that_cannot_be_read_is_refused() {
    let service = Service::h2c(told);
    let gateway = before(&service, "");
    play(async {
        let mut client = h2::h2c(gateway.web()).await;
        for odd in ["1", "S", "123456789S", "-1S", "1.5S", "1 S"] {
            assert_trailers_only(&ask(&mut client, call("/odd", odd).body(full("")).unwrap()).await, "3");
        }
        assert_trailers_only(&ask(&mut client, call("/late", "0S").body(full("")).unwrap()).await, "4");
        let plain = Request::get("http://a/plain").header("grpc-timeout", "rubbish").body(full("")).unwrap();
        ask(&mut client, plain).await;
    });
    assert_eq!(service.requests().len(), 1, "the plain request alone");
    assert_eq!(service.last().headers()["grpc-timeout"], "rubbish", "what is no gRPC is not touched");
}

#[test]
fn each_refusal_of_a_grpc_call_is_trailers_only_while_its_client_still_sends() {
    let service = Service::h2c(told);
    let gateway = Gateway::start(&format!(
        "upstreams:
  one: {{ protocol: h2c, endpoints: [\"{service}\"] }}
  dead: {{ endpoints: [\"{}\"] }}
routes:
  none: {{ match: {{ path: /get, methods: [GET] }}, to: {{ upstream: one }} }}
  small: {{ match: {{ path: /small }}, policies: {{ request_limits: {{ body: 10B, headers: 1KiB }} }}, to: {{ upstream: one }} }}
  dead: {{ match: {{ path: /dead }}, to: {{ upstream: dead }} }}",
        crate::harness::origin::nobody()
    ));
    let long = "x".repeat(2000);
    for (path, field, status) in [
        ("/none", "", "12"),
        ("/get", "", "12"),
        ("/small", "", "8"),
        ("/small", long.as_str(), "8"),
        ("/dead", "", "14"),
        ("/a%2fb", "", "3"),
    ] {
        let answer = play(async {
            let mut client = h2::h2c(gateway.web()).await;
            let (sender, body) = h2::stream();
            sender.send(Frame::data(Bytes::from_static(b"\0\0\0\0\x10 more than ten"))).unwrap();
            let call = call(path, "").header("x-field", field).body(body).unwrap();
            let answer = ask(&mut client, call).await;
            drop(sender);
            let after = ask(&mut client, Request::get("http://a/get").body(full("")).unwrap()).await;
            assert_eq!(after.head.status, 200, "the connection goes on after {path}");
            answer
        });
        assert_trailers_only(&answer, status);
        assert!(answer.field("x-request-id").is_some(), "{path}");
    }
}

#[test]
fn what_only_looks_like_grpc_is_told_by_a_status() {
    let gateway = Gateway::start("upstreams: {}\nroutes: { here: { match: { path: /here }, to: { respond: {} } } }");
    let reply = gateway.ask("POST /none HTTP/1.1\nHost: a\nContent-Type: application/grpc\nContent-Length: 0");
    assert_eq!((reply.status, reply.field("content-type")), (404, Some("application/problem+json")));
    let reply = gateway.ask("POST /none HTTP/1.1\nHost: a\nContent-Type: application/grpc-web\nContent-Length: 0");
    assert_eq!((reply.status, reply.field("grpc-status")), (200, Some("12")));
    play(async {
        let mut client = h2::h2c(gateway.web()).await;
        let head = Request::head("http://a/none").header("content-type", "application/grpc").body(full("")).unwrap();
        let answer = ask(&mut client, head).await;
        assert_eq!((answer.head.status.as_u16(), answer.body.len()), (404, 0));
    });
}

#[test]
fn a_tunnel_is_refused_and_never_opened() {
    let origin = Origin::text("x");
    let gateway = Gateway::before(&origin);
    let tunnelled = "GET /tunnelled HTTP/1.1\r\nHost: a\r\n\r\n";
    for (target, before) in [(origin.to_string(), ""), ("a:443".to_owned(), "GET /before HTTP/1.1\r\nHost: a\r\n\r\n")] {
        let connections = origin.connections();
        let mut connection = gateway.connect();
        connection.send(format!("{before}CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n{tunnelled}"));
        if !before.is_empty() {
            assert_eq!(connection.response("GET").status, 200);
        }
        let reply = connection.response("CONNECT");
        assert_eq!((reply.status, reply.field("allow"), reply.field("connection")), (405, Some(""), Some("close")), "{target}");
        assert_eq!(reply.json()["code"], "no_tunnel");
        assert!(connection.0.closes_within(PATIENCE), "what the client sends into the tunnel is no request");
        assert_eq!(origin.connections(), connections + usize::from(!before.is_empty()));
    }
    let entry = gateway.logged(|entry| entry["method"] == "CONNECT");
    assert_eq!((&entry["status"], &entry["flag"]), (&405.into(), &"DPE".into()), "{entry}");
    assert!(origin.requests().iter().all(|request| request.target() == "/before"), "{:?}", origin.requests());
}

#[test]
fn a_tunnel_over_http2_is_refused_on_its_stream() {
    let origin = Origin::text("x");
    let gateway = Gateway::before(&origin);
    play(async {
        let mut client = h2::h2c(gateway.web()).await;
        let answer = ask(&mut client, Request::connect("a:443").body(full("")).unwrap()).await;
        assert_eq!((answer.head.status.as_u16(), answer.field("allow")), (405, Some("")));
        assert_eq!(origin.connections(), 0);
        assert_eq!(ask(&mut client, Request::get("http://a/").body(full("")).unwrap()).await.head.status, 200);
    });
    assert_eq!(gateway.metric("banyan_requests_flagged_total{flag=\"DPE\"}"), Some(1.0));
}

/// A gateway whose uploads have to come at this rate, before a service that reads the whole body.
fn hurried(rate: &str, origin: &Origin) -> Gateway {
    Gateway::start(&format!(
        "listeners: {{ web: {{ address: 127.0.0.1:<web>, limits: {{ min_body_rate: {rate} }} }} }}
upstreams: {{ one: {{ endpoints: [\"{origin}\"] }} }}
routes: {{ all: {{ to: {{ upstream: one }} }} }}"
    ))
}

fn reader() -> Origin {
    Origin::script(|visit| match visit.request()? {
        Some(request) => visit.wire.send(ok(&request.body.len().to_string())),
        None => Ok(()),
    })
}

/// Sends a byte now and then, far more often than a silence is.
fn trickle(gateway: &Gateway, rest: Duration) -> (u16, Duration) {
    let mut connection = gateway.connect();
    let started = Instant::now();
    connection.send_head("POST /slow HTTP/1.1\nHost: a\nContent-Length: 100000");
    connection.0.socket().set_read_timeout(Some(rest)).unwrap();
    let mut first = [0];
    while connection.0.socket().peek(&mut first).is_err() && started.elapsed() < PATIENCE {
        let _ = connection.0.send("x");
    }
    connection.0.socket().set_read_timeout(Some(PATIENCE)).unwrap();
    (connection.response("POST").status, started.elapsed())
}

#[test]
fn an_upload_that_trickles_is_ended_and_one_that_keeps_the_rate_is_not() {
    let origin = reader();
    let gateway = hurried("240B", &origin);
    let tenth = Duration::from_millis(100);
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| trickle(&gateway, tenth));
        let fast = scope.spawn(|| {
            let mut connection = gateway.connect();
            connection.send_head("POST /fast HTTP/1.1\nHost: a\nContent-Length: 6000");
            for _ in 0..120 {
                connection.send([b'x'; 50]);
                std::thread::sleep(tenth);
            }
            connection.response("POST").text()
        });
        let over_http2 = scope.spawn(|| {
            play(async {
                let mut client = h2::h2c(gateway.web()).await;
                let (sender, body) = h2::stream();
                let sending = tokio::spawn(async move {
                    while sender.send(Frame::data(Bytes::from_static(b"x"))).is_ok() {
                        tokio::time::sleep(tenth).await;
                    }
                });
                // Only a service of HTTP/2 has gRPC's streams, which may speak seldom.
                let slow = Request::post("http://a/slow2").header("content-type", "application/grpc");
                let answer = ask(&mut client, slow.body(body).unwrap()).await;
                sending.abort();
                answer.head.headers["grpc-status"].to_str().unwrap().to_owned()
            })
        });
        let (status, time) = slow.join().unwrap();
        assert_eq!(status, 408);
        assert!((Duration::from_secs(10)..Duration::from_secs(20)).contains(&time), "{time:?}");
        assert_eq!(over_http2.join().unwrap(), "4");
        assert_eq!(fast.join().unwrap(), "6000");
    });
    assert_eq!(gateway.logged_path("/slow")["flag"], "SI");
    assert_eq!(gateway.logged_path("/slow2")["flag"], "SI");
    assert_eq!(gateway.logged_path("/fast")["flag"], "-");
}

#[test]
fn a_client_is_not_blamed_for_a_service_that_takes_its_upload_slowly() {
    const MUCH: usize = 32 << 20;
    let origin = Origin::script(|visit| {
        let head = visit.head()?.ok_or(std::io::ErrorKind::UnexpectedEof)?;
        // Longer than an upload has before its rate counts.
        std::thread::sleep(Duration::from_secs(12));
        let mut body = Vec::new();
        visit.wire.body(head.request_framing()?, &mut body)?;
        visit.wire.send(ok(&body.len().to_string()))
    });
    let gateway = hurried("100MiB", &origin);
    let mut connection = gateway.connect();
    connection.send_head(&format!("POST /x HTTP/1.1\nHost: a\nContent-Length: {MUCH}"));
    connection.send(vec![b'x'; MUCH]);
    assert_eq!(connection.response("POST").text(), MUCH.to_string());
}

#[test]
fn a_grpc_stream_may_speak_seldom() {
    let service = Service::h2c(|request| Response::new(full(request.body().len().to_string())));
    let gateway = Gateway::start(&format!(
        "listeners: {{ web: {{ address: 127.0.0.1:<web>, limits: {{ min_body_rate: 100MiB }} }} }}
upstreams: {{ one: {{ endpoints: [\"{service}\"], protocol: h2c }} }}
routes: {{ all: {{ to: {{ upstream: one }} }} }}"
    ));
    let status = play(async {
        let mut client = h2::h2c(gateway.web()).await;
        let (sender, body) = h2::stream();
        let asked = tokio::spawn(async move { ask(&mut client, call("/x", "").body(body).unwrap()).await });
        for _ in 0..12 {
            sender.send(Frame::data(Bytes::from_static(b"x"))).unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        drop(sender);
        asked.await.unwrap().text()
    });
    assert_eq!(status, "12");
}

#[test]
fn a_grpc_call_whose_service_cannot_be_reached_in_its_time_is_told_so() {
    // A listener whose queue is full answers no SYN: Linux drops it.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    while let Ok(stream) = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        queued.push(stream);
    }
    let gateway = Gateway::before(address);
    let answer = play(async {
        let mut client = h2::h2c(gateway.web()).await;
        ask(&mut client, call("/x", "300m").body(full("")).unwrap()).await
    });
    assert_trailers_only(&answer, "4");
    assert_eq!(gateway.logged_path("/x")["flag"], "DT");
}

/// Answers every head with these bytes.
fn says(bytes: &'static str) -> Origin {
    Origin::answer(move |_| bytes)
}

#[test]
fn an_answer_that_is_no_http_gives_502() {
    for bytes in [
        "HTTP/1.1 600 Six\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 999 Nine\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 099 Low\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 000 Zero\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\nno",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nno",
        "HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nno",
        "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nno",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nno",
        "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nno",
    ] {
        let origin = says(bytes);
        let mut gateway = Gateway::before(&origin);
        assert_eq!(gateway.get("/x").status, 502, "{bytes}");
        gateway.assert_sound();
    }
}

#[test]
fn an_answer_without_a_body_says_nothing_of_one_and_shifts_nothing() {
    for (bytes, status, length) in [
        ("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", 204, None),
        ("HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 204, None),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", 304, Some("5")),
        ("HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", 304, None),
        ("HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", 204, None),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\nevil", 304, Some("4")),
    ] {
        let origin = says(bytes);
        let gateway = Gateway::before(&origin);
        let mut connection = gateway.connect();
        for _ in 0..3 {
            let reply = connection.ask("GET /x HTTP/1.1\nHost: a");
            assert_eq!(
                (reply.status, reply.field("content-length"), reply.field("transfer-encoding")),
                (status, length, None),
                "{bytes}"
            );
        }
    }
}

#[test]
fn an_interim_answer_says_nothing_of_a_body() {
    let origin =
        says("HTTP/1.1 103 Early Hints\r\nContent-Length: 9\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let gateway = Gateway::before(&origin);
    let mut connection = gateway.connect();
    connection.send_head("GET /x HTTP/1.1\nHost: a");
    let hints = connection.0.head().unwrap().unwrap();
    assert_eq!((hints.status().unwrap(), hints.field("content-length"), hints.field("link")), (103, None, Some("</a>")));
    assert_eq!(connection.response("GET").text(), "ok");
}

#[test]
fn head_range_and_multipart_answers_pass_whole() {
    let parts = "--x\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-1/9\r\n\r\nab\r\n--x--\r\n";
    let origin = Origin::answer(move |request| match request.target() {
        "/head" => "HTTP/1.1 200 OK\r\nContent-Length: 12345\r\nAccept-Ranges: bytes\r\n\r\n".to_owned(),
        "/range" => {
            "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 2-3/9\r\nContent-Length: 2\r\nETag: \"e\"\r\n\r\ncd".to_owned()
        }
        "/past" => "HTTP/1.1 416 Range Not Satisfiable\r\nContent-Range: bytes */9\r\nContent-Length: 0\r\n\r\n".to_owned(),
        _ => format!(
            "HTTP/1.1 206 Partial Content\r\nContent-Type: multipart/byteranges; boundary=x\r\nContent-Length: {}\r\n\r\n{parts}",
            parts.len()
        ),
    });
    let gateway = Gateway::before(&origin);
    let mut connection = gateway.connect();
    let head = connection.ask("HEAD /head HTTP/1.1\nHost: a");
    assert_eq!((head.field("content-length"), head.field("accept-ranges")), (Some("12345"), Some("bytes")));
    let range = connection.ask("GET /range HTTP/1.1\nHost: a\nRange: bytes=2-3\nIf-Range: \"e\"");
    assert_eq!((range.status, range.field("content-range"), range.text().as_str()), (206, Some("bytes 2-3/9"), "cd"));
    let seen = origin.last();
    assert_eq!((seen.field("range"), seen.field("if-range")), (Some("bytes=2-3"), Some("\"e\"")));
    let past = connection.ask("GET /past HTTP/1.1\nHost: a\nRange: bytes=10-");
    assert_eq!((past.status, past.field("content-range")), (416, Some("bytes */9")));
    let many = connection.ask("GET /many HTTP/1.1\nHost: a\nRange: bytes=0-1,3-4");
    assert_eq!((many.status, many.field("content-type")), (206, Some("multipart/byteranges; boundary=x")));
    assert_eq!(many.text(), parts);
    assert_eq!(origin.connections(), 1);
}
