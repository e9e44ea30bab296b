//! HTTP/2, frame by frame: what h2spec (github.com/summerwind/h2spec, commit af83a65) taught, where a fault would matter most at a
//! gateway. Each case is one of its groups; the whole suite is run by hand, see `docs/conformance.md`.

use crate::harness::{
    Gateway, Origin,
    frames::{
        ACK, COMPRESSION_ERROR, CONTINUATION, DATA, END_HEADERS, END_STREAM, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, GET, GOAWAY,
        HEADERS, PING, POST, PROTOCOL_ERROR, PUSH_PROMISE, RST_STREAM, Raw, SETTINGS, STREAM_CLOSED, WINDOW_UPDATE, block, frame,
    },
};

/// How the gateway takes what a client sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// The stream is reset, or the whole connection given up, with this code or the general one, PROTOCOL_ERROR: h2 says that for
    /// several faults for which RFC 9113 has a code of their own. The suite takes a closed connection, whatever its code.
    Fault(u32),
    /// Stream 1 is answered with this status.
    Answer(&'static str),
}

use End::{Answer, Fault};

/// A whole request without a body, with these fields more.
fn get(more: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, 1, &block(&[&GET, more].concat()))
}

/// A request of exactly these fields.
fn only(fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, 1, &block(fields))
}

/// A request with a body in these pieces.
fn post(more: &[(&str, &str)], pieces: &[&str]) -> Vec<u8> {
    let head = frame(HEADERS, END_HEADERS, 1, &block(&[&POST, more].concat()));
    let last = pieces.len() - 1;
    let data = |(n, piece): (usize, &&str)| frame(DATA, if n == last { END_STREAM } else { 0 }, 1, piece.as_bytes());
    [head, pieces.iter().enumerate().flat_map(data).collect()].concat()
}

/// Sends these frames on a connection of their own and sees how they are taken.
#[track_caller]
fn check(gateway: &Gateway, group: &str, sent: &[u8], expected: End) {
    let mut raw = Raw::open(gateway);
    raw.send(sent);
    let found = match raw.until(|frame| [RST_STREAM, GOAWAY].contains(&frame.kind) || (frame.kind, frame.stream) == (HEADERS, 1))
    {
        Some(frame) if frame.kind == HEADERS => frame.status(),
        Some(frame) => format!("fault {}", frame.code()),
        None => "closed without a word".to_owned(),
    };
    let expected: Vec<String> = match expected {
        Fault(code) => [code, PROTOCOL_ERROR].map(|code| format!("fault {code}")).to_vec(),
        Answer(status) => vec![status.to_owned()],
    };
    assert!(expected.contains(&found), "{group}: {found}, not {expected:?}");
}

/// Plays cases against one gateway; it is sound afterwards, and the service saw as many requests as were answered.
#[track_caller]
fn play(cases: &[(&str, Vec<u8>, End)]) {
    let origin = Origin::text("x");
    let mut gateway = Gateway::before(&origin);
    for (group, sent, expected) in cases {
        check(&gateway, group, sent, *expected);
    }
    gateway.assert_sound();
    let answered = cases.iter().filter(|(_, _, expected)| *expected == Answer("200")).count();
    assert_eq!(origin.count(), answered, "no malformed request reaches a service: {:?}", origin.requests());
}

#[test]
fn sound_requests_are_answered() {
    let whole = block(&GET);
    let (first, second) = whole.split_at(9);
    play(&[
        ("8.1 a request without a body", get(&[]), Answer("200")),
        ("8.1 a request with a body", post(&[("content-length", "6")], &["one", "two"]), Answer("200")),
        ("8.1.2.2 te: trailers is allowed", get(&[("te", "trailers")]), Answer("200")),
        (
            "6.10 a header block in two frames",
            [frame(HEADERS, END_STREAM, 1, first), frame(CONTINUATION, END_HEADERS, 1, second)].concat(),
            Answer("200"),
        ),
        ("4.1 a frame of unknown type is ignored", [frame(0xfe, 0, 0, b"what"), get(&[])].concat(), Answer("200")),
    ]);
}

