//! Passive outlier ejection: endpoints whose tries fail are left out for a while.
//!
//! Whether an endpoint is out is one load. A try that went well costs a load more, a failed one an addition; only an ejection and a return
//! take a lock. Times are nanoseconds of one monotonic clock.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
};

use super::ended::{Conditions, Ended};
use crate::{
    config::upstream::{Outlier as Config, SuccessRate},
    units::Percent,
};

mod rates;
#[cfg(test)]
mod tests;

/// What is kept of an endpoint by its address: it outlives reloads, and lists that it is not in.
#[derive(Debug, Default)]
pub struct OutlierState {
    failures_in_a_row: AtomicU32,
    /// Of this interval: tries in the upper half, failures in the lower.
    tally: AtomicU64,
    /// It is out until then; 0: it is in.
    until: AtomicU64,
    history: Mutex<History>,
}

#[derive(Clone, Copy, Debug, Default)]
struct History {
    /// Ejections, less those that good standing has taken back.
    times: u32,
    /// When it came in again.
    returned: u64,
    last: Option<Ejection>,
}

/// Why and how long an endpoint is out.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Ejection {
    pub why: Why,
    pub at: u64,
    pub until: u64,
    /// How many times in a row, by which the time grows.
    pub times: u32,
}

/// Why an endpoint is out.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Why {
    /// Its tries failed, one after the other; the last in this way.
    FailuresInARow { failures: u32, last: Ended },
    /// It failed more often than the others: its rate of success is below `least`, which comes of theirs. From 0 to 1.
    SuccessRate { rate: f64, mean: f64, least: f64 },
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FailuresInARow { failures, last: Ended::Answered(status) } => {
                write!(f, "{failures} failures in a row, the last a {status}")
            }
            Self::FailuresInARow { failures, last } => write!(f, "{failures} failures in a row, the last {}", word(*last)),
            Self::SuccessRate { rate, mean, least } => {
                write!(f, "success rate of {rate:.3} is below {least:.3} (all: {mean:.3})")
            }
        }
    }
}

const fn word(ended: Ended) -> &'static str {
    match ended {
        Ended::Answered(_) => "an answer",
        Ended::NoConnection => "without a connection",
        Ended::Refused => "refused",
        Ended::Reset => "a reset",
        Ended::Late => "late",
    }
}

/// What has changed. Each change is told to one caller only.
#[derive(Clone, PartialEq, Debug)]
pub enum Change {
    Ejected(Ejection),
    Returned,
}

/// A compiled `outlier` over the endpoints of one list.
#[derive(Debug)]
pub struct Outliers {
    failures: Conditions,
    consecutive: u32,
    success_rate: Option<SuccessRate>,
    eject_for: u64,
    eject_for_max: u64,
    max_ejected: Percent,
    panic_at: Percent,
    members: Box<[Arc<OutlierState>]>,
    panicking: AtomicBool,
    /// When rates are compared next.
    compare_at: AtomicU64,
    /// Held while one is ejected, so that not too many are.
    ejecting: Mutex<()>,
}

/// One try in a tally.
const TRY: u64 = 1 << 32;

/// A failed one.
const FAILED_TRY: u64 = TRY + 1;

impl OutlierState {
    /// Whether it is out, unless all are tried.
    pub fn is_ejected(&self) -> bool {
        self.until.load(Relaxed) != 0
    }

    /// Why it is out, if it is.
    pub fn ejection(&self) -> Option<Ejection> {
        self.is_ejected().then(|| self.last_ejection()).flatten()
    }

    /// The last time that it was out, now or before.
    fn last_ejection(&self) -> Option<Ejection> {
        self.history().last
    }

    /// Lets it in again, at the word of an operator or of a health check. Whether it was out.
    pub fn readmit(&self, now: u64) -> bool {
        self.returns(self.until.load(Relaxed), now)
    }

