//! Keys of the language that later versions bring: refused as such, so that nobody believes them in force.

use super::super::problem::{Path, Step};

/// Keys that are not built yet; `*` stands for any name or position.
const KEYS: &[&str] = &[
    "cache",
    "upstreams.*.discover",
    "upstreams.*.breaker.per_endpoint",
    "upstreams.*.breaker.fallback",
    "upstreams.*.health.grpc",
    "routes.*.to.migrate",
    "routes.*.to.aggregate",
    "routes.*.to.translate",
];

/// Words that are not built yet, by the key that will take them.
const WORDS: &[(&str, &[&str])] = &[
    ("policies.*.key", COUNTRY),
    ("policies.*.key.*", COUNTRY),
    ("policies.rate_limit.*.key", COUNTRY),
    ("policies.rate_limit.*.key.*", COUNTRY),
    ("routes.*.policies.*.key", COUNTRY),
    ("routes.*.policies.*.key.*", COUNTRY),
    ("routes.*.policies.rate_limit.*.key", COUNTRY),
    ("routes.*.policies.rate_limit.*.key.*", COUNTRY),
];

/// What is counted apart by a database of addresses.
const COUNTRY: &[&str] = &["country"];

/// Policies that are not built yet, for the gateway and for a route.
const POLICIES: &[&str] = &["cache", "ip", "transform", "validate", "waf"];

/// Whether a later version brings the key.
pub fn brings_key(path: &Path) -> bool {
    let steps = path.steps();
    KEYS.iter().any(|pattern| matches(pattern, steps)) || brings_policy(steps)
}

/// Whether a later version brings the word as a value of the key.
pub fn brings_word(path: &Path, word: &str) -> bool {
    WORDS.iter().any(|(pattern, words)| words.contains(&word) && matches(pattern, path.steps()))
}

fn brings_policy(steps: &[Step]) -> bool {
    let policy = match steps {
        [Step::Key(section), Step::Key(policy)] if section == "policies" => policy,
        [Step::Key(routes), _, Step::Key(section), Step::Key(policy)] if routes == "routes" && section == "policies" => policy,
        _ => return false,
    };
    POLICIES.contains(&policy.as_str())
}

fn matches(pattern: &str, steps: &[Step]) -> bool {
    pattern.split('.').count() == steps.len()
        && pattern.split('.').zip(steps).all(|(part, step)| part == "*" || names(step, part))
}

fn names(step: &Step, name: &str) -> bool {
    matches!(step, Step::Key(key) if key == name)
}
