//! Kubernetes Gateway API: the portable cases of its HTTPRoute conformance tests, against the routing table here and through the
//! real binary in [`wire`].
//!
//! Source: github.com/kubernetes-sigs/gateway-api, conformance/tests, commit 4564255ac. The data is in `gateway_api/`;
//! where an answer differs from the suite's, the reason stands beside the case. The rest of the HTTPRoute tests do not apply
//! to matching and precedence: see [`NOT_OURS`].

use std::collections::BTreeMap;

use banyan::{
    config::{
        self,
        paths::EncodedSlashes,
        route::{Match, Target},
    },
    exchange::Facts,
    name::RouteName,
    route::{
        host, path,
        table::{Found, Table},
    },
};
use http::{HeaderMap, HeaderName};
use serde::Deserialize;

use crate::route::facts;

mod wire;

/// The HTTPRoute tests that are not ported here, with the reason. A name that ends in `*` stands for all that start so.
const NOT_OURS: &[(&str, &str)] = &[
    ("backend-protocol-*", "h2c and WebSocket to the service: real sockets, tests of the proxy"),
    ("backend-request-redirect", "filters of a single backend: a route here has one rewrite and one target"),
    ("backend-url-rewrite", "filters of a single backend"),
    ("cross-namespace", "namespaces are the cluster's"),
    ("disallowed-kind", "kinds of objects are the cluster's"),
    ("https-listener*", "certificates and misdirected requests: real sockets, tests of the listeners"),
    ("invalid-*", "references of objects to objects; ours are checked when the configuration loads"),
    ("listener-port-matching", "routes are not bound to listeners: every listener has all of them"),
    ("multiple-gateways", "one process is one gateway"),
    ("named-rule", "rules are named always: a route's name is its key"),
    ("observed-generation-bump", "status of objects in the cluster"),
    ("omitted-backendrefs", "a route without target is refused at load"),
    ("partially-invalid-via-invalid-reference-grant", "grants are the cluster's"),
    ("reference-grant", "grants are the cluster's"),
    ("request-header-modifier*", "waits for the policy that transforms headers"),
    ("response-header-modifier", "waits for the policy that transforms headers"),
    ("request-mirror", "waits for shadow traffic"),
    ("request-multiple-mirrors", "waits for shadow traffic"),
    ("request-percentage-mirror", "waits for shadow traffic"),
    ("retry*", "real sockets, tests of the upstream"),
    ("service-types", "kinds of services are the cluster's"),
    ("simple-same-namespace", "the plainest case, part of `matching`"),
    ("timeout-*", "real sockets, tests of the proxy"),
    ("weight", "the share of a split: tests of the origin"),
];

#[derive(Deserialize)]
pub struct Suite<R, C> {
    pub routes: BTreeMap<RouteName, R>,
    pub cases: Vec<C>,
}

/// A case of redirects and rewrites.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rewriting {
    #[serde(default = "get")]
    pub method: String,
    #[serde(default = "gateway")]
    pub host: String,
    pub sent: String,
    pub route: RouteName,
    pub status: Option<u16>,
    pub location: Option<String>,
    pub seen: Option<Seen>,
    pub upstream: Option<String>,
}

/// What the service sees.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seen {
    pub path: String,
    pub host: Option<String>,
}

fn get() -> String {
    "GET".into()
}

fn gateway() -> String {
    "gateway.example".into()
}

fn request(method: &str, authority: &str, target: &str) -> Facts {
    let (raw, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let (host, port) = host::parse(authority).unwrap();
    let path = path::normalise(raw.as_bytes(), EncodedSlashes::Refuse).unwrap();
    Facts { port, ..facts(method, &host, &path, query) }
}

fn answer(routes: &[&RouteName], found: &Found) -> String {
    match found {
        Found::Route { index, .. } => routes[*index as usize].to_string(),
        Found::MethodNotAllowed(allow) => format!("405 {}", allow.to_str().unwrap()),
        Found::None => "404".into(),
    }
}

/// Runs "METHOD host path [header=value …] -> answer".
fn check(suite: &str, table: &Table, routes: &[&RouteName], case: &str) {
    let (sent, expected) = case.split_once(" -> ").unwrap();
    let mut words = sent.split(' ');
    let mut word = || words.next().unwrap();
    let (method, host, target) = (word(), word(), word());
    let host = if host == "-" { "gateway.example" } else { host };
    let mut headers = HeaderMap::new();
    for (name, value) in words.map(|word| word.split_once('=').unwrap()) {
        headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
    }
    let found = answer(routes, &table.find(&request(method, host, target), &headers));
    let backend = if found.starts_with("405") { &found } else { found.rsplit('-').next().unwrap() };
    assert_eq!(backend, expected, "{suite}: {case}");
}

#[test]
fn matching_and_precedence() {
    let suites: BTreeMap<String, Suite<Match, String>> = serde_yaml::from_str(include_str!("gateway_api/matching.yaml")).unwrap();
    let mut cases = 0;
    for (name, suite) in &suites {
        let (table, problems) = Table::compile(suite.routes.iter());
        assert!(!problems.iter().any(|p| p.is_error()), "{name}: {problems:?}");
        let routes: Vec<&RouteName> = suite.routes.keys().collect();
        suite.cases.iter().for_each(|case| check(name, &table, &routes, case));
        cases += suite.cases.len();
    }
    assert_eq!((suites.len(), cases), (10, 112));
}

/// The cases of redirects and rewrites, by the name of the suite's test.
pub fn rewriting() -> BTreeMap<String, Suite<config::Route, Rewriting>> {
    serde_yaml::from_str(include_str!("gateway_api/rewriting.yaml")).unwrap()
}

#[test]
fn redirects_and_rewrites_find_their_route() {
    for (name, suite) in &rewriting() {
        let (table, problems) = Table::compile(suite.routes.iter().map(|(name, route)| (name, &route.matches)));
        assert!(problems.is_empty(), "{name}: {problems:?}");
        let routes: Vec<&RouteName> = suite.routes.keys().collect();
        for case in &suite.cases {
            let found = table.find(&request(&case.method, &case.host, &case.sent), &HeaderMap::new());
            assert_eq!(answer(&routes, &found), case.route.as_str(), "{name}: {}", case.sent);
            let local = matches!(suite.routes[&case.route].to, Target::Redirect(_));
            assert_eq!((case.status.is_some(), case.location.is_some()), (local, local), "{name}: {}", case.sent);
            let seen = case.seen.as_ref().map(|seen| seen.path.starts_with('/') && seen.host.as_deref() != Some(""));
            assert_eq!((seen, case.upstream.is_some()), ((!local).then_some(true), !local), "{name}: {}", case.sent);
        }
    }
}

#[test]
fn every_test_of_the_suite_is_ported_or_has_its_reason() {
    let listed = include_str!("gateway_api/tests.txt");
    let text = [
        include_str!("gateway_api/matching.yaml"),
        include_str!("gateway_api/rewriting.yaml"),
        include_str!("gateway_api/cors.yaml"),
    ]
    .concat();
    for name in listed.lines() {
        let ported = text.lines().any(|line| line == format!("{name}:"));
        let status = matches!(name, "303-redirect" | "307-redirect" | "308-redirect");
        let excused = NOT_OURS.iter().any(|(pattern, _)| match pattern.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => name == *pattern,
        });
        assert!(ported || status || excused, "{name} is neither ported nor excused");
    }
    assert!(NOT_OURS.iter().all(|(_, reason)| !reason.is_empty()));
}
