//! How much callers may do: what is counted, by which key, and what a count says of a request.
//!
//! Reading order: [`key`] says what a request is counted under; [`Local`] is one named limit, counted on this node, and gives a [`Verdict`];
//! [`Counters`] keeps the counts of all limits across reloads. Nothing here knows HTTP's answers: the policies of `policy` ask, and tell.
//!
//! The seam: times are nanoseconds of the process's own monotonic clock ([`Counters::now`]), given by the caller, so that tests can make
//! them up. A key is a 64-bit hash under a secret of the process, so no client can choose two that meet. `take` of a refused request takes
//! nothing; `give_back` is for what was taken of a request that another limit refuses.

use std::time::Duration;

use crate::units::Rate;

pub mod key;
pub mod overload;
pub mod quota;
mod local;
mod counters;

pub use self::{
    counters::{Counters, Id},
    key::Key,
    local::Local,
};

/// What a limit says of one request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Verdict {
    pub admitted: bool,
    /// The most that may come at once.
    pub limit: u64,
    /// How much of it is left.
    pub remaining: u64,
    /// Until all of it is there again.
    pub reset: Duration,
    /// Refused: when the same may be asked again.
    pub retry_after: Duration,
    /// Leaky bucket: admitted, but to be sent on only after this.
    pub wait: Duration,
}

/// How a limit counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Algorithm {
    TokenBucket,
    LeakyBucket {
        /// Longest that a request is made to wait.
        max_delay: Duration,
    },
    SlidingWindow,
    FixedWindow,
}

/// What a limit is made of. Two of the same terms count alike.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Terms {
    pub algorithm: Algorithm,
    pub rate: Rate,
    /// Most that may come at once.
    pub burst: u64,
    /// How many keys are counted at the same time.
    pub keys: usize,
}

impl Terms {
    /// The most that one request can take.
    pub fn most(&self) -> u32 {
        u32::try_from(self.burst).unwrap_or(u32::MAX).max(1)
    }
}
