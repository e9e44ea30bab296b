//! Routing as a whole: the table against its rules written down a second time, and paths that try to escape.

pub mod naive;

use banyan::{
    config::{
        paths::EncodedSlashes,
        route::{Condition, Match, Scheme, True},
    },
    exchange::Facts,
    name::RouteName,
    route::{
        explain::Outcome,
        path,
        table::{Found, Table},
    },
};
use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::{collection::vec, option, prelude::*, sample::select, string::string_regex};

pub use self::naive::facts;
use self::naive::{Answer, Naive};
use crate::fuzz::properties;

fn answer(table: &Table, facts: &Facts, headers: &HeaderMap) -> Answer {
    match table.find(facts, headers) {
        Found::Route { index, captures } => {
            assert_eq!(captures.len(), table.capture_names(index).len());
            let text = |range: &std::ops::Range<u32>| facts.path[range.start as usize..range.end as usize].to_owned();
            Answer::Route(index, captures.iter().map(text).collect())
        }
        Found::MethodNotAllowed(allow) => {
            let mut methods: Vec<String> = allow.to_str().unwrap().split(", ").map(Into::into).collect();
            methods.sort();
            Answer::Allow(methods)
        }
        Found::None => Answer::None,
    }
}

fn hosts() -> impl Strategy<Value = Vec<String>> {
    let one = select(vec!["x", "a.x", "b.a.x", "*.x", "*.a.x", "*", "y", "*.b.a.x"]).prop_map(String::from);
    vec(one, 0..3).prop_map(|mut hosts| {
        hosts.sort();
        hosts.dedup();
        hosts
    })
}

fn pattern() -> impl Strategy<Value = String> {
    let segment = select(vec!["a", "b", "a.b", "{}"]);
    (vec(segment, 0..4), select(vec!["", "/", "/**", "/**"])).prop_map(|(segments, end)| {
        let names = ["one", "two", "three", "four"];
        let text: Vec<String> = segments.iter().zip(names).map(|(s, n)| s.replace("{}", &format!("{{{n}}}"))).collect();
        let text = text.iter().map(|s| format!("/{s}")).collect::<String>() + end;
        if text.is_empty() { "/".into() } else { text }
    })
}

fn path_regex() -> impl Strategy<Value = String> {
    select(vec![
        "/a",
        "^/a/.*$",
        "/(?<one>[ab])/(?<two>[ab])(/)?",
        "/[ab]+",
        ".*",
        "/a|/b",
        "(?<all>/(a|b)*)",
        "/(?:(?<x>a)|(?<y>b))",
    ])
    .prop_map(String::from)
}

fn condition() -> impl Strategy<Value = Condition> {
    prop_oneof![
        select(vec!["1", "2", "a b", ""]).prop_map(|v| Condition::Exact(v.into())),
        Just(Condition::Present(True)),
        Just(Condition::Absent(True)),
        select(vec!["[0-9]", "1|2", ".*", "a.b"]).prop_map(|v| Condition::Regex(v.into())),
    ]
}

