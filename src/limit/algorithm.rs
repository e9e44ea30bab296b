//! How a limit counts, and which rates that can count.

use std::time::Duration;

use super::{Rate, bucket, fixed_window, sliding_window};

/// How a limit counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Algorithm {
    /// A bucket of `burst` tokens that fills evenly at the rate.
    TokenBucket,
    /// A queue that is served evenly at the rate: beyond `burst` a request waits for its turn, for `max_delay` at most.
    LeakyBucket { max_delay: Duration },
    /// The count of this window, and of the last one as much as the window that ends now still covers of it.
    SlidingWindow,
    /// The count of this window. Windows begin at multiples of their length on the caller's clock.
    FixedWindow,
}

/// An algorithm cannot count what is asked of it. Each says what would fit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unfit {
    /// The rate is over one in a nanosecond, or over this count in its window.
    Rate { most: u64 },
    /// The burst is nothing, or takes so long to come again that it cannot be told from for ever.
    Burst { most: u64 },
    /// The window is longer.
    Window { longest: Duration },
    /// The delay is longer.
    Delay { longest: Duration },
    /// Windows have no burst of their own: it must be the rate's count.
    NoBurst,
}

impl Algorithm {
    /// Whether a state of one word can count this. What does not fit must be refused when it is configured.
    ///
    /// # Errors
    /// It does not fit.
    pub fn fits(&self, rate: Rate, burst: u64) -> Result<(), Unfit> {
        match *self {
            Self::TokenBucket => bucket::fits(rate, burst, Duration::ZERO),
            Self::LeakyBucket { max_delay } => bucket::fits(rate, burst, max_delay),
            Self::SlidingWindow => sliding_window::fits(rate).and_then(|()| no_burst(rate, burst)),
            Self::FixedWindow => fixed_window::fits(rate).and_then(|()| no_burst(rate, burst)),
        }
    }
}

fn no_burst(rate: Rate, burst: u64) -> Result<(), Unfit> {
    if burst == rate.count() { Ok(()) } else { Err(Unfit::NoBurst) }
}
