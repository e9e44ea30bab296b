//! The count of one window. Windows begin at multiples of their length on the caller's clock.
//!
//! The state is the number of the window, and below it the count: a later window is greater, and in one window who used more.
//! A debt ends with its window.

use std::time::Duration;

use super::{CLOCK_MAX, Rate, Unfit, Verdict};

/// Bits of a state.
const BITS: u32 = 63;

#[derive(Clone, Debug)]
pub(super) struct FixedWindow {
    limit: u64,
    /// In nanoseconds.
    length: u64,
    /// Bits of the count.
    bits: u32,
}

#[derive(Clone, Copy)]
struct Count {
    window: u64,
    used: u64,
}

/// Whether the count fits beside the number of the window.
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
    BITS - window_bits(length)
}

/// Bits of the number of the last window of the clock.
pub(super) fn window_bits(length: u64) -> u32 {
    u64::BITS - (CLOCK_MAX / length).leading_zeros()
}

impl FixedWindow {
    /// What does not fit is cut to what does.
    pub fn new(rate: Rate) -> Self {
        let length = rate.nanos().min(CLOCK_MAX);
        Self { limit: rate.count().min(limit_max(length)), length, bits: count_bits(length) }
    }

    /// The state after a request, and what is said of it. Refused: the state as it was.
    pub fn take(&self, state: u64, cost: u32, now: u64) -> (u64, Verdict) {
        let count = self.read(state, now);
        let used = count.used.saturating_add(u64::from(cost));
        if used > self.limit {
            let retry_after = Duration::from_nanos(self.end(count.window).saturating_sub(now));
            return (state, Verdict { admitted: false, retry_after, ..self.verdict(count, now) });
        }
        let after = Count { used, ..count };
        (self.write(after), self.verdict(after, now))
    }

    /// What a request would be told, which is not taken.
    pub fn look(&self, state: u64, now: u64) -> Verdict {
        let (_, asked) = self.take(state, 1, now);
        Verdict { admitted: asked.admitted, retry_after: asked.retry_after, ..self.verdict(self.read(state, now), now) }
    }

    /// The state after a cost that is not refused.
    pub fn charge(&self, state: u64, cost: u32, now: u64) -> u64 {
        let count = self.read(state, now);
        self.write(Count { used: count.used.saturating_add(u64::from(cost)), ..count })
    }

    /// The state without a cost that it has.
    pub fn give_back(&self, state: u64, cost: u32, until: u64) -> u64 {
        let count = self.unpack(state);
        let same = self.end(count.window) == until;
        // A count that was cut has forgotten how large it was.
        if same && count.used < self.used_max() {
            self.write(Count { used: count.used.saturating_sub(u64::from(cost)), ..count })
        } else {
            state
        }
    }

    pub fn used(&self, state: u64, now: u64) -> u64 {
        self.read(state, now).used
    }

    /// The count of the window that it is now. One that began later than `now` on another thread's clock has begun.
    fn read(&self, state: u64, now: u64) -> Count {
        let (count, window) = (self.unpack(state), now / self.length);
        if count.window >= window { count } else { Count { window, used: 0 } }
    }

    fn unpack(&self, state: u64) -> Count {
        Count { window: state >> self.bits, used: state & self.used_max() }
    }

    fn write(&self, count: Count) -> u64 {
        count.window << self.bits | count.used.min(self.used_max())
    }

    fn used_max(&self) -> u64 {
        (1 << self.bits) - 1
    }

    fn end(&self, window: u64) -> u64 {
        (window + 1).saturating_mul(self.length)
    }

    fn reset(&self, count: Count, now: u64) -> Duration {
        Duration::from_nanos(if count.used == 0 { 0 } else { self.end(count.window).saturating_sub(now) })
    }

    /// Of a request that is admitted and leaves this count.
    fn verdict(&self, count: Count, now: u64) -> Verdict {
        Verdict {
            admitted: true,
            limit: self.limit,
            remaining: self.limit.saturating_sub(count.used),
            reset: self.reset(count, now),
            retry_after: Duration::ZERO,
            wait: Duration::ZERO,
            until: self.end(count.window),
        }
    }
}
