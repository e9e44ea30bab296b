//! Whatever is written, the loader neither panics nor takes it for something else.

use banyan::config::{
    Config,
    load::{Colour, from_text},
};
use proptest::prelude::*;

const CONTRACT: &str = include_str!("../cases/contract.yaml");

/// Reads and shows a text in every way there is.
fn exercise(text: &str) {
    let loaded = from_text("any.yaml", text);
    let shown = loaded.sources.render(&loaded.problems, Colour::Always);
    assert_eq!(shown.is_empty(), loaded.problems.is_empty());
    let listed = loaded.sources.to_json(&loaded.problems);
    assert_eq!(listed.as_array().map(Vec::len), Some(loaded.problems.len()));
    for problem in &loaded.problems {
        assert!(problem.path.steps().is_empty() || loaded.broken(&problem.path), "{problem:?}");
    }
    assert_eq!(loaded.sources.hash().len(), 64);
    assert!(loaded.sources.redacted(&loaded.config).is_object());
}

/// Scalars with more than one possible meaning.
fn scalar() -> impl Strategy<Value = String> {
    let odd = [
        "5",
        "05",
        "0x10",
        "0o17",
        "0b1",
        "+7",
        "-7",
        "1e2",
        "1.0",
        "1_000",
        "0.5s",
        "10s",
        "true",
        "True",
        "yes",
        "off",
        "null",
        "~",
        "''",
        "\"5\"",
        "'true'",
        "2026-01-01",
        "12:30",
        "a b",
        "a#b",
        "a: b",
        "- a",
        "[]",
        "{}",
        ".inf",
        "=",
        "<<",
        "!x",
        "999999999999999999999",
        "64KiB",
        "auto",
        "json",
        "ü",
        "\"\\x41\\u00fc\\t\"",
        "'it''s'",
        "18446744073709551616",
    ];
    prop_oneof![4 => proptest::sample::select(odd.to_vec()).prop_map(str::to_owned), 1 => "[ -~]{0,8}", 1 => "\"[ !#-Z^-~]{0,8}\""]
}

/// A configuration with holes for scalars of every kind of key.
fn filled(holes: &[String]) -> String {
    let mut text = "\
        process: { threads: HOLE }\n\
        observe: { access_log: { queue: HOLE, format: HOLE, path: HOLE } }\n\
        policies: { request_limits: { body: HOLE }, cors: { origins: [HOLE], credentials: HOLE } }\n\
        routes:\n\
        \x20 r:\n\
        \x20   match: { hosts: [HOLE, HOLE], path: HOLE, headers: { a: HOLE, b: { present: HOLE } } }\n\
        \x20   timeouts: { request: HOLE }\n\
        \x20   to:\n\
        \x20     respond:\n\
        \x20       status: HOLE\n\
        \x20       body: HOLE\n"
        .to_owned();
    for hole in holes {
        text = text.replacen("HOLE", hole, 1);
    }
    text
}

/// Values that every hole takes, so that a text with few odd ones is often read to the end.
const HOLES: [&str; 15] =
    ["4", "10", "json", "x.log", "1MiB", "'*'", "false", "a", "b", "/x", "'v'", "true", "1s", "204", "text"];

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_read_without_panic(text in "(?s).{0,200}") {
        exercise(&text);
    }

    #[test]
    fn any_text_of_yaml_signs_is_read_without_panic(text in "([\\[\\]{}:,&*!?|>'\"%@`#\\-~<. \n\tüa0]|routes|to|\\$\\{env:|\n  |: |- ){0,60}") {
        exercise(&text);
    }

    #[test]
    fn a_damaged_configuration_is_read_without_panic(at in 0..CONTRACT.len(), length in 0..40_usize, put in "[\\[\\]{}:,&*!?|>'\"#\\- \na0]{0,6}") {
        let clean = |at: usize| (0..=at.min(CONTRACT.len())).rev().find(|at| CONTRACT.is_char_boundary(*at)).unwrap_or(0);
        let (start, end) = (clean(at), clean(at + length));
        exercise(&format!("{}{put}{}", &CONTRACT[..start], &CONTRACT[end..]));
    }

    /// Of what both take, this reader and `serde_yaml` make the same. Ours refuses more, and takes the little that YAML 1.2 allows over 1.1.
    #[test]
    fn what_is_accepted_means_what_serde_yaml_reads(odd in proptest::collection::vec((0..HOLES.len(), scalar()), 1..3)) {
        let mut holes = HOLES.map(str::to_owned);
        for (at, scalar) in odd {
            holes[at] = scalar;
        }
        let text = filled(&holes);
        let ours = from_text("any.yaml", &text);
        let theirs = serde_yaml::from_str::<Config>(&text);
        if let (true, Ok(theirs)) = (ours.is_usable(), theirs) {
            prop_assert_eq!(serde_json::to_value(&theirs).ok(), serde_json::to_value(&ours.config).ok(), "{}", text);
        }
    }
}

#[test]
fn the_holes_are_filled_with_what_is_accepted() {
    let text = filled(&HOLES.map(str::to_owned));
    assert!(!text.contains("HOLE"));
    assert!(from_text("any.yaml", &text).is_usable(), "{text}");
}
