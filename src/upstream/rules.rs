//! What an upstream's configuration must keep to, beyond its types.

use std::collections::HashMap;

use http::{HeaderValue, uri::PathAndQuery};

use crate::config::{
    self,
    problem::{Path, Problem},
    upstream::{Breaker, Endpoint, Health, HttpHealth},
};

/// Every mistake of an upstream that is not one of its client's.
pub(super) fn check(config: &config::Upstream, at: &Path) -> Vec<Problem> {
    let mut problems = Vec::new();
    endpoints(&config.endpoints, &at.key("endpoints"), &mut problems);
    if let Some(Health::Http(http)) = &config.health {
        http_health(http, &at.key("health").key("http"), &mut problems);
    }
    if let Some(breaker) = &config.breaker {
        slowness(breaker, &at.key("breaker"), &mut problems);
    }
    problems
}

/// A share of slow answers, and what a slow answer is, say nothing without each other.
fn slowness(breaker: &Breaker, at: &Path, problems: &mut Vec<Problem>) {
    let (given, missing) = match (breaker.slow_rate, breaker.slower_than) {
        (Some(_), None) => ("slow_rate", "slower_than"),
        (None, Some(_)) => ("slower_than", "slow_rate"),
        _ => return,
    };
    let problem = Problem::error(at.key(given), format!("`{given}` says nothing without `{missing}`"));
    problems.push(problem.help("give both or neither"));
}

fn endpoints(endpoints: &[Endpoint], at: &Path, problems: &mut Vec<Problem>) {
    if endpoints.is_empty() {
        problems.push(Problem::error(at.clone(), "the list of endpoints is empty").help("name at least one address"));
    } else if endpoints.iter().all(|endpoint| endpoint.weight == 0) {
        let problem = Problem::error(at.clone(), "all weights are 0, so no endpoint takes traffic");
        problems.push(problem.help("give at least one a weight"));
    }
    let mut first = HashMap::new();
    for (position, endpoint) in endpoints.iter().enumerate() {
        if let Some(before) = first.insert(endpoint.address, position) {
            first.insert(endpoint.address, before);
            let message = format!("`{}` is listed twice", endpoint.address);
            problems.push(
                Problem::error(at.index(position), message).also(at.index(before), "first here").help("use a weight instead"),
            );
        }
        if endpoint.address.port() == 0 || endpoint.address.ip().is_unspecified() {
            let problem = Problem::error(at.index(position), format!("nothing can be reached at `{}`", endpoint.address));
            problems.push(problem.help("write the address and port that the service is reached at"));
        }
    }
}

fn http_health(http: &HttpHealth, at: &Path, problems: &mut Vec<Problem>) {
    if !http.path.starts_with('/') || http.path.parse::<PathAndQuery>().is_err() {
        let message = format!("`{}` is not a path", http.path);
        problems.push(Problem::error(at.key("path"), message).help("write a path that starts with `/`, such as `/healthz`"));
    }
    if http.host.as_deref().is_some_and(|host| !is_host(host)) {
        let message = format!("`{}` is not a host", http.host.as_deref().unwrap_or_default());
        problems.push(Problem::error(at.key("host"), message).help("write a name, with a port if needed: `orders.internal`"));
    }
}

/// Whether a text can be sent as Host, and as `:authority`.
fn is_host(text: &str) -> bool {
    HeaderValue::from_str(text).is_ok() && text.parse::<http::uri::Authority>().is_ok_and(|a| !a.as_str().contains('@'))
}
