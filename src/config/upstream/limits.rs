//! `upstreams.*.limits`: how much is asked of a service at once.

use std::num::NonZeroU32;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How much is asked of a service at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Most requests that the service works on at once, which is also how many connections to it are in use; over HTTP/2 it is streams.
    pub connections: NonZeroU32,
    /// Most requests that wait for one of them, in the order in which they came and no longer than `timeouts.request`. What comes on top is
    /// answered with 503. Default 256.
    #[serde(default = "pending")]
    pub pending: u32,
}

const fn pending() -> u32 {
    256
}
