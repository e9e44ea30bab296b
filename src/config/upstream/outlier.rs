//! `upstreams.*.outlier`: endpoints that fail are left out for a while.

use std::num::NonZeroU32;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de};

use super::Condition;
use crate::units::{Duration, Percent, positive};

/// Which endpoints are left out, by how their tries end, and for how long.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Outlier {
    /// Failures in a row that eject an endpoint. Default 5.
    pub consecutive_failures: NonZeroU32,
    /// What counts as a failure. Default `[connect, reset, timeout, 502, 503, 504]`.
    pub failures: Vec<Condition>,
    /// Eject also those that fail more often than the others. Absent: they are not compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub success_rate: Option<SuccessRate>,
    /// How long an endpoint is out the first time; the second time in a row twice as long, and so on. As long a time of good standing
    /// takes one back. Default 30s.
    #[serde(deserialize_with = "positive")]
    pub eject_for: Duration,
    /// Longest time that one is out. Default 5m.
    #[serde(deserialize_with = "positive")]
    pub eject_for_max: Duration,
    /// Largest share of the endpoints that is out at once; of two or more one may always be, unless this is `0%`. Default 50%.
    pub max_ejected: Percent,
    /// When no larger share of the healthy endpoints is in than this, ejections count no more: all are tried. Default 0%, which is when
    /// all are out.
    pub panic_at: Percent,
}

impl Default for Outlier {
    fn default() -> Self {
        Self {
            consecutive_failures: NonZeroU32::new(5).expect("5 is not zero"),
            failures: Condition::failures(),
            success_rate: None,
            eject_for: Duration::from_secs(30),
            eject_for_max: Duration::from_secs(300),
            max_ejected: Percent::of(50),
            panic_at: Percent::NONE,
        }
    }
}

/// Compares the endpoints' rates of success with each other.
#[derive(Clone, Copy, PartialEq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SuccessRate {
    /// Time over which rates are taken. Default 10s.
    #[serde(deserialize_with = "positive")]
    pub interval: Duration,
    /// Fewest requests of an endpoint in that time for it to be compared. Default 100.
    pub min_requests: NonZeroU32,
    /// Fewest endpoints with so many requests for any to be compared. Default 5.
    pub min_endpoints: NonZeroU32,
    /// An endpoint is out when its rate lies this many standard deviations below the mean. Default 1.9.
    #[serde(deserialize_with = "deviations")]
    #[schemars(range(min = 0))]
    pub deviations: f64,
}

impl Default for SuccessRate {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(10),
            min_requests: NonZeroU32::new(100).expect("100 is not zero"),
            min_endpoints: NonZeroU32::new(5).expect("5 is not zero"),
            deviations: 1.9,
        }
    }
}

fn deviations<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let number = f64::deserialize(deserializer)?;
    let due = || de::Error::invalid_value(de::Unexpected::Float(number), &"a number of more than zero");
    (number.is_finite() && number > 0.0).then_some(number).ok_or_else(due)
}
