use proptest::prelude::*;

use super::*;
use crate::edge::http1::{
    scan::Scan,
    testing::{LIMITS, heads},
};

const PLAIN: Head = Head { version: Version::Http11, framing: Framing::None, upgrade: false, expects_continue: false };

fn check(head: impl AsRef<[u8]>, expected: Result<Head, Refusal>) {
    let head = head.as_ref();
    assert_eq!(super::check(head, &LIMITS), expected, "{}", head.escape_ascii());
    let found = Scan::default().advance(head, &LIMITS);
    match expected {
        Ok(_) => assert_eq!(found, Ok(Some(head.len())), "{}", head.escape_ascii()),
        Err(refusal) => assert!(found != Ok(None) || refusal == Refusal::NotWhole, "{} is waited for", head.escape_ascii()),
    }
}

/// Fields after `POST / HTTP/1.1` and a Host.
fn fields(fields: impl AsRef<[u8]>, expected: Result<Head, Refusal>) {
    check([b"POST / HTTP/1.1\r\nHost: a\r\n", fields.as_ref(), b"\r\n\r\n"].concat(), expected);
}

fn framing(fields: &str, framing: Framing) {
    self::fields(fields, Ok(Head { framing, ..PLAIN }));
}

#[test]
fn a_request_line_has_three_parts() {
    let line = |line: &str, expected| check(format!("{line}\r\nHost: a\r\n\r\n"), expected);
    line("GET / HTTP/1.1", Ok(PLAIN));
    line("GET / HTTP/1.0", Ok(Head { version: Version::Http10, ..PLAIN }));
    line("OPTIONS * HTTP/1.1", Ok(PLAIN));
    line("CONNECT a.example:443 HTTP/1.1", Ok(PLAIN));
    line("GET http://a/b?c HTTP/1.1", Ok(PLAIN));
    line("M-SEARCH / HTTP/1.1", Ok(PLAIN));
    for text in
        ["GET", "GET ", " GET", "GET  / HTTP/1.1", "GET /  HTTP/1.1", "GET / HTTP/1.1 ", "GET / a HTTP/1.1", "GET / HTTP/1.1 a"]
    {
        assert!(super::check(format!("{text}\r\nHost: a\r\n\r\n").as_bytes(), &LIMITS).is_err(), "{text}");
    }
    line("GET", Err(Refusal::RequestLine));
    line("GET ", Err(Refusal::RequestLine));
    line("GET  HTTP/1.1", Err(Refusal::RequestLine));
    line("GET / HTTP/1.1 ", Err(Refusal::RequestLine));
    line("GET /a b HTTP/1.1", Err(Refusal::RequestLine));
    line(" GET / HTTP/1.1", Err(Refusal::Method));
    line("G(T / HTTP/1.1", Err(Refusal::Method));
    line("G\0T / HTTP/1.1", Err(Refusal::Control));
    line("GET\t/ HTTP/1.1", Err(Refusal::Control));
    line("GET /\x7f HTTP/1.1", Err(Refusal::Control));
    line("GET /ü HTTP/1.1", Err(Refusal::Target));
}

#[test]
fn two_versions_are_spoken() {
    let version = |version: &str, expected| check(format!("GET / {version}\r\nHost: a\r\n\r\n"), Err(expected));
    for other in ["HTTP/2.0", "HTTP/3.0", "HTTP/1.2", "HTTP/0.9", "HTTP/9.9"] {
        version(other, Refusal::VersionNotSupported);
    }
    for none in ["http/1.1", "HTTP/1.10", "HTTP/1", "HTTP/1.", "HTTPS/1.1", "HTTP/ 1.1x"] {
        assert!(super::check(format!("GET / {none}\r\nHost: a\r\n\r\n").as_bytes(), &LIMITS).is_err(), "{none}");
    }
    version("http/1.1", Refusal::Version);
    version("HTTP/1.10", Refusal::Version);
    check("GET /\r\n\r\n", Err(Refusal::SimpleRequest));
    check("PRI * HTTP/2.0\r\n\r\n", Err(Refusal::VersionNotSupported));
}

