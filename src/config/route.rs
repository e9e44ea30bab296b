//! `routes`: which requests go where.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::faults::{Abort, Delay, Faults, Trigger};
use super::{policy::Policies, upstream::weight};
use crate::{
    name::{IdentityName, UpstreamName},
    units::{Duration, positive, some_positive, within},
};

mod faults;

/// A route: the requests it takes, what it changes, the rules they meet and where they go.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Requests that the route takes. Absent: all.
    #[serde(default, rename = "match")]
    pub matches: Match,
    /// What is shed first when not all can be carried; see `overload`.
    #[serde(default, skip_serializing_if = "Priority::is_normal")]
    pub priority: Priority,
    /// Changes to the request before it goes upstream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewrite: Option<Rewrite>,
    /// Timeouts of this route, over its upstream's.
    #[serde(default)]
    pub timeouts: RouteTimeouts,
    /// Failures made on purpose, for game days. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub faults: Option<Faults>,
    /// Rules of this route. One that is named here replaces the gateway's whole; `off` removes it.
    #[serde(default)]
    pub policies: Policies,
    /// Where the requests go.
    pub to: Target,
}

/// Which requests go first when not all can be carried.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// Shed first.
    Low,
    #[default]
    Normal,
    /// Shed last.
    High,
}

impl Priority {
    pub const ALL: [Self; 3] = [Self::Low, Self::Normal, Self::High];

    pub const fn word(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
        }
    }

    fn is_normal(&self) -> bool {
        *self == Self::Normal
    }
}

/// Conditions on a request. All that are given must hold; within a list, one of them.
#[derive(Clone, PartialEq, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Match {
    /// Hosts: `shop.example`, `*.shop.example` (one or more labels in place of the star) or `*`. Port, case and a trailing dot do not
    /// matter. Absent: any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// The scheme that the client used. Absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<Scheme>,
    /// Path pattern: exact `/robots.txt`; `{name}` for one segment; a last `/**` for any rest, so `/api/**` takes `/api`
    /// and `/api/x`, not `/apix`. Absent: any path. Excludes `path_regex`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Regular expression that the whole path must match. Named groups are captures. Excludes `path`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_regex: Option<String>,
    /// Methods: GET includes HEAD. Absent: any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// Conditions on request headers, by name. A repeated header holds if one of its values does.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Condition>,
    /// Conditions on query parameters, by name, percent-decoded. Names are case-sensitive.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub query: BTreeMap<String, Condition>,
    /// Conditions on cookies, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub cookies: BTreeMap<String, Condition>,
}

/// The scheme of a request.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// A condition on a header, query parameter or cookie: its value, or one of `exact`, `present`, `absent`, `regex`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(with = "ConditionForm")]
pub enum Condition {
    /// The value is this.
    Exact(String),
    /// It is there, whatever its value.
    Present(True),
    /// It is not there.
    Absent(True),
    /// The whole value matches this regular expression.
    Regex(String),
}

/// The word `true`, the only value that `present` and `absent` take.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, JsonSchema)]
#[serde(into = "bool")]
#[schemars(with = "bool")]
pub struct True;

impl From<True> for bool {
    fn from(_: True) -> Self {
        true
    }
}

impl<'de> Deserialize<'de> for True {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match bool::deserialize(deserializer)? {
            true => Ok(Self),
            false => Err(serde::de::Error::custom("expected `true`; for the opposite use the other of `present` and `absent`")),
        }
    }
}

#[derive(JsonSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "the schema of the two ways to write a condition")]
enum ConditionForm {
    /// The exact value.
    Exact(String),
    /// Exactly one of these.
    Keys(ConditionKeys),
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
struct ConditionKeys {
    /// The value is this.
    exact: Option<String>,
    /// It is there, whatever its value.
    present: Option<True>,
    /// It is not there.
    absent: Option<True>,
    /// The whole value matches this regular expression.
    regex: Option<String>,
}

impl TryFrom<ConditionKeys> for Condition {
    type Error = &'static str;

    fn try_from(keys: ConditionKeys) -> Result<Self, &'static str> {
        match (keys.exact, keys.present, keys.absent, keys.regex) {
            (Some(value), None, None, None) => Ok(Self::Exact(value)),
            (None, Some(yes), None, None) => Ok(Self::Present(yes)),
            (None, None, Some(yes), None) => Ok(Self::Absent(yes)),
            (None, None, None, Some(regex)) => Ok(Self::Regex(regex)),
            _ => Err("expected exactly one of `exact`, `present`, `absent`, `regex`"),
        }
    }
}

impl<'de> Deserialize<'de> for Condition {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Form;
        impl<'de> serde::de::Visitor<'de> for Form {
            type Value = Condition;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a value in quotes, or one of `exact`, `present`, `absent`, `regex`")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Condition, E> {
                Ok(Condition::Exact(text.to_owned()))
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<Condition, A::Error> {
                let keys = ConditionKeys::deserialize(serde::de::value::MapAccessDeserializer::new(map))?;
                keys.try_into().map_err(serde::de::Error::custom)
            }
        }
        deserializer.deserialize_any(Form)
    }
}