    /// One caller only gets to hear that it is in again.
    fn returns(&self, until: u64, now: u64) -> bool {
        if until == 0 {
            return false;
        }
        let mut history = self.history();
        let returned = self.until.compare_exchange(until, 0, Relaxed, Relaxed).is_ok();
        if returned {
            history.returned = now;
            self.failures_in_a_row.store(0, Relaxed);
            self.tally.store(0, Relaxed);
        }
        returned
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outliers {
    pub fn new(config: &Config, members: impl IntoIterator<Item = Arc<OutlierState>>) -> Self {
        let nanos = |duration: crate::units::Duration| duration.as_std().as_nanos() as u64;
        Self {
            failures: Conditions::of(&config.failures),
            consecutive: config.consecutive_failures.get(),
            success_rate: config.success_rate,
            eject_for: nanos(config.eject_for),
            eject_for_max: nanos(config.eject_for_max).max(nanos(config.eject_for)),
            max_ejected: config.max_ejected,
            panic_at: config.panic_at,
            members: members.into_iter().collect(),
            panicking: AtomicBool::new(false),
            compare_at: AtomicU64::new(0),
            ejecting: Mutex::default(),
        }
    }

    /// Whether a member takes no traffic because of its failures.
    pub fn is_out(&self, member: &OutlierState) -> bool {
        member.is_ejected() && !self.is_panicking()
    }

    /// Whether ejections count no more: too few would be left.
    pub fn is_panicking(&self) -> bool {
        self.panicking.load(Relaxed)
    }

    /// Takes in how a try ended. Gives the ejection that it brings about; then, [`settle`](Self::settle).
    pub fn report(&self, member: &OutlierState, ended: Ended, now: u64) -> Option<Ejection> {
        let failed = self.failures.covers(ended);
        if self.success_rate.is_some() {
            member.tally.fetch_add(if failed { FAILED_TRY } else { TRY }, Relaxed);
        }
        if failed {
            let failures = member.failures_in_a_row.fetch_add(1, Relaxed).saturating_add(1);
            let why = Why::FailuresInARow { failures, last: ended };
            return (failures >= self.consecutive).then(|| self.eject(member, why, now)).flatten();
        }
        // Most are zero already: a load does not take the line from other cores.
        if member.failures_in_a_row.load(Relaxed) != 0 {
            member.failures_in_a_row.store(0, Relaxed);
        }
        None
    }

    /// What time brings: returns, and at the end of each interval the endpoints that lag behind the others. Positions are those of `members`.
    /// Then, [`settle`](Self::settle) if anything changed.
    pub fn sweep(&self, now: u64) -> Vec<(usize, Change)> {
        let mut changes = Vec::new();
        for (position, member) in self.members.iter().enumerate() {
            let until = member.until.load(Relaxed);
            if until <= now && member.returns(until, now) {
                changes.push((position, Change::Returned));
            }
        }
        if let Some(rules) = self.success_rate.filter(|rules| self.is_time_to_compare(rules, now)) {
            changes.extend(self.compare(&rules, now));
        }
        changes
    }

    /// When [`sweep`](Self::sweep) has something to do next, if nothing happens before.
    pub fn next_sweep(&self) -> Option<u64> {
        let returns = self.members.iter().map(|member| member.until.load(Relaxed)).filter(|until| *until != 0);
        returns.chain(self.success_rate.map(|_| self.compare_at.load(Relaxed))).min()
    }

    /// Finds out whether ejections count, after an ejection, a return, or a change of health. `healthy` are the members that would take
    /// traffic otherwise. Gives what is new: `true`, from now on all of them are tried.
    pub fn settle<'a>(&self, healthy: impl IntoIterator<Item = &'a OutlierState>) -> Option<bool> {
        let (mut all, mut out) = (0, 0);
        for member in healthy {
            all += 1;
            out += u64::from(member.is_ejected());
        }
        let panics = out > 0 && (all - out <= self.panic_at.of_count(all));
        (self.panicking.swap(panics, Relaxed) != panics).then_some(panics)
    }

    fn eject(&self, member: &OutlierState, why: Why, now: u64) -> Option<Ejection> {
        let _one_at_a_time = self.ejecting.lock().unwrap_or_else(PoisonError::into_inner);
        let mut history = member.history();
        if member.is_ejected() || self.out() >= self.most_out() {
            return None;
        }
        let forgiven = now.saturating_sub(history.returned) / self.eject_for.max(1);
        let times = u64::from(history.times).saturating_sub(forgiven).saturating_add(1);
        let until = now.saturating_add(self.eject_for.saturating_mul(times).min(self.eject_for_max)).max(1);
        let ejection = Ejection { why, at: now, until, times: u32::try_from(times).unwrap_or(u32::MAX) };
        (history.times, history.last) = (ejection.times, Some(ejection));
        member.until.store(until, Relaxed);
        Some(ejection)
    }

    fn out(&self) -> u64 {
        self.members.iter().filter(|member| member.is_ejected()).count() as u64
    }

    /// Of two or more one may always be out: a small share of few would be none.
    fn most_out(&self) -> u64 {
        let members = self.members.len() as u64;
        let least = u64::from(members > 1 && self.max_ejected > Percent::NONE);
        self.max_ejected.of_count(members).max(least)
    }

    fn is_time_to_compare(&self, rules: &SuccessRate, now: u64) -> bool {
        let due = self.compare_at.load(Relaxed);
        let next = now.saturating_add(rules.interval.as_std().as_nanos() as u64);
        // The first sweep only begins an interval.
        due <= now && self.compare_at.compare_exchange(due, next, Relaxed, Relaxed).is_ok() && due != 0
    }

    fn compare(&self, rules: &SuccessRate, now: u64) -> Vec<(usize, Change)> {
        let tallies = self.members.iter().map(|member| member.tally.swap(0, Relaxed));
        let rates: Vec<_> =
            tallies.enumerate().filter_map(|(position, tally)| Some((position, rates::of(tally, rules)?))).collect();
        let Some(bar) = rates::bar(&rates, rules) else { return Vec::new() };
        let lags = rates.into_iter().filter(|(_, rate)| *rate < bar.least);
        let eject = |(position, rate): (usize, f64)| {
            let why = Why::SuccessRate { rate, mean: bar.mean, least: bar.least };
            let member = self.members.get(position)?;
            let ejection = self.eject(member, why, now)?;
            Some((position, Change::Ejected(ejection)))
        };
        lags.filter_map(eject).collect()
    }
}
