//! `authz`: what a caller must have to pass.

use std::{collections::BTreeMap, fmt};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de};

use super::auth::Mode;
use crate::name::GroupName;

/// What a caller must have to pass: all of what is named here. Needs `auth`.
#[derive(Clone, PartialEq, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Authz {
    /// Scopes of its token (RFC 6749 §3.3).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scopes: Option<Words>,
    /// Roles that its token or session gives it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roles: Option<Words>,
    /// Groups of consumers; its consumer must be in one of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<Vec<GroupName>>,
    /// Claims of its token: `email_verified`; `realm_access.roles` leads into a map. Each must have the value given, or one of the list of
    /// values given; a claim that is a list must hold it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub claims: BTreeMap<String, OneOf>,
    /// An expression in CEL that must be true: `request.method == "GET" || "admins" in consumer.groups`. It speaks of `request` (`method`, `path`,
    /// `host`, `query`, `headers`, `client_ip`), `consumer` (`name`, `groups`) and `claims`. One that has no value for a request, such as of a claim
    /// that is not there, refuses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// Whether to refuse, or only to log and count what would be refused.
    #[serde(default, skip_serializing_if = "Mode::is_enforce")]
    pub mode: Mode,
}

/// Words, and how many of them are needed.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(try_from = "WordsKeys", into = "WordsKeys")]
#[schemars(with = "WordsKeys")]
pub enum Words {
    Any(Vec<String>),
    All(Vec<String>),
}

impl Words {
    pub fn listed(&self) -> &[String] {
        match self {
            Self::Any(listed) | Self::All(listed) => listed,
        }
    }
}

#[derive(Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
struct WordsKeys {
    /// One of these is needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    any: Option<Vec<String>>,
    /// All of these are needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    all: Option<Vec<String>>,
}

impl TryFrom<WordsKeys> for Words {
    type Error = &'static str;

    fn try_from(keys: WordsKeys) -> Result<Self, &'static str> {
        match (keys.any, keys.all) {
            (Some(any), None) => Ok(Self::Any(any)),
            (None, Some(all)) => Ok(Self::All(all)),
            _ => Err("expected exactly one of `any`, `all`"),
        }
    }
}

impl From<Words> for WordsKeys {
    fn from(words: Words) -> Self {
        match words {
            Words::Any(any) => Self { any: Some(any), all: None },
            Words::All(all) => Self { any: None, all: Some(all) },
        }
    }
}

/// A value that a claim must have, or several of which it must have one.
#[derive(Clone, PartialEq, Debug, Serialize, JsonSchema)]
#[serde(transparent)]
#[schemars(with = "OneOfForm")]
pub struct OneOf(pub Vec<Scalar>);

/// A value of a claim.
#[derive(Clone, PartialEq, Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Scalar {
    Bool(bool),
    Number(i64),
    Text(String),
}

#[derive(JsonSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "the schema of the two ways to write the values of a claim")]
enum OneOfForm {
    One(Scalar),
    List(Vec<Scalar>),
}

const SCALAR: &str = "a text, a whole number, `true` or `false`";

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Form;
        impl de::Visitor<'_> for Form {
            type Value = Scalar;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(SCALAR)
            }
            fn visit_bool<E: de::Error>(self, word: bool) -> Result<Scalar, E> {
                Ok(Scalar::Bool(word))
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Scalar, E> {
                Ok(Scalar::Number(number))
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Scalar, E> {
                i64::try_from(number).map(Scalar::Number).map_err(|_| E::invalid_value(de::Unexpected::Unsigned(number), &self))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Scalar, E> {
                Ok(Scalar::Text(text.to_owned()))
            }
        }
        deserializer.deserialize_any(Form)
    }
}

impl<'de> Deserialize<'de> for OneOf {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Form;
        impl<'de> de::Visitor<'de> for Form {
            type Value = OneOf;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{SCALAR}, or a list of such")
            }
            fn visit_bool<E: de::Error>(self, word: bool) -> Result<OneOf, E> {
                Ok(OneOf(vec![Scalar::Bool(word)]))
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<OneOf, E> {
                Ok(OneOf(vec![Scalar::Number(number)]))
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<OneOf, E> {
                i64::try_from(number).map_or_else(
                    |_| Err(E::invalid_value(de::Unexpected::Unsigned(number), &self)),
                    |number| Ok(OneOf(vec![Scalar::Number(number)])),
                )
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<OneOf, E> {
                Ok(OneOf(vec![Scalar::Text(text.to_owned())]))
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, items: A) -> Result<OneOf, A::Error> {
                Vec::deserialize(de::value::SeqAccessDeserializer::new(items)).map(OneOf)
            }
        }
        deserializer.deserialize_any(Form)
    }
}
