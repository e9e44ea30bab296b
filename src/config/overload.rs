//! `overload`: what is refused so that the rest can be carried.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::policy::limit::some_count;
use crate::units::{Bytes, Duration, positive};

/// The guard against overload: requests are refused with 503 before latency or memory run away, those of routes with `priority: low` first. It is on
/// unless it is `off`.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Overload {
    /// Most requests in flight at the same time, WebSockets among them. Routes of low priority may fill eight tenths of it, those of normal priority
    /// nine. Absent: as many as come.
    #[serde(default, deserialize_with = "some_count", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4_294_967_295_u32))]
    pub in_flight: Option<u32>,
    /// How long a task may wait for its turn on the threads that carry traffic, for a third of a second on end, before requests are shed. Default `50ms`.
    #[serde(default = "lag_default", deserialize_with = "positive")]
    pub lag: Duration,
    /// Memory that the process may have: requests are shed from 85% of it on, all at 97%. Default: what its control group may have, or the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Bytes>,
}

const fn lag_default() -> Duration {
    Duration::from_millis(50)
}

impl Default for Overload {
    fn default() -> Self {
        Self { in_flight: None, lag: lag_default(), memory: None }
    }
}
