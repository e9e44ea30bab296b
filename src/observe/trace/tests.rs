//! The cases of the W3C's own suite (test/test.py of w3c/trace-context), by its names, and what it leaves out.

use super::*;

const ID: &str = "12345678901234567890123456789012";
const SPAN: &str = "1234567890123456";
const PARENT: (&str, &str) = ("traceparent", "00-12345678901234567890123456789012-1234567890123456-00");

/// What an upstream sees of a request that came with these fields.
struct Seen {
    trace_id: String,
    span_id: String,
    flags: u8,
    state: Vec<(String, String)>,
}

impl Seen {
    fn state_of(&self, key: &str) -> Option<&str> {
        self.state.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }
}

fn request(fields: &[(&str, &str)]) -> RequestHeader {
    let mut head = RequestHeader::build("GET", b"/", None).unwrap();
    for (name, value) in fields {
        head.append_header((*name).to_owned(), HeaderValue::from_bytes(value.as_bytes()).unwrap()).unwrap();
    }
    head
}

fn send(fields: &[(&str, &str)]) -> Seen {
    let mut head = request(fields);
    continue_or_start(&head.headers).apply(&mut head).unwrap();
    let parents: Vec<_> = head.headers.get_all(&TRACEPARENT).iter().collect();
    assert_eq!(parents.len(), 1, "{fields:?}");
    let parts: Vec<_> = parents[0].to_str().unwrap().split('-').collect();
    let [version, trace_id, span_id, flags] = parts[..] else { panic!("{parts:?}") };
    assert_eq!((version, trace_id.len(), span_id.len(), flags.len()), ("00", 32, 16, 2));
    assert!(hex(trace_id.as_bytes(), 32).is_some_and(|id| id != 0) && hex(span_id.as_bytes(), 16).is_some_and(|id| id != 0));
    let states: Vec<_> = head.headers.get_all(&TRACESTATE).iter().map(|value| value.to_str().unwrap()).collect();
    assert!(states.len() <= 1, "{states:?}");
    let state = states.iter().flat_map(|list| list.split(',')).map(|member| {
        let (key, value) = member.split_once('=').unwrap();
        (key.to_owned(), value.to_owned())
    });
    Seen {
        trace_id: trace_id.to_owned(),
        span_id: span_id.to_owned(),
        flags: u8::from_str_radix(flags, 16).unwrap(),
        state: state.collect(),
    }
}

/// The trace goes on: same id, own span.
fn continues(fields: &[(&str, &str)]) {
    let seen = send(fields);
    assert_eq!(seen.trace_id, ID, "{fields:?}");
    assert_ne!(seen.span_id, SPAN, "{fields:?}");
}

/// A new trace begins and nothing of the old one is left.
fn restarts(parents: &[&str]) {
    let mut fields: Vec<_> = parents.iter().map(|value| ("traceparent", *value)).collect();
    fields.push(("tracestate", "foo=1"));
    let seen = send(&fields);
    for parent in parents {
        assert!(!parent.contains(&seen.trace_id), "{parent}");
    }
    assert_ne!(seen.trace_id, ID, "{parents:?}");
    assert!(seen.state.is_empty(), "{parents:?}");
    assert_eq!(seen.flags, NEW_FLAGS, "{parents:?}");
}

/// What becomes of the `tracestate` headers beside a valid parent, joined again.
fn state_becomes(headers: &[&str], expected: &str) {
    let mut fields = vec![PARENT];
    fields.extend(headers.iter().map(|value| ("tracestate", *value)));
    let seen = send(&fields);
    assert_eq!(seen.trace_id, ID, "{headers:?}");
    let joined: Vec<_> = seen.state.iter().map(|(key, value)| format!("{key}={value}")).collect();
    assert_eq!(joined.join(","), expected, "{headers:?}");
}

#[test]
fn both_traceparent_and_tracestate_missing() {
    restarts(&[]);
}

#[test]
fn traceparent_included_tracestate_missing() {
    continues(&[("traceparent", &format!("00-{ID}-{SPAN}-01"))]);
}

#[test]
fn traceparent_duplicated() {
    let (one, two) = (format!("00-12345678901234567890123456789011-{SPAN}-01"), format!("00-{ID}-{SPAN}-01"));
    restarts(&[&one, &two]);
    restarts(&[&two, &two]);
}

#[test]
fn traceparent_header_name() {
    for name in ["trace-parent", "trace.parent"] {
        assert_ne!(send(&[(name, PARENT.1)]).trace_id, ID);
    }
}

