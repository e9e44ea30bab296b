//! `process`: threads, how it ends.

use std::{num::NonZeroUsize, path::PathBuf};

use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, Unexpected, Visitor},
};

use crate::units::Duration;

/// Threads and life cycle of the process.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// Worker threads that carry traffic. Default `auto`: one for each core. A change waits for a restart.
    #[serde(default)]
    #[schemars(with = "ThreadsForm")]
    pub threads: Threads,
    /// How the process ends when it is told to (SIGTERM).
    #[serde(default)]
    pub drain: Drain,
    /// Directory of what outlives the process: what is used of quotas. It must be there, and the process must be able to write in it. Default: what the service
    /// manager names in `$STATE_DIRECTORY`, else none, and a restart forgets it. A change waits for a restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<PathBuf>,
}

/// The variable in which systemd names the state directory; several are separated by colons.
const STATE_DIRECTORY: &str = "STATE_DIRECTORY";

impl Process {
    /// Where what outlives the process is kept.
    pub fn state_directory(&self) -> Option<PathBuf> {
        let named = std::env::var(STATE_DIRECTORY).unwrap_or_default();
        let named = named.split(':').next().filter(|first| !first.is_empty()).map(PathBuf::from);
        self.state.clone().or(named)
    }
}

/// The end of the process: first load balancers are let know, then what is in flight may finish.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Drain {
    /// How long connections and requests are taken as before while `/readyz` already says 503: longer than a load balancer needs to
    /// notice. Default `0s`: who has none need not wait.
    #[serde(default = "no_delay")]
    pub delay: Duration,
    /// When what is left is cut, counted from the signal. Default `30s`. The process ends sooner when nothing is left.
    #[serde(default = "thirty_seconds")]
    pub deadline: Duration,
}

const fn no_delay() -> Duration {
    Duration::from_secs(0)
}

const fn thirty_seconds() -> Duration {
    Duration::from_secs(30)
}

impl Default for Drain {
    fn default() -> Self {
        Self { delay: no_delay(), deadline: thirty_seconds() }
    }
}

/// How many worker threads carry traffic: `auto`, or a number from 1 to 1024.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Threads {
    #[default]
    Auto,
    Fixed(NonZeroUsize),
}

impl Threads {
    /// How many these are on this machine.
    pub fn count(self) -> usize {
        match self {
            Self::Fixed(threads) => threads.get(),
            Self::Auto => std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
        }
    }
}

#[derive(JsonSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "the schema of the two ways to write a number of threads")]
enum ThreadsForm {
    Word(Auto),
    Number(#[schemars(range(min = 1, max = 1024))] usize),
}

#[derive(JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(dead_code, reason = "the schema of the word")]
enum Auto {
    /// One for each core.
    Auto,
}

/// Most worker threads we start.
const THREADS_MAX: usize = 1024;

impl<'de> Deserialize<'de> for Threads {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Written;
        impl Visitor<'_> for Written {
            type Value = Threads;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "`auto` or a number from 1 to {THREADS_MAX}")
            }
            fn visit_str<E: Error>(self, word: &str) -> Result<Threads, E> {
                if word == "auto" { Ok(Threads::Auto) } else { Err(E::invalid_value(Unexpected::Str(word), &self)) }
            }
            fn visit_u64<E: Error>(self, number: u64) -> Result<Threads, E> {
                let threads = usize::try_from(number).ok().filter(|n| *n <= THREADS_MAX).and_then(NonZeroUsize::new);
                threads.map(Threads::Fixed).ok_or_else(|| E::invalid_value(Unexpected::Unsigned(number), &self))
            }
        }
        // A number is asked for, so that a placeholder may stand for one.
        deserializer.deserialize_u64(Written)
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
