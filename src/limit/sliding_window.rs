//! The count of a window that ends now, estimated from two: all of this window, and of the last one the part that it still covers.
//!
//! Exact for what comes evenly. At worst, when all of the last window came at its end, twice the limit passes in one length of time, as
//! with a bucket whose burst is the limit.
//!
//! The state is the number of the window, its count, and the count of the one before it.

use std::time::Duration;

use super::{CLOCK_MAX, Rate, Unfit, Verdict, fixed_window::window_bits};

/// Bits of a state.
const BITS: u32 = 63;

#[derive(Clone, Debug)]
pub(super) struct SlidingWindow {
    limit: u64,
    /// In nanoseconds.
    length: u64,
    /// Bits of each of the two counts.
    bits: u32,
}

#[derive(Clone, Copy, PartialEq, Debug)]
struct Counts {
    window: u64,
    this: u64,
    last: u64,
}

/// Whether two counts fit beside the number of the window.
pub(super) fn fits(rate: Rate) -> Result<(), Unfit> {
    if rate.nanos() > CLOCK_MAX {
        return Err(Unfit::Window { longest: Duration::from_nanos(CLOCK_MAX) });
    }
    let most = limit_max(rate.nanos());
    if rate.count() > most { Err(Unfit::Rate { most }) } else { Ok(()) }
}

/// The largest count means that it was cut, so a limit is below it.
fn limit_max(length: u64) -> u64 {
    (1 << count_bits(length)) - 2
}

fn count_bits(length: u64) -> u32 {
    (BITS - window_bits(length)) / 2
}

impl SlidingWindow {
    /// What does not fit is cut to what does.
    pub fn new(rate: Rate) -> Self {
        let length = rate.nanos().min(CLOCK_MAX);
        Self { limit: rate.count().min(limit_max(length)), length, bits: count_bits(length) }
    }

    /// The state after a request, and what is said of it. Refused: the state as it was.
    pub fn take(&self, state: u64, cost: u32, now: u64) -> (u64, Verdict) {
        let counts = self.read(state, now);
        let after = Counts { this: counts.this.saturating_add(u64::from(cost)), ..counts };
        if self.weight(after, now) > self.most() {
            let retry_after = self.retry_after(counts, u64::from(cost), now);
            return (state, Verdict { admitted: false, retry_after, ..self.verdict(counts, now) });
        }
        (self.write(after), self.verdict(after, now))
    }

    /// What a request would be told, which is not taken.
    pub fn look(&self, state: u64, now: u64) -> Verdict {
        let (_, asked) = self.take(state, 1, now);
        Verdict { admitted: asked.admitted, retry_after: asked.retry_after, ..self.verdict(self.read(state, now), now) }
    }

    /// The state after a cost that is not refused.
    pub fn charge(&self, state: u64, cost: u32, now: u64) -> u64 {
        let counts = self.read(state, now);
        self.write(Counts { this: counts.this.saturating_add(u64::from(cost)), ..counts })
    }

    /// The state without a cost that it has.
    pub fn give_back(&self, state: u64, cost: u32, until: u64) -> u64 {
        let counts = self.unpack(state);
        let less = |count: u64| if count < self.count_max() { count.saturating_sub(u64::from(cost)) } else { count };
        if self.gone(counts.window) == until {
            self.write(Counts { this: less(counts.this), ..counts })
        } else if self.end(counts.window) == until {
            self.write(Counts { last: less(counts.last), ..counts })
        } else {
            state
        }
    }

    /// Rounded up.
    pub fn used(&self, state: u64, now: u64) -> u64 {
        let weight = self.weight(self.read(state, now), now).div_ceil(u128::from(self.length));
        u64::try_from(weight).unwrap_or(u64::MAX)
    }

    /// A state by which each of two has used as much as by its own, or more. Their order is none of use: a little in this window
    /// is a greater number than much in the last one.
    pub fn join(&self, one: u64, other: u64) -> u64 {
        let (one, other) = (self.unpack(one), self.unpack(other));
        let window = one.window.max(other.window);
        let (one, other) = (one.moved_to(window), other.moved_to(window));
        self.write(Counts { window, this: one.this.max(other.this), last: one.last.max(other.last) })
    }

