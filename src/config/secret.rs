//! A text that must not be shown.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::units::from_text;

/// A secret text. It is never shown; better still, keep it out of the file with `${env:…}` or `${file:…}`.
// `Debug` and `Serialize` give `[redacted]`.
#[derive(Clone, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct Secret(
    #[serde(deserialize_with = "text")]
    #[schemars(length(min = 1))]
    String,
);

/// What is shown in a secret's place.
pub const REDACTED: &str = "[redacted]";

/// An empty secret is one that was forgotten, and that anybody knows.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    from_text(deserializer, "a secret text that is not empty", |text| (!text.is_empty()).then(|| text.to_owned()))
}

impl Secret {
    /// The text itself. Compare it in constant time; keep it out of logs and errors.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(REDACTED)
    }
}
