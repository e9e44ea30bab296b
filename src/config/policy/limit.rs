//! `throttle`, `rate_limit` and `concurrency`: how much callers may do.

use std::{collections::BTreeMap, fmt};

use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, IntoDeserializer},
};

use super::auth::Mode;
use crate::{
    name::{LimitName, PlanName},
    units::{Duration, Rate, some_positive, within},
};

/// Limits by name. A request must pass all of them; one that is refused takes nothing of any.
#[derive(Clone, PartialEq, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct RateLimit(pub BTreeMap<LimitName, Limit>);

/// How often something may be asked for.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// What is counted apart.
    pub key: Key,
    /// How often: `100/1m`; or `plan`, as the caller's plan says.
    pub limit: Allowance,
    /// Most that may come at once, for `token_bucket`. Default: as many as `limit` allows in its time.
    #[serde(default, deserialize_with = "some_count", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4_294_967_295_u32))]
    pub burst: Option<u32>,
    /// How it is counted.
    #[serde(default)]
    pub algorithm: Algorithm,
    /// Longest that a request waits for its turn, for `leaky_bucket`; one that would wait longer is refused. Default 1s.
    #[serde(default, deserialize_with = "some_positive", skip_serializing_if = "Option::is_none")]
    pub max_delay: Option<Duration>,
    /// What a request takes of the limit.
    #[serde(default, skip_serializing_if = "Cost::is_one")]
    pub cost: Cost,
    /// For `limit: plan`, the plan of callers that have none: consumers without a plan, and callers who are no consumer. Absent: these
    /// are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_plan: Option<PlanName>,
    /// Leading bits of an IPv6 address that are one client, for `client_ip`, 1 to 128. Default 64, which is what one connection to the
    /// Internet is given.
    #[serde(default, deserialize_with = "some_bits", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 128))]
    pub ipv6_prefix: Option<u8>,
    /// How many keys are counted at the same time, 1 to 100000000. More share what the least used are counted with; see
    /// `docs/limits.md`.
    #[serde(default = "keys_default", deserialize_with = "keys")]
    #[schemars(range(min = 1, max = 100_000_000))]
    pub keys: u32,
    /// What a client is told of the limit, on every answer.
    #[serde(default)]
    pub headers: Told,
    /// Whether to refuse, or only to count and log what would be refused.
    #[serde(default, skip_serializing_if = "Mode::is_enforce")]
    pub mode: Mode,
}

/// Requests of one client that are looked at, before anything else is done for them. By a token bucket.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Throttle {
    /// What is counted apart: `client_ip`, `route`, or a header, cookie or query parameter; who calls is not known yet.
    #[serde(default)]
    pub key: Key,
    /// How often: `100/1m`.
    pub limit: Rate,
    /// Most that may come at once. Default: as many as `limit` allows in its time.
    #[serde(default, deserialize_with = "some_count", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4_294_967_295_u32))]
    pub burst: Option<u32>,
    /// Leading bits of an IPv6 address that are one client, for `client_ip`, 1 to 128. Default 64.
    #[serde(default, deserialize_with = "some_bits", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 128))]
    pub ipv6_prefix: Option<u8>,
    /// How many keys are counted at the same time, 1 to 100000000.
    #[serde(default = "keys_default", deserialize_with = "keys")]
    #[schemars(range(min = 1, max = 100_000_000))]
    pub keys: u32,
    /// What a client is told of the limit, on every answer.
    #[serde(default)]
    pub headers: Told,
    /// Whether to refuse, or only to count and log what would be refused.
    #[serde(default, skip_serializing_if = "Mode::is_enforce")]
    pub mode: Mode,
}

/// Requests that are carried at the same time.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Concurrency {
    /// What is counted apart.
    pub key: Key,
    /// Most requests at the same time.
    #[serde(deserialize_with = "count")]
    #[schemars(range(min = 1, max = 4_294_967_295_u32))]
    pub limit: u32,
    /// Leading bits of an IPv6 address that are one client, for `client_ip`, 1 to 128. Default 64.
    #[serde(default, deserialize_with = "some_bits", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 128))]
    pub ipv6_prefix: Option<u8>,
    /// Whether to refuse, or only to count and log what would be refused.
    #[serde(default, skip_serializing_if = "Mode::is_enforce")]
    pub mode: Mode,
}