    /// The counts of the window that it is now. One that began later than `now` on another thread's clock has begun.
    fn read(&self, state: u64, now: u64) -> Counts {
        self.unpack(state).moved_to(now / self.length)
    }

    fn unpack(&self, state: u64) -> Counts {
        Counts { window: state >> (2 * self.bits), this: state >> self.bits & self.count_max(), last: state & self.count_max() }
    }

    fn write(&self, counts: Counts) -> u64 {
        let cut = |count: u64| count.min(self.count_max());
        counts.window << (2 * self.bits) | cut(counts.this) << self.bits | cut(counts.last)
    }

    fn count_max(&self) -> u64 {
        (1 << self.bits) - 1
    }

    /// What counts of both windows, times the length of one.
    fn weight(&self, counts: Counts, now: u64) -> u128 {
        let length = u128::from(self.length);
        u128::from(counts.this) * length + u128::from(counts.last) * u128::from(self.covered(counts, now))
    }

    /// Nanoseconds of the last window that the one that ends now covers.
    fn covered(&self, counts: Counts, now: u64) -> u64 {
        self.end(counts.window).saturating_sub(now).min(self.length)
    }

    fn most(&self) -> u128 {
        u128::from(self.limit) * u128::from(self.length)
    }

    fn end(&self, window: u64) -> u64 {
        (window + 1).saturating_mul(self.length)
    }

    /// When nothing of a window is counted any more.
    fn gone(&self, window: u64) -> u64 {
        (window + 2).saturating_mul(self.length)
    }

    /// Until all is there again.
    fn reset(&self, counts: Counts, now: u64) -> Duration {
        let at = match (counts.this, counts.last) {
            (0, 0) => now,
            (0, _) => self.end(counts.window),
            _ => self.gone(counts.window),
        };
        Duration::from_nanos(at.saturating_sub(now))
    }

    /// Until a refused cost is there, if nothing more is taken.
    fn retry_after(&self, counts: Counts, cost: u64, now: u64) -> Duration {
        if cost > self.limit {
            return Duration::from_nanos(self.gone(counts.window).saturating_sub(now));
        }
        let next = counts.moved_to(counts.window + 1);
        let at = self.free_at(counts, cost).or_else(|| self.free_at(next, cost)).unwrap_or_else(|| self.gone(counts.window));
        Duration::from_nanos(at.saturating_sub(now))
    }

    /// The first time in the window of these counts at which a cost fits.
    fn free_at(&self, counts: Counts, cost: u64) -> Option<u64> {
        let free = self.limit.checked_sub(counts.this)?.checked_sub(cost)?;
        if counts.last <= free {
            return Some(self.end(counts.window).saturating_sub(self.length));
        }
        // At most this much of the last window may still be covered; none of it is only when the window has ended.
        let covered = u128::from(free) * u128::from(self.length) / u128::from(counts.last);
        let covered = u64::try_from(covered).ok().filter(|covered| *covered > 0)?;
        Some(self.end(counts.window).saturating_sub(covered))
    }

    /// Of a request that is admitted and leaves these counts.
    fn verdict(&self, counts: Counts, now: u64) -> Verdict {
        let left = self.most().saturating_sub(self.weight(counts, now)) / u128::from(self.length);
        Verdict {
            admitted: true,
            limit: self.limit,
            remaining: u64::try_from(left).unwrap_or(u64::MAX),
            reset: self.reset(counts, now),
            retry_after: Duration::ZERO,
            wait: Duration::ZERO,
            until: self.gone(counts.window),
        }
    }
}

impl Counts {
    /// The same use, seen from a later window. From an earlier one: as it is.
    fn moved_to(self, window: u64) -> Self {
        match window.saturating_sub(self.window) {
            0 => self,
            1 => Self { window, this: 0, last: self.this },
            _ => Self { window, this: 0, last: 0 },
        }
    }
}
