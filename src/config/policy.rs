//! `policies`: the rules a request meets, for the gateway and for a route.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use self::{
    auth::Auth,
    authz::Authz,
    limit::{Concurrency, RateLimit, Throttle},
};
use crate::units::{Bytes, Duration};

pub mod auth;
pub mod authz;
pub mod limit;
pub mod signature;

/// One key a policy. In which order they run is the gateway's business, not the file's.
#[derive(Clone, PartialEq, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Policies {
    /// How many requests of one client are looked at, before anything else is done for them. More are answered with 429.
    #[serde(default, skip_serializing_if = "Switch::is_inherited")]
    pub throttle: Switch<Throttle>,
    /// Largest request body and header section.
    #[serde(default, skip_serializing_if = "Switch::is_inherited")]
    pub request_limits: Switch<RequestLimits>,
    /// Which pages of other origins may call, by the Fetch standard.
    #[serde(default, skip_serializing_if = "Switch::is_inherited")]
    pub cors: Switch<Cors>,
    /// By what a caller proves who it is. A request that does not is answered with 401.
    #[serde(default, skip_serializing_if = "Switch::is_inherited")]
    pub auth: Switch<Auth>,
    /// What a caller must have to pass. Who lacks it is answered with 403.
    #[serde(default, skip_serializing_if = "Switch::is_inherited")]
    pub authz: Switch<Authz>,
    /// How often callers may ask, by the name of each limit. More are answered with 429.
    #[serde(default, skip_serializing_if = "Switch::is_inherited")]
    pub rate_limit: Switch<RateLimit>,
    /// Whether requests count towards the quota of their caller's plan, which they do unless it is `off`. More are answered with 429.
    #[serde(default, skip_serializing_if = "Switch::is_inherited")]
    pub quota: Switch<CountedQuota>,
    /// How many requests are carried at the same time. More are answered with 429.
    #[serde(default, skip_serializing_if = "Switch::is_inherited")]
    pub concurrency: Switch<Concurrency>,
}

/// A policy as a place in the file states it.
#[derive(Clone, PartialEq, Debug, Default, JsonSchema)]
#[schemars(with = "SwitchForm<T>")]
pub enum Switch<T> {
    /// Not mentioned: the gateway's applies.
    #[default]
    Inherited,
    /// `off`: none applies.
    Off,
    /// This one applies, whole.
    On(T),
}

#[derive(JsonSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "the schema of the two ways to write a policy")]
enum SwitchForm<T> {
    On(T),
    Off(Off),
}

#[derive(JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(dead_code, reason = "the schema of the word")]
enum Off {
    /// Removes the gateway's policy.
    Off,
}

impl<T> Switch<T> {
    /// What applies here, given what applies around it.
    pub fn or<'a>(&'a self, around: &'a Self) -> Option<&'a T> {
        match self {
            Self::On(policy) => Some(policy),
            Self::Off => None,
            Self::Inherited => match around {
                Self::On(policy) => Some(policy),
                _ => None,
            },
        }
    }

    pub fn is_inherited(&self) -> bool {
        matches!(self, Self::Inherited)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Switch<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Form<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> serde::de::Visitor<'de> for Form<T> {
            type Value = Switch<T>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("the policy's settings or `off`")
            }
            fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<Switch<T>, E> {
                match word {
                    "off" => Ok(Switch::Off),
                    _ => Err(E::invalid_value(serde::de::Unexpected::Str(word), &self)),
                }
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<Switch<T>, A::Error> {
                T::deserialize(serde::de::value::MapAccessDeserializer::new(map)).map(Switch::On)
            }
        }
        deserializer.deserialize_any(Form(std::marker::PhantomData))
    }
}

impl<T: Serialize> Serialize for Switch<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Inherited => serializer.serialize_unit(),
            Self::Off => serializer.serialize_str("off"),
            Self::On(policy) => policy.serialize(serializer),
        }
    }
}

/// How requests count towards the quota of their caller's plan, `plans.*.quota`.
#[derive(Clone, PartialEq, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CountedQuota {
    /// What a client is told of the quota, on every answer.
    #[serde(default)]
    pub headers: limit::Told,
    /// Whether to refuse, or only to count and log what would be refused.
    #[serde(default, skip_serializing_if = "auth::Mode::is_enforce")]
    pub mode: auth::Mode,
}

/// Largest request that is carried. Bodies over `body` get 413, header sections over `headers` 431.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RequestLimits {
    /// Largest request body; one of unknown length is counted as it streams. Absent: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Bytes>,
    /// Largest header section: each name and value with 4 bytes more, request line not counted. Absent: no limit
    /// below the gateway's own of 256 fields.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers: Option<Bytes>,
}

/// Cross-origin resource sharing, by the Fetch standard. Preflights are answered here.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cors {
    /// Origins that may call: `https://shop.example`, `https://*.shop.example` for subdomains, or `*` for any.
    pub origins: Vec<String>,
    /// Methods that may be used. Default GET, HEAD, POST (the safelisted ones). `*` for any, but not with credentials.
    #[serde(default = "safelisted_methods")]
    pub methods: Vec<String>,
    /// Request headers that may be sent. Default: those the preflight asks for. `*` for any, but not with credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers: Option<Vec<String>>,
    /// Response headers that a page may read beside the safelisted ones.
    #[serde(default)]
    pub expose: Vec<String>,
    /// Whether cookies and authorisation may be sent. Excludes `origins: ["*"]`. Default false.
    #[serde(default)]
    pub credentials: bool,
    /// How long a browser may remember a preflight. Absent: the browser's default (5s).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Duration>,
}

fn safelisted_methods() -> Vec<String> {
    ["GET", "HEAD", "POST"].map(str::to_owned).to_vec()
}