/// Changes to the path and host that go upstream. The query stays.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rewrite {
    /// Removes these whole leading segments; a path without them stays. Excludes `path`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strip_prefix: Option<String>,
    /// Puts these segments in front, after `strip_prefix`. Excludes `path`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub add_prefix: Option<String>,
    /// The new path as a template: `/items/{sku}`; captures of the match, `{path}`, `{host}`, `{scheme}`, `{port}`, `{query}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The Host that goes upstream: `preserve` (default) the client's, `upstream` the service's own name (TLS server name or address),
    /// or a literal one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
}

/// Timeouts of a route.
#[derive(Clone, Copy, PartialEq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteTimeouts {
    /// From the request head received (where the request has a body: from its end) to the response head sent, all tries together.
    #[serde(default = "request_default", deserialize_with = "positive")]
    pub request: Duration,
    /// Longest wait from the request sent to the response head, in each try. Default: the upstream's.
    #[serde(default, deserialize_with = "some_positive", skip_serializing_if = "Option::is_none")]
    pub response: Option<Duration>,
    /// Longest silence after the response head. Default: the upstream's.
    #[serde(default, deserialize_with = "some_positive", skip_serializing_if = "Option::is_none")]
    pub idle: Option<Duration>,
}

impl Default for RouteTimeouts {
    fn default() -> Self {
        Self { request: request_default(), response: None, idle: None }
    }
}

const fn request_default() -> Duration {
    Duration::from_secs(60)
}

/// Where the requests of a route go.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(try_from = "TargetKeys", into = "TargetKeys")]
#[schemars(with = "TargetKeys")]
pub enum Target {
    Upstream(UpstreamName),
    Split(Vec<Share>),
    Redirect(Redirect),
    Respond(Respond),
    Jwks(IdentityName),
}

#[derive(Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
struct TargetKeys {
    /// To this upstream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    upstream: Option<UpstreamName>,
    /// To one of several upstreams, drawn by weight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    split: Option<Vec<Share>>,
    /// Answered here with a redirect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    redirect: Option<Redirect>,
    /// Answered here with a fixed response.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    respond: Option<Respond>,
    /// Answered here with the public keys of this identity, which must be one of kind `session_bridge`, as a JSON Web Key Set (RFC 7517).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    jwks: Option<IdentityName>,
}

impl TryFrom<TargetKeys> for Target {
    type Error = &'static str;

    fn try_from(keys: TargetKeys) -> Result<Self, &'static str> {
        let TargetKeys { upstream, split, redirect, respond, jwks } = keys;
        let listed = [
            upstream.map(Self::Upstream),
            split.map(Self::Split),
            redirect.map(Self::Redirect),
            respond.map(Self::Respond),
            jwks.map(Self::Jwks),
        ];
        let mut listed = listed.into_iter().flatten();
        match (listed.next(), listed.next()) {
            (Some(one), None) => Ok(one),
            _ => Err("expected exactly one of `upstream`, `split`, `redirect`, `respond`, `jwks`"),
        }
    }
}

impl From<Target> for TargetKeys {
    fn from(target: Target) -> Self {
        let none = Self::default();
        match target {
            Target::Upstream(upstream) => Self { upstream: Some(upstream), ..none },
            Target::Split(shares) => Self { split: Some(shares), ..none },
            Target::Redirect(redirect) => Self { redirect: Some(redirect), ..none },
            Target::Respond(respond) => Self { respond: Some(respond), ..none },
            Target::Jwks(identity) => Self { jwks: Some(identity), ..none },
        }
    }
}

/// One share of a split.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// The upstream that takes the share.
    pub upstream: UpstreamName,
    /// Share of the requests relative to the others, 0 to 1000.
    #[serde(deserialize_with = "weight")]
    #[schemars(range(min = 0, max = 1000))]
    pub weight: u32,
}

/// A redirect. The query is kept unless the location has its own.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308. Default 308, which keeps method and body.
    #[serde(default = "permanent", deserialize_with = "redirection")]
    #[schemars(extend("enum" = [301, 302, 303, 307, 308]))]
    pub status: u16,
    /// Where to, as a template: `https://{host}{path}`; also `{scheme}`, `{port}`, `{query}` and captures.
    pub location: String,
}

/// Statuses that send a client elsewhere.
const REDIRECTIONS: [u16; 5] = [301, 302, 303, 307, 308];

fn redirection<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    const EXPECTED: &str = "301, 302, 303, 307 or 308";
    let status = within(deserializer, EXPECTED, 301..=308)?;
    let fault = || serde::de::Error::invalid_value(serde::de::Unexpected::Unsigned(status), &EXPECTED);
    REDIRECTIONS.into_iter().find(|known| u64::from(*known) == status).ok_or_else(fault)
}

const fn permanent() -> u16 {
    308
}

/// A fixed response.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Respond {
    /// Status from 200 to 599. Default 200.
    #[serde(default = "ok", deserialize_with = "status")]
    #[schemars(range(min = 200, max = 599))]
    pub status: u16,
    /// Headers of the response. Framing headers are the gateway's own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Body of the response. Default: empty.
    #[serde(default)]
    pub body: String,
}

fn status<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    within(deserializer, "a status from 200 to 599", 200..=599).map(|status| status as u16)
}

const fn ok() -> u16 {
    200
}
