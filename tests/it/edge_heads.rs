//! Heads that are refused: wherever they stand, the client is told why, the connection ends, and nothing of them goes any further.

use std::collections::{BTreeMap, BTreeSet};

use banyan::edge::http1::{chunks::BadChunk, refusal::Refusal};

use crate::harness::{Connection, Gateway, Origin, PATIENCE, Response, cert::Authority, eventually, gateway::Start, origin::ok};

/// A head that breaks a rule.
struct Bad {
    /// The `reason` it is counted by.
    reason: &'static str,
    status: u16,
    code: &'static str,
    bytes: Vec<u8>,
}

impl Bad {
    /// As the first line of a connection it may be of any protocol: who sent it could not read our answer.
    fn is_foreign(&self) -> bool {
        self.reason == "version"
    }
}

/// What is pipelined behind each: it must never be answered, nor go on.
const BEHIND: &str = "GET /behind HTTP/1.1\r\nHost: a\r\n\r\n";

const GOOD: &str = "GET /good HTTP/1.1\r\nHost: a\r\n\r\n";

/// Small enough to be passed byte by byte.
const LIMITS: &str = "limits: { request_line: 512B, headers: 2KiB }";

fn bad(reason: &'static str, status: u16, code: &'static str, bytes: impl AsRef<[u8]>) -> Bad {
    Bad { reason, status, code, bytes: bytes.as_ref().to_vec() }
}

fn malformed(reason: &'static str, bytes: impl AsRef<[u8]>) -> Bad {
    bad(reason, 400, "malformed_request", bytes)
}

/// A request with these fields beside its Host, and a body that would be whole either way.
fn framed(reason: &'static str, fields: &str) -> Bad {
    let head = format!("POST /bad HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n");
    bad(reason, 400, "ambiguous_framing", head + "0\r\n\r\n")
}

fn with_field(reason: &'static str, field: &str) -> Bad {
    malformed(reason, format!("GET /bad HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n"))
}

fn of_host(reason: &'static str, fields: &str) -> Bad {
    malformed(reason, format!("GET /bad HTTP/1.1\r\n{fields}\r\n"))
}

/// Request lines and line ends.
fn lines() -> Vec<Bad> {
    let line = |reason, line: &str| malformed(reason, format!("{line}\r\nHost: a\r\n\r\n"));
    let of_version = |version: &str| {
        bad("version_not_supported", 505, "version_not_supported", format!("GET /bad {version}\r\nHost: a\r\n\r\n"))
    };
    vec![
        malformed("tls", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
        line("request_line", "GET  /bad HTTP/1.1"),
        line("request_line", "GET /bad  HTTP/1.1"),
        line("request_line", "GET /bad HTTP/1.1 "),
        line("request_line", "GET /bad /worse HTTP/1.1"),
        line("request_line", "GET"),
        line("method", " GET /bad HTTP/1.1"),
        line("method", "G(T /bad HTTP/1.1"),
        line("method", "GET: /bad HTTP/1.1"),
        line("simple_request", "GET /bad"),
        line("version", "GET /bad http/1.1"),
        line("version", "GET /bad HTTP/1.1x"),
        line("version", "GET /bad HTTPS/1.1"),
        line("version", "GET /bad HTTP/1"),
        of_version("HTTP/1.2"),
        of_version("HTTP/2.0"),
        of_version("HTTP/0.9"),
        bad("line_too_long", 414, "uri_too_long", format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "b".repeat(600))),
        malformed("target", b"GET /bad\xff HTTP/1.1\r\nHost: a\r\n\r\n"),
        malformed("empty_lines", "\r\n\r\nGET /bad HTTP/1.1\r\nHost: a\r\n\r\n"),
        malformed("bare_lf", "GET /bad HTTP/1.1\nHost: a\n\n"),
        malformed("bare_lf", "GET /bad HTTP/1.1\r\nHost: a\nX: y\r\n\r\n"),
        malformed("bare_lf", "GET /bad HTTP/1.1\r\nHost: a\r\n\n"),
        malformed("bare_cr", "GET /bad HTTP/1.1\rHost: a\r\r\n"),
        malformed("bare_cr", "GET /bad HTTP/1.1\r\nHost: a\rX: y\r\n\r\n"),
        malformed("control", "GET /bad\0 HTTP/1.1\r\nHost: a\r\n\r\n"),
        malformed("control", "GET\t/bad\tHTTP/1.1\r\nHost: a\r\n\r\n"),
        malformed("control", "GET /bad\x7f HTTP/1.1\r\nHost: a\r\n\r\n"),
    ]
}

