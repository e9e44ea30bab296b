use std::time::UNIX_EPOCH;

use http::Method;
use proptest::prelude::*;

use super::*;
use crate::{
    config::route::Scheme,
    exchange::{ByLimit, Flag},
    observe::Tls,
};

fn record() -> Record<'static> {
    Record {
        time: UNIX_EPOCH + Duration::from_millis(1_709_251_199_042),
        request_id: b"req-1",
        trace: None,
        route: Some("orders"),
        upstream: Some("orders-v2"),
        endpoint: Some("127.0.0.1:9002".parse().unwrap()),
        tries: 1,
        method: &Method::GET,
        scheme: Scheme::Https,
        host: "shop.example",
        path: "/api/orders/7",
        query: Some("full=1"),
        version: Version::HTTP_11,
        status: 200,
        received: 0,
        sent: 512,
        duration: Duration::from_micros(12_345),
        upstream_connect: None,
        upstream_first_byte: Some(Duration::from_micros(9_007)),
        tls: Some(Tls { version: "TLSv1.3", cipher: "TLS13_AES_128_GCM_SHA256" }),
        client: "203.0.113.9".parse().unwrap(),
        peer: "10.0.0.1:40000".parse().unwrap(),
        consumer: None,
        auth: None,
        refusal: None,
        limit: None,
        user_agent: Some(b"curl/8"),
        referer: None,
        flag: Flag::None,
        generation: 3,
    }
}

fn written(record: &Record<'_>, format: LogFormat) -> String {
    String::from_utf8(line(record, format)).unwrap()
}

/// The value of a key, after a strict parser read the line.
fn parsed(record: &Record<'_>, key: &str) -> serde_json::Value {
    let line = written(record, LogFormat::Json);
    assert_eq!(line.matches('\n').count(), 1, "{line}");
    serde_json::from_str::<serde_json::Value>(&line).unwrap()[key].clone()
}

#[test]
fn a_json_line_is_this() {
    assert_eq!(
        written(&record(), LogFormat::Json),
        concat!(
            r#"{"time":"2024-02-29T23:59:59.042Z","request_id":"req-1","trace_id":null,"route":"orders","#,
            r#""upstream":"orders-v2","endpoint":"127.0.0.1:9002","tries":1,"method":"GET","scheme":"https","#,
            r#""host":"shop.example","path":"/api/orders/7","query":"full=1","protocol":"HTTP/1.1","status":200,"#,
            r#""bytes_received":0,"bytes_sent":512,"duration_ms":12.345,"upstream_connect_ms":null,"#,
            r#""upstream_first_byte_ms":9.007,"tls_version":"TLSv1.3","tls_cipher":"TLS13_AES_128_GCM_SHA256","#,
            r#""client":"203.0.113.9","peer":"10.0.0.1:40000","consumer":null,"auth":null,"refusal":null,"limit":null,"#,
            r#""user_agent":"curl/8","referer":null,"flag":"-","generation":3}"#,
            "\n"
        )
    );
}

#[test]
fn a_combined_line_is_this() {
    assert_eq!(
        written(&record(), LogFormat::Combined),
        "203.0.113.9 - - [29/Feb/2024:23:59:59 +0000] \"GET /api/orders/7?full=1 HTTP/1.1\" 200 512 \"-\" \"curl/8\"\n"
    );
}

#[test]
fn a_line_says_who_called_and_what_was_refused() {
    let refusal = Refusal { by: "authz", reason: "scopes", shadow: true };
    let record = Record { consumer: Some("acme"), auth: Some("jwt"), refusal: Some(refusal), ..record() };
    assert_eq!((parsed(&record, "consumer"), parsed(&record, "auth")), ("acme".into(), "jwt".into()));
    assert_eq!(parsed(&record, "refusal"), "shadow authz scopes");
    assert!(written(&record, LogFormat::Combined).starts_with("203.0.113.9 - acme ["));
}

#[test]
fn a_line_says_which_limit_refused() {
    let by = |policy, limit, shadow| parsed(&Record { limit: Some(ByLimit { policy, limit, shadow }), ..record() }, "limit");
    assert_eq!(by("throttle", None, false), "throttle");
    assert_eq!(by("rate_limit", Some("per-plan"), true), "shadow rate_limit per-plan");
}

