//! The retry budget: of all requests together, only a share is tried again. What keeps a service that fails from being buried.
//!
//! Tries again are counted over a slightly longer time than requests, so that from the tenth second of an outage on the share holds with what was
//! left unused before it. Threads never overspend: a try is counted first and taken back if that was too much.

use super::sliding::Sliding;
use crate::{config::upstream::Budget as Config, units::Percent};

/// Cells over which requests are counted.
const CELLS: usize = 10;

/// Cells over which tries again are.
const CELLS_OF_RETRIES: usize = 12;

/// A compiled `retries.budget`. Kept over reloads that leave it as it is.
#[derive(Debug)]
pub struct Budget {
    config: Config,
    /// Tries allowed in a window however few requests there are.
    floor: u64,
    requests: Sliding,
    retries: Sliding,
}

impl Budget {
    pub fn new(config: &Config) -> Self {
        let window = config.window.as_std();
        let width = window.as_nanos() as u64 / CELLS as u64;
        let floor = (f64::from(config.floor) * window.as_secs_f64()).ceil() as u64;
        Self { config: *config, floor, requests: Sliding::new(width, CELLS), retries: Sliding::new(width, CELLS_OF_RETRIES) }
    }

    /// Whether it goes by these rules.
    pub fn is_of(&self, config: &Config) -> bool {
        self.config == *config
    }

    /// A request goes for the first time.
    pub fn deposit(&self, now: u64) {
        self.requests.add(now, 1);
    }

    /// Takes one try again out of the budget, if there is one.
    pub fn withdraw(&self, now: u64) -> bool {
        let allowed = self.allowed(now);
        if self.retries.sum(now) >= allowed {
            return false;
        }
        self.retries.add(now, 1);
        let taken = self.retries.sum(now) <= allowed;
        if !taken {
            self.retries.take_back(now, 1);
        }
        taken
    }

    /// How many tries again are left at the moment.
    pub fn left(&self, now: u64) -> u64 {
        self.allowed(now).saturating_sub(self.retries.sum(now))
    }

    fn allowed(&self, now: u64) -> u64 {
        let Config { share, .. } = self.config;
        Percent::of_count(share, self.requests.sum(now)).max(self.floor)
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::{units::Duration, upstream::race::race};

    const MS: u64 = 1_000_000;

    fn budget(share: u8, floor: u32) -> Budget {
        Budget::new(&Config { share: Percent::of(share), floor, window: Duration::from_secs(1) })
    }

    #[test]
    fn a_share_of_the_requests_may_be_tried_again() {
        let budget = budget(20, 0);
        (0..100).for_each(|step| budget.deposit(step * MS));
        assert_eq!(budget.left(100 * MS), 20);
        assert_eq!((0..100).filter(|_| budget.withdraw(100 * MS)).count(), 20);
        assert!(!budget.withdraw(900 * MS));
        assert!(!budget.withdraw(3000 * MS), "what was not used is gone with its window");
    }

    #[test]
    fn a_few_may_be_however_few_requests_there_are() {
        let budget = budget(20, 3);
        budget.deposit(0);
        assert_eq!((0..10).filter(|_| budget.withdraw(0)).count(), 3);
        assert_eq!((0..10).filter(|_| budget.withdraw(1300 * MS)).count(), 3);
        assert_eq!((0..10).filter(|_| self::budget(0, 0).withdraw(0)).count(), 0);
    }

    #[test]
    fn threads_that_want_the_last_one_do_not_both_get_it() {
        let budgets: Vec<_> = (0..5_000).map(|_| budget(0, 1)).collect();
        let got = race(&budgets, |budget| budget.withdraw(0));
        assert!(got.iter().all(|(one, other)| !(*one && *other)));
        assert!(got.iter().any(|(one, other)| *one || *other));
    }

    proptest! {
        /// In any window, and whatever comes when, no more is tried again than the share of the requests or the floor.
        #[test]
        fn no_window_has_more_than_its_share(floor in 0..4_u32, steps in vec((0..60_u64, 0..4_u8), 1..400)) {
            let budget = budget(20, floor);
            let (mut now, mut requests, mut retries) = (0, Vec::new(), Vec::new());
            for (pause, what) in steps {
                now += pause * MS;
                if what < 2 {
                    budget.deposit(now);
                    requests.push(now);
                } else if budget.withdraw(now) {
                    retries.push(now);
                }
                let within = |times: &[u64]| times.iter().filter(|time| **time + 1000 * MS > now).count();
                let least = |times: &[u64]| times.iter().filter(|time| **time + 900 * MS > now).count();
                if what >= 2 && retries.last() == Some(&now) {
                    prop_assert!(within(&retries) <= (within(&requests) / 5).max(floor as usize));
                } else if what >= 2 {
                    prop_assert!(retries.iter().filter(|time| **time + 1200 * MS > now).count() >= (least(&requests) / 5).max(floor as usize));
                }
            }
        }
    }
}
