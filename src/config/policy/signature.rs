//! `auth.signature`: requests that their sender signed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::{Duration, from_text, positive};

/// A request that its sender signed (HTTP Message Signatures, RFC 9421), with the key of a consumer. A signature must have `created` and
/// `keyid`, counts once, and may be one of at most four.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    /// What a signature must cover: names of fields, `@method`, `@authority`, `@scheme`, `@target-uri`, `@request-target`, `@path`, `@query`,
    /// or `"@query-param";name="id"`. What covers more will do: `@target-uri` stands for `@path` too. Default: `@method`,
    /// `@authority`, `@path` and `@query`, so that nobody can send it elsewhere.
    #[serde(default = "covered")]
    pub covered: Vec<String>,
    /// Whether a body must be signed. A signed body is compared before a service is asked; one over 64 KiB gets 413.
    #[serde(default)]
    pub body: SignedBody,
    /// Longest time from `created` to now; 1h at most.
    #[serde(default = "max_age", deserialize_with = "age")]
    pub max_age: Duration,
    /// By how much the sender's clock may differ from ours; 5m at most.
    #[serde(default = "leeway", deserialize_with = "slack")]
    pub leeway: Duration,
    /// Whether a signature must have a `nonce`. Without one a repeat is known by what was signed: two equal requests within one second are
    /// then taken for one that is sent again.
    #[serde(default)]
    pub nonce: Nonce,
    /// Only signatures with this `tag` count. Absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// Whether the service gets `Signature` and `Signature-Input` too. Default false: they are taken out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keep: bool,
}

/// What of a body must be signed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SignedBody {
    /// A request with a body must cover `content-digest` (RFC 9530) with `sha-256` or `sha-512`.
    #[default]
    Required,
    /// A body whose digest is covered is compared, another passes.
    IfCovered,
}

/// Whether a signature must have a nonce.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Nonce {
    #[default]
    Required,
    Optional,
}

fn covered() -> Vec<String> {
    ["@method", "@authority", "@path", "@query"].map(str::to_owned).into()
}

const fn max_age() -> Duration {
    Duration::from_secs(300)
}

const fn leeway() -> Duration {
    Duration::from_secs(30)
}

fn age<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let age = positive(deserializer)?;
    if age > Duration::from_secs(3_600) { Err(serde::de::Error::custom("a signature is good for at most 1h")) } else { Ok(age) }
}

fn slack<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    from_text(deserializer, "a duration of at most 5m with its unit such as `30s`", |text| {
        text.parse().ok().filter(|leeway: &Duration| *leeway <= Duration::from_secs(300))
    })
}
