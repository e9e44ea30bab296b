//! Whether a request is tried again: a decision without side effects but one, that it takes of the budget.

use std::{sync::Arc, time::Duration};

use super::{
    budget::Budget,
    ended::{Conditions, Ended},
};
use crate::config::upstream::Retries as Config;

#[cfg(test)]
mod tests;

/// Compiled `retries`.
#[derive(Debug)]
pub struct Retries {
    attempts: u8,
    on: Conditions,
    non_idempotent: bool,
    per_try: Option<Duration>,
    base: Duration,
    max: Duration,
    budget: Arc<Budget>,
}

/// A request after a try that ended badly.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Situation {
    /// How the last try ended.
    pub ended: Ended,
    /// Tries so far, the last one included.
    pub tries: u8,
    /// Its method may be repeated (RFC 9110 §9.2.2).
    pub idempotent: bool,
    /// There is no body, or all that was read of it is still held.
    pub replayable: bool,
    /// The client was sent the head of an answer.
    pub answered: bool,
    /// There is an endpoint that was not tried yet.
    pub elsewhere: bool,
    /// Time left for an answer to begin, if it has an end.
    pub left: Option<Duration>,
}

impl Situation {
    /// A connection that could not be opened asked nothing of the service, and each endpoint is gone past once: the budget is for what is
    /// asked of it again.
    const fn is_free(&self) -> bool {
        matches!(self.ended, Ended::NoConnection) && self.elsewhere
    }
}

/// What becomes of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It is tried again after this wait.
    Again {
        after: Duration,
    },
    Over(Over),
}

/// Why a request is not tried again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Over {
    /// The client has been sent a part of an answer.
    Answered,
    /// Its try did not end in a way that is tried again.
    NotListed,
    /// It may have been acted upon, and its method may not be repeated.
    Method,
    /// A part of its body is gone.
    Body,
    /// It was tried often enough.
    Attempts,
    /// Its time would be over.
    Time,
    /// Too many requests were tried again.
    Budget,
}

impl Over {
    /// Every reason, in the order in which they are looked at.
    pub const ALL: [Self; 7] =
        [Self::Answered, Self::NotListed, Self::Method, Self::Body, Self::Attempts, Self::Time, Self::Budget];

    /// Its name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::NotListed => "not_listed",
            Self::Method => "method",
            Self::Body => "body",
            Self::Attempts => "attempts",
            Self::Time => "time",
            Self::Budget => "budget",
        }
    }
}

impl Retries {
    /// With the budget of its predecessor, if that goes by the same rules.
    pub fn new(config: &Config, before: Option<&Self>) -> Self {
        let kept = before.map(|before| &before.budget).filter(|budget| budget.is_of(&config.budget));
        Self {
            attempts: config.attempts,
            on: Conditions::of(&config.retry_on),
            non_idempotent: config.non_idempotent,
            per_try: config.per_try.map(|limit| limit.as_std()),
            base: config.backoff.base.as_std(),
            max: config.backoff.max.as_std(),
            budget: kept.cloned().unwrap_or_else(|| Arc::new(Budget::new(&config.budget))),
        }
    }

    /// A request goes for the first time.
    pub fn begin(&self, now: u64) {
        self.budget.deposit(now);
    }

    /// Longest wait for the response head in one try, where `response` is that of the request's.
    pub fn patience(&self, response: Duration) -> Duration {
        self.per_try.map_or(response, |per_try| per_try.min(response))
    }

    /// Whether a request may ever be tried again after an answer with this status: what is to be known before an answer is let go.
    pub fn may_follow(&self, ended: Ended) -> bool {
        self.attempts > 0 && self.on.covers(ended)
    }

    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Decides, and charges the budget if something is asked of the service again. `draw` gives a number from 0 (included) to 1.
    pub fn decide(&self, situation: &Situation, now: u64, draw: impl FnOnce() -> f64) -> Verdict {
        if let Some(over) = self.forbids(situation) {
            return Verdict::Over(over);
        }
        let after = self.wait(situation, draw);
        if situation.left.is_some_and(|left| after >= left) {
            return Verdict::Over(Over::Time);
        }
        match situation.is_free() || self.budget.withdraw(now) {
            true => Verdict::Again { after },
            false => Verdict::Over(Over::Budget),
        }
    }

    fn forbids(&self, situation: &Situation) -> Option<Over> {
        let Situation { ended, tries, idempotent, replayable, answered, .. } = *situation;
        if answered {
            Some(Over::Answered)
        } else if !self.on.covers(ended) {
            Some(Over::NotListed)
        } else if !(idempotent || self.non_idempotent || ended.is_untouched()) {
            Some(Over::Method)
        } else if !replayable {
            Some(Over::Body)
        } else if tries > self.attempts {
            Some(Over::Attempts)
        } else {
            None
        }
    }

    /// A random time up to a bound that doubles. At once, if another endpoint may do better and this one gave no answer.
    fn wait(&self, situation: &Situation, draw: impl FnOnce() -> f64) -> Duration {
        let gave_nothing = matches!(situation.ended, Ended::NoConnection | Ended::Refused | Ended::Reset);
        if situation.tries == 1 && situation.elsewhere && gave_nothing {
            return Duration::ZERO;
        }
        let doubled = 1_u32.checked_shl(u32::from(situation.tries.saturating_sub(1))).unwrap_or(u32::MAX);
        self.base.saturating_mul(doubled).min(self.max).mul_f64(draw().clamp(0.0, 1.0))
    }
}
