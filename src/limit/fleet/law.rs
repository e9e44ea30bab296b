//! A limit in the words of the script.

use std::time::Duration;

use super::script::{Told, Words};
use crate::limit::{Algorithm, Terms, Verdict};

/// Longest that a node lets shares gather.
const PAUSE_MAX: Duration = Duration::from_millis(20);

/// What rounding may take of a whole number.
const SLACK: f64 = 1e-6;

/// How a limit counts. `count` in `period` is its rate.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Law {
    TokenBucket {
        count: u64,
        period: Duration,
        burst: u64,
    },
    /// Beyond `burst` a request waits for its turn, for `max_delay` at most.
    LeakyBucket {
        count: u64,
        period: Duration,
        burst: u64,
        max_delay: Duration,
    },
    SlidingWindow {
        count: u64,
        period: Duration,
    },
    FixedWindow {
        count: u64,
        period: Duration,
    },
}

impl Law {
    pub fn of(terms: &Terms) -> Self {
        let (count, period, burst) = (terms.rate.count(), Duration::from_nanos(terms.rate.nanos()), terms.burst);
        match terms.algorithm {
            Algorithm::TokenBucket => Self::TokenBucket { count, period, burst },
            Algorithm::LeakyBucket { max_delay } => Self::LeakyBucket { count, period, burst, max_delay },
            Algorithm::SlidingWindow => Self::SlidingWindow { count, period },
            Algorithm::FixedWindow => Self::FixedWindow { count, period },
        }
    }

    /// Most that is admitted at once.
    pub fn most(self) -> u64 {
        match self {
            Self::TokenBucket { burst, .. } => burst,
            Self::LeakyBucket { count, period, burst, max_delay } => {
                burst + (per_micro(count, period) * micros(max_delay) + SLACK) as u64
            }
            Self::SlidingWindow { count, .. } | Self::FixedWindow { count, .. } => count,
        }
    }

    /// How long a request waits that came when so much was before it.
    fn wait(self, told: &Told, cost: u32) -> Duration {
        let Self::LeakyBucket { count, period, burst, .. } = self else { return Duration::ZERO };
        let beyond = (f64::from(cost) - burst as f64) / per_micro(count, period) + told.wait.as_micros() as f64;
        Duration::from_micros(beyond.max(0.0) as u64)
    }

    /// Whether each admitted request has its own moment, which nodes cannot tell apart.
    pub const fn delays(self) -> bool {
        matches!(self, Self::LeakyBucket { .. })
    }

    /// Whether a share of it ends with its window.
    pub const fn is_window(self) -> bool {
        matches!(self, Self::SlidingWindow { .. } | Self::FixedWindow { .. })
    }

    /// How long a node lets shares gather that it was refused: what gathers meanwhile is a quarter of a bucket at most.
    pub(super) fn pause(self) -> Duration {
        match self {
            Self::TokenBucket { count, period, burst } => {
                PAUSE_MAX.min(Duration::from_micros((burst as f64 / per_micro(count, period) / 4.0) as u64))
            }
            _ => PAUSE_MAX,
        }
    }

    pub(super) fn words(self) -> Words {
        let most = self.most().to_string();
        match self {
            Self::TokenBucket { count, period, .. } | Self::LeakyBucket { count, period, .. } => {
                Words { kind: "b", pace: per_micro(count, period).to_string(), most }
            }
            Self::SlidingWindow { period, .. } => Words { kind: "s", pace: period.as_micros().to_string(), most },
            Self::FixedWindow { period, .. } => Words { kind: "f", pace: period.as_micros().to_string(), most },
        }
    }

    /// How long until a smaller cost would be admitted, when `cost` is after `retry`. None: this algorithm cannot tell.
    pub(super) fn sooner(self, retry: Duration, cost: u32) -> Option<Duration> {
        match self {
            _ if cost == 1 => Some(retry),
            Self::TokenBucket { count, period, .. } => {
                Some(retry.saturating_sub(Duration::from_micros((f64::from(cost - 1) / per_micro(count, period)) as u64)))
            }
            _ => None,
        }
    }

    pub(super) fn verdict(self, told: &Told, cost: u32) -> Verdict {
        // A key that another one held back was not short.
        match told.retry.is_zero() {
            true => Verdict { wait: self.wait(told, cost), ..self.admits(told.remaining, told.reset) },
            false => Verdict { remaining: told.remaining, ..self.refuses(told.retry, told.reset) },
        }
    }

    pub(super) fn admits(self, remaining: u64, reset: Duration) -> Verdict {
        let (limit, retry_after, wait) = (self.most(), Duration::ZERO, Duration::ZERO);
        Verdict { admitted: true, limit, remaining: remaining.min(limit), reset, retry_after, wait, until: 0 }
    }

    pub(super) fn refuses(self, retry_after: Duration, reset: Duration) -> Verdict {
        Verdict { admitted: false, remaining: 0, retry_after, ..self.admits(0, reset) }
    }
}

fn per_micro(count: u64, period: Duration) -> f64 {
    count as f64 / micros(period)
}

fn micros(duration: Duration) -> f64 {
    duration.as_nanos() as f64 / 1e3
}
