//! Token bucket and leaky bucket, by the exact Generic Cell Rate Algorithm (ITU-T I.371, virtual scheduling).
//!
//! The state is the theoretical arrival time (TAT): when the bucket is full again, or the queue is empty. It is in ticks, of which
//! a token has a whole number, so that nothing is rounded from request to request: only the clock is, by less than a nanosecond.

use std::time::Duration;

use super::{Algorithm, CLOCK_MAX, Rate, STATE_MAX, Unfit, Verdict};

/// Most ticks of burst and delay together: 36 years or more. A quarter of the state, so that no sum overflows.
const TOLERANCE_MAX: u64 = STATE_MAX / 4;

/// Most nanoseconds of a rate: nine years, as the clock has.
const PER_MAX: u64 = CLOCK_MAX;

#[derive(Clone, Debug)]
pub(super) struct Bucket {
    clock: Ticks,
    /// Ticks of a token.
    token: u64,
    /// Ticks of a whole burst.
    burst: u64,
    /// Ticks that a request may wait.
    delay: u64,
}

/// Ticks of the clock: `ticks / nanoseconds` of them in a nanosecond, between one and two.
#[derive(Clone, Copy, Debug)]
struct Ticks {
    ticks: u64,
    nanoseconds: u64,
}

/// Whether the state can hold the burst and the delay.
pub(super) fn fits(rate: Rate, burst: u64, max_delay: Duration) -> Result<(), Unfit> {
    if rate.nanos() > PER_MAX {
        return Err(Unfit::Window { longest: Duration::from_nanos(PER_MAX) });
    }
    if rate.count() > rate.nanos() {
        return Err(Unfit::Rate { most: rate.nanos() });
    }
    let delay = u64::try_from(max_delay.as_nanos()).unwrap_or(u64::MAX);
    if delay > TOLERANCE_MAX / 4 {
        return Err(Unfit::Delay { longest: Duration::from_nanos(TOLERANCE_MAX / 4) });
    }
    let most = TOLERANCE_MAX / 2 / rate.nanos().div_ceil(rate.count());
    if burst == 0 || burst > most { Err(Unfit::Burst { most }) } else { Ok(()) }
}

impl Bucket {
    /// What does not fit is cut to what does.
    pub fn new(algorithm: &Algorithm, rate: Rate, burst: u64) -> Self {
        let per = rate.nanos().min(PER_MAX);
        let count = rate.count().min(per);
        let token = per.div_ceil(count);
        let clock = Ticks::new(token * count, per);
        let delay = match algorithm {
            Algorithm::LeakyBucket { max_delay } => clock.at(u64::try_from(max_delay.as_nanos()).unwrap_or(u64::MAX)),
            _ => 0,
        };
        let burst = burst.clamp(1, TOLERANCE_MAX / 2 / token) * token;
        Self { clock, token, burst, delay: delay.min(TOLERANCE_MAX / 2) }
    }

    /// The state after a request, and what is said of it. Refused: the state as it was.
    pub fn take(&self, state: u64, cost: u32, now: u64) -> (u64, Verdict) {
        let ticks = self.clock.at(now);
        let after = self.add(state, cost, ticks);
        let most = ticks + self.burst + self.delay;
        if after > most {
            let retry_after = self.clock.span(after - most);
            return (state, Verdict { admitted: false, retry_after, ..self.verdict(state, ticks) });
        }
        let wait = self.clock.span(after.saturating_sub(ticks + self.burst));
        (after, Verdict { wait, ..self.verdict(after, ticks) })
    }

    /// What a token would be told, which is not taken.
    pub fn look(&self, state: u64, now: u64) -> Verdict {
        let (_, Verdict { admitted, retry_after, wait, .. }) = self.take(state, 1, now);
        Verdict { admitted, retry_after, wait, ..self.verdict(state, self.clock.at(now)) }
    }

    /// The state after a cost that is not refused.
    pub fn charge(&self, state: u64, cost: u32, now: u64) -> u64 {
        self.add(state, cost, self.clock.at(now))
    }

    /// The state without a cost that it has, and of which the state was `until`.
    ///
    /// If the bucket was full before, or has become so but for this cost, then part of the cost has come back by itself: to give that back
    /// again would free whoever came since. So no more than what is left to come. What others give back in between is not in `until`: of two
    /// that are under way at once and both given back, the second may free what comes in the time that both are under way, no more.
    pub fn give_back(&self, state: u64, cost: u32, until: u64, now: u64) -> u64 {
        // A debt that was cut has forgotten how large it was.
        if state == STATE_MAX {
            return state;
        }
        let left = until.saturating_sub(self.clock.at(now));
        state.saturating_sub(self.cost(cost).min(left))
    }

    /// How much is used, in ticks.
    pub fn used(&self, state: u64, now: u64) -> u64 {
        state.saturating_sub(self.clock.at(now))
    }

    fn add(&self, state: u64, cost: u32, ticks: u64) -> u64 {
        state.max(ticks).saturating_add(self.cost(cost)).min(STATE_MAX)
    }

    fn cost(&self, tokens: u32) -> u64 {
        self.token.saturating_mul(u64::from(tokens))
    }

    /// Of a request that is admitted and leaves this state.
    fn verdict(&self, state: u64, ticks: u64) -> Verdict {
        let most = self.burst + self.delay;
        let used = state.saturating_sub(ticks);
        Verdict {
            admitted: true,
            limit: most / self.token,
            remaining: most.saturating_sub(used) / self.token,
            reset: self.clock.span(used),
            retry_after: Duration::ZERO,
            wait: Duration::ZERO,
            until: state,
        }
    }
}

impl Ticks {
    fn new(ticks: u64, nanoseconds: u64) -> Self {
        let common = greatest_common_divisor(ticks, nanoseconds);
        Self { ticks: ticks / common, nanoseconds: nanoseconds / common }
    }

    /// Those that have passed at a time.
    fn at(&self, nanoseconds: u64) -> u64 {
        if self.ticks == self.nanoseconds { nanoseconds } else { scale(nanoseconds, self.ticks, self.nanoseconds) }
    }

    /// The time in which so many pass, whenever it begins.
    fn span(&self, ticks: u64) -> Duration {
        let nanoseconds = if self.ticks == self.nanoseconds { ticks } else { scale_up(ticks, self.nanoseconds, self.ticks) };
        Duration::from_nanos(nanoseconds)
    }
}

/// Rounded down.
fn scale(value: u64, by: u64, over: u64) -> u64 {
    let scaled = u128::from(value) * u128::from(by) / u128::from(over);
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

/// Rounded up.
fn scale_up(value: u64, by: u64, over: u64) -> u64 {
    let scaled = (u128::from(value) * u128::from(by)).div_ceil(u128::from(over));
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}
