use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    time::Instant,
};

use http::{HeaderName, Version};

use super::*;
use crate::config::route::{Match, Scheme};

/// A table, and the names of its routes by index.
struct Routes(Table, Vec<String>);

fn routes(yaml: &str) -> Routes {
    let routes: BTreeMap<RouteName, Match> = serde_yaml::from_str(yaml).unwrap();
    let (table, problems) = Table::compile(routes.iter());
    assert!(!problems.iter().any(|p| p.is_error()), "{problems:?}");
    Routes(table, routes.keys().map(ToString::to_string).collect())
}

/// A request: `METHOD host path?query`, then headers.
fn request(text: &str) -> (Facts, HeaderMap) {
    let mut words = text.split(' ');
    let mut word = || words.next().unwrap().to_owned();
    let (method, host, target) = (word().parse().unwrap(), word(), word());
    let (path, query) = target.split_once('?').map_or((target.clone(), None), |(p, q)| (p.into(), Some(q.into())));
    let mut headers = HeaderMap::new();
    for (name, value) in words.map(|word| word.split_once(':').unwrap()) {
        headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
    }
    let facts = Facts {
        method,
        scheme: Scheme::Https,
        host,
        port: None,
        path,
        query,
        version: Version::HTTP_2,
        client: Ipv4Addr::LOCALHOST.into(),
        peer: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
        request_id: HeaderValue::from_static("test"),
        started: Instant::now(),
    };
    (facts, headers)
}

impl Routes {
    /// A route's name with its captures, `405` with the methods, or `404`.
    fn check(&self, text: &str, expected: &str) {
        let (facts, headers) = request(text);
        let answer = match self.0.find(&facts, &headers) {
            Found::None => "404".into(),
            Found::MethodNotAllowed(allow) => format!("405 {}", allow.to_str().unwrap()),
            Found::Route { index, captures } => {
                let part = |range: &std::ops::Range<u32>| &facts.path[range.start as usize..range.end as usize];
                let captures =
                    self.0.capture_names(index).iter().zip(&captures).map(|(name, range)| format!(" {name}={}", part(range)));
                self.1[index as usize].clone() + &captures.collect::<String>()
            }
        };
        assert_eq!(answer, expected, "{text}");
    }

    fn explain(&self, text: &str, expected: &[&str]) {
        let (facts, headers) = request(text);
        let verdicts = self.0.explain(&facts, &headers).into_iter().map(|verdict| {
            let name = &self.1[verdict.index as usize];
            match verdict.outcome {
                crate::route::explain::Outcome::Takes(_) => format!("{name} takes it"),
                crate::route::explain::Outcome::Loses(why) => format!("{name}: {why}"),
            }
        });
        assert_eq!(verdicts.collect::<Vec<_>>(), expected, "{text}");
    }
}

#[test]
fn hosts_go_exact_then_longer_wildcard_then_any() {
    let table =
        routes("{exact: {hosts: [a.b.x]}, far: {hosts: ['*.x']}, near: {hosts: ['*.b.x']}, any: {hosts: ['*'], path: '/p/**'}}");
    table.check("GET a.b.x /", "exact");
    table.check("GET c.b.x /", "near");
    table.check("GET d.c.b.x /", "near");
    table.check("GET b.x /", "far");
    table.check("GET x /", "404");
    table.check("GET x /p", "any");
    table.check("GET  /p", "any");
    table.check("GET a.b.x /p", "exact");
}

#[test]
fn open_patterns_take_whole_segments() {
    let table = routes("{api: {path: '/api/**'}, exact: {path: /api/x}, v: {path: '/api/{v}/y'}}");
    table.check("GET h /api", "api");
    table.check("GET h /api/", "api");
    table.check("GET h /api/x", "exact");
    table.check("GET h /api/x/", "api");
    table.check("GET h /api/x/y", "v v=x");
    table.check("GET h /api/x/y/", "api");
    table.check("GET h /apix", "404");
    table.check("GET h /", "404");
}

