//! Who comes far more often than its limit: found by a sketch, before the table is asked.
//!
//! A count-min sketch (Cormode, Muthukrishnan 2005) says how often a key came within the second, and never too few. What it says too much is small
//! beside the bound: with 4 rows of 4096 counters, of `n` requests within the second more than `n / 1500` in one case of fifty. So nobody is taken for a
//! flood who is not far above the limit, and the exact count decides over all others.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use pingora_limits::estimator::Estimator;

use super::{Key, Terms};

const ROWS: usize = 4;
const COLUMNS: usize = 4096;

/// How long is counted, in nanoseconds.
const PERIOD: u64 = 1_000_000_000;

/// How far above what the limit admits within the second a flood begins: twice, and what the sketch may say too much of 400,000 requests.
const TIMES: u64 = 2;
const MARGIN: u64 = 256;

/// A sketch of the keys that came within the second.
pub struct Flood {
    seen: Estimator,
    began: AtomicU64,
    most: isize,
}

impl Flood {
    /// For the keys of a token bucket.
    pub fn new(terms: &Terms) -> Self {
        let refilled = u128::from(terms.rate.count()) * u128::from(PERIOD) / u128::from(terms.rate.nanos());
        let admitted = u64::try_from(refilled).unwrap_or(u64::MAX).saturating_add(terms.burst);
        let most = admitted.saturating_mul(TIMES).saturating_add(MARGIN);
        let most = isize::try_from(most).unwrap_or(isize::MAX);
        Self { seen: Estimator::new(ROWS, COLUMNS), began: AtomicU64::new(0), most }
    }

    /// Counts a request, and says whether its key is a flood.
    pub fn comes(&self, key: Key, now: u64) -> bool {
        let began = self.began.load(Relaxed);
        if now.saturating_sub(began) >= PERIOD && self.began.compare_exchange(began, now, Relaxed, Relaxed).is_ok() {
            self.seen.reset();
        }
        self.seen.incr(key.hash(), 1) > self.most
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{limit::Algorithm, units::Rate};

    fn flood() -> Flood {
        let rate = Rate::new(10, std::time::Duration::from_secs(1)).unwrap();
        Flood::new(&Terms { algorithm: Algorithm::TokenBucket, rate, burst: 20, keys: None })
    }

    #[test]
    fn only_who_comes_far_more_often_than_its_limit_is_a_flood() {
        let flood = flood();
        let before = (0..2 * (10 + 20) + 256).filter(|_| flood.comes(Key::new(1), 5)).count();
        assert_eq!(before, 0);
        assert!(flood.comes(Key::new(1), PERIOD - 1));
        assert!(!flood.comes(Key::new(2), PERIOD - 1));
        assert!(!flood.comes(Key::new(1), PERIOD), "another second");
    }

    #[test]
    fn many_others_make_nobody_a_flood() {
        let flood = flood();
        assert!((0..200_000).all(|key| !flood.comes(Key::new(key), 1)));
    }
}