#[test]
fn no_answer_is_a_status_of_three_zeros_or_zero() {
    let record = Record { status: 0, query: None, version: Version::HTTP_2, ..record() };
    assert!(written(&record, LogFormat::Combined).contains("\"GET /api/orders/7 HTTP/2\" 000 512 "));
    assert_eq!(parsed(&record, "status"), 0);
}

#[test]
fn hostile_text_stays_inside_its_field() {
    let agent = b"a\"b\\c\r\n\x00\x1b[31m\x7f\xff\xc3\xa9\xc2\x9b\xe2\x80\xa8";
    let record = Record { user_agent: Some(agent), ..record() };
    let json = written(&record, LogFormat::Json);
    assert!(json.contains(r#""user_agent":"a\"b\\c\u000d\u000a\u0000\u001b[31m\u007f"#), "{json}");
    assert!(json.contains("\u{fffd}é\\u009b\\u2028\""), "{json}");
    assert_eq!(parsed(&record, "user_agent"), "a\"b\\c\r\n\0\x1b[31m\x7f\u{fffd}é\u{9b}\u{2028}");
    let combined = written(&record, LogFormat::Combined);
    assert!(
        combined.ends_with("\"a\\x22b\\x5Cc\\x0D\\x0A\\x00\\x1B[31m\\x7F\\xFF\\xC3\\xA9\\xC2\\x9B\\xE2\\x80\\xA8\"\n"),
        "{combined}"
    );
}

#[test]
fn long_text_is_cut_between_characters() {
    for shift in 0..4 {
        let path = format!("{}{}", "/".repeat(shift + 1), "😀".repeat(2000));
        let record = Record { path: &path, ..record() };
        let shown = parsed(&record, "path");
        let shown = shown.as_str().unwrap();
        assert!(shown.len() <= TEXT_MAX + 3 && shown.len() > TEXT_MAX - 4, "{}", shown.len());
        assert!(path.starts_with(shown.strip_suffix("...").unwrap()));
    }
    let exact = "x".repeat(TEXT_MAX);
    assert_eq!(parsed(&Record { path: &exact, ..record() }, "path"), exact);
}

#[test]
fn every_key_is_documented_in_its_order() {
    let page = include_str!("../../../docs/operations/access-log.md");
    let documented: Vec<_> =
        page.lines().filter_map(|row| row.strip_prefix("| `")?.split_once('`')).map(|(key, _)| key).collect();
    let line = written(&record(), LogFormat::Json);
    let keys: Vec<_> = line.split("\":").filter_map(|part| part.rsplit_once('"')).map(|(_, key)| key).collect();
    assert_eq!(documented[..keys.len()], keys);
}

#[test]
fn every_flag_is_documented() {
    let page = include_str!("../../../docs/operations/access-log.md");
    let documented: Vec<_> = page
        .lines()
        .skip_while(|row| !row.starts_with("## Flags"))
        .filter_map(|row| row.strip_prefix("| `")?.split_once('`'))
        .map(|(code, _)| code)
        .collect();
    assert_eq!(documented, Flag::ALL.map(Flag::code));
}

proptest! {
    #[test]
    fn any_bytes_make_one_line_that_parses(agent in proptest::collection::vec(any::<u8>(), 0..200), path in ".*") {
        let record = Record { user_agent: Some(&agent), referer: Some(&agent), path: &path, ..record() };
        prop_assert_eq!(parsed(&record, "user_agent"), String::from_utf8_lossy(&agent).into_owned());
        prop_assert_eq!(parsed(&record, "path"), path.as_str());
        let combined = line(&record, LogFormat::Combined);
        let (last, rest) = combined.split_last().unwrap();
        prop_assert_eq!(*last, b'\n');
        prop_assert!(rest.iter().all(|byte| (b' '..=b'~').contains(byte)));
        prop_assert_eq!(rest.iter().filter(|byte| **byte == b'"').count(), 6);
    }
}
