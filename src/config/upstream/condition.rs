//! Ways in which a try can end badly, as the configuration names them.

use std::{borrow::Cow, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, de::Unexpected};

/// What is due where a condition is.
const EXPECTED: &str = "a condition such as `connect`, `reset`, `refused_stream`, `timeout`, `5xx`, or a status from 400 to 599";

/// A way in which a try can end: `connect`, `reset`, `refused_stream`, `timeout`, `5xx`, or a status such as `503`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Condition {
    /// No connection, or none in time; TLS failed.
    Connect,
    /// The connection ended before the answer was whole, or what came was no HTTP.
    Reset,
    /// The service said that it did nothing with the request (HTTP/2).
    RefusedStream,
    /// No answer in time.
    Timeout,
    /// Answered with this status.
    Status(u16),
    /// Answered with any status from 500 to 599.
    ServerError,
}

/// Words of the conditions that are no status.
const WORDS: [(&str, Condition); 5] = [
    ("connect", Condition::Connect),
    ("reset", Condition::Reset),
    ("refused_stream", Condition::RefusedStream),
    ("timeout", Condition::Timeout),
    ("5xx", Condition::ServerError),
];

impl Condition {
    /// What says that an endpoint, or a whole service, fails rather than that it refuses one request: no answer, or the answer of a gateway.
    pub fn failures() -> Vec<Self> {
        [Self::Connect, Self::Reset, Self::Timeout].into_iter().chain([502, 503, 504].map(Self::Status)).collect()
    }
}

impl<'de> Deserialize<'de> for Condition {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Form;
        impl de::Visitor<'_> for Form {
            type Value = Condition;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(EXPECTED)
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Condition, E> {
                let word = WORDS.iter().find(|(word, _)| *word == text);
                word.map(|(_, condition)| *condition).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
            }
            fn visit_u64<E: de::Error>(self, status: u64) -> Result<Condition, E> {
                let known = u16::try_from(status).ok().filter(|status| (400..600).contains(status));
                known.map(Condition::Status).ok_or_else(|| E::invalid_value(Unexpected::Unsigned(status), &self))
            }
        }
        deserializer.deserialize_any(Form)
    }
}

impl Serialize for Condition {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match (self, WORDS.iter().find(|(_, condition)| condition == self)) {
            (Self::Status(status), _) => serializer.serialize_u16(*status),
            (_, word) => serializer.serialize_str(word.map_or("5xx", |(word, _)| word)),
        }
    }
}

impl JsonSchema for Condition {
    fn schema_name() -> Cow<'static, str> {
        "Condition".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A way in which a try can end: `connect`, `reset`, `refused_stream`, `timeout`, `5xx`, or a status such as `503`.",
            "anyOf": [
                { "type": "string", "enum": WORDS.map(|(word, _)| word) },
                { "type": "integer", "minimum": 400, "maximum": 599 }
            ]
        })
    }
}
