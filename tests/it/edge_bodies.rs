//! Bodies of every framing on HTTP/1: they arrive byte by byte as they were sent, or not as whole requests at all; and the last
//! answer on a connection is one that its client can read.

use std::{
    io,
    net::Shutdown,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use rustls::{ClientConnection, StreamOwned, pki_types::ServerName};

use crate::{
    edge_heads::{CHUNKS, long_chunks},
    harness::{Connection, Gateway, Origin, PATIENCE, cert::Authority, gateway::Start, origin::ok, wire::Wire},
};

const GET: &str = "GET /behind HTTP/1.1\r\nHost: a\r\n\r\n";

/// A service that records heads as they come, and counts the requests that came whole.
fn counting() -> (Origin, Arc<AtomicUsize>) {
    let whole = Arc::new(AtomicUsize::new(0));
    let count = whole.clone();
    let origin = Origin::script(move |visit| {
        while let Some(head) = visit.head()? {
            visit.wire.body(head.request_framing()?, &mut Vec::new())?;
            count.fetch_add(1, Ordering::SeqCst);
            visit.wire.send(ok("whole"))?;
        }
        Ok(())
    });
    (origin, whole)
}

#[test]
fn a_bad_chunk_that_comes_late_makes_no_whole_request() {
    let (origin, whole) = counting();
    let mut gateway = Gateway::before(&origin);
    let cases: Vec<_> = CHUNKS.map(|(reason, body)| (reason, body.to_owned())).into_iter().chain(long_chunks()).collect();
    for (n, (reason, body)) in cases.iter().enumerate() {
        let mut connection = gateway.connect();
        connection.send(format!("POST /{n} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n"));
        origin.wait_for(n + 1);
        connection.send(body).send(GET);
        let reply = connection.try_response("POST").unwrap_or_else(|e| panic!("{reason} {body:?}: {e}"));
        assert_eq!((reply.status, reply.field("connection")), (400, Some("close")), "{reason}: {body:?}");
        assert_eq!(reply.json()["code"], "ambiguous_framing", "{reason}");
        assert!(connection.0.closes_within(PATIENCE), "{reason}: {body:?}");
        assert_eq!(gateway.logged_path(&format!("/{n}"))["flag"], "DPE", "{reason}");
    }
    assert_eq!(whole.load(Ordering::SeqCst), 0);
    assert_eq!(origin.count(), cases.len(), "nothing from behind them: {:?}", origin.requests());
    gateway.assert_sound();
}

#[test]
fn a_bad_chunk_that_comes_byte_by_byte_makes_no_whole_request() {
    let (origin, whole) = counting();
    let mut gateway = Gateway::before(&origin);
    for (reason, body) in CHUNKS {
        let mut connection = gateway.connect();
        let sent = format!("POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}{GET}");
        sent.as_bytes().iter().take_while(|byte| connection.0.send([**byte]).is_ok()).for_each(drop);
        let reply = connection.try_response("POST").unwrap_or_else(|e| panic!("{reason} {body:?}: {e}"));
        assert_eq!((reply.status, reply.field("connection")), (400, Some("close")), "{reason}: {body:?}");
        assert!(connection.0.closes_within(PATIENCE), "{reason}: {body:?}");
    }
    assert_eq!(whole.load(Ordering::SeqCst), 0);
    assert!(origin.requests().iter().all(|request| request.target() == "/x"), "{:?}", origin.requests());
    gateway.assert_sound();
}

/// A request's bytes, its body as the service has to see it.
struct Sent {
    bytes: Vec<u8>,
    body: Vec<u8>,
}

/// Requests with this body in each framing.
fn framings(body: &[u8]) -> Vec<Sent> {
    let sent = |fields: &str, framed: Vec<u8>, body: &[u8]| Sent {
        bytes: [format!("POST /x HTTP/1.1\r\nHost: a\r\n{fields}\r\n").into_bytes(), framed].concat(),
        body: body.to_vec(),
    };
    let chunk = |part: &[u8], extension: &str| {
        [format!("{:x}{extension}\r\n", part.len()).into_bytes(), part.to_vec(), b"\r\n".to_vec()].concat()
    };
    let chunks = |size: usize, extension: &str| body.chunks(size).flat_map(|part| chunk(part, extension)).collect::<Vec<u8>>();
    let coded = "Transfer-Encoding: chunked\r\n";
    vec![
        sent("", vec![], b""),
        sent("Content-Length: 0\r\n", vec![], b""),
        sent(&format!("Content-Length: {}\r\n", body.len()), body.to_vec(), body),
        sent(&format!("Content-Length: 000{}\r\n", body.len()), body.to_vec(), body),
        sent(coded, b"0\r\n\r\n".to_vec(), b""),
        sent(coded, [chunks(usize::MAX, ""), b"0\r\n\r\n".to_vec()].concat(), body),
        sent(coded, [chunks(7.max(body.len() / 100), ";name=value;flag"), b"000;last\r\n\r\n".to_vec()].concat(), body),
        sent("transfer-ENCODING: \t CHUNKED \r\n", [chunks(33, ""), b"0\r\nX-Sum: y\r\nX-More:\r\n\r\n".to_vec()].concat(), body),
    ]
}

/// A body that holds what a careless reader takes for the end of it, or for a request.
fn tricky(length: usize) -> Vec<u8> {
    let text = b"0\r\n\r\nGET /inner HTTP/1.1\r\nHost: a\r\n\r\n\0\xff\r\n5\r\n".iter().copied();
    text.chain(0..=255).cycle().take(length).collect()
}

#[track_caller]
fn assert_carried(gateway: &Gateway, origin: &Origin, sent: &Sent, pieces: usize) {
    let before = origin.count();
    let mut connection = gateway.connect();
    let bytes = [&sent.bytes, GET.as_bytes()].concat();
    for piece in bytes.chunks(pieces) {
        connection.send(piece);
    }
    let start = sent.bytes[..sent.bytes.len().min(90)].escape_ascii();
    assert_eq!(connection.response("POST").status, 200, "{start}");
    assert_eq!(connection.response("GET").status, 200, "{start}");
    let seen = origin.requests().split_off(before);
    let targets: Vec<_> = seen.iter().map(|request| request.target()).collect();
    assert_eq!(targets, ["/x", "/behind"], "{start}");
    assert!(seen[0].body == sent.body, "{start}: {} bytes, not {}", seen[0].body.len(), sent.body.len());
}

#[test]
fn bodies_arrive_as_they_were_sent_byte_by_byte() {
    let origin = Origin::text("x");
    let mut gateway = Gateway::before(&origin);
    for sent in framings(&tricky(400)) {
        assert_carried(&gateway, &origin, &sent, 1);
        assert_carried(&gateway, &origin, &sent, usize::MAX);
    }
    gateway.assert_sound();
}

#[test]
fn large_bodies_arrive_as_they_were_sent() {
    let origin = Origin::text("x");
    let mut gateway = Gateway::before(&origin);
    for sent in framings(&tricky(1 << 20)) {
        assert_carried(&gateway, &origin, &sent, 4099);
        assert_carried(&gateway, &origin, &sent, usize::MAX);
    }
    gateway.assert_sound();
}

/// The `n`th of many requests, and what its answer says.
fn mixed(n: usize) -> (&'static str, String, String) {
    let at = |path: &str, method: &str, rest: &str| format!("{method} {path} HTTP/1.1\r\nHost: a\r\n{rest}");
    let up = format!("/up/{n}");
    let echoed = |method: &str, body: &str| format!("200 {method} {up} {body}");
    match n % 8 {
        0 => ("GET", at(&up, "GET", "\r\n"), echoed("GET", "")),
        1 => ("POST", at(&up, "POST", &format!("Content-Length: 6\r\n\r\nbody{n:02}")), echoed("POST", &format!("body{n:02}"))),
        2 => ("HEAD", at(&up, "HEAD", "\r\n"), "200 ".to_owned()),
        3 => {
            ("PUT", at(&up, "PUT", "Transfer-Encoding: chunked\r\n\r\n2\r\nch\r\n3\r\nunk\r\n0\r\n\r\n"), echoed("PUT", "chunk"))
        }
        4 => ("GET", at("/own", "GET", "\r\n"), "200 own".to_owned()),
        5 => ("POST", at("/own", "POST", "Content-Length: 4\r\n\r\nGET "), "200 own".to_owned()),
        6 => ("PUT", at(&up, "PUT", "Expect: 100-continue\r\nContent-Length: 2\r\n\r\nok"), echoed("PUT", "ok")),
        _ => ("HEAD", at("/nowhere", "HEAD", "\r\n"), "404 ".to_owned()),
    }
}

#[test]
fn fifty_pipelined_requests_of_all_kinds_are_answered_in_order() {
    let origin = Origin::answer(|request| {
        let method = request.head.line.split(' ').next().unwrap_or_default();
        let answer = ok(&format!("{method} {} {}", request.target(), String::from_utf8_lossy(&request.body)));
        match method {
            "HEAD" => answer.split_inclusive("\r\n\r\n").next().unwrap_or_default().to_owned(),
            _ => answer,
        }
    });
    let mut gateway = Gateway::start(&format!(
        "upstreams: {{ one: {{ endpoints: [\"{origin}\"] }} }}
routes:
  up: {{ match: {{ path: \"/up/**\" }}, to: {{ upstream: one }} }}
  own: {{ match: {{ path: /own }}, to: {{ respond: {{ body: own }} }} }}"
    ));
    let requests: Vec<_> = (0..50).map(mixed).collect();
    let bytes = requests.iter().map(|(_, bytes, _)| bytes.as_str()).collect::<String>().into_bytes();
    let mut random = fastrand::Rng::with_seed(3);
    for most in [usize::MAX, 900, 40, 2] {
        let mut connection = gateway.connect();
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(random.usize(1..=most.min(rest.len())).max(most.min(rest.len()) / 2));
            connection.send(piece);
            rest = after;
        }
        for (n, (method, _, expected)) in requests.iter().enumerate() {
            let reply = connection.response(method);
            assert_eq!(format!("{} {}", reply.status, reply.text()), *expected, "request {n} in pieces of {most}");
        }
        assert_eq!(connection.ask("GET /own HTTP/1.1\nHost: a").text(), "own", "nothing is left over");
    }
    gateway.assert_sound();
}

#[test]
fn an_expectation_is_met_whether_the_client_waits_or_not() {
    let origin = Origin::text("x");
    let mut gateway = Gateway::before(&origin);
    let bodies = [("Content-Length: 4", "body"), ("Transfer-Encoding: chunked", "4\r\nbody\r\n0\r\n\r\n")];
    for (n, ((framing, body), waits)) in bodies.into_iter().flat_map(|body| [(body, true), (body, false)]).enumerate() {
        let mut connection = gateway.connect();
        let head = format!("PUT /{n} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n{framing}\r\n\r\n");
        if waits {
            connection.send(head);
            let interim = connection.0.head().unwrap().unwrap();
            assert_eq!((interim.status().unwrap(), interim.fields.len()), (100, 0), "{framing}");
            connection.send([body, GET].concat());
        } else {
            connection.send([&head, body, GET].concat());
        }
        assert_eq!([connection.response("PUT").status, connection.response("GET").status], [200, 200], "{framing} {waits}");
        let seen = origin.requests();
        let put = seen.iter().find(|request| request.target() == format!("/{n}")).expect("it came");
        assert_eq!((put.body.as_slice(), put.field("expect")), (&b"body"[..], None), "{framing} {waits}");
    }
    gateway.assert_sound();
}

/// A gateway that takes bodies of 1 KiB.
fn narrow(origin: &Origin) -> Gateway {
    Gateway::start(&format!(
        "upstreams: {{ one: {{ endpoints: [\"{origin}\"] }} }}
policies: {{ request_limits: {{ body: 1KiB }} }}
routes: {{ all: {{ to: {{ upstream: one }} }} }}"
    ))
}

const MUCH: usize = 10 << 20;

/// Requests that are refused while most of their bytes are still to come, and with what.
fn long_refusals() -> [(u16, String); 5] {
    let post = |fields: &str| format!("POST /x HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n");
    [
        (413, post(&format!("Content-Length: {MUCH}"))),
        (413, post("Transfer-Encoding: chunked") + &format!("{MUCH:x}\r\n")),
        (400, post(&format!("Content-Length: {MUCH}\r\nContent-Length: {MUCH}"))),
        (431, format!("POST /x HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(70 << 10))),
        (414, format!("POST /{}", "x".repeat(20 << 10))),
    ]
}

/// As a browser or `curl` does: it goes on sending until it has read the answer.
#[test]
fn a_client_that_still_sends_can_read_why_it_is_refused() {
    let (origin, whole) = counting();
    let mut gateway = narrow(&origin);
    for (status, head) in long_refusals() {
        let mut connection = gateway.connect();
        connection.send(&head);
        let answered = Arc::new(AtomicBool::new(false));
        let sending = thread::spawn({
            let mut socket = Wire::over(connection.0.socket().try_clone().unwrap());
            let answered = answered.clone();
            move || {
                (0..MUCH / 8192).try_for_each(|_| {
                    if answered.load(Ordering::SeqCst) {
                        return Ok(());
                    }
                    thread::sleep(Duration::from_millis(1));
                    socket.send([b'x'; 8192])
                })
            }
        });
        let reply = connection.try_response("POST").unwrap_or_else(|e| panic!("{status}: {e}"));
        assert_eq!((reply.status, reply.field("connection")), (status, Some("close")), "{status}");
        let mut end = [0];
        assert_eq!(connection.0.some(&mut end).map_err(|e| e.kind()), Ok(0), "{status}: ended, and not by a reset");
        answered.store(true, Ordering::SeqCst);
        assert!(
            sending.join().unwrap().is_ok(),
            "{status} {}: what is sent before the answer is read meets no reset",
            head.get(..90).unwrap_or_default()
        );
    }
    assert_eq!(whole.load(Ordering::SeqCst), 0);
    gateway.assert_sound();
}

/// As simple clients do: all is sent before any of the answer is read.
#[test]
fn a_client_that_sends_all_before_it_reads_can_read_why_it_is_refused() {
    let (origin, whole) = counting();
    let mut gateway = narrow(&origin);
    let body = vec![b'x'; 512 << 10];
    for (status, head) in long_refusals() {
        let mut connection = gateway.connect();
        connection.send(&head);
        connection.send(&body);
        let reply = connection.try_response("POST").unwrap_or_else(|e| panic!("{status}: {e}"));
        assert_eq!((reply.status, reply.field("connection")), (status, Some("close")));
    }
    assert_eq!(whole.load(Ordering::SeqCst), 0);
    gateway.assert_sound();
}

#[test]
fn a_client_that_never_stops_sending_is_left_in_the_end() {
    let (origin, whole) = counting();
    let mut gateway = narrow(&origin);
    for (status, head) in long_refusals() {
        let mut connection = gateway.connect();
        connection.send(&head);
        let sent = (0..20_000).take_while(|_| connection.0.send([b'x'; 8192]).is_ok()).count();
        assert!(sent < 20_000, "{status}: 160 MB were taken");
    }
    assert_eq!(whole.load(Ordering::SeqCst), 0);
    gateway.assert_sound();
}

/// A service that answers once it is told to.
fn held() -> (Origin, mpsc::Sender<()>) {
    let (go, may_go) = mpsc::channel();
    let may_go = Mutex::new(may_go);
    let origin = Origin::script(move |visit| {
        while let Some(request) = visit.request()? {
            may_go.lock().unwrap().recv_timeout(PATIENCE).map_err(io::Error::other)?;
            visit.wire.send(ok(&format!("{} {}", request.target(), request.body.len())))?;
        }
        Ok(())
    });
    (origin, go)
}

const HALVES: [(&str, &[&str]); 5] = [
    ("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n", &["/1 0"]),
    ("POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody", &["/1 4"]),
    ("POST /1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n", &["/1 4"]),
    (
        "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhiGET /3 HTTP/1.1\r\nHost: a\r\n\r\n",
        &["/1 0", "/2 2", "/3 0"],
    ),
    ("GET /1 HTTP/1.0\r\n\r\n", &["/1 0"]),
];

/// Sends, ends its sending, and only then lets the service answer.
#[track_caller]
fn assert_answered(mut connection: Connection, origin: &Origin, go: &mpsc::Sender<()>, answers: &[&str]) {
    for (n, expected) in answers.iter().enumerate() {
        origin.wait_for(n + 1);
        go.send(()).unwrap();
        assert_eq!(connection.response("GET").text(), *expected);
    }
    assert_eq!(connection.0.some(&mut [0]).map_err(|e| e.kind()), Ok(0), "{answers:?}");
}

#[test]
fn a_client_that_ends_its_sending_gets_all_its_answers() {
    for (sent, answers) in HALVES {
        let (origin, go) = held();
        let mut gateway = Gateway::before(&origin);
        let mut connection = gateway.connect();
        connection.send(sent);
        connection.0.socket().shutdown(Shutdown::Write).unwrap();
        assert_answered(connection, &origin, &go, answers);
        assert_eq!(origin.count(), answers.len());
        gateway.assert_sound();
    }
}

#[test]
fn a_client_that_ends_its_sending_over_tls_gets_all_its_answers() {
    for (sent, answers) in HALVES {
        let (origin, go) = held();
        let (mut gateway, authority) = secure(&origin);
        let name = ServerName::try_from("a").unwrap();
        let client = ClientConnection::new(authority.client(&[]), name).unwrap();
        let mut stream = StreamOwned::new(client, std::net::TcpStream::connect(gateway.address("secure")).unwrap());
        io::Write::write_all(&mut stream, sent.as_bytes()).unwrap();
        stream.conn.send_close_notify();
        io::Write::flush(&mut stream).unwrap();
        assert_answered(Connection(Wire::over(stream)), &origin, &go, answers);
        gateway.assert_sound();
    }
}

fn secure(origin: &Origin) -> (Gateway, Authority) {
    let authority = Authority::new();
    let dir = tempfile::tempdir().unwrap();
    authority.leaf(&["a"]).write(dir.path(), "a");
    let gateway = Start::on(&format!(
        "listeners: {{ secure: {{ address: 127.0.0.1:<secure>, tls: {{ certificates: [{{ cert: a.pem, key: a.key }}] }} }} }}
upstreams: {{ one: {{ endpoints: [\"{origin}\"] }} }}
routes: {{ all: {{ to: {{ upstream: one }} }} }}"
    ));
    (gateway.dir(dir).ready(), authority)
}

#[test]
fn a_client_that_ends_its_sending_within_a_request_has_sent_no_request() {
    let (origin, whole) = counting();
    let mut gateway = Gateway::before(&origin);
    for sent in [
        "GET /x HTTP/1.1\r\nHost: a\r\n",
        "GET /x HTTP/1.1\r\nHost: a\r\n\r",
        "GET /x HTT",
        "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nfour",
        "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfour\r\n",
        "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfour\r\n0\r\n",
    ] {
        let mut connection = gateway.connect();
        connection.send(sent);
        connection.0.socket().shutdown(Shutdown::Write).unwrap();
        if let Ok(reply) = connection.try_response("POST") {
            assert_eq!((reply.status, reply.field("connection")), (400, Some("close")), "{sent:?}");
        }
        assert!(connection.0.closes_within(PATIENCE), "{sent:?}");
    }
    assert_eq!(whole.load(Ordering::SeqCst), 0);
    gateway.assert_sound();
}

/// A client that got nothing on a kept connection takes it for an idle one that was closed, and asks again.
#[test]
fn the_beginning_of_an_answer_that_was_cut_off_arrives() {
    let origin = Origin::script(|visit| {
        visit.request()?;
        visit.wire.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
    });
    let gateway = Gateway::before(&origin);
    let mut connection = gateway.connect();
    connection.send_head("GET / HTTP/1.1\nHost: a");
    assert_eq!(connection.head().status().unwrap(), 200);
    assert_eq!(connection.exactly(4), b"half");
    assert!(connection.0.closes_within(PATIENCE));
}

/// Where only the end of the connection says where an answer ends, TLS tells a cut from an end.
#[test]
fn an_answer_that_was_cut_off_does_not_end_in_order() {
    let origin = Origin::script(|visit| {
        let Some(request) = visit.request()? else { return Ok(()) };
        let end = if request.target() == "/whole" { "0\r\n\r\n" } else { "" };
        visit.wire.send(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n{end}"))
    });
    let (gateway, authority) = secure(&origin);
    for (path, end) in [("/whole", Ok(0)), ("/cut", Err(io::ErrorKind::UnexpectedEof))] {
        let mut connection = Connection::tls(gateway.address("secure"), "a", authority.client(&[])).unwrap();
        connection.send(format!("GET {path} HTTP/1.0\r\nHost: a\r\n\r\n"));
        assert_eq!(connection.head().status().unwrap(), 200);
        assert_eq!(connection.exactly(4), b"half");
        assert_eq!(connection.0.some(&mut [0]).map_err(|e| e.kind()), end, "{path}");
    }
}
