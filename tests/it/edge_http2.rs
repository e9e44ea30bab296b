//! HTTP/2 from clients that mean no good: floods end their connection and are counted, caps hold, and others notice nothing.

use std::{
    io,
    sync::{Mutex, mpsc},
};

use crate::harness::{
    Gateway, Origin, PATIENCE, eventually,
    frames::{
        ACK, CANCEL, CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, FRAME_SIZE_ERROR, GET, GOAWAY, HEADERS,
        PING, POST, PRIORITY, PROTOCOL_ERROR, REFUSED_STREAM, RST_STREAM, Raw, SETTINGS, WINDOW_UPDATE, block, frame,
    },
    h2,
    origin::ok,
};

/// HEADERS of a request without a body.
fn request(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &block(&GET))
}

/// The numbers of a client's streams.
fn streams(count: u32) -> impl Iterator<Item = u32> {
    (0..count).map(|n| 2 * n + 1)
}

/// Each kind of flood, and the code it is ended with.
fn floods() -> [(&'static str, u32, Vec<u8>); 12] {
    let post = frame(HEADERS, END_HEADERS, 1, &block(&POST));
    let begun = frame(HEADERS, END_STREAM, 1, &block(&GET));
    let field = block(&[("x-flood", &"a".repeat(100))]);
    let many = |frame: Vec<u8>, count: usize| frame.repeat(count);
    let entries: Vec<u8> = [0, 3, 0, 0, 0, 100].repeat(2000);
    let cancelled = streams(3000).flat_map(|n| [request(n), frame(RST_STREAM, 0, n, &CANCEL.to_be_bytes())].concat()).collect();
    let empties = streams(100).flat_map(|n| {
        let nothing = frame(CONTINUATION, 0, n, &[]);
        [frame(HEADERS, END_STREAM, n, &block(&GET)), nothing.repeat(2), frame(CONTINUATION, END_HEADERS, n, &[])].concat()
    });
    let empties = empties.collect();
    let calm = ENHANCE_YOUR_CALM;
    [
        ("continuation", calm, [begun.clone(), many(frame(CONTINUATION, 0, 1, &field), 50)].concat()),
        ("empty_headers", calm, empties),
        ("settings", calm, many(frame(SETTINGS, 0, 0, &[]), 3000)),
        ("settings", calm, many(frame(SETTINGS, 0, 0, &entries), 200)),
        ("ping", calm, many(frame(PING, 0, 0, &[7; 8]), 3000)),
        ("ping", calm, many(frame(PING, ACK, 0, &[7; 8]), 3000)),
        ("reset", calm, cancelled),
        ("priority", calm, many(frame(PRIORITY, 0, 3, &[0, 0, 0, 0, 16]), 3000)),
        ("window_update", calm, many(frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]), 3000)),
        ("empty_data", calm, [post, many(frame(DATA, 0, 1, &[]), 3000)].concat()),
        ("unknown_frame", calm, many(frame(0xfe, 0, 0, b"what"), 3000)),
        ("oversized_frame", FRAME_SIZE_ERROR, frame(DATA, 0, 1, &vec![0; 20_000])),
    ]
}

#[test]
fn each_flood_ends_its_connection_alone_and_is_counted() {
    let origin = Origin::text("x");
    let mut gateway = Gateway::before(&origin);
    let mut bystander = Raw::open(&gateway);
    let mut due = std::collections::BTreeMap::<_, u32>::new();
    let mut flooded = Vec::new();
    for (n, (kind, code, sent)) in floods().into_iter().enumerate() {
        let mut raw = Raw::open(&gateway);
        raw.send(&sent);
        let goaway = raw.until(|frame| frame.kind == GOAWAY).unwrap_or_else(|| panic!("{kind}: no last word"));
        assert_eq!(goaway.code(), code, "{kind}");
        flooded.push((kind, raw));
        *due.entry(kind).or_default() += 1;
        let sample = format!("banyan_http2_floods_total{{kind=\"{kind}\",listener=\"web\"}}");
        let count = f64::from(due[kind]);
        eventually(&format!("{sample} is {count}"), || gateway.metric(&sample).filter(|&found| found == count));
        bystander.send(&request(2 * u32::try_from(n).unwrap() + 1));
        let head = bystander.until(|frame| frame.kind == HEADERS).unwrap_or_else(|| panic!("{kind} ended another connection"));
        assert_eq!(head.status(), "200", "{kind}");
    }
    for (kind, mut raw) in flooded {
        assert!(raw.ends(), "{kind}: left alone for a while, then closed");
    }
    for (code, least) in [("enhance_your_calm", 1.0), ("frame_size_error", 1.0)] {
        let sample = format!("banyan_http2_ended_total{{code=\"{code}\",frame=\"goaway\",listener=\"web\"}}");
        assert!(gateway.metric(&sample).is_some_and(|count| count >= least), "{sample}");
    }
    gateway.assert_sound();
}