#[test]
fn malformed_requests_reset_their_stream() {
    let malformed = Fault(PROTOCOL_ERROR);
    play(&[
        ("8.1.2 an upper-case field name", get(&[("X-Test", "a")]), malformed),
        ("8.1.2.1 an unknown pseudo-header", get(&[(":test", "a")]), malformed),
        ("8.1.2.1 a response's pseudo-header", get(&[(":status", "200")]), malformed),
        (
            "8.1.2.1 a pseudo-header after a field",
            only(&[&GET[..3], &[("x-test", "a"), (":authority", "a")]].concat()),
            malformed,
        ),
        ("8.1.2.2 connection", get(&[("connection", "keep-alive")]), malformed),
        ("8.1.2.2 transfer-encoding", post(&[("transfer-encoding", "chunked")], &["0\r\n\r\n"]), malformed),
        ("8.1.2.2 te other than trailers", get(&[("te", "trailers, deflate")]), malformed),
        ("8.1.2.3 an empty path", only(&[GET[0], GET[1], (":path", ""), GET[3]]), malformed),
        ("8.1.2.3 no method", only(&GET[1..]), malformed),
        ("8.1.2.3 no scheme", only(&[GET[0], GET[2], GET[3]]), malformed),
        ("8.1.2.3 no path", only(&[GET[0], GET[1], GET[3]]), malformed),
        (
            "RFC 8441 a protocol over CONNECT, which was not offered",
            only(&[(":method", "CONNECT"), (":protocol", "websocket"), GET[1], GET[2], GET[3]]),
            malformed,
        ),
        ("8.1.2.3 two methods", get(&[(":method", "POST")]), malformed),
        ("8.1.2.3 two paths", get(&[(":path", "/other")]), malformed),
    ]);
}

/// A body that is not as long as it says would shift what follows it on an HTTP/1.1 connection to the service.
#[test]
fn a_body_of_another_length_than_it_says_is_no_whole_request_to_a_service() {
    for (says, pieces) in [("1", ["test", ""]), ("1", ["te", "st"]), ("5", ["te", "st"])] {
        let origin = Origin::text("x");
        let mut gateway = Gateway::before(&origin);
        check(&gateway, "8.1.2.6", &post(&[("content-length", says)], &pieces), Fault(PROTOCOL_ERROR));
        assert_eq!(gateway.get("/after").status, 200);
        let whole: Vec<_> = origin.requests().into_iter().map(|request| request.head.line).collect();
        assert_eq!(whole, ["GET /after HTTP/1.1"], "content-length: {says} with {pieces:?}");
        gateway.assert_sound();
    }
}