#[test]
fn traceparent_header_name_valid_casing() {
    for name in ["TraceParent", "TrAcEpArEnT", "TRACEPARENT"] {
        continues(&[(name, PARENT.1)]);
    }
}

#[test]
fn traceparent_version_0x00() {
    restarts(&[&format!("00-{ID}-{SPAN}-01.")]);
    restarts(&[&format!("00-{ID}-{SPAN}-01-what-the-future-will-be-like")]);
}

#[test]
fn traceparent_version_0xcc() {
    continues(&[("traceparent", &format!("cc-{ID}-{SPAN}-01"))]);
    continues(&[("traceparent", &format!("cc-{ID}-{SPAN}-01-what-the-future-will-be-like"))]);
    restarts(&[&format!("cc-{ID}-{SPAN}-01.what-the-future-will-be-like")]);
}

#[test]
fn traceparent_version_0xff() {
    restarts(&[&format!("ff-{ID}-{SPAN}-01")]);
}

#[test]
fn traceparent_version_illegal_characters_too_long_too_short() {
    for version in [".0", "0.", "000", "0000", "0", "", "0A", "CC"] {
        restarts(&[&format!("{version}-{ID}-{SPAN}-01")]);
    }
}

#[test]
fn traceparent_trace_id_all_zero_illegal_characters_too_long_too_short() {
    for id in [
        "00000000000000000000000000000000",
        ".2345678901234567890123456789012",
        "1234567890123456789012345678901.",
        "123456789012345678901234567890123",
        "1234567890123456789012345678901",
        "1234567890123456789012345678901A",
        "+2345678901234567890123456789012",
    ] {
        restarts(&[&format!("00-{id}-{SPAN}-01")]);
    }
}

#[test]
fn traceparent_parent_id_all_zero_illegal_characters_too_long_too_short() {
    for span in
        ["0000000000000000", ".234567890123456", "123456789012345.", "12345678901234567", "123456789012345", "123456789012345F"]
    {
        restarts(&[&format!("00-{ID}-{span}-01")]);
    }
}

#[test]
fn traceparent_trace_flags_illegal_characters_too_long_too_short() {
    for flags in [".0", "0.", "001", "1", "", "0A"] {
        restarts(&[&format!("00-{ID}-{SPAN}-{flags}")]);
    }
}

#[test]
fn traceparent_ows_handling() {
    for (before, after) in [(" ", ""), ("\t", ""), ("", " "), ("", "\t"), ("\t ", " \t")] {
        continues(&[("traceparent", &format!("{before}00-{ID}-{SPAN}-01{after}"))]);
    }
}

#[test]
fn tracestate_included_traceparent_missing() {
    for state in ["foo=1", "foo=1,bar=2"] {
        assert!(send(&[("tracestate", state)]).state.is_empty());
    }
}

#[test]
fn tracestate_included_traceparent_included() {
    state_becomes(&["foo=1,bar=2"], "foo=1,bar=2");
}

#[test]
fn tracestate_header_name() {
    for name in ["trace-state", "trace.state"] {
        assert!(send(&[PARENT, (name, "foo=1")]).state.is_empty());
    }
}

#[test]
fn tracestate_header_name_valid_casing() {
    for name in ["TraceState", "TrAcEsTaTe", "TRACESTATE"] {
        assert_eq!(send(&[PARENT, (name, "foo=1")]).state_of("foo"), Some("1"));
    }
}

#[test]
fn tracestate_empty_header() {
    state_becomes(&[""], "");
    state_becomes(&["foo=1", ""], "foo=1");
    state_becomes(&["", "foo=1"], "foo=1");
    state_becomes(&["foo=1,, ,bar=2,"], "foo=1,bar=2");
}

#[test]
fn tracestate_multiple_headers_different_keys() {
    state_becomes(&["foo=1,bar=2", "rojo=1,congo=2", "baz=3"], "foo=1,bar=2,rojo=1,congo=2,baz=3");
}

#[test]
fn tracestate_duplicated_keys() {
    state_becomes(&["foo=1,foo=1"], "foo=1,foo=1");
    state_becomes(&["foo=1,foo=2"], "foo=1,foo=2");
    state_becomes(&["foo=1", "foo=1"], "foo=1,foo=1");
    state_becomes(&["foo=1", "foo=2"], "foo=1,foo=2");
}

