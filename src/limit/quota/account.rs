//! What one consumer has used, in one word of memory.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::calendar::{Period, START_BITS};

/// Bits of what is used.
const USED_BITS: u32 = u64::BITS - START_BITS;

/// Most that can be counted in one period, and so the largest quota: 274,877,906,943.
pub const USED_MAX: u64 = (1 << USED_BITS) - 1;

/// What was used, and in which period.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Used {
    /// The first minute of the period.
    pub start: u32,
    pub amount: u64,
}

impl Used {
    const fn packed(self) -> u64 {
        let amount = if self.amount > USED_MAX { USED_MAX } else { self.amount };
        (self.start as u64) << USED_BITS | amount
    }

    const fn of(packed: u64) -> Self {
        Self { start: (packed >> USED_BITS) as u32, amount: packed & USED_MAX }
    }

    /// What of it counts in a period. Of one before nothing does. If it is of one to come the clock was wrong: it counts in this one, so that
    /// nobody is free by it and nobody is held for years.
    pub const fn within(self, start: u32) -> Self {
        let amount = if self.start < start { 0 } else { self.amount };
        Self { start, amount }
    }
}

/// Counts for one consumer. Exact: of any number of threads, those are admitted whom the quota has room for, and no more.
#[derive(Debug, Default)]
pub struct Account(AtomicU64);

impl Account {
    pub const fn with(used: Used) -> Self {
        Self(AtomicU64::new(used.packed()))
    }

    pub fn used(&self) -> Used {
        Used::of(self.0.load(Relaxed))
    }

    /// Takes `cost` if that leaves no more used than `limit`. Gives what is used then.
    ///
    /// # Errors
    /// It would; nothing was taken. With what is used.
    pub fn take(&self, cost: u64, limit: u64, period: Period) -> Result<u64, u64> {
        let mut seen = self.0.load(Relaxed);
        loop {
            let used = Used::of(seen).within(period.start);
            let amount = used.amount.saturating_add(cost);
            if amount > limit {
                return Err(used.amount);
            }
            match self.0.compare_exchange_weak(seen, Used { amount, ..used }.packed(), Relaxed, Relaxed) {
                Ok(_) => return Ok(amount),
                Err(now) => seen = now,
            }
        }
    }

    /// Adds what was used beyond all limits, or takes back what was not.
    pub fn add(&self, amount: i64, period: Period) {
        self.change(|used| {
            let used = used.within(period.start);
            Used { amount: used.amount.saturating_add_signed(amount), ..used }
        });
    }

    /// Nothing of the period was used.
    pub fn reset(&self, period: Period) {
        self.change(|_| Used { start: period.start, amount: 0 });
    }

    /// Takes over what others have counted, by what all had counted `before` and have `now`.
    pub fn absorb(&self, before: Used, now: Used) {
        self.change(|used| absorbed(used, before, now));
    }

    fn change(&self, change: impl Fn(Used) -> Used) {
        let _ = self.0.fetch_update(Relaxed, Relaxed, |packed| Some(change(Used::of(packed)).packed()));
    }
}

/// Our own part is what we have beyond `before`; it stays.
fn absorbed(ours: Used, before: Used, now: Used) -> Used {
    match ours.start.cmp(&now.start) {
        std::cmp::Ordering::Less => now,
        std::cmp::Ordering::Greater => ours,
        std::cmp::Ordering::Equal => {
            let known = if before.start == now.start { before.amount } else { 0 };
            Used { amount: ours.amount.saturating_add(now.amount).saturating_sub(known), ..ours }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Calendar, Unit},
        *,
    };

    /// Two days in a row.
    fn days() -> [Period; 2] {
        let calendar = Calendar::new(Unit::Day, "UTC").unwrap();
        [calendar.at(1_800_000_000), Calendar::new(Unit::Day, "UTC").unwrap().at(1_800_086_400)]
    }

    #[test]
    fn a_quota_admits_as_much_as_it_says_and_begins_anew_with_its_period() {
        let ([today, tomorrow], account) = (days(), Account::default());
        let admitted = |period| (0..20).filter(|_| account.take(1, 7, period).is_ok()).count();
        assert_eq!((admitted(today), admitted(today), admitted(tomorrow)), (7, 0, 7));
    }

    #[test]
    fn what_is_refused_takes_nothing() {
        let ([today, _], account) = (days(), Account::default());
        assert_eq!(account.take(5, 7, today), Ok(5));
        assert_eq!(account.take(3, 7, today), Err(5));
        assert_eq!(account.take(2, 7, today), Ok(7));
    }

    #[test]
    fn what_is_given_back_is_there_again_and_what_is_charged_may_be_more_than_the_limit() {
        let ([today, tomorrow], account) = (days(), Account::default());
        account.add(-3, today);
        assert_eq!(account.used().amount, 0);
        account.add(50, today);
        assert_eq!(account.take(1, 7, today), Err(50));
        account.add(-44, today);
        assert_eq!(account.take(1, 7, today), Ok(7));
        account.add(-1, tomorrow);
        assert_eq!(account.take(1, 7, tomorrow), Ok(1), "what was of yesterday gives nothing for today");
    }

    #[test]
    fn a_reset_gives_all_of_it() {
        let ([today, _], account) = (days(), Account::default());
        account.add(9, today);
        account.reset(today);
        assert_eq!(account.take(7, 7, today), Ok(7));
    }

    #[test]
    fn a_count_of_days_to_come_counts_today() {
        let ([today, tomorrow], account) = (days(), Account::default());
        account.add(7, tomorrow);
        assert_eq!(account.take(1, 7, today), Err(7));
        assert_eq!(account.take(1, 8, today), Ok(8), "and then is of today");
        assert_eq!(account.take(1, 7, tomorrow), Ok(1));
    }

    #[test]
    fn counts_stop_at_the_largest_quota() {
        let ([today, _], account) = (days(), Account::default());
        account.add(i64::MAX, today);
        account.add(i64::MAX, today);
        assert_eq!(account.used(), Used { start: today.start, amount: USED_MAX });
    }

    #[test]
    fn threads_admit_no_more_than_the_quota() {
        let ([today, _], account) = (days(), Account::default());
        let count = || (0..40_000).filter(|_| account.take(1, 50_000, today).is_ok()).count();
        let admitted: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(count)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(admitted, 50_000);
    }

    #[test]
    fn what_others_counted_is_added_to_ours() {
        let [today, tomorrow] = days();
        let used = |period: Period, amount| Used { start: period.start, amount };
        let check = |ours, before, now, expected| assert_eq!(absorbed(ours, before, now), expected);
        check(used(today, 5), used(today, 3), used(today, 10), used(today, 12));
        check(used(today, 5), Used::default(), used(today, 10), used(today, 15));
        check(used(today, 5), used(today, 5), used(tomorrow, 1), used(tomorrow, 1));
        check(used(tomorrow, 2), used(today, 5), used(tomorrow, 1), used(tomorrow, 3));
        check(used(tomorrow, 2), used(today, 5), used(today, 9), used(tomorrow, 2));
        // They were reset.
        check(used(today, 5), used(today, 3), used(today, 0), used(today, 2));
    }
}
