//! `paths`: how request paths are read.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How request paths are normalised before anything matches them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Paths {
    /// What becomes of `%2F` and `%5C`, which services may or may not take for a slash.
    #[serde(default)]
    pub encoded_slashes: EncodedSlashes,
}

/// What becomes of an encoded slash in a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EncodedSlashes {
    /// The request is refused with 400.
    #[default]
    Refuse,
    /// It stays encoded, as part of its segment.
    Keep,
}
