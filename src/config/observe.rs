//! `observe`: access log and metrics.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de::Error};

use crate::units::{Duration, within};

/// What the gateway shows of its traffic.
#[derive(Clone, PartialEq, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Observe {
    /// One line for each request. `off` writes none.
    #[serde(default)]
    pub access_log: AccessLog,
    /// Prometheus metrics, on the admin listener at `/metrics`.
    #[serde(default)]
    pub metrics: Metrics,
}

/// The access log. It is written off the hot path; when its queue is full, lines are dropped and counted.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AccessLog {
    /// File to append to, relative to the file that names it; `-` (default) is standard output; `off` writes none.
    /// A change waits for a restart.
    #[serde(default = "standard_output")]
    pub path: String,
    /// How a line is written.
    #[serde(default)]
    pub format: LogFormat,
    /// Lines that may wait to be written. Default 8192. A change waits for a restart.
    #[serde(default = "default_queue", deserialize_with = "queue")]
    #[schemars(range(min = 1, max = 1_048_576))]
    pub queue: usize,
}

/// How an access log line is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// One JSON object a line.
    #[default]
    Json,
    /// The combined format of Apache and nginx, which existing tools read.
    Combined,
}

/// Prometheus metrics.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Metrics {
    /// Upper bounds of the latency histograms, ascending; at most 64. A change waits for a restart.
    #[serde(default = "default_buckets", deserialize_with = "buckets")]
    #[schemars(length(min = 1, max = 64))]
    pub latency_buckets: Vec<Duration>,
}

impl Default for AccessLog {
    fn default() -> Self {
        Self { path: standard_output(), format: LogFormat::default(), queue: default_queue() }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self { latency_buckets: default_buckets() }
    }
}

fn standard_output() -> String {
    "-".to_owned()
}

fn queue<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    within(deserializer, "a number of lines from 1 to 1048576", 1..=1 << 20).map(|lines| lines as usize)
}

/// Most buckets of a histogram. Each is a time series a route.
const BUCKETS_MAX: usize = 64;

fn buckets<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Duration>, D::Error> {
    let buckets = Vec::<Duration>::deserialize(deserializer)?;
    if buckets.is_empty() || buckets.len() > BUCKETS_MAX {
        return Err(D::Error::custom(format_args!("found {} bounds, expected 1 to {BUCKETS_MAX}", buckets.len())));
    }
    match buckets.windows(2).find_map(|pair| if let [a, b] = pair { (a >= b).then_some((a, b)) } else { None }) {
        Some((a, b)) => Err(D::Error::custom(format_args!("found `{b}` after `{a}`, expected bounds that ascend"))),
        None => Ok(buckets),
    }
}

const fn default_queue() -> usize {
    8192
}

fn default_buckets() -> Vec<Duration> {
    [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 30_000, 60_000].map(Duration::from_millis).to_vec()
}
