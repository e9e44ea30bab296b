//! One named limit, counted on this node.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{Key, Terms, Verdict};

/// A limit and its counts.
#[derive(Debug)]
pub struct Local {
    terms: Terms,
    /// Nanoseconds between two at an even rate.
    interval: u64,
    states: Mutex<HashMap<Key, u64>>,
}

impl Local {
    pub fn new(terms: Terms) -> Self {
        let interval = terms.rate.per().as_std().as_nanos() / u128::from(terms.rate.count());
        Self { terms, interval: u64::try_from(interval).unwrap_or(u64::MAX), states: Mutex::default() }
    }

    pub const fn terms(&self) -> &Terms {
        &self.terms
    }

    pub fn take(&self, key: Key, cost: u32, now: u64) -> Verdict {
        let mut states = self.states();
        let arrival = states.get(&key).copied().unwrap_or(0).max(now);
        let after = arrival.saturating_add(self.interval.saturating_mul(u64::from(cost)));
        let tolerance = self.interval.saturating_mul(self.terms.burst);
        if after - now > tolerance {
            return self.verdict(false, arrival, after - now - tolerance, now);
        }
        states.insert(key, after);
        self.verdict(true, after, 0, now)
    }

    pub fn give_back(&self, key: Key, cost: u32, _now: u64) {
        if let Some(state) = self.states().get_mut(&key) {
            *state = state.saturating_sub(self.interval.saturating_mul(u64::from(cost)));
        }
    }

    pub fn charge(&self, key: Key, cost: u32, now: u64) {
        let mut states = self.states();
        let state = states.entry(key).or_default();
        *state = (*state).max(now).saturating_add(self.interval.saturating_mul(u64::from(cost)));
    }

    pub fn look(&self, key: Key, now: u64) -> Verdict {
        let arrival = self.states().get(&key).copied().unwrap_or(0).max(now);
        self.verdict(true, arrival, 0, now)
    }

    pub fn forget(&self, key: Key) {
        self.states().remove(&key);
    }

    fn verdict(&self, admitted: bool, arrival: u64, retry: u64, now: u64) -> Verdict {
        let used = (arrival - now).div_ceil(self.interval.max(1));
        Verdict {
            admitted,
            limit: self.terms.burst,
            remaining: self.terms.burst.saturating_sub(used),
            reset: Duration::from_nanos(arrival - now),
            retry_after: Duration::from_nanos(retry),
            wait: Duration::ZERO,
        }
    }

    fn states(&self) -> MutexGuard<'_, HashMap<Key, u64>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
