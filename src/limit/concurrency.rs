//! Requests that are carried at the same time, by key.
//!
//! Counted by a sketch of 4 rows of 8192 counters, so that no number of keys takes more memory. It never counts too few: of `n` requests in all,
//! more than `n / 3000` are counted too many in one case of fifty. The count falls when its guard is dropped, however a request ends.

use pingora_limits::inflight::{Guard, Inflight};

use super::Key;

/// Requests that have not ended.
pub struct Carried(Inflight);

/// Counts as a request until it is dropped.
#[derive(Debug)]
pub struct Held {
    _guard: Guard,
}

impl Default for Carried {
    fn default() -> Self {
        Self(Inflight::new())
    }
}

impl Carried {
    /// Counts a request, and says how many there are of its key, with this one.
    pub fn begin(&self, key: Key) -> (Held, u64) {
        let (guard, count) = self.0.incr(key.hash(), 1);
        (Held { _guard: guard }, u64::try_from(count).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_counts_until_it_ends() {
        let carried = Carried::default();
        let (first, one) = carried.begin(Key::new(1));
        let (_second, two) = carried.begin(Key::new(1));
        let (_other, other) = carried.begin(Key::new(2));
        assert_eq!((one, two, other), (1, 2, 1));
        drop(first);
        assert_eq!(carried.begin(Key::new(1)).1, 2);
    }
}
