//! Names of the things that a configuration declares.

use std::{borrow::Cow, fmt, sync::Arc};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::units::from_text;

/// Longest name, in characters. Names are metric labels and log fields, so they stay short.
const NAME_MAX: usize = 64;

/// Pattern of every name.
const NAME_PATTERN: &str = "^[A-Za-z0-9_][A-Za-z0-9._-]{0,63}$";

const EXPECTED: &str = "a name of 1 to 64 letters, digits, `.`, `_` or `-`, starting with a letter, digit or `_`";

/// Declares a name type, so a route's name cannot stand where an upstream's is due.
macro_rules! names {
    ($($(#[$doc:meta])* $type:ident)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $type(Arc<str>);

        impl $type {
            /// Makes a name from text that is known to be one. The checked way in is `Deserialize`.
            pub fn new(name: &str) -> Self {
                Self(name.into())
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The shared text, for holders that outlive the configuration.
            pub fn shared(&self) -> Arc<str> {
                self.0.clone()
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                from_text(deserializer, EXPECTED, |name| is_name(name).then(|| Self(name.into())))
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": NAME_PATTERN })
            }
        }
    )*};
}

names! {
    /// The name of a route.
    RouteName
    /// The name of an upstream.
    UpstreamName
    /// The name of a listener.
    ListenerName
    /// The name of a consumer.
    ConsumerName
    /// The name of a group of consumers.
    GroupName
    /// The name of an identity: of someone who vouches for callers.
    IdentityName
    /// The name of a plan.
    PlanName
    /// The name of a limit of `rate_limit`.
    LimitName
}

fn is_name(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    text.len() <= NAME_MAX
        && text.as_bytes().first().is_some_and(|b| word(*b))
        && text.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_words() {
        for good in ["a", "everything-else", "v1.2_x", "9"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "-a", ".a", "a b", "a/b", "ü", &"x".repeat(65)] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
