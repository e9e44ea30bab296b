//! The algorithms behind one door: each reads and writes a state of one word.

use super::{Algorithm, Rate, Verdict, bucket::Bucket, fixed_window::FixedWindow, sliding_window::SlidingWindow};

/// An algorithm with its rate. A state of zero has used nothing; none has the highest bit.
#[derive(Clone, Debug)]
pub(super) enum Meter {
    Bucket(Bucket),
    Sliding(SlidingWindow),
    Fixed(FixedWindow),
}

impl Meter {
    /// What does not fit (see [`Algorithm::fits`]) is cut to what does.
    pub fn new(algorithm: &Algorithm, rate: Rate, burst: u64) -> Self {
        match algorithm {
            Algorithm::TokenBucket | Algorithm::LeakyBucket { .. } => Self::Bucket(Bucket::new(algorithm, rate, burst)),
            Algorithm::SlidingWindow => Self::Sliding(SlidingWindow::new(rate)),
            Algorithm::FixedWindow => Self::Fixed(FixedWindow::new(rate)),
        }
    }

    /// The state after a request, and what is said of it. Refused: the state as it was.
    pub fn take(&self, state: u64, cost: u32, now: u64) -> (u64, Verdict) {
        match self {
            Self::Bucket(bucket) => bucket.take(state, cost, now),
            Self::Sliding(window) => window.take(state, cost, now),
            Self::Fixed(window) => window.take(state, cost, now),
        }
    }

    /// What a request of cost 1 would be told, which is not taken: `remaining` is what there is.
    pub fn look(&self, state: u64, now: u64) -> Verdict {
        match self {
            Self::Bucket(bucket) => bucket.look(state, now),
            Self::Sliding(window) => window.look(state, now),
            Self::Fixed(window) => window.look(state, now),
        }
    }

    /// The state after a cost that is not refused.
    pub fn charge(&self, state: u64, cost: u32, now: u64) -> u64 {
        match self {
            Self::Bucket(bucket) => bucket.charge(state, cost, now),
            Self::Sliding(window) => window.charge(state, cost, now),
            Self::Fixed(window) => window.charge(state, cost, now),
        }
    }

    /// The state without a cost whose verdict said `until`.
    pub fn give_back(&self, state: u64, cost: u32, until: u64, now: u64) -> u64 {
        match self {
            Self::Bucket(bucket) => bucket.give_back(state, cost, until, now),
            Self::Sliding(window) => window.give_back(state, cost, until),
            Self::Fixed(window) => window.give_back(state, cost, until),
        }
    }

    /// How much a state has used, to compare it with others of this meter. Zero: as good as one that has used nothing.
    pub fn used(&self, state: u64, now: u64) -> u64 {
        match self {
            Self::Bucket(bucket) => bucket.used(state, now),
            Self::Sliding(window) => window.used(state, now),
            Self::Fixed(window) => window.used(state, now),
        }
    }

    /// A state that has, at any time, used no less than each of two.
    pub fn join(&self, one: u64, other: u64) -> u64 {
        match self {
            Self::Sliding(window) => window.join(one, other),
            // In these more used is greater, and no state is less by time alone.
            Self::Bucket(_) | Self::Fixed(_) => one.max(other),
        }
    }
}