fn conditions(names: [&'static str; 2]) -> impl Strategy<Value = std::collections::BTreeMap<String, Condition>> {
    let name = select(names.to_vec()).prop_map(String::from);
    prop_oneof![2 => Just(Default::default()), 1 => proptest::collection::btree_map(name, condition(), 0..3)]
}

fn methods() -> impl Strategy<Value = Vec<String>> {
    let method = select(vec!["GET", "HEAD", "POST", "OPTIONS", "PURGE", "QUERY"]).prop_map(String::from);
    prop_oneof![Just(vec![]), vec(method, 1..3)]
}

fn matches() -> impl Strategy<Value = Match> {
    let path = prop_oneof![
        1 => Just((None, None)),
        6 => pattern().prop_map(|p| (Some(p), None)),
        2 => path_regex().prop_map(|p| (None, Some(p))),
    ];
    let scheme = option::weighted(0.1, select(vec![Scheme::Http, Scheme::Https]));
    let rest = (conditions(["x-a", "X-B"]), conditions(["q", "Q r"]), conditions(["c", "d"]));
    (hosts(), path, scheme, methods(), rest).prop_map(
        |(hosts, (path, path_regex), scheme, methods, (headers, query, cookies))| Match {
            hosts,
            scheme,
            path,
            path_regex,
            methods,
            headers,
            query,
            cookies,
        },
    )
}

/// Routes that meet: on few paths, with conditions that often hold.
fn crowd() -> impl Strategy<Value = Match> {
    let hosts = select(vec![vec![], vec![], vec!["x".to_owned()], vec!["*.x".to_owned(), "x".to_owned()]]);
    let path = select(vec![None, Some("/**"), Some("/a/**"), Some("/a"), Some("/{one}")]);
    let methods =
        select(vec![vec![], vec!["GET".to_owned()], vec!["GET".to_owned(), "POST".to_owned()], vec!["HEAD".to_owned()]]);
    let condition = || {
        prop_oneof![
            Just(Condition::Present(True)),
            Just(Condition::Exact("1".into())),
            Just(Condition::Absent(True)),
            Just(Condition::Regex(".*".into())),
        ]
    };
    let few = |names: [&'static str; 2]| {
        proptest::collection::btree_map(select(names.to_vec()).prop_map(String::from), condition(), 0..3)
    };
    let rest = (few(["x-a", "x-b"]), few(["q", "z"]), few(["c", "d"]));
    let scheme = option::weighted(0.3, Just(Scheme::Http));
    (hosts, path, scheme, methods, rest).prop_map(|(hosts, path, scheme, methods, (headers, query, cookies))| Match {
        hosts,
        scheme,
        path: path.map(Into::into),
        path_regex: None,
        methods,
        headers,
        query,
        cookies,
    })
}

fn routes(size: std::ops::Range<usize>) -> impl Strategy<Value = Vec<(RouteName, Match)>> {
    prop_oneof![vec(matches(), size.clone()), vec(crowd(), size)].prop_map(named)
}

fn request() -> impl Strategy<Value = (Facts, HeaderMap)> {
    let host = select(vec!["x", "a.x", "b.a.x", "c.b.a.x", "d.x", "y", "z", ""]);
    let path = prop_oneof![1 => Just("*".to_owned()), 30 => string_regex("(/(a|b|a\\.b)){0,4}/?").unwrap()];
    let path = path.prop_map(|p| if p.is_empty() { "/".into() } else { p });
    let query = option::of(
        vec(select(vec!["q=1", "q=1", "z=1", "q=2", "q", "Q+r=a+b", "%51%20r=1", "q=a%20b", "", "z"]), 0..4)
            .prop_map(|q| q.join("&")),
    );
    let line = select(vec![
        ("x-a", "1"),
        ("x-a", "2"),
        ("x-b", "a b"),
        ("x-b", ""),
        ("cookie", "c=1; d=2"),
        ("cookie", "c=2"),
        ("cookie", " d = ;c"),
        ("origin", "https://o"),
        ("access-control-request-method", "POST"),
        ("x-a", "1"),
        ("x-b", "1"),
        ("cookie", "c=1; d=1"),
    ]);
    let method = select(vec!["GET", "GET", "HEAD", "POST", "OPTIONS", "PURGE", "DELETE"]);
    let scheme = select(vec![Scheme::Http, Scheme::Https]);
    (method, host, path, query, scheme, vec(line, 0..4)).prop_map(|(method, host, path, query, scheme, lines)| {
        let facts = Facts { scheme, ..facts(method, host, &path, query.as_deref()) };
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        (facts, headers)
    })
}

fn named(matches: Vec<Match>) -> Vec<(RouteName, Match)> {
    // Names that are not in the order of the indexes.
    let name = |at: usize| RouteName::new(&format!("r{:02}", (at * 7 + 3) % 16));
    matches.into_iter().enumerate().map(|(at, m)| (name(at), m)).collect()
}

proptest! {
    // PROPTEST_CASES asks for more.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_table_says_what_the_rules_say(routes in routes(1..16), requests in vec(request(), 1..12)) {
        let (table, _) = Table::compile(routes.iter().map(|(n, m)| (n, m)));
        let naive = Naive::new(routes.iter().map(|(n, m)| (n, m)));
        for (facts, headers) in &requests {
            prop_assert_eq!(answer(&table, facts, headers), naive.find(facts, headers), "{:?}", facts);
        }
    }

    #[test]
    fn an_explanation_names_the_route_that_is_found(routes in routes(1..16), (facts, headers) in request()) {
        let (table, _) = Table::compile(routes.iter().map(|(n, m)| (n, m)));
        let verdicts = table.explain(&facts, &headers);
        let mut indexes: Vec<u32> = verdicts.iter().map(|v| v.index).collect();
        indexes.sort_unstable();
        prop_assert_eq!(indexes, (0..).take(routes.len()).collect::<Vec<u32>>());
        let takers: Vec<_> = verdicts.iter().filter(|v| matches!(v.outcome, Outcome::Takes(_))).collect();
        match table.find(&facts, &headers) {
            Found::Route { index, captures } => {
                prop_assert_eq!(takers.len(), 1);
                prop_assert_eq!(verdicts[0].index, index);
                prop_assert_eq!(&verdicts[0].outcome, &Outcome::Takes(captures));
            }
            _ => prop_assert!(takers.is_empty()),
        }
    }

    #[test]
    fn a_route_that_is_called_unreachable_is_never_found(routes in routes(2..10), requests in vec(request(), 1..40)) {
        let (_, problems) = Table::compile(routes.iter().map(|(n, m)| (n, m)));
        let naive = Naive::new(routes.iter().map(|(n, m)| (n, m)));
        for problem in problems.iter().filter(|p| p.message.contains("never reached") || p.message.contains("same match")) {
            let dead = routes.iter().position(|(name, _)| problem.path.to_string() == format!("routes.{name}.match")).unwrap();
            for (facts, headers) in &requests {
                if let Answer::Route(index, _) = naive.find(facts, headers) {
                    prop_assert_ne!(index as usize, dead, "{}", problem.message);
                }
            }
        }
    }

}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn normalising_again_changes_nothing(raw in raw_path(), keep in any::<bool>()) {
        let slashes = if keep { EncodedSlashes::Keep } else { EncodedSlashes::Refuse };
        if let Ok(once) = path::normalise(raw.as_bytes(), slashes) {
            let twice = path::normalise(once.as_bytes(), slashes).map(String::from);
            prop_assert_eq!(twice.as_deref(), Ok(&*once));
            prop_assert!(once.is_ascii());
        }
    }

    #[test]
    fn no_path_escapes_its_prefix(raw in raw_path(), keep in any::<bool>()) {
        let slashes = if keep { EncodedSlashes::Keep } else { EncodedSlashes::Refuse };
        let raw = format!("/api{raw}");
        let Ok(path) = path::normalise(raw.as_bytes(), slashes) else { return Ok(()) };
        let all = Match { path: Some("/api/**".into()), ..Match::default() };
        let name = RouteName::new("api");
        let (table, problems) = Table::compile([(&name, &all)].into_iter());
        prop_assert!(problems.is_empty());
        if matches!(table.find(&facts("GET", "", &path, None), &HeaderMap::new()), Found::Route { .. }) {
            for reading in properties::readings(&path) {
                prop_assert!(reading == "/api" || reading.starts_with("/api/"), "{} is read as {}", path, reading);
            }
        }
    }
}

/// Paths of what makes trouble.
fn raw_path() -> impl Strategy<Value = String> {
    let piece = select(vec![
        "/", "//", ".", "..", "%2e", "%2E", "%2f", "%2F", "%5c", "%5C", "\\", ";", "%3b", ";x=1", "a", "%61", "%25", "2e",
        "%252e", "%252f", "{", "%7b", "api", "%00", " ", "?", "%3f", "#", "%23", "%", "~", "%c3%bc", "+", "*",
    ]);
    vec(piece, 0..12).prop_map(|pieces| format!("/{}", pieces.concat()))
}
