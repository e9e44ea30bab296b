//! What the algorithms should do, said as simply as can be: from the list of all that was ever counted, in whole numbers.

use super::super::{Algorithm, Rate};

/// What was counted, in the order of its time. What is given back is taken out of the list, as if it had never been.
#[derive(Default)]
pub struct Model {
    counted: Vec<One>,
    numbered: usize,
}

struct One {
    number: usize,
    at: u64,
    cost: u64,
}

/// How much was used, times the length of the rate: so that nothing is rounded.
pub type Scaled = u128;

impl Model {
    /// The number by which it can be taken out.
    pub fn count(&mut self, at: u64, cost: u32) -> usize {
        self.numbered += 1;
        self.counted.push(One { number: self.numbered, at, cost: u64::from(cost) });
        self.numbered
    }

    pub fn take_out(&mut self, number: usize) {
        self.counted.retain(|one| one.number != number);
    }

    /// Nothing was counted after it.
    pub fn is_last(&self, number: usize) -> bool {
        self.counted.last().is_some_and(|last| last.number == number)
    }

    /// The sum of costs at or after a time and before another.
    fn between(&self, from: u64, to: u64) -> u128 {
        self.counted.iter().filter(|one| (from..to).contains(&one.at)).map(|one| u128::from(one.cost)).sum()
    }

    pub fn used(&self, algorithm: &Algorithm, rate: Rate, now: u64) -> Scaled {
        let (per, start) = (u128::from(rate.nanos()), now / rate.nanos() * rate.nanos());
        match algorithm {
            Algorithm::TokenBucket | Algorithm::LeakyBucket { .. } => self.in_bucket(rate, now),
            Algorithm::FixedWindow => self.between(start, start + rate.nanos()) * per,
            Algorithm::SlidingWindow => {
                let left = u128::from(start + rate.nanos() - now);
                let last = if start == 0 { 0 } else { self.between(start - rate.nanos(), start) };
                self.between(start, start + rate.nanos()) * per + last * left
            }
        }
    }

    /// A bucket that leaks `count` in each `per`.
    fn in_bucket(&self, rate: Rate, now: u64) -> Scaled {
        let leak = |level: u128, from: u64, to: u64| {
            level.saturating_sub(u128::from(to.saturating_sub(from)) * u128::from(rate.count()))
        };
        let (level, last) = self.counted.iter().fold((0, 0), |(level, last), one| {
            (leak(level, last, one.at) + u128::from(one.cost) * u128::from(rate.nanos()), one.at)
        });
        leak(level, last, now)
    }
}

/// The most that may be used.
pub fn most(algorithm: &Algorithm, rate: Rate, burst: u64) -> Scaled {
    let burst = u128::from(burst) * u128::from(rate.nanos());
    match algorithm {
        Algorithm::LeakyBucket { max_delay } => burst + max_delay.as_nanos() * u128::from(rate.count()),
        _ => burst,
    }
}
