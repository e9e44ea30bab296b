//! `plans`: what consumers may use.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::policy::limit::some_count;
use crate::units::Rate;

/// What a consumer of the plan may use, where a route's `rate_limit` says `limit: plan`.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// How often it may call: `100/1m`.
    pub limit: Rate,
    /// Most that may come at once. Default: as many as `limit` allows in its time.
    #[serde(default, deserialize_with = "some_count", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4_294_967_295_u32))]
    pub burst: Option<u32>,
}
