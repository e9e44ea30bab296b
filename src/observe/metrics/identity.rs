//! The series of identities: what they remember, and how fresh their keys are.

use prometheus::proto::MetricFamily;

use super::family::{counters, gauges, labels};

/// What is known of an identity, as of now.
#[derive(Clone, Copy, Debug)]
pub struct Identity<'a> {
    pub name: &'a str,
    /// Tokens that are remembered.
    pub tokens: usize,
    /// How often a token was remembered, and how often not.
    pub looks: (u64, u64),
    /// Of one that fetches its keys.
    pub keys: Option<Keys>,
}

/// Keys that an issuer publishes.
#[derive(Clone, Copy, Debug)]
pub struct Keys {
    pub keys: usize,
    /// Good answers of the issuer, and failures.
    pub answers: (u64, u64),
    /// When the issuer last answered well, in seconds since 1970. `None`: never.
    pub good: Option<u64>,
}

pub(super) fn families(identities: &[Identity<'_>]) -> [MetricFamily; 5] {
    let each = || identities.iter();
    let keys = || each().filter_map(|one| Some((one.name, one.keys?)));
    let looks = each().flat_map(|one| {
        let (hits, misses) = one.looks;
        [("hit", hits), ("miss", misses)]
            .map(|(result, count)| (labels([("identity", one.name), ("result", result)]), count as f64))
    });
    let fetches = keys().flat_map(|(name, keys)| {
        let (good, failed) = keys.answers;
        [("failure", failed), ("success", good)]
            .map(|(result, count)| (labels([("identity", name), ("result", result)]), count as f64))
    });
    let name = |name: &str| labels([("identity", name)]);
    [
        counters("banyan_identity_tokens_total", "Tokens that were looked up, by whether they were remembered.", looks),
        gauges(
            "banyan_identity_tokens_remembered",
            "Good tokens that are remembered.",
            each().map(|one| (name(one.name), one.tokens as f64)),
        ),
        counters("banyan_identity_key_fetches_total", "Key sets asked for, by how that went.", fetches),
        gauges("banyan_identity_keys", "Keys in force.", keys().map(|(at, keys)| (name(at), keys.keys as f64))),
        gauges(
            "banyan_identity_keys_timestamp_seconds",
            "When the issuer last gave its keys, in Unix time.",
            keys().filter_map(|(at, keys)| Some((name(at), keys.good? as f64))),
        ),
    ]
}