/// Fields.
fn fields() -> Vec<Bad> {
    let too_large =
        |reason, fields: &str| bad(reason, 431, "headers_too_large", format!("GET /bad HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
    vec![
        with_field("control", "X: a\0b"),
        with_field("control", "X: a\x0bb"),
        with_field("control", "X: a\x7f"),
        with_field("control", "X\x01: b"),
        with_field("control", "Transfer-Encoding: \x0bchunked"),
        with_field("bare_cr", "X: a\rb"),
        with_field("folded", "X: a\r\n b"),
        with_field("folded", "X: a\r\n\tContent-Length: 5"),
        malformed("leading_space", "GET /bad HTTP/1.1\r\n Host: a\r\n\r\n"),
        malformed("leading_space", "GET /bad HTTP/1.1\r\n\tX: y\r\nHost: a\r\n\r\n"),
        with_field("space_before_colon", "X : y"),
        with_field("space_before_colon", "Content-Length\t: 5"),
        with_field("space_before_colon", "Transfer-Encoding : chunked"),
        with_field("field_name", ": y"),
        with_field("space_before_colon", "no colon"),
        with_field("field_name", "no-colon"),
        with_field("field_name", "X"),
        with_field("field_name", "X@Y: z"),
        with_field("field_name", "\u{fc}: z"),
        of_host("no_host", ""),
        of_host("no_host", "X-Host: a\r\n"),
        of_host("hosts", "Host: a\r\nHost: a\r\n"),
        of_host("hosts", "Host: a\r\nX: y\r\nhOST: b\r\n"),
        of_host("host", "Host:\r\n"),
        of_host("host", "Host: a b\r\n"),
        of_host("host", "Host: a, b\r\n"),
        of_host("host", "Host: a/b\r\n"),
        of_host("host", "Host: user@a\r\n"),
        of_host("host", "Host: a:b\r\n"),
        of_host("host", "Host: [::1\r\n"),
        of_host("host", "Host: a%00\r\n"),
        too_large("fields_too_large", &format!("X: {}\r\n", "y".repeat(2 << 10))),
        too_large("fields_too_large", &"X: yyyyyyyyyy\r\n".repeat(200)),
        too_large("too_many_fields", &"X:\r\n".repeat(256)),
    ]
}

/// Framings that two readers could take for two bodies.
fn framings() -> Vec<Bad> {
    let coding = |value: &str| format!("Transfer-Encoding: {value}");
    vec![
        framed("length_and_coding", "Content-Length: 5\r\nTransfer-Encoding: chunked"),
        framed("length_and_coding", "Transfer-Encoding: chunked\r\nX: y\r\nContent-Length: 5"),
        framed("lengths", "Content-Length: 5\r\nContent-Length: 5"),
        framed("lengths", "Content-Length: 0\r\ncontent-length: 5"),
        framed("length", "Content-Length: 5, 5"),
        framed("length", "Content-Length: 5,"),
        framed("length", "Content-Length: +5"),
        framed("length", "Content-Length: -5"),
        framed("length", "Content-Length: 0x5"),
        framed("length", "Content-Length: 5 5"),
        framed("length", "Content-Length:"),
        framed("length", "Content-Length: 9223372036854775808"),
        framed("length", "Content-Length: 99999999999999999999999"),
        framed("coding", &coding("identity")),
        framed("coding", &coding("chunked, gzip")),
        framed("coding", &coding("chunked, chunked")),
        framed("coding", &coding("xchunked")),
        framed("coding", &coding("chunked;q=1")),
        framed("coding", &coding("\"chunked\"")),
        framed("coding", &coding("")),
        framed("codings", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
        framed("codings", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity"),
        bad(
            "coding_in_http10",
            400,
            "ambiguous_framing",
            "POST /bad HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        bad(
            "coding_not_implemented",
            501,
            "transfer_coding",
            "POST /bad HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        ),
    ]
}

/// Bodies that break the chunked coding. They are refused with their head where they come with it.
fn chunks() -> Vec<Bad> {
    CHUNKS.iter().map(|(reason, body)| chunked(reason, body)).collect()
}

pub const CHUNKS: [(&str, &str); 22] = [
    ("chunk_size", "x\r\nhello\r\n0\r\n\r\n"),
    ("chunk_size", "0x5\r\nhello\r\n0\r\n\r\n"),
    ("chunk_size", "+5\r\nhello\r\n0\r\n\r\n"),
    ("chunk_size", "-5\r\nhello\r\n0\r\n\r\n"),
    ("chunk_size", "5_0\r\nhello\r\n0\r\n\r\n"),
    ("chunk_size", "\r\nhello\r\n0\r\n\r\n"),
    ("chunk_size", ";a=b\r\nhello\r\n0\r\n\r\n"),
    ("chunk_size_too_large", "8000000000000000\r\nhello\r\n0\r\n\r\n"),
    ("chunk_size_too_large", "00000000000000005\r\nhello\r\n0\r\n\r\n"),
    ("chunk_size_too_large", "10000000000000005\r\nhello\r\n0\r\n\r\n"),
    ("chunk_space", " 5\r\nhello\r\n0\r\n\r\n"),
    ("chunk_space", "5 \r\nhello\r\n0\r\n\r\n"),
    ("chunk_space", "5\t;a=b\r\nhello\r\n0\r\n\r\n"),
    ("chunk_bare_lf", "5\nhello\r\n0\r\n\r\n"),
    ("chunk_bare_lf", "5;a=b\nhello\r\n0\r\n\r\n"),
    ("chunk_bare_cr", "5\rhello\r\n0\r\n\r\n"),
    ("chunk_bare_cr", "0\r\n\rX"),
    ("chunk_extension", "5;a=\0\r\nhello\r\n0\r\n\r\n"),
    ("chunk_data_end", "4\r\nhello\r\n0\r\n\r\n"),
    ("chunk_data_end", "5\r\nhello\n0\r\n\r\n"),
    ("trailer", "0\r\nX : y\r\n\r\n"),
    ("trailer_name", "0\r\nContent-Length: 5\r\n\r\n"),
];

/// The same, too long to come with their head.
pub fn long_chunks() -> [(&'static str, String); 2] {
    [
        ("chunk_extensions_too_large", format!("1;{}\r\nx\r\n0\r\n\r\n", "e".repeat(5000))),
        ("trailers_too_large", format!("0\r\nX: {}\r\n\r\n", "y".repeat(9000))),
    ]
}

fn chunked(reason: &'static str, body: &str) -> Bad {
    // Longer than the gateway's first look at a connection, so that head and body are judged together.
    let long = "x".repeat(100);
    let head = format!("POST /bad HTTP/1.1\r\nHost: a\r\nX: {long}\r\nTransfer-Encoding: chunked\r\n\r\n");
    bad(reason, 400, "ambiguous_framing", head + body)
}

/// Where a bad head stands, and how it comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    First,
    /// On a connection that is kept alive.
    Second,
    /// Behind a good request, in one write with it.
    Pipelined,
    ByteByByte,
    Tls,
}

/// A gateway before a service that records each head as soon as it comes.
struct Setting {
    origin: Origin,
    gateway: Gateway,
    authority: Authority,
    /// What clients were told: the request ids of refusals.
    told: BTreeSet<String>,
    /// How many were told nothing.
    untold: usize,
    /// How many are due by listener and reason.
    due: BTreeMap<(&'static str, &'static str), u32>,
}

impl Setting {
    fn new() -> Self {
        let origin = Origin::script(|visit| {
            while let Some(head) = visit.head()? {
                visit.wire.body(head.request_framing()?, &mut Vec::new())?;
                visit.wire.send(ok("good"))?;
            }
            Ok(())
        });
        let authority = Authority::new();
        let dir = tempfile::tempdir().unwrap();
        authority.leaf(&["a"]).write(dir.path(), "a");
        let gateway = Start::on(&format!(
            "listeners:
  web: {{ address: 127.0.0.1:<web>, {LIMITS} }}
  secure: {{ address: 127.0.0.1:<secure>, {LIMITS}, tls: {{ certificates: [{{ cert: a.pem, key: a.key }}] }} }}
upstreams: {{ one: {{ endpoints: [\"{origin}\"] }} }}
routes: {{ all: {{ to: {{ upstream: one }} }} }}"
        ))
        .dir(dir)
        .ready();
        Self { origin, gateway, authority, told: BTreeSet::new(), untold: 0, due: BTreeMap::new() }
    }

    fn connect(&self, place: Place) -> Connection {
        match place {
            Place::Tls => Connection::tls(self.gateway.address("secure"), "a", self.authority.client(&[])).unwrap(),
            _ => self.gateway.connect(),
        }
    }

    #[track_caller]
    fn check(&mut self, bad: &Bad, place: Place) {
        let what = format!("{place:?}: {} ({})", bad.bytes.escape_ascii(), bad.reason);
        let mut connection = self.connect(place);
        let sent = [&bad.bytes, BEHIND.as_bytes()].concat();
        match place {
            Place::First | Place::Tls => drop(connection.0.send(&sent)),
            Place::ByteByByte => sent.iter().take_while(|byte| connection.0.send([**byte]).is_ok()).for_each(drop),
            Place::Second => {
                assert_eq!(connection.send(GOOD).response("GET").text(), "good", "{what}");
                let _ = connection.0.send(&sent);
            }
            Place::Pipelined => {
                let _ = connection.0.send([GOOD.as_bytes(), &sent].concat());
                assert_eq!(connection.response("GET").text(), "good", "{what}");
            }
        }
        if bad.is_foreign() && !matches!(place, Place::Second | Place::Pipelined) {
            self.untold += 1;
        } else {
            let reply = connection.try_response("GET").unwrap_or_else(|e| panic!("{what}: {e}"));
            self.told.insert(assert_refused(&reply, bad, &what));
        }
        assert!(connection.0.closes_within(PATIENCE), "{what}: the connection ends, and what is behind is not answered");
        let listener = if place == Place::Tls { "secure" } else { "web" };
        *self.due.entry((listener, bad.reason)).or_default() += 1;
    }

    /// Each refusal was counted and logged once, and the service saw the good requests alone.
    #[track_caller]
    fn assert_told(&mut self, good: usize) {
        for ((listener, reason), due) in &self.due {
            let sample = format!("banyan_request_heads_refused_total{{listener=\"{listener}\",reason=\"{reason}\"}}");
            assert_eq!(self.gateway.metric(&sample), Some(f64::from(*due)), "{sample}");
        }
        let refused = self.due.values().sum::<u32>() as usize;
        assert_eq!(self.told.len() + self.untold, refused, "each has an id of its own");
        let lines = eventually("every line is logged", || {
            let lines = self.gateway.stdout.all();
            (lines.len() >= refused + good).then_some(lines)
        });
        let entries: Vec<serde_json::Value> = lines.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let refusals: Vec<_> = entries.iter().filter(|entry| entry["status"] != 200).collect();
        let ids: BTreeSet<_> = refusals.iter().map(|entry| entry["request_id"].as_str().unwrap().to_owned()).collect();
        assert_eq!((refusals.len(), ids.len()), (refused, refused), "one line for each refusal");
        assert!(ids.is_superset(&self.told), "with the id that the client was told");
        assert!(refusals.iter().all(|entry| entry["client"] == "127.0.0.1" && entry["endpoint"].is_null()), "{refusals:?}");
        let targets: Vec<_> = self.origin.requests().iter().map(|request| request.head.line.clone()).collect();
        assert_eq!(targets, vec!["GET /good HTTP/1.1"; good]);
        self.gateway.assert_sound();
    }
}

/// The request's id.
#[track_caller]
fn assert_refused(reply: &Response, bad: &Bad, what: &str) -> String {
    assert_eq!((reply.status, &reply.json()["code"]), (bad.status, &bad.code.into()), "{what}: {}", reply.text());
    assert_eq!(reply.json()["status"], bad.status, "{what}");
    assert_eq!(reply.field("connection"), Some("close"), "{what}");
    assert_eq!(reply.field("content-type"), Some("application/problem+json"), "{what}");
    assert_eq!(reply.field("server"), None, "{what}");
    assert!(!reply.text().contains("/bad"), "the rule is named, never the data: {}", reply.text());
    reply.field("x-request-id").expect("a request id").to_owned()
}

/// Plays each at each place.
#[track_caller]
fn play(cases: &[Bad], places: &[Place]) {
    let mut setting = Setting::new();
    for (bad, place) in cases.iter().flat_map(|bad| places.iter().map(move |place| (bad, *place))) {
        setting.check(bad, place);
    }
    let good = places.iter().filter(|place| matches!(place, Place::Second | Place::Pipelined)).count();
    setting.assert_told(good * cases.len());
}

const EVERYWHERE: [Place; 5] = [Place::First, Place::Second, Place::Pipelined, Place::ByteByByte, Place::Tls];

#[test]
fn a_bad_request_line_is_refused_wherever_it_stands() {
    play(&lines(), &EVERYWHERE);
}

#[test]
fn a_bad_field_is_refused_wherever_it_stands() {
    play(&fields(), &EVERYWHERE);
}

#[test]
fn a_doubtful_framing_is_refused_wherever_it_stands() {
    play(&framings(), &EVERYWHERE);
}

/// Byte by byte they come after their head, see `edge_bodies`.
#[test]
fn a_bad_chunk_is_refused_with_the_head_that_it_comes_with() {
    play(&chunks(), &[Place::First, Place::Second, Place::Pipelined, Place::Tls]);
}

#[test]
fn every_reason_is_tried() {
    let cases = [lines(), fields(), framings(), chunks()];
    let long = long_chunks().map(|(reason, _)| reason);
    let tried: BTreeSet<_> = cases.iter().flatten().map(|bad| bad.reason).chain(long).collect();
    let (heads, bodies) = (Refusal::ALL.map(Refusal::reason), BadChunk::ALL.map(BadChunk::reason));
    // What `not_whole` means cannot be sent: the gate waits for the rest.
    let due: BTreeSet<_> = heads.into_iter().chain(bodies).filter(|reason| *reason != "not_whole").collect();
    assert_eq!(tried, due);
}

#[test]
fn the_log_says_what_can_be_said_of_a_refused_head() {
    let gateway = Gateway::start("routes: {}");
    let check = |sent: &[u8], method: &str, path: &str, status: u16| {
        let mut connection = gateway.connect();
        connection.send(sent);
        let reply = connection.response("GET");
        let entry = gateway.logged(|entry| entry["request_id"] == reply.field("x-request-id").unwrap());
        let said = (entry["method"].as_str().unwrap(), entry["path"].as_str().unwrap(), entry["status"].as_u64().unwrap());
        assert_eq!(said, (method, path, u64::from(status)), "{}", sent.escape_ascii());
        assert!(entry["route"].is_null() && entry["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{entry}");
    };
    check(b"PUT /a?b=c HTTP/1.1\r\nHost: a b\r\n\r\n", "PUT", "/a?b=c", 400);
    check(b"GET /a\"\\ HTTP/1.1\r\n\r\n", "GET", "/a\"\\", 400);
    check(b"GET /a HTTP/3.0\r\n", "GET", "/a", 505);
    check(b"\x16\x03\x01\x02\x00\x01\x00", "-", "", 400);
}

/// RFC 9112 §2.2: one empty line before a request is passed over, and is nothing by itself.
#[test]
fn one_empty_line_before_a_request_is_passed_over() {
    let origin = Origin::text("x");
    let mut gateway = Gateway::before(&origin);
    let mut connection = gateway.connect();
    connection.send(format!("\r\n{GOOD}\r\n{GOOD}"));
    assert_eq!([connection.response("GET").status, connection.response("GET").status], [200, 200]);
    connection.send("\r\n");
    connection.0.socket().shutdown(std::net::Shutdown::Write).unwrap();
    assert!(connection.0.closes_within(PATIENCE), "silently");
    gateway.assert_sound();
}

#[test]
fn a_head_as_large_as_its_limits_passes() {
    let origin = Origin::text("x");
    let gateway = Gateway::start(&format!(
        "listeners: {{ web: {{ address: 127.0.0.1:<web>, {LIMITS} }} }}
upstreams: {{ one: {{ endpoints: [\"{origin}\"] }} }}
routes: {{ all: {{ to: {{ upstream: one }} }} }}"
    ));
    let line = format!("GET /{} HTTP/1.1", "a".repeat(512 - 14));
    let fields = format!("Host: a\nX: {}", "y".repeat(2048 - 9 - 5));
    assert_eq!(gateway.ask(&format!("{line}\n{fields}")).status, 200);
    assert_eq!(gateway.ask(&format!("{line}\n{fields}y")).status, 431);
    assert_eq!(gateway.ask(&format!("GET /{} HTTP/1.1\n{fields}", "a".repeat(512 - 13))).status, 414);
    let many = "X:\n".repeat(255);
    assert_eq!(gateway.ask(&format!("GET /many HTTP/1.1\nHost: a\n{many}")).status, 200);
    assert_eq!(gateway.ask(&format!("GET /many HTTP/1.1\nHost: a\n{many}X:")).status, 431);
    assert_eq!(origin.count(), 2);
}

#[test]
fn a_handshake_on_a_plain_port_is_told_so_and_plain_text_on_a_tls_port_is_left() {
    let mut setting = Setting::new();
    let name = rustls::pki_types::ServerName::try_from("a").unwrap();
    let mut client = rustls::ClientConnection::new(setting.authority.client(&[]), name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    setting.check(&malformed("tls", hello), Place::First);
    let mut connection = Connection::open(setting.gateway.address("secure"));
    connection.send(GOOD);
    let said = connection.0.rest();
    assert!(!said.starts_with(b"HTTP") && said.len() < 16, "an alert at most: {}", said.escape_ascii());
    let refused = "banyan_connections_refused_total{listener=\"secure\",reason=\"tls_not_tls\"}";
    eventually("it is counted", || setting.gateway.metric(refused).filter(|&count| count == 1.0));
    setting.assert_told(0);
}
