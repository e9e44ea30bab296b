//! `upstreams.*.balance` and `sticky`: how an endpoint is chosen.

use std::fmt;

use http::HeaderName;
use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, IntoDeserializer, MapAccess, value::MapAccessDeserializer},
    ser::SerializeMap,
};

use crate::config::secret::Secret;

/// How an endpoint is chosen.
#[derive(Clone, PartialEq, Debug, Default, JsonSchema)]
#[schemars(with = "BalanceForm")]
pub enum Balance {
    #[default]
    RoundRobin,
    LeastRequests,
    PeakEwma,
    Random,
    Hash(Hash),
}

#[derive(JsonSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "the schema of the ways to write a balance")]
enum BalanceForm {
    /// By what the endpoints are doing.
    Word(Word),
    /// By what the request says.
    Body(HashBody),
}

#[derive(Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Word {
    /// In turn, each as often as its weight says, spread smoothly.
    RoundRobin,
    /// The one of two, drawn by weight, that has fewer requests for its weight.
    LeastRequests,
    /// The one of two that is likely to answer sooner: by how fast it answered of late, how often it failed, and what it has to do.
    PeakEwma,
    /// At random, by weight.
    Random,
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct HashBody {
    /// The same endpoint for the same key, on a ring (ketama): when one goes or comes, only its own keys move.
    hash: Hash,
}

/// The same endpoint for the same key.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hash {
    /// What of the request is the key: the client's address, the consumer's name, the path without its query, a header or a cookie. One that has
    /// none goes anywhere.
    pub key: HashKey,
    /// Most requests that an endpoint has at once, over its part of all: `1.25` is a quarter more; what is too much for it goes to the
    /// next on the ring. At least 1. Absent: there is no bound.
    #[serde(default, deserialize_with = "bound", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub bound: Option<f64>,
}

/// What of a request is hashed.
#[derive(Clone, PartialEq, Eq, Debug, JsonSchema)]
#[schemars(with = "HashKeyForm")]
pub enum HashKey {
    ClientIp,
    Consumer,
    Path,
    Header(String),
    Cookie(String),
}

#[derive(JsonSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "the schema of the ways to write a key")]
enum HashKeyForm {
    Word(HashWord),
    Body(HashKeyBody),
}

#[derive(Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum HashWord {
    /// The client's address.
    ClientIp,
    /// The consumer's name.
    Consumer,
    /// The path, without the query.
    Path,
}

#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct HashKeyBody {
    /// The value of this request header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    header: Option<String>,
    /// The value of this cookie.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cookie: Option<String>,
}

/// Sessions that stay with an endpoint. One whose endpoint is out goes to another, which then keeps it.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sticky {
    /// Name of the cookie. It says which endpoint, in a form that tells no address.
    #[serde(deserialize_with = "cookie_name")]
    pub cookie: String,
    /// What endpoints are named under. The same on all gateways that serve the same sessions. Absent: drawn at each start, after which sessions
    /// are dealt anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
}

fn cookie_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let name = String::deserialize(deserializer)?;
    // A cookie's name is a token (RFC 6265 §4.1.1), as a header's is.
    let due = || de::Error::invalid_value(de::Unexpected::Str(&name), &"the name of a cookie");
    HeaderName::try_from(&name).map_err(|_| due())?;
    Ok(name)
}

fn bound<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    let bound = f64::deserialize(deserializer)?;
    let due = || de::Error::invalid_value(de::Unexpected::Float(bound), &"a number from 1 on, such as `1.25`");
    (bound.is_finite() && bound >= 1.0).then_some(Some(bound)).ok_or_else(due)
}

impl<'de> Deserialize<'de> for Balance {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Form;
        impl<'de> de::Visitor<'de> for Form {
            type Value = Balance;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`round_robin`, `least_requests`, `peak_ewma`, `random` or `{ hash: … }`")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Balance, E> {
                Ok(match Word::deserialize(text.into_deserializer())? {
                    Word::RoundRobin => Balance::RoundRobin,
                    Word::LeastRequests => Balance::LeastRequests,
                    Word::PeakEwma => Balance::PeakEwma,
                    Word::Random => Balance::Random,
                })
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Balance, A::Error> {
                HashBody::deserialize(MapAccessDeserializer::new(map)).map(|body| Balance::Hash(body.hash))
            }
        }
        deserializer.deserialize_any(Form)
    }
}

impl Serialize for Balance {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let word = match self {
            Self::RoundRobin => Word::RoundRobin,
            Self::LeastRequests => Word::LeastRequests,
            Self::PeakEwma => Word::PeakEwma,
            Self::Random => Word::Random,
            Self::Hash(hash) => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry("hash", hash)?;
                return map.end();
            }
        };
        word.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for HashKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Form;
        impl<'de> de::Visitor<'de> for Form {
            type Value = HashKey;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`client_ip`, `consumer`, `path`, `{ header: … }` or `{ cookie: … }`")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<HashKey, E> {
                Ok(match HashWord::deserialize(text.into_deserializer())? {
                    HashWord::ClientIp => HashKey::ClientIp,
                    HashWord::Consumer => HashKey::Consumer,
                    HashWord::Path => HashKey::Path,
                })
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<HashKey, A::Error> {
                match HashKeyBody::deserialize(MapAccessDeserializer::new(map))? {
                    HashKeyBody { header: Some(name), cookie: None } => {
                        HeaderName::try_from(&name).map_err(|_| de::Error::custom(format!("`{name}` is no name of a header")))?;
                        Ok(HashKey::Header(name))
                    }
                    HashKeyBody { header: None, cookie: Some(name) } => Ok(HashKey::Cookie(name)),
                    _ => Err(de::Error::custom("expected exactly one of `header`, `cookie`")),
                }
            }
        }
        deserializer.deserialize_any(Form)
    }
}

impl Serialize for HashKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let body = match self {
            Self::ClientIp => return HashWord::ClientIp.serialize(serializer),
            Self::Consumer => return HashWord::Consumer.serialize(serializer),
            Self::Path => return HashWord::Path.serialize(serializer),
            Self::Header(name) => HashKeyBody { header: Some(name.clone()), cookie: None },
            Self::Cookie(name) => HashKeyBody { header: None, cookie: Some(name.clone()) },
        };
        body.serialize(serializer)
    }
}
