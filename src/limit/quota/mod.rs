//! Quotas: how much a consumer may call in an hour, a day or a month of the calendar.
//!
//! `calendar` says which period it is, `account` counts in it, `ledger` keeps the accounts over restarts in a `journal` of `record`s that
//! the processes of one gateway share. A [`Quota`] is all that a request meets: two loads and one exchange, no lock.

use std::{sync::Arc, time::Duration};

use rustix::time::{ClockId, clock_gettime};

use super::Verdict;

mod account;
mod calendar;
mod journal;
mod ledger;
mod record;

pub use self::{
    account::{Account, USED_MAX},
    calendar::{Calendar, Period, UnknownZone, zones},
    ledger::{Ledger, OpenError, Status},
    record::Key,
};
pub use crate::config::plan::Unit;

/// The quota of one consumer.
#[derive(Clone, Debug)]
pub struct Quota {
    account: Arc<Account>,
    calendar: Arc<Calendar>,
    limit: u64,
}

/// The time of the system's clock, in Unix seconds. A few milliseconds behind, for a few nanoseconds.
pub fn wall() -> u64 {
    u64::try_from(clock_gettime(ClockId::RealtimeCoarse).tv_sec).unwrap_or(0)
}

impl Quota {
    /// `limit` in each period of the calendar, at most [`USED_MAX`].
    pub fn new(consumer: &str, limit: u64, calendar: Arc<Calendar>, ledger: &Ledger) -> Self {
        let key = Key { consumer: consumer.into(), unit: calendar.unit() };
        Self { account: ledger.account(key), calendar, limit: limit.min(USED_MAX) }
    }

    /// Takes what a request costs, if there is so much left. `now` in Unix seconds.
    pub fn take(&self, cost: u32, now: u64) -> Verdict {
        let period = self.calendar.at(now);
        match self.account.take(u64::from(cost), self.limit, period) {
            Ok(used) => self.verdict(true, used, period, now),
            Err(used) => self.verdict(false, used, period, now),
        }
    }

    /// A later limit refused the request. What counted `until` now is gone already: nothing of the new period is given back for it.
    pub fn give_back(&self, cost: u32, until: u64, now: u64) {
        if now < until {
            self.account.add(-i64::from(cost), self.calendar.at(now));
        }
    }

    /// What a request turned out to cost. Never refused; what is too much is missing until the end of the period.
    pub fn charge(&self, cost: u32, now: u64) {
        self.account.add(i64::from(cost), self.calendar.at(now));
    }

    /// What there is, with nothing taken.
    pub fn look(&self, now: u64) -> Verdict {
        let used = self.used(now);
        self.verdict(used < self.limit, used, self.calendar.at(now), now)
    }

    /// What was used in the period; more than the limit if it was charged.
    pub fn used(&self, now: u64) -> u64 {
        self.account.used().within(self.calendar.at(now).start).amount
    }

    /// Nothing was used.
    pub fn reset(&self, now: u64) {
        self.account.reset(self.calendar.at(now));
    }

    /// The period of a time.
    pub fn period(&self, now: u64) -> Period {
        self.calendar.at(now)
    }

    pub fn calendar(&self) -> &Calendar {
        &self.calendar
    }

    fn verdict(&self, admitted: bool, used: u64, period: Period, now: u64) -> Verdict {
        let left = Duration::from_secs(period.end().saturating_sub(now).max(1));
        Verdict {
            admitted,
            limit: self.limit,
            remaining: self.limit.saturating_sub(used),
            reset: left,
            retry_after: if admitted { Duration::ZERO } else { left },
            wait: Duration::ZERO,
            until: period.end(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Noon of a day.
    const NOON: u64 = 1_799_928_000;

    fn quota(limit: u64, ledger: &Ledger) -> Quota {
        Quota::new("acme", limit, Arc::new(Calendar::new(Unit::Day, "UTC").unwrap()), ledger)
    }

    #[test]
    fn who_is_refused_is_told_when_the_next_period_begins() {
        let quota = quota(2, &Ledger::default());
        let half_a_day = Duration::from_secs(43_200);
        let first = quota.take(1, NOON);
        assert_eq!((first.admitted, first.limit, first.remaining, first.reset), (true, 2, 1, half_a_day));
        quota.take(1, NOON);
        let refused = quota.take(1, NOON + 1);
        assert_eq!((refused.admitted, refused.remaining, refused.retry_after), (false, 0, half_a_day - Duration::from_secs(1)));
        assert!(quota.take(1, NOON + 43_200).admitted);
    }

    #[test]
    fn a_look_takes_nothing() {
        let quota = quota(1, &Ledger::default());
        assert!(quota.look(NOON).admitted && quota.take(1, NOON).admitted && !quota.look(NOON).admitted);
        assert_eq!(quota.look(NOON + 86_400).remaining, 1);
    }

    #[test]
    fn what_is_given_back_or_charged_is_counted() {
        let quota = quota(5, &Ledger::default());
        quota.charge(9, NOON);
        assert_eq!(quota.look(NOON).remaining, 0);
        let until = quota.look(NOON).until;
        quota.give_back(8, until, NOON);
        assert_eq!(quota.look(NOON).remaining, 4);
        quota.charge(3, until);
        quota.give_back(1, until, until);
        assert_eq!(quota.look(until).remaining, 2, "what was of yesterday gives nothing for today");
        quota.reset(until);
        assert_eq!(quota.look(until).remaining, 5);
    }

    #[test]
    fn use_survives_a_reload_that_changes_the_limit() {
        let ledger = Ledger::default();
        quota(5, &ledger).charge(4, NOON);
        assert_eq!(quota(10, &ledger).look(NOON).remaining, 6);
        assert_eq!(quota(3, &ledger).look(NOON).remaining, 0);
    }
}