#[test]
fn captures_take_one_segment_that_is_not_empty() {
    let table = routes(
        "{two: {path: '/{a}/x/{b}'}, slash: {path: '/{a}/x/'}, open: {path: '/o/{c}/**'}, r: {path_regex: '/r/(?<y>[0-9]+)'}}",
    );
    table.check("GET h /1/x/22", "two a=1 b=22");
    table.check("GET h /1/x/", "slash a=1");
    table.check("GET h /1/x", "404");
    table.check("GET h /o/1", "open c=1");
    table.check("GET h /o/1/2/3", "open c=1");
    table.check("GET h /o/", "404");
    table.check("GET h /r/2026", "r y=2026");
    table.check("GET h /r/2026/", "404");
}

#[test]
fn a_route_that_does_not_hold_falls_through_across_hosts() {
    let table = routes(
        "{a: {hosts: [a.x], path: /p, methods: [POST]}, b: {hosts: ['*.x'], path: '/**', headers: {v: '1'}}, c: {path: /p}}",
    );
    table.check("POST a.x /p", "a");
    table.check("GET a.x /p v:1", "b");
    table.check("GET a.x /p", "c");
    table.check("GET a.x /q", "404");
}

#[test]
fn what_another_method_would_reach_is_not_allowed() {
    let table = routes(
        "{a: {path: /p, methods: [GET]}, b: {path: '/**', methods: [PURGE, PUT]}, c: {path: /p, methods: [DELETE], headers: {v: '1'}}}",
    );
    table.check("POST h /p", "405 GET, HEAD, PUT, PURGE");
    table.check("POST h /p v:1", "405 GET, HEAD, PUT, DELETE, PURGE");
    table.check("POST h /q", "405 PUT, PURGE");
    table.check("HEAD h /p", "a");
    table.check("PURGE h /p", "b");
    table.check("OPTIONS h /q", "405 PUT, PURGE");
}

#[test]
fn a_preflight_is_routed_by_the_method_it_asks_for() {
    let table = routes("{get: {path: /p, methods: [GET]}, put: {path: /p, methods: [PUT]}}");
    table.check("OPTIONS h /p origin:https://o access-control-request-method:PUT", "put");
    table.check("OPTIONS h /p origin:https://o access-control-request-method:DELETE", "405 GET, HEAD, PUT");
    table.check("OPTIONS h /p access-control-request-method:PUT", "405 GET, HEAD, PUT");
}

#[test]
fn the_asterisk_is_taken_by_routes_of_any_path_alone() {
    let table = routes("{a: {path: '/{x}'}, b: {path_regex: '.*'}, c: {path: /}, d: {hosts: [h], path: '/**'}}");
    table.check("OPTIONS h *", "d");
    table.check("OPTIONS x *", "404");
}

#[test]
fn regular_expressions_come_after_patterns_that_spell_something() {
    let table =
        routes("{all: {path: '/**'}, reports: {path_regex: '^/reports/[0-9]{4}/[a-z-]+$'}, y: {path: '/reports/{year}/may'}}");
    table.check("GET h /reports/2026/may", "y year=2026");
    table.check("GET h /reports/2026/june", "reports");
    table.check("GET h /reports/26/june", "all");
}

#[test]
fn an_explanation_says_why_each_route_lost() {
    let table = routes(
        "{a: {path: '/p/**'}, b: {path: /p, headers: {v: '1'}}, c: {path: /p, methods: [POST]}, d: {path: /p, query: {q: '1'}}, \
          e: {path: /p, cookies: {s: {present: true}}}, f: {path: /p, scheme: http}, g: {path: /q}, h: {hosts: [x]}, i: {path: /p}}",
    );
    table.explain(
        "GET h /p v:1",
        &[
            "b takes it",
            "i: less specific than `b`, which has more conditions on headers",
            "a: less specific than `b`, which names the path more closely",
            "c: the method GET does not match, all else does",
            "e: the condition on cookie `s` does not hold",
            "d: the condition on query parameter `q` does not hold",
            "f: the scheme does not match",
            "g: the path does not match",
            "h: the host does not match",
        ],
    );
}

#[test]
fn a_host_of_many_labels_costs_no_more_looks_than_the_longest_wildcard() {
    let table = routes("{near: {hosts: ['*.b.x']}, far: {hosts: ['*.x']}}");
    let host = format!("{}b.x", "a.".repeat(100));
    assert_eq!(table.0.ends(&host).collect::<Vec<_>>(), ["b.x", "x"]);
    table.check(&format!("GET {host} /"), "near");
    assert_eq!(Table::default().ends(&host).count(), 0);
}
