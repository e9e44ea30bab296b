//! `process`: threads.

use std::num::NonZeroUsize;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Threads and life cycle of the process.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// Worker threads that carry traffic. Default `auto`: one for each core. A change waits for a restart.
    #[serde(default)]
    #[schemars(with = "String", extend("type" = ["string", "integer"]))]
    pub threads: Threads,
}

/// How many worker threads carry traffic: `auto`, or a number from 1 to 1024.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Threads {
    #[default]
    Auto,
    Fixed(NonZeroUsize),
}

/// Most worker threads we start.
const THREADS_MAX: usize = 1024;

impl<'de> Deserialize<'de> for Threads {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(usize),
            Word(String),
        }
        let fault = || serde::de::Error::custom("expected `auto` or a number of threads from 1 to 1024");
        match Written::deserialize(deserializer).map_err(|_| fault())? {
            Written::Word(word) if word == "auto" => Ok(Self::Auto),
            Written::Number(n) if n <= THREADS_MAX => NonZeroUsize::new(n).map(Self::Fixed).ok_or_else(fault),
            _ => Err(fault()),
        }
    }
}

impl Serialize for Threads {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Fixed(n) => serializer.serialize_u64(n.get() as u64),
        }
    }
}