/// Who breaks the protocol is told so, and does not come again at once because its connection is closed.
#[test]
fn a_client_at_fault_is_left_alone_for_a_while() {
    let origin = Origin::text("x");
    let mut gateway = Gateway::before(&origin);
    let mut raw = Raw::open(&gateway);
    let begun = std::time::Instant::now();
    raw.send(&frame(DATA, 0, 0, b"for no stream"));
    let goaway = raw.until(|frame| frame.kind == GOAWAY).expect("a last word");
    assert_eq!(goaway.code(), 1, "PROTOCOL_ERROR");
    assert!(raw.ends());
    assert!(begun.elapsed() >= std::time::Duration::from_millis(900), "{:?}", begun.elapsed());
    gateway.assert_sound();
}

/// A window that grows beyond its maximum is the client's fault, and has us do what it may not do so often itself.
#[test]
fn resets_that_a_client_provokes_are_a_flood_too() {
    let origin = Origin::text("x");
    let mut gateway = Gateway::before(&origin);
    let mut raw = Raw::open(&gateway);
    let mut code = None;
    for batch in streams(2000).collect::<Vec<_>>().chunks(100) {
        let misused = |stream: &u32| [request(*stream), frame(WINDOW_UPDATE, 0, *stream, &[0x7f, 0xff, 0xff, 0xff])].concat();
        raw.send(&batch.iter().flat_map(misused).collect::<Vec<u8>>());
        let last = raw.until(|frame| frame.kind == GOAWAY || frame.kind == RST_STREAM && Some(&frame.stream) == batch.last());
        code = last.filter(|frame| frame.kind == GOAWAY).map(|frame| frame.code());
        if code.is_some() {
            break;
        }
    }
    assert_eq!(code, Some(ENHANCE_YOUR_CALM));
    assert!(raw.ends());
    assert_eq!(gateway.metric("banyan_http2_floods_total{kind=\"reset\",listener=\"web\"}"), Some(1.0));
    assert_eq!(gateway.get("/").status, 200);
    gateway.assert_sound();
}

/// Rapid reset (CVE-2023-44487): what is cancelled as it comes costs the service nothing.
#[test]
fn a_stream_that_is_cancelled_at_once_does_not_reach_the_service() {
    let origin = Origin::text("x");
    let mut gateway = Gateway::before(&origin);
    let mut raw = Raw::open(&gateway);
    let cancelled = |stream: u32| [request(stream), frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes())].concat();
    raw.send(&streams(10).flat_map(cancelled).chain(request(21)).collect::<Vec<u8>>());
    let head = raw.until(|frame| frame.kind == HEADERS).expect("the stream that was not cancelled is answered");
    assert_eq!((head.stream, head.status()), (21, "200".to_owned()));
    eventually("each is logged as its client's doing", || {
        (gateway.stdout.text().lines().filter(|line| line.contains("\"flag\":\"DC\"")).count() == 10).then_some(())
    });
    assert_eq!(origin.requests().len(), 1);
    gateway.assert_sound();
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

