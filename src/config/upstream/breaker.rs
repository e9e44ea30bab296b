//! `upstreams.*.breaker`: a service that fails too much is left alone.

use std::num::{NonZeroU16, NonZeroU32};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de};

use super::Condition;
use crate::units::{Duration, Percent, positive, some_positive};

/// When the service is asked no more, and for how long. Meanwhile requests are answered with 503 and `Retry-After`.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Breaker {
    /// Share of failures that opens it. Default 50%.
    #[serde(deserialize_with = "some_of")]
    pub error_rate: Percent,
    /// Share of slow answers that opens it. Needs `slower_than`. Absent: slowness does not.
    #[serde(deserialize_with = "maybe_some_of", skip_serializing_if = "Option::is_none")]
    pub slow_rate: Option<Percent>,
    /// An answer that begins later than this is slow. Needs `slow_rate`.
    #[serde(deserialize_with = "some_positive", skip_serializing_if = "Option::is_none")]
    pub slower_than: Option<Duration>,
    /// What counts as a failure. Default `[connect, reset, timeout, 502, 503, 504]`.
    pub failures: Vec<Condition>,
    /// Time over which shares are taken. Default 10s.
    #[serde(deserialize_with = "positive")]
    pub window: Duration,
    /// Fewest requests in that time for the shares to count. Default 20.
    pub min_requests: NonZeroU32,
    /// How long the service is left alone before it is probed. Default 5s.
    #[serde(deserialize_with = "positive")]
    pub open_for: Duration,
    /// How many requests probe it then. It closes if they keep below the shares, else it opens again. At most 1000. Default 3.
    #[serde(deserialize_with = "probes")]
    #[schemars(range(min = 1, max = 1000))]
    pub probes: NonZeroU16,
}

/// Most probes of a breaker.
pub const PROBES_MAX: u16 = 1000;

impl Default for Breaker {
    fn default() -> Self {
        Self {
            error_rate: Percent::of(50),
            slow_rate: None,
            slower_than: None,
            failures: Condition::failures(),
            window: Duration::from_secs(10),
            min_requests: NonZeroU32::new(20).expect("20 is not zero"),
            open_for: Duration::from_secs(5),
            probes: NonZeroU16::new(3).expect("3 is not zero"),
        }
    }
}

fn some_of<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Percent, D::Error> {
    let share = Percent::deserialize(deserializer)?;
    let due = || de::Error::invalid_value(de::Unexpected::Str("0%"), &"a share of more than 0%");
    (share > Percent::NONE).then_some(share).ok_or_else(due)
}

fn maybe_some_of<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Percent>, D::Error> {
    some_of(deserializer).map(Some)
}

fn probes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<NonZeroU16, D::Error> {
    let count = crate::units::within(deserializer, "a number of probes from 1 to 1000", 1..=u64::from(PROBES_MAX))?;
    u16::try_from(count).ok().and_then(NonZeroU16::new).ok_or_else(|| de::Error::custom("a number of probes from 1 to 1000"))
}