#[test]
fn faults_of_a_connection_end_it() {
    let huge = vec![0; 16_385];
    play(&[
        ("4.2 a frame over the size allowed", frame(DATA, 0, 1, &huge), Fault(FRAME_SIZE_ERROR)),
        (
            "4.3 a header block that cannot be read",
            frame(HEADERS, END_STREAM | END_HEADERS, 1, &[0x40]),
            Fault(COMPRESSION_ERROR),
        ),
        (
            "4.3 an index of nothing",
            frame(HEADERS, END_STREAM | END_HEADERS, 1, &[0xff, 0xff, 0xff, 0x01]),
            Fault(COMPRESSION_ERROR),
        ),
        ("5.1 DATA on an idle stream", frame(DATA, END_STREAM, 1, b"test"), Fault(PROTOCOL_ERROR)),
        (
            "5.1.1 a client's stream with an even number",
            frame(HEADERS, END_STREAM | END_HEADERS, 2, &block(&GET)),
            Fault(PROTOCOL_ERROR),
        ),
        ("6.1 DATA on stream 0", frame(DATA, 0, 0, b"test"), Fault(PROTOCOL_ERROR)),
        ("6.2 HEADERS on stream 0", frame(HEADERS, END_STREAM | END_HEADERS, 0, &block(&GET)), Fault(PROTOCOL_ERROR)),
        ("6.5 SETTINGS on a stream", frame(SETTINGS, 0, 1, &[]), Fault(PROTOCOL_ERROR)),
        ("6.5 SETTINGS of a broken length", frame(SETTINGS, 0, 0, &[0, 1]), Fault(FRAME_SIZE_ERROR)),
        ("6.6 a client does not push", frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2]), Fault(PROTOCOL_ERROR)),
        ("6.7 a PING of a broken length", frame(PING, 0, 0, b"short"), Fault(FRAME_SIZE_ERROR)),
        ("6.9 a window that grows by nothing", frame(WINDOW_UPDATE, 0, 0, &[0; 4]), Fault(PROTOCOL_ERROR)),
        (
            "6.9.1 a window over its maximum",
            [frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]), frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff])]
                .concat(),
            Fault(FLOW_CONTROL_ERROR),
        ),
        ("6.10 CONTINUATION without HEADERS", frame(CONTINUATION, END_HEADERS, 1, &block(&GET)), Fault(PROTOCOL_ERROR)),
        (
            "6.10 another frame inside a header block",
            [frame(HEADERS, END_STREAM, 1, &block(&GET)), frame(PING, 0, 0, &[0; 8])].concat(),
            Fault(PROTOCOL_ERROR),
        ),
    ]);
}

#[test]
fn a_ping_is_answered_with_its_own_bytes() {
    let origin = Origin::text("x");
    let gateway = Gateway::before(&origin);
    let mut raw = Raw::open(&gateway);
    raw.send(&frame(PING, 0, 0, b"12345678"));
    let pong = raw.until(|frame| frame.kind == PING).expect("an answer");
    assert_eq!((pong.flags, pong.payload.as_slice()), (ACK, &b"12345678"[..]));
}

#[test]
fn frames_after_the_end_of_a_stream_are_a_fault() {
    let origin = Origin::text("x");
    let mut gateway = Gateway::before(&origin);
    let mut raw = Raw::open(&gateway);
    raw.send(&[get(&[]), frame(DATA, END_STREAM, 1, b"more")].concat());
    let fault = raw.until(|frame| [RST_STREAM, GOAWAY].contains(&frame.kind)).expect("a fault");
    // RFC 9113 §5.1 asks for STREAM_CLOSED on the stream; h2 may end the connection instead.
    assert!([PROTOCOL_ERROR, STREAM_CLOSED].contains(&fault.code()), "{fault:?}");
    gateway.assert_sound();
}

/// Beyond h2spec: header blocks without end and streams that are opened only to be reset (CVE-2024-27316, CVE-2023-44487) end the
/// connection that sends them, and only that.
#[test]
fn floods_end_their_connection_only() {
    let origin = Origin::text("x");
    let mut gateway = Gateway::before(&origin);
    let field = block(&[("x-flood", &"a".repeat(100))]);
    let continuations = frame(CONTINUATION, 0, 1, &field.repeat(100)).repeat(500);
    let resets: Vec<u8> = (0..20_000_u32)
        .flat_map(|n| {
            [frame(HEADERS, END_STREAM | END_HEADERS, 2 * n + 1, &block(&GET)), frame(RST_STREAM, 0, 2 * n + 1, &[0, 0, 0, 8])]
                .concat()
        })
        .collect();
    for flood in [[frame(HEADERS, END_STREAM, 1, &block(&GET)), continuations].concat(), resets] {
        let mut raw = Raw::open(&gateway);
        raw.send(&flood);
        assert!(raw.ends(), "the connection goes on");
        assert_eq!(gateway.get("/").status, 200);
    }
    gateway.assert_sound();
}
