//! Parts of a request's way, each repeated in a process of its own: the difference between many runs and few is the cost of one.

use std::{
    fmt::Write,
    hint::black_box,
    path::Path,
    time::{Duration, UNIX_EPOCH},
};

use banyan::{
    config::{load, observe::LogFormat, paths::EncodedSlashes, route::Scheme},
    edge::http1::{Limits, head, scan::Scan},
    exchange::{Facts, Flag},
    live,
    observe::{Record, line, trace},
    proxy::{
        facts::{self, Connection},
        forwarded::{self, Hops},
    },
    stores::Stores,
};
use http::HeaderValue;
use pingora_http::RequestHeader;

use super::{Counts, callgrind};

const FEW: u64 = 100;
const MANY: u64 = 1100;

const HEAD: &str = "GET /service/7/1042/part?page=3 HTTP/1.1\r\nHost: h42.example\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
    Accept: text/html,application/json;q=0.9,*/*;q=0.8\r\nAccept-Language: en-GB,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate, br\r\nCookie: session=0123456789abcdef0123456789abcdef\r\n\r\n";

const LIMITS: Limits = Limits { request_line: 8000, fields: 64 << 10, count: 256 };

/// A part does its work as often as it is told.
type Part = fn(u64);

const PARTS: [(&str, Part); 7] = [
    ("part: head at the gate", gate),
    ("part: facts", read_facts),
    ("part: route of 1,000", find_route),
    ("part: forwarded", write_forwarded),
    ("part: trace context", continue_trace),
    ("part: log line, JSON", json_line),
    ("part: metrics", count_request),
];

pub fn repeat(name: &str, times: u64) {
    let (_, part) = PARTS.iter().find(|(known, _)| *known == name).unwrap();
    part(times);
}

/// Instructions of each part.
pub fn counts() -> Counts {
    let dir = tempfile::tempdir().unwrap();
    PARTS
        .iter()
        .map(|(name, _)| ((*name).to_owned(), (run(name, MANY, dir.path()) - run(name, FEW, dir.path())) / (MANY - FEW)))
        .collect()
}

fn run(name: &str, times: u64, dir: &Path) -> u64 {
    let out = dir.join("part.out");
    let mut command = callgrind::command(&std::env::current_exe().unwrap(), &out, false);
    assert!(command.args(["part", name, &times.to_string()]).status().unwrap().success(), "{name}");
    callgrind::total(&out)
}

fn request() -> RequestHeader {
    let mut lines = HEAD.split("\r\n");
    let target = lines.next().unwrap().split(' ').nth(1).unwrap();
    let mut head = RequestHeader::build("GET", target.as_bytes(), None).unwrap();
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        head.append_header(name.to_owned(), value.to_owned()).unwrap();
    }
    head
}

fn connection() -> Connection {
    Connection { peer: "192.0.2.7:40000".parse().unwrap(), scheme: Scheme::Http, trusted: false }
}

fn read(head: &RequestHeader) -> Facts {
    let id = facts::request_id(&head.headers, false);
    let hops = Hops::default();
    facts::read(head, connection(), &hops, |_| false, EncodedSlashes::Refuse, id, std::time::Instant::now()).unwrap()
}

fn gate(times: u64) {
    for _ in 0..times {
        let end = Scan::default().advance(black_box(HEAD.as_bytes()), &LIMITS).unwrap();
        assert_eq!(end, Some(HEAD.len()));
        black_box(head::check(black_box(HEAD.as_bytes()), &LIMITS).unwrap());
    }
}

fn read_facts(times: u64) {
    let head = request();
    for _ in 0..times {
        assert_eq!(black_box(read(black_box(&head))).host, "h42.example");
    }
}

fn find_route(times: u64) {
    let mut text =
        "listeners: { web: { address: 127.0.0.1:8080 } }\nupstreams: { u: { endpoints: [10.0.0.1:80] } }\nroutes:\n".to_owned();
    for n in 0..1000 {
        let (host, kind) = (n % 100, n / 100);
        writeln!(
            text,
            "  r{n}: {{ match: {{ hosts: [h{host}.example], path: \"/service/{kind}/{{id}}/part\" }}, to: {{ upstream: u }} }}"
        )
        .unwrap();
    }
    let loaded = std::sync::Arc::new(load::from_text("bench", &text));
    let stores = Stores::closed(&loaded.config).unwrap();
    let candidate = live::compile(&loaded, &stores, 1).unwrap_or_else(|_| panic!("the configuration is good"));
    let head = request();
    let facts = read(&head);
    for _ in 0..times {
        let (route, _) = candidate.snapshot.router.find(black_box(&facts), &head.headers).unwrap();
        assert_eq!(route.name.as_str(), "r742");
    }
}

fn write_forwarded(times: u64) {
    let head = request();
    let facts = read(&head);
    for _ in 0..times {
        let mut sent = head.clone();
        forwarded::write(black_box(&mut sent), &facts, &Hops::default()).unwrap();
        assert!(sent.headers.contains_key("x-forwarded-for"));
    }
}

fn continue_trace(times: u64) {
    let head = request();
    for _ in 0..times {
        let mut sent = head.clone();
        trace::continue_or_start(black_box(&head.headers)).apply(&mut sent).unwrap();
        assert!(sent.headers.contains_key("traceparent"));
    }
}

fn record<'a>(head: &'a RequestHeader, facts: &'a Facts) -> Record<'a> {
    Record {
        time: UNIX_EPOCH + Duration::from_millis(1_709_251_199_042),
        request_id: facts.request_id.as_bytes(),
        trace: Some(trace::continue_or_start(&head.headers).trace_id),
        route: Some("r742"),
        upstream: Some("one"),
        endpoint: Some("10.0.0.1:80".parse().unwrap()),
        tries: 1,
        method: &facts.method,
        scheme: facts.scheme,
        host: &facts.host,
        path: &facts.path,
        query: facts.query.as_deref(),
        version: facts.version,
        status: 200,
        received: 0,
        sent: 512,
        duration: Duration::from_micros(12_345),
        upstream_connect: None,
        upstream_first_byte: Some(Duration::from_micros(9_007)),
        tls: None,
        client: facts.client,
        peer: facts.peer,
        consumer: None,
        auth: None,
        refusal: None,
        limit: None,
        user_agent: head.headers.get("user-agent").map(HeaderValue::as_bytes),
        referer: None,
        flag: Flag::None,
        generation: 3,
    }
}

fn json_line(times: u64) {
    let head = request();
    let facts = read(&head);
    let record = record(&head, &facts);
    for _ in 0..times {
        assert!(black_box(line::line(black_box(&record), LogFormat::Json)).ends_with(b"}\n"));
    }
}

fn count_request(times: u64) {
    let config = load::from_text("bench", "").config;
    let stores = Stores::closed(&config).unwrap();
    let (route, upstream) = (stores.metrics.no_route(), stores.metrics.upstream(&banyan::name::UpstreamName::new("u")));
    let head = request();
    let facts = read(&head);
    let record = record(&head, &facts);
    for _ in 0..times {
        let _in_flight = route.begin();
        stores.metrics.ended(black_box(&record), &route, Some(&upstream));
    }
}
