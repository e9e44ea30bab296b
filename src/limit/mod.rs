//! How much callers may do: what is counted, by which key, and what a count says of a request.
//!
//! Reading order: [`key`] says what a request is counted under; [`Local`] is one named limit, counted on this node, and gives a [`Verdict`];
//! [`Counters`] keeps the counts of all limits across reloads. Nothing here knows HTTP's answers: the policies of `policy` ask, and tell.
//!
//! Times are nanoseconds of one monotonic clock, which the caller reads ([`Counters::now`]): its zero must be near the start of the process
//! or of the machine (up to [`CLOCK_MAX`] later everything is exact; then time stands still, which refuses). A key is a 64-bit hash under
//! a secret of the process, so no client can choose two that meet. `take` of a refused request takes nothing; `give_back` is for what was
//! taken of a request that another limit refuses.
//!
//! A limit that nodes share is counted in a store ([`fleet`]); [`Counter`] is one or the other.
//!
//! Exact: [`Local`]. Where a table is full of keys that all have used something, a newcomer is held to have used what the one had that it
//! replaces: see `table`. Estimated, never too low: [`flood`] and [`concurrency`].

pub mod key;
mod algorithm;
mod verdict;
mod terms;
pub mod overload;
pub mod quota;
mod local;
mod meter;
mod bucket;
mod fixed_window;
mod sliding_window;
mod table;
pub mod flood;
pub mod concurrency;
pub mod fleet;
mod counter;
mod counters;

pub use self::{
    algorithm::{Algorithm, Unfit},
    counter::{Closed, Counted, Counter, Otherwise, Pending, Place, Shared, Way, take},
    counters::{Counters, Id},
    key::Key,
    local::Local,
    terms::Terms,
    verdict::Verdict,
};
use crate::units::Rate;

/// Latest time of the clock, in nanoseconds: nine years. The states of windows have their bits by it.
pub const CLOCK_MAX: u64 = (1 << 58) - 1;

/// Largest state. The highest bit of the word is the table's.
const STATE_MAX: u64 = (1 << 63) - 1;

const _: () = assert!(STATE_MAX & table::MOVING == 0);

#[cfg(test)]
mod tests;
