//! The same cases through the real binary: a gateway for each of the suite's tests, services that say which they are.

use std::collections::BTreeMap;

use banyan::name::RouteName;
use serde::Deserialize;
use serde_yaml::Value;

use super::{Rewriting, Suite, rewriting};
use crate::harness::{Gateway, Origin, Request, Response};

/// The suite's services, by name.
const SERVICES: [&str; 3] = ["v1", "v2", "v3"];

/// A gateway on the routes of one test, and the services behind it.
struct House {
    gateway: Gateway,
    services: [Origin; 3],
}

impl House {
    fn on(routes: &BTreeMap<RouteName, Value>) -> Self {
        let services = SERVICES.map(|name| Origin::answer(move |request| says(name, request)));
        let upstreams: Vec<String> =
            SERVICES.iter().zip(&services).map(|(name, service)| format!("{name}: {{ endpoints: [\"{service}\"] }}")).collect();
        let routes = routes.iter().map(|(name, route)| (name.as_str(), route)).collect();
        let routes = serde_yaml::to_string(&BTreeMap::<_, BTreeMap<_, _>>::from([("routes", routes)])).unwrap();
        Self { gateway: Gateway::start(&format!("upstreams: {{ {} }}\n{routes}", upstreams.join(", "))), services }
    }

    /// The answer to a request, and what a service saw of it.
    fn ask(
        &self,
        method: &str,
        host: &str,
        target: &str,
        fields: &[(&str, &str)],
    ) -> (Response, Option<(&'static str, Request)>) {
        let before = self.services.each_ref().map(Origin::count);
        let fields: String = fields.iter().map(|(name, value)| format!("\n{name}: {value}")).collect();
        let reply = self.gateway.ask(&format!("{method} {target} HTTP/1.1\nHost: {host}{fields}"));
        let mut saw = SERVICES.into_iter().zip(&self.services).zip(before);
        let saw = saw.find_map(|((name, service), before)| Some((name, service.requests().get(before)?.clone())));
        (reply, saw)
    }
}

fn says(name: &str, request: &Request) -> String {
    let text = if request.head.line.starts_with("HEAD ") { "" } else { name };
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", name.len())
}

/// A route of [`super::matching_and_precedence`], which goes to the service at the end of its name.
fn route((name, found): (&RouteName, &Value)) -> (RouteName, Value) {
    let to = BTreeMap::from([("upstream", name.as_str().rsplit('-').next())]);
    let route = BTreeMap::from([("match", found.clone()), ("to", serde_yaml::to_value(to).unwrap())]);
    (name.clone(), serde_yaml::to_value(route).unwrap())
}

/// Plays "METHOD host path [header=value …] -> answer".
fn check(suite: &str, house: &House, case: &str) {
    let (sent, expected) = case.split_once(" -> ").unwrap();
    let words: Vec<&str> = sent.split(' ').collect();
    let (&[method, host, target], fields) = words.split_first_chunk().unwrap();
    let fields: Vec<(&str, &str)> = fields.iter().map(|field| field.split_once('=').unwrap()).collect();
    let (reply, saw) = house.ask(method, if host == "-" { "gateway.example" } else { host }, target, &fields);
    let found = match (&saw, reply.status) {
        (Some((service, _)), 200) => (*service).to_owned(),
        (None, 405) => format!("405 {}", reply.field("allow").unwrap()),
        (_, status) => status.to_string(),
    };
    assert_eq!(found, expected, "{suite}: {case}");
    if let Some((_, seen)) = saw {
        assert_eq!(seen.target(), target, "{suite}: {case}");
    }
}

#[test]
fn matching_and_precedence_hold_on_the_wire() {
    let suites: BTreeMap<String, Suite<Value, String>> = serde_yaml::from_str(include_str!("matching.yaml")).unwrap();
    for (name, suite) in &suites {
        let house = House::on(&suite.routes.iter().map(route).collect());
        suite.cases.iter().for_each(|case| check(name, &house, case));
    }
}

fn check_rewriting(suite: &str, house: &House, case: &Rewriting) {
    let (reply, saw) = house.ask(&case.method, &case.host, &case.sent, &[]);
    let service = saw.as_ref().map(|(service, _)| (*service).to_owned());
    assert_eq!((reply.status, service), (case.status.unwrap_or(200), case.upstream.clone()), "{suite}: {}", case.sent);
    assert_eq!(reply.field("location"), case.location.as_deref(), "{suite}: {}", case.sent);
    if let (Some((_, saw)), Some(seen)) = (&saw, &case.seen) {
        let host = seen.host.as_deref().unwrap_or(&case.host);
        assert_eq!((saw.target(), saw.field("host")), (seen.path.as_str(), Some(host)), "{suite}: {}", case.sent);
    }
}

#[test]
fn redirects_and_rewrites_hold_on_the_wire() {
    let written: BTreeMap<String, Suite<Value, Value>> = serde_yaml::from_str(include_str!("rewriting.yaml")).unwrap();
    for (name, suite) in &rewriting() {
        let house = House::on(&written[name].routes);
        suite.cases.iter().for_each(|case| check_rewriting(name, &house, case));
    }
}

/// A cross-origin request and the fields of its answer.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Crossing {
    #[serde(default = "super::get")]
    method: String,
    sent: String,
    origin: String,
    /// `Access-Control-Request-Method`: it is a preflight.
    asks: Option<String>,
    /// `Access-Control-Request-Headers`.
    fields: Option<String>,
    /// `Access-Control-…` of the answer, the rest of the name to its value; there are no others.
    #[serde(default)]
    answer: BTreeMap<String, String>,
}

fn check_crossing(house: &House, case: &Crossing) {
    let mut fields = vec![("Origin", case.origin.as_str())];
    fields.extend(case.asks.as_deref().map(|method| ("Access-Control-Request-Method", method)));
    fields.extend(case.fields.as_deref().map(|names| ("Access-Control-Request-Headers", names)));
    let method = if case.asks.is_some() { "OPTIONS" } else { &case.method };
    let (reply, saw) = house.ask(method, "gateway.example", &case.sent, &fields);
    assert_eq!(saw.is_some(), case.asks.is_none(), "a preflight is answered here: {}", case.sent);
    assert!([200, 204].contains(&reply.status), "{} got {}", case.sent, reply.status);
    let rest = |name: &str| name.to_lowercase().strip_prefix("access-control-").map(str::to_owned);
    let spaceless = |value: &String| value.replace(", ", ",");
    let answer: BTreeMap<String, String> =
        reply.head.fields.iter().filter_map(|(name, value)| Some((rest(name)?, spaceless(value)))).collect();
    let expected: BTreeMap<String, String> = case.answer.iter().map(|(name, value)| (name.clone(), spaceless(value))).collect();
    assert_eq!(answer, expected, "{} from {}", case.sent, case.origin);
}

#[test]
fn cross_origin_requests_hold_on_the_wire() {
    let suites: BTreeMap<String, Suite<Value, Crossing>> = serde_yaml::from_str(include_str!("cors.yaml")).unwrap();
    for suite in suites.values() {
        let house = House::on(&suite.routes);
        suite.cases.iter().for_each(|case| check_crossing(&house, case));
    }
}
