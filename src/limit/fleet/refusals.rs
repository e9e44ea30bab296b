//! Keys that a store refused: while they would be refused again nobody asks, so a flood costs no hops.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Keys that are remembered. One more takes another's place, which then costs a hop.
const KEYS: usize = 4096;

/// Longest that one is remembered, in nanoseconds: what was reset or lost in the store is noticed after so long.
pub const RECALL_MAX: u64 = 1_000_000_000;

/// A table of fixed size, without locks. What was torn by two writers matches no key.
#[derive(Debug)]
pub struct Refusals(Box<[Refusal]>);

#[derive(Debug, Default)]
struct Refusal {
    /// The key, mixed with what stands beside it.
    seal: AtomicU64,
    until: AtomicU64,
    retry: AtomicU64,
    reset: AtomicU64,
}

/// What is left of a refusal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refused {
    pub retry_after: Duration,
    pub reset: Duration,
}

impl Refusals {
    pub fn new() -> Self {
        Self((0..KEYS).map(|_| Refusal::default()).collect())
    }

    /// Times in nanoseconds: now, when even the smallest cost would be admitted, when all of it is there again.
    pub fn remember(&self, key: u64, now: u64, retry: u64, reset: u64) {
        let Some(place) = self.place(key) else { return };
        let until = retry.min(now + RECALL_MAX);
        place.until.store(until, Relaxed);
        place.retry.store(retry, Relaxed);
        place.reset.store(reset, Relaxed);
        place.seal.store(seal(key, until, retry, reset), Relaxed);
    }

    pub fn recall(&self, key: u64, now: u64) -> Option<Refused> {
        let place = self.place(key)?;
        let (until, retry, reset) = (place.until.load(Relaxed), place.retry.load(Relaxed), place.reset.load(Relaxed));
        let whole = place.seal.load(Relaxed) == seal(key, until, retry, reset);
        (whole && now < until).then(|| Refused { retry_after: left(retry, now), reset: left(reset, now) })
    }

    pub fn forget(&self, key: u64) {
        if let Some(place) = self.place(key) {
            place.until.store(0, Relaxed);
        }
    }

    fn place(&self, key: u64) -> Option<&Refusal> {
        self.0.get(key as usize % KEYS)
    }
}

fn seal(key: u64, until: u64, retry: u64, reset: u64) -> u64 {
    key ^ until.rotate_left(17) ^ retry.rotate_left(34) ^ reset.rotate_left(51)
}

pub fn left(at: u64, now: u64) -> Duration {
    Duration::from_nanos(at.saturating_sub(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_refusal_is_recalled_until_its_time_and_for_a_second_at_most() {
        let refusals = Refusals::new();
        refusals.remember(7, 0, SECOND / 2, SECOND);
        refusals.remember(8, 0, 60 * SECOND, 60 * SECOND);
        let told = Refused { retry_after: Duration::from_millis(250), reset: Duration::from_millis(750) };
        assert_eq!(refusals.recall(7, SECOND / 4), Some(told));
        assert_eq!(refusals.recall(7, SECOND / 2), None);
        assert!(refusals.recall(8, SECOND - 1).is_some());
        assert_eq!(refusals.recall(8, SECOND), None);
    }

    #[test]
    fn nobody_is_refused_for_another() {
        let refusals = Refusals::new();
        refusals.remember(7, 0, SECOND, SECOND);
        assert_eq!(refusals.recall(7 + KEYS as u64, 1), None);
    }
}