fn limited(origin: &Origin, listener: &str) -> Gateway {
    Gateway::start(&format!(
        "listeners: {{ web: {{ address: 127.0.0.1:<web>, {listener} }} }}
upstreams: {{ one: {{ endpoints: [\"{origin}\"] }} }}
routes: {{ all: {{ to: {{ upstream: one }} }} }}"
    ))
}

#[test]
fn streams_beyond_the_cap_are_refused_and_may_come_again() {
    let (origin, go) = held();
    let gateway = limited(&origin, "http2: { streams: 3 }");
    let mut raw = Raw::open(&gateway);
    raw.send(&[1, 3, 5].map(request).concat());
    origin.wait_for(3);
    raw.send(&[7, 9].map(request).concat());
    for _ in 0..2 {
        let reset = raw.until(|frame| frame.kind == RST_STREAM).expect("it is refused");
        assert_eq!((reset.code(), reset.stream > 5), (REFUSED_STREAM, true), "{reset:?}");
    }
    (0..3).for_each(|_| go.send(()).unwrap());
    for _ in 0..3 {
        let last = raw.until(|frame| frame.flags & END_STREAM != 0 && frame.stream > 0).expect("those that run are answered");
        assert!(last.stream < 7, "{last:?}");
    }
    raw.send(&request(11));
    go.send(()).unwrap();
    assert_eq!(raw.until(|frame| (frame.kind, frame.stream) == (HEADERS, 11)).expect("an answer").status(), "200");
    assert_eq!(origin.count(), 4);
    let sample = "banyan_http2_ended_total{code=\"refused_stream\",frame=\"rst_stream\",listener=\"web\"}";
    assert_eq!(gateway.metric(sample), Some(2.0));
}

/// A hundred bytes of HPACK can stand for the longest list that is allowed, on each stream.
#[test]
fn the_header_lists_of_a_connection_are_bounded_together() {
    let (origin, go) = held();
    let mut gateway = limited(&origin, "limits: { headers: 8KiB }, http2: { streams: 30 }");
    let mut raw = Raw::open(&gateway);
    let field = "y".repeat(120);
    let fields = [GET.as_slice(), &[("x-a", field.as_str()); 50]].concat();
    let heavy = |stream: u32| frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(&fields));
    raw.send(&streams(30).flat_map(heavy).collect::<Vec<u8>>());
    let refused = raw.until(|frame| frame.kind == HEADERS).expect("an answer while the service is silent");
    assert_ne!(refused.status(), "200");
    let sample = "banyan_request_heads_refused_total{listener=\"web\",reason=\"http2_fields\"}";
    let refused = eventually("the others are refused", || gateway.metric(sample).filter(|count| *count >= 13.0));
    assert!(refused <= 15.0, "sixteen times 8 KiB are held: {refused}");
    (0..30).for_each(|_| go.send(()).unwrap());
    eventually("the rest is answered", || (gateway.metric("banyan_requests_in_flight{route=\"all\"}")? == 0.0).then_some(()));
    raw.send(&heavy(61));
    assert_eq!(raw.until(|frame| (frame.kind, frame.stream) == (HEADERS, 61)).expect("an answer").status(), "200");
    gateway.assert_sound();
}

#[test]
fn more_fields_than_over_http1_are_refused() {
    let origin = Origin::text("x");
    let mut gateway = Gateway::before(&origin);
    let mut raw = Raw::open(&gateway);
    let with = |stream, count| {
        frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(&[GET.as_slice(), &vec![("a", "b"); count]].concat()))
    };
    raw.send(&[with(1, 257), with(3, 256)].concat());
    let mut heads: Vec<_> = (0..2).map(|_| raw.until(|frame| frame.kind == HEADERS).expect("an answer")).collect();
    heads.sort_by_key(|head| head.stream);
    assert_ne!(heads[0].status(), "200");
    assert_eq!(heads[1].status(), "200");
    assert_eq!(origin.count(), 1);
    gateway.assert_sound();
}

#[test]
fn the_cap_on_streams_is_announced() {
    let origin = Origin::text("x");
    let gateway = limited(&origin, "http2: { streams: 3 }");
    let mut raw = Raw::unspoken(&gateway);
    raw.send(crate::harness::frames::PREFACE);
    let settings = raw.until(|frame| frame.kind == SETTINGS).expect("settings");
    assert!(settings.payload.chunks(6).any(|entry| entry == [0, 3, 0, 0, 0, 3]), "{settings:?}");
}

#[test]
fn a_header_list_beyond_the_limit_is_refused_on_its_stream() {
    let origin = Origin::text("x");
    let mut gateway = limited(&origin, "limits: { headers: 2KiB }");
    let long = "y".repeat(100);
    let (status, after) = h2::play(async {
        let mut client = h2::h2c(gateway.web()).await;
        let mut large = http::Request::get("http://a/large");
        for n in 0..30 {
            large = large.header(format!("x-{n}"), &long);
        }
        let status = h2::ask(&mut client, large.body(h2::full("")).unwrap()).await.head.status;
        let after = h2::ask(&mut client, http::Request::get("http://a/after").body(h2::full("")).unwrap()).await.head.status;
        (status.as_u16(), after.as_u16())
    });
    assert_eq!((status, after), (431, 200));
    let targets: Vec<_> = origin.requests().iter().map(|request| request.target().to_owned()).collect();
    assert_eq!(targets, ["/after"]);
    gateway.assert_sound();
}

/// A short block that stands for a long list: one field in the table of HPACK, named again and again.
#[test]
fn a_header_block_that_unpacks_to_much_is_refused_in_little_memory() {
    let origin = Origin::text("x");
    let mut gateway = Gateway::before(&origin);
    let before = gateway.memory("VmHWM");
    let value = "y".repeat(4000);
    // A literal that is taken into the table, its value's length in two bytes more (RFC 7541 §5.1).
    let stored = [&[0x40, 1, b'x', 0x7f, 0xa1, 0x1e], value.as_bytes()].concat();
    let bomb = [block(&GET), stored, vec![0xbe; 12_000]].concat();
    for _ in 0..5 {
        let mut raw = Raw::open(&gateway);
        let (first, rest) = bomb.split_at(16_000);
        raw.send(&[frame(HEADERS, END_STREAM, 1, first), frame(CONTINUATION, END_HEADERS, 1, rest)].concat());
        let answer = raw.until(|frame| [RST_STREAM, GOAWAY].contains(&frame.kind) || (frame.kind, frame.stream) == (HEADERS, 1));
        assert!(answer.is_none_or(|frame| frame.kind != HEADERS || frame.payload[0] != 0x88), "it is not answered");
    }
    assert_eq!(origin.connections(), 0);
    let grown = gateway.memory("VmHWM") - before;
    assert!(grown < 16 << 10, "memory grew by {grown} KiB");
    gateway.assert_sound();
}

#[test]
fn a_malformed_stream_is_reset_and_its_siblings_go_on() {
    let (origin, go) = held();
    let mut gateway = Gateway::before(&origin);
    let mut raw = Raw::open(&gateway);
    raw.send(&request(1));
    origin.wait_for(1);
    // A name in capitals is a fault of the connection to h2.
    let malformed: [&[(&str, &str)]; 4] =
        [&[("te", "gzip")], &[("connection", "close")], &[("transfer-encoding", "chunked")], &[(":status", "200")]];
    for (stream, more) in (3..).step_by(2).zip(malformed) {
        raw.send(&frame(HEADERS, END_STREAM | END_HEADERS, stream, &block(&[&GET, more].concat())));
        let reset = raw.until(|frame| frame.kind == RST_STREAM).unwrap_or_else(|| panic!("not reset: {more:?}"));
        assert_eq!((reset.stream, reset.code()), (stream, PROTOCOL_ERROR), "{more:?}");
    }
    go.send(()).unwrap();
    assert_eq!(raw.until(|frame| (frame.kind, frame.stream) == (HEADERS, 1)).expect("an answer").status(), "200");
    let sample = "banyan_http2_ended_total{code=\"protocol_error\",frame=\"rst_stream\",listener=\"web\"}";
    assert_eq!(gateway.metric(sample), Some(4.0));
    assert_eq!(origin.count(), 1);
    gateway.assert_sound();
}