/// How often, by itself or by the caller's plan.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Allowance {
    Rate(Rate),
    Plan,
}

impl Serialize for Allowance {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Rate(rate) => rate.serialize(serializer),
            Self::Plan => serializer.serialize_str("plan"),
        }
    }
}

impl<'de> Deserialize<'de> for Allowance {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const EXPECTED: &str = "a rate of more than zero with its time such as `10/1s` or `100/1m`, or `plan`";
        crate::units::from_text(deserializer, EXPECTED, |text| match text {
            "plan" => Some(Self::Plan),
            rate => rate.parse().ok().map(Self::Rate),
        })
    }
}

impl JsonSchema for Allowance {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Allowance".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let rate = generator.subschema_for::<Rate>();
        schemars::json_schema!({ "anyOf": [rate, { "type": "string", "const": "plan" }] })
    }
}

/// How a limit counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    /// Tokens come at an even rate, as many as `burst` are kept. Exact (GCRA).
    #[default]
    TokenBucket,
    /// Requests are sent on at an even rate; who comes early waits for its turn.
    LeakyBucket,
    /// At most so many in any window of the time: the window before counts by how much of it is still in view.
    SlidingWindow,
    /// So many in each window of the time, all of which begin together.
    FixedWindow,
}

impl Algorithm {
    /// The word in the file.
    pub const fn word(self) -> &'static str {
        match self {
            Self::TokenBucket => "token_bucket",
            Self::LeakyBucket => "leaky_bucket",
            Self::SlidingWindow => "sliding_window",
            Self::FixedWindow => "fixed_window",
        }
    }
}

/// What a client is told of a limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    /// `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers).
    #[default]
    Standard,
    /// `X-RateLimit-Limit`, `X-RateLimit-Remaining` and `X-RateLimit-Reset`.
    Legacy,
    /// All of these.
    Both,
    /// Nothing but Retry-After when it is refused.
    Off,
}

/// What a request takes: a number, or what a header field says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(with = "CostForm")]
pub enum Cost {
    /// A header field of the request says it.
    Header(String),
    /// A header field of the response says it.
    ResponseHeader(String),
    #[serde(untagged)]
    Fixed(u32),
}

impl Default for Cost {
    fn default() -> Self {
        Self::Fixed(1)
    }
}

impl Cost {
    fn is_one(&self) -> bool {
        *self == Self::default()
    }
}

#[derive(JsonSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "the schema of the ways to write a cost")]
enum CostForm {
    /// The same for every request.
    Fixed(#[schemars(range(min = 1, max = 4_294_967_295_u32))] u32),
    /// Exactly one of these.
    Keys(CostKeys),
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
struct CostKeys {
    /// This field of the request: a whole number, at most what may come at once. One that is missing or is no such number counts as 1.
    header: Option<String>,
    /// This field of the response: a whole number, zero included. The request takes 1 and is asked for the rest when the response comes;
    /// what it takes beyond the limit is owed. One that is missing or is no such number counts as 1.
    response_header: Option<String>,
}

impl<'de> Deserialize<'de> for Cost {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Form;
        impl<'de> de::Visitor<'de> for Form {
            type Value = Cost;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number of at least 1, or one of `header`, `response_header`")
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Cost, E> {
                let cost = u32::try_from(number).ok().filter(|cost| *cost > 0);
                cost.map(Cost::Fixed).ok_or_else(|| E::invalid_value(de::Unexpected::Unsigned(number), &self))
            }
            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Cost, A::Error> {
                match CostKeys::deserialize(de::value::MapAccessDeserializer::new(map))? {
                    CostKeys { header: Some(name), response_header: None } => Ok(Cost::Header(name)),
                    CostKeys { header: None, response_header: Some(name) } => Ok(Cost::ResponseHeader(name)),
                    _ => Err(de::Error::custom("expected exactly one of `header`, `response_header`")),
                }
            }
        }
        deserializer.deserialize_any(Form)
    }
}

/// What is counted apart: one part of a request, or several together.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
#[serde(transparent)]
#[schemars(with = "KeyForm")]
pub struct Key(pub Vec<Part>);

impl Default for Key {
    fn default() -> Self {
        Self(vec![Part::Word(Word::ClientIp)])
    }
}

/// A part of a request.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(with = "PartForm")]
pub enum Part {
    Header(String),
    Cookie(String),
    Query(String),
    Claim(String),
    #[serde(untagged)]
    Word(Word),
}

/// A part of a request that needs no name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Word {
    /// The client's address.
    ClientIp,
    /// The consumer that calls. Needs `auth`.
    Consumer,
    /// By what the caller is known: its API key, user, certificate or the subject of its token. Needs `auth`.
    Credential,
    /// The plan of the consumer that calls. Needs `auth`.
    Plan,
    /// The route that takes the request.
    Route,
}