#[test]
fn one_empty_line_may_come_before() {
    check("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Ok(PLAIN));
    check("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Err(Refusal::EmptyLines));
    check("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Err(Refusal::BareLf));
}

#[test]
fn lines_end_in_one_way() {
    check("GET / HTTP/1.1\nHost: a\r\n\r\n", Err(Refusal::BareLf));
    check("GET / HTTP/1.1\rHost: a\r\n\r\n", Err(Refusal::BareCr));
    fields("X: a\nY: b", Err(Refusal::BareLf));
    fields("X: a\rY: b", Err(Refusal::BareCr));
    fields("X: a\r", Err(Refusal::BareCr));
    fields("X\r: a", Err(Refusal::BareCr));
    fields("X\n: a", Err(Refusal::BareLf));
    check("GET / HTTP/1.1\r\nHost: a\r\n\n", Err(Refusal::BareLf));
    check("GET / HTTP/1.1\r\nHost: a\n\r\n", Err(Refusal::BareLf));
}

#[test]
fn a_head_is_neither_less_nor_more() {
    let head = b"\r\nGET / HTTP/1.1\r\nHost: a\r\nX:\tb\r\n\r\n";
    for length in 0..head.len() {
        assert_eq!(super::check(&head[..length], &LIMITS), Err(Refusal::NotWhole), "{}", head[..length].escape_ascii());
    }
    assert_eq!(super::check(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nX", &LIMITS), Err(Refusal::NotWhole));
}

#[test]
fn a_field_is_a_token_a_colon_and_a_value() {
    fields("X: a\tb\u{fc}\"c:d", Ok(PLAIN));
    fields("X:", Ok(PLAIN));
    fields("!#$%&'*+-.^_`|~9:x", Ok(PLAIN));
    fields("X : a", Err(Refusal::SpaceBeforeColon));
    fields("X\t: a", Err(Refusal::SpaceBeforeColon));
    fields("Transfer-Encoding : chunked", Err(Refusal::SpaceBeforeColon));
    fields("Transfer-Encoding\x0b: chunked", Err(Refusal::Control));
    fields("Transfer-Encoding: \x0bchunked", Err(Refusal::Control));
    fields("Transfer-Encoding: chunked\x0c", Err(Refusal::Control));
    fields("X: a\0b", Err(Refusal::Control));
    fields("X: a\x7f", Err(Refusal::Control));
    fields("X\0: a", Err(Refusal::Control));
    fields(": a", Err(Refusal::FieldName));
    fields("X", Err(Refusal::FieldName));
    fields("X(: a", Err(Refusal::FieldName));
    fields("X\u{fc}: a", Err(Refusal::FieldName));
    fields("X: a\r\n b", Err(Refusal::Folded));
    fields("X: a\r\n\tb", Err(Refusal::Folded));
    fields("X: a\r\n \r\nY: b", Err(Refusal::Folded));
    check("GET / HTTP/1.1\r\n Host: a\r\n\r\n", Err(Refusal::LeadingSpace));
    check("GET / HTTP/1.1\r\n\tHost: a\r\n\r\n", Err(Refusal::LeadingSpace));
}

#[test]
fn http11_has_one_host() {
    check("GET / HTTP/1.1\r\n\r\n", Err(Refusal::NoHost));
    check("GET / HTTP/1.0\r\n\r\n", Ok(Head { version: Version::Http10, ..PLAIN }));
    check("GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", Err(Refusal::Hosts));
    fields("Host: a", Err(Refusal::Hosts));
    fields("hOST: b", Err(Refusal::Hosts));
}

#[test]
fn a_host_is_a_name_or_address() {
    for host in [
        "a",
        "A.Example:8080",
        "a.",
        "127.0.0.1",
        "[::1]",
        "[::ffff:1.2.3.4]:443",
        "a_b~c-d",
        "a:",
        "\ta \t",
        "xn--bcher-kva.example",
    ] {
        check(format!("GET / HTTP/1.1\r\nHost:{host}\r\n\r\n"), Ok(PLAIN));
    }
    for host in [
        "",
        " ",
        ":80",
        "a b",
        "a,b",
        "u@a",
        "a/",
        "http://a",
        "a:b",
        "a:8:0",
        "a:-1",
        "[::1",
        "[::1]a",
        "[::1]:a",
        "[]",
        "::1",
        "a\\b",
        "a?b",
        "a#b",
        "a%41",
        "ü",
        "*",
        "a\"b",
        "a;b",
        "[v1.x]",
        "[fe80::1%25eth0]",
        "a\tb",
    ] {
        check(format!("GET / HTTP/1.1\r\nHost:{host}\r\n\r\n"), Err(Refusal::Host));
        check(format!("GET / HTTP/1.0\r\nHost:{host}\r\n\r\n"), Err(Refusal::Host));
    }
}

#[test]
fn a_length_is_one_number() {
    framing("Content-Length: 0", Framing::Length(0));
    framing("content-length:\t0012 ", Framing::Length(12));
    framing("Content-Length: 9223372036854775807", Framing::Length(i64::MAX as u64));
    framing("Content_Length: 5", Framing::None);
    for value in [
        "",
        "+5",
        "-5",
        "5,5",
        "5, 5",
        "5 5",
        "0x5",
        "5a",
        "five",
        "9223372036854775808",
        "99999999999999999999",
        "5;",
        "\u{665}",
    ] {
        fields(format!("Content-Length: {value}"), Err(Refusal::Length));
    }
    fields("Content-Length: 5\x0c", Err(Refusal::Control));
    fields("Content-Length: 5\r\nContent-Length: 5", Err(Refusal::Lengths));
    fields("Content-Length: 5\r\nX: y\r\ncontent-length: 6", Err(Refusal::Lengths));
}

#[test]
fn the_only_coding_is_chunked() {
    for value in ["chunked", "Chunked", "\tCHUNKED \t", "chunked"] {
        framing(&format!("Transfer-Encoding:{value}"), Framing::Chunked);
    }
    framing("Transfer_Encoding: chunked", Framing::None);
    for value in [
        "",
        "identity",
        "gzip",
        "x",
        "chunkedx",
        "chunked;q=1",
        "chunked, gzip",
        "chunked, chunked",
        "chunked,",
        ",chunked",
        "gzip,,chunked",
        "\"chunked\"",
    ] {
        fields(format!("Transfer-Encoding: {value}"), Err(Refusal::Coding));
    }
    for value in ["gzip, chunked", "x,chunked", "identity , Chunked"] {
        fields(format!("Transfer-Encoding: {value}"), Err(Refusal::CodingNotImplemented));
    }
    fields("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", Err(Refusal::Codings));
    fields("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", Err(Refusal::Codings));
    check("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", Err(Refusal::CodingInHttp10));
}

#[test]
fn the_end_is_said_once() {
    fields("Transfer-Encoding: chunked\r\nContent-Length: 5", Err(Refusal::LengthAndCoding));
    fields("Content-Length: 0\r\nTransfer-Encoding: chunked", Err(Refusal::LengthAndCoding));
}

#[test]
fn an_upgrade_is_named_and_listed() {
    let upgrade = |text: &str, upgrade| fields(text, Ok(Head { upgrade, ..PLAIN }));
    upgrade("Upgrade: websocket\r\nConnection: Upgrade", true);
    upgrade("Connection: keep-alive\r\nConnection: x,\tUPGRADE ,\r\nUpgrade: a", true);
    upgrade("Upgrade: websocket", false);
    upgrade("Connection: upgrade", false);
    upgrade("Connection: upgrade\r\nUpgrade:", false);
    upgrade("Connection: upgraded, \"upgrade\"\r\nUpgrade: a", false);
    check("GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: a\r\n\r\n", Ok(Head { version: Version::Http10, ..PLAIN }));
}

#[test]
fn a_100_is_expected_of_http11() {
    fields("Expect: 100-Continue ", Ok(Head { expects_continue: true, ..PLAIN }));
    fields("Expect: 200-ok", Ok(PLAIN));
    check("GET / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n", Ok(Head { version: Version::Http10, ..PLAIN }));
}

#[test]
fn limits_hold_to_the_byte() {
    let head = b"GET / HTTP/1.1\r\nHost: a\r\nX:\r\n\r\n";
    let limits = |request_line, fields, count| super::check(head, &Limits { request_line, fields, count });
    assert_eq!(limits(14, 13, 2), Ok(PLAIN));
    assert_eq!(limits(13, 13, 2), Err(Refusal::LineTooLong));
    assert_eq!(limits(14, 12, 2), Err(Refusal::FieldsTooLarge));
    assert_eq!(limits(14, 13, 1), Err(Refusal::TooManyFields));
}

/// What httparse reads, and how a body ends by its fields, told naively.
fn second_reading(head: &[u8]) -> (Head, Vec<(String, Vec<u8>)>) {
    let mut headers = [httparse::EMPTY_HEADER; 256];
    let mut request = httparse::Request::new(&mut headers);
    assert_eq!(request.parse(head), Ok(httparse::Status::Complete(head.len())));
    let lines: Vec<_> =
        String::from_utf8_lossy(head).trim_start().split("\r\n").next().unwrap().split(' ').map(str::to_owned).collect();
    assert_eq!([request.method.unwrap(), request.path.unwrap()], lines[..2]);
    let fields: Vec<_> = request.headers.iter().map(|field| (field.name.to_ascii_lowercase(), field.value.to_vec())).collect();
    let of = |name: &str| {
        fields.iter().find(|(known, _)| known == name).map(|(_, value)| String::from_utf8_lossy(value).to_ascii_lowercase())
    };
    let is_http11 = request.version == Some(1);
    let is_listed = |(name, value): &(String, Vec<u8>)| {
        name == "connection"
            && String::from_utf8_lossy(value).to_ascii_lowercase().split(',').any(|option| option.trim() == "upgrade")
    };
    let framing = match (of("content-length"), of("transfer-encoding").as_deref()) {
        (None, None) => Framing::None,
        (Some(length), None) => Framing::Length(length.parse().unwrap()),
        (None, Some("chunked")) => Framing::Chunked,
        both => panic!("{both:?}"),
    };
    let upgrade =
        is_http11 && fields.iter().any(|(name, value)| name == "upgrade" && !value.is_empty()) && fields.iter().any(is_listed);
    let expects = |(name, value): &(String, Vec<u8>)| name == "expect" && value.eq_ignore_ascii_case(b"100-continue");
    let version = if is_http11 { Version::Http11 } else { Version::Http10 };
    (Head { version, framing, upgrade, expects_continue: is_http11 && fields.iter().any(expects) }, fields)
}

/// The fields by their lines alone.
fn by_lines(head: &[u8]) -> Vec<(String, Vec<u8>)> {
    let text = head.strip_prefix(b"\r\n").unwrap_or(head);
    let lines = text.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let field = |line: &[u8]| {
        let colon = line.iter().position(|byte| *byte == b':').unwrap();
        (String::from_utf8_lossy(&line[..colon]).to_ascii_lowercase(), line[colon + 1..].trim_ascii().to_vec())
    };
    lines.skip(1).take_while(|line| !line.is_empty()).map(field).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_is_accepted_is_read_the_same_by_others(head in heads()) {
        if let Ok(read) = super::check(&head, &LIMITS) {
            let (again, fields) = second_reading(&head);
            prop_assert_eq!(read, again);
            prop_assert_eq!(fields, by_lines(&head));
            prop_assert_eq!(Scan::default().advance(&head, &LIMITS), Ok(Some(head.len())));
        }
    }

    #[test]
    fn what_ends_in_the_scan_is_whole(bytes in heads()) {
        match Scan::default().advance(&bytes, &LIMITS) {
            Ok(Some(end)) => prop_assert_ne!(super::check(&bytes[..end], &LIMITS), Err(Refusal::NotWhole)),
            Ok(None) => prop_assert!(super::check(&bytes, &LIMITS).is_err()),
            Err(refusal) => prop_assert_ne!(super::check(&bytes, &LIMITS).err(), None, "{:?}", refusal),
        }
    }
}