#[test]
fn tracestate_all_allowed_characters() {
    let key = "abcdefghijklmnopqrstuvwxyz0123456789_-*/";
    let value: String = (' '..='~').filter(|c| *c != ',' && *c != '=').collect();
    for key in [key.to_owned(), format!("{key}@a-z0-9_-*/")] {
        let member = format!("{key}={value}");
        state_becomes(&[&member], &member);
    }
}

#[test]
fn tracestate_ows_handling() {
    state_becomes(&["foo=1 \t , \t bar=2, \t baz=3"], "foo=1,bar=2,baz=3");
    state_becomes(&["foo=1\t \t,\t \tbar=2,\t \tbaz=3"], "foo=1,bar=2,baz=3");
    for header in [" foo=1", "\tfoo=1", "foo=1 ", "foo=1\t", "\t foo=1 \t"] {
        state_becomes(&[header], "foo=1");
    }
}

#[test]
fn tracestate_key_illegal_characters() {
    for header in ["foo =1", "FOO=1", "foo.bar=1", "=1", "foo"] {
        state_becomes(&[header], "");
    }
}

#[test]
fn tracestate_key_illegal_vendor_format() {
    state_becomes(&["foo@=1,bar=2"], "foo@=1,bar=2");
    state_becomes(&["@foo=1,bar=2"], "");
    state_becomes(&["foo@@bar=1,bar=2"], "foo@@bar=1,bar=2");
    state_becomes(&["foo@bar@baz=1,bar=2"], "foo@bar@baz=1,bar=2");
}

#[test]
fn tracestate_member_count_limit() {
    let members: Vec<_> = (1..=33).map(|n| format!("bar{n:02}={n:02}")).collect();
    let headers = |count: usize| members[..count].chunks(10).map(|chunk| chunk.join(",")).collect::<Vec<_>>();
    let check = |count: usize, expected: &str| {
        let headers = headers(count);
        state_becomes(&headers.iter().map(String::as_str).collect::<Vec<_>>(), expected);
    };
    check(32, &members[..32].join(","));
    check(33, "");
}

#[test]
fn tracestate_key_length_limit() {
    for key in [
        "z".repeat(256),
        format!("{}@{}", "t".repeat(241), "v".repeat(14)),
        format!("{}@v", "t".repeat(242)),
        format!("t@{}", "v".repeat(15)),
    ] {
        state_becomes(&["foo=1", &format!("{key}=1")], &format!("foo=1,{key}=1"));
    }
    state_becomes(&["foo=1", &format!("{}=1", "z".repeat(257))], "");
}

#[test]
fn tracestate_value_illegal_characters() {
    state_becomes(&["foo=bar=baz"], "");
    state_becomes(&["foo=,bar=3"], "");
    state_becomes(&["foo=b\tr"], "");
    state_becomes(&["foo=ü"], "");
    state_becomes(&[&format!("foo={}", "v".repeat(257))], "");
}

#[test]
fn every_request_has_a_span_of_its_own() {
    for fields in [vec![PARENT], vec![], vec![("traceparent", "00-00000000000000000000000000000000-1234567890123456-01")]] {
        let spans: std::collections::BTreeSet<_> = (0..3).map(|_| send(&fields).span_id).collect();
        assert_eq!(spans.len(), 3);
    }
}

#[test]
fn propagates_random_flag_and_sampled_flag_but_no_unknown_one() {
    for (sent, seen) in [("00", 0), ("01", 1), ("02", 2), ("03", 3), ("ff", 3), ("fc", 0)] {
        assert_eq!(send(&[("traceparent", &format!("00-{ID}-{SPAN}-{sent}"))]).flags, seen);
    }
}

#[test]
fn the_caller_is_remembered() {
    let trace = continue_or_start(&request(&[PARENT]).headers);
    assert_eq!(trace.parent_id.unwrap().to_string(), SPAN);
    assert_eq!(trace.trace_id.to_string(), ID);
}

#[test]
fn a_long_tracestate_loses_long_members_first_then_the_last() {
    let member = |n: usize, length: usize| format!("k{n:02}={}", "v".repeat(length - 4));
    let longs: Vec<_> = (0..20).map(|n| member(n, 260)).collect();
    let kept = member(99, 120);
    state_becomes(&[&longs.join(","), &kept], &format!("{},{kept}", longs[..15].join(",")));

    let shorts: Vec<_> = (0..32).map(|n| member(n, 128)).collect();
    state_becomes(&[&shorts.join(",")], &shorts[..31].join(","));
}