#[derive(JsonSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "the schema of the two ways to write a key")]
enum KeyForm {
    One(PartForm),
    /// These together.
    List(Vec<PartForm>),
}

#[derive(JsonSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "the schema of the two ways to write a part")]
enum PartForm {
    Word(Word),
    /// Exactly one of these.
    Keys(PartKeys),
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
struct PartKeys {
    /// The values of this header field.
    header: Option<String>,
    /// The value of this cookie.
    cookie: Option<String>,
    /// The value of this query parameter, percent-decoded.
    query: Option<String>,
    /// This claim of the caller's token; `org.id` leads into a map. Needs `auth`.
    claim: Option<String>,
}

const PART: &str = "one of `client_ip`, `consumer`, `credential`, `plan`, `route`, `{ header: … }`, `{ cookie: … }`, `{ query: … }`, \
                    `{ claim: … }`";

impl<'de> Deserialize<'de> for Part {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Form;
        impl<'de> de::Visitor<'de> for Form {
            type Value = Part;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(PART)
            }
            fn visit_str<E: de::Error>(self, word: &str) -> Result<Part, E> {
                Word::deserialize(word.into_deserializer()).map(Part::Word)
            }
            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Part, A::Error> {
                let PartKeys { header, cookie, query, claim } =
                    PartKeys::deserialize(de::value::MapAccessDeserializer::new(map))?;
                let named = [header.map(Part::Header), cookie.map(Part::Cookie), query.map(Part::Query), claim.map(Part::Claim)];
                let mut named = named.into_iter().flatten();
                match (named.next(), named.next()) {
                    (Some(part), None) => Ok(part),
                    _ => Err(de::Error::custom("expected exactly one of `header`, `cookie`, `query`, `claim`")),
                }
            }
        }
        deserializer.deserialize_any(Form)
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Form;
        impl<'de> de::Visitor<'de> for Form {
            type Value = Key;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{PART}, or a list of such")
            }
            fn visit_str<E: de::Error>(self, word: &str) -> Result<Key, E> {
                Part::deserialize(word.into_deserializer()).map(|part| Key(vec![part]))
            }
            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Key, A::Error> {
                Part::deserialize(de::value::MapAccessDeserializer::new(map)).map(|part| Key(vec![part]))
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, items: A) -> Result<Key, A::Error> {
                Vec::deserialize(de::value::SeqAccessDeserializer::new(items)).map(Key)
            }
        }
        deserializer.deserialize_any(Form)
    }
}

const COUNT: &str = "a whole number of at least 1";

fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    within(deserializer, COUNT, 1..=u64::from(u32::MAX)).map(|count| count as u32)
}

/// For a plan too.
pub(in crate::config) fn some_count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    count(deserializer).map(Some)
}

fn some_bits<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u8>, D::Error> {
    within(deserializer, "a number of bits from 1 to 128", 1..=128).map(|bits| Some(bits as u8))
}

fn keys<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    within(deserializer, "a whole number from 1 to 100000000", 1..=100_000_000).map(|keys| keys as u32)
}

const fn keys_default() -> u32 {
    1_000_000
}
