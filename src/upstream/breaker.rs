//! The circuit breaker: a service that fails too much, or is too slow, is left alone for a while and then probed.
//!
//! All of its state is one word, which changes by comparison and exchange: whoever changes it tells of it, so each change is told once. A
//! request that passes costs one load, its end two or three additions. Shares are taken when a request fails or is slow: no good
//! answer opens it. Times are nanoseconds of one monotonic clock.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed},
    },
    time::Duration,
};

use super::{
    ended::{Conditions, Ended},
    sliding::Sliding,
};
use crate::{config::upstream::Breaker as Config, units::Percent};

use word::{Mode, Word};

#[cfg(test)]
mod tests;
mod word;

/// Cells of a window: its shares are of the last nine to ten tenths.
const CELLS: usize = 10;

/// How soon to ask again while the probes of others are out, if `open_for` is not sooner.
const PROBED_SOON: u64 = 1_000_000_000;

/// A compiled `breaker`.
pub struct Breaker {
    rules: Rules,
    state: Arc<State>,
    told: Told,
}

/// Hears of each change once. Called by the request that brings it about, so it must be quick.
pub type Told = Box<dyn Fn(Turn) + Send + Sync>;

#[derive(Clone, PartialEq, Debug)]
struct Rules {
    failures: Conditions,
    error_rate: Percent,
    slow_rate: Option<Percent>,
    /// `u64::MAX`: nothing is slow.
    slower_than: u64,
    window: u64,
    min_requests: u64,
    open_for: u64,
    probes: u16,
}

/// What is known of the service. Kept over reloads that leave the breaker's configuration as it is.
#[derive(Debug)]
struct State {
    word: AtomicU64,
    /// It is open until then. Only grows; says nothing when it is not open.
    until: AtomicU64,
    requests: Sliding,
    failed: Sliding,
    slow: Sliding,
}

/// A change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Turn {
    /// It opens, because of these counts: of the window, or of the probes.
    Opens(Counts),
    /// The first probe goes.
    Probes,
    /// The probes went well.
    Closes,
}

/// What shares are taken of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    pub requests: u64,
    pub failed: u64,
    pub slow: u64,
}

/// A request may go. To be given back with its end: [`Breaker::end`], or [`Breaker::abandon`] if nothing was learnt.
#[derive(PartialEq, Eq, Debug)]
#[must_use = "a probe that is not given back is waited for"]
pub struct Pass {
    round: u32,
    probes: bool,
}

impl Pass {
    /// Whether it finds out if the service has recovered.
    #[cfg(test)]
    pub const fn is_probe(&self) -> bool {
        self.probes
    }
}

/// The service is left alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Open {
    /// For so long.
    pub retry_after: Duration,
}

/// What is to be seen of a breaker from outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum View {
    Closed(Counts),
    Open { left: Duration },
    Probing { sent: u16, ended: u16 },
}

impl Breaker {
    /// A closed one; or one in the state of its predecessor, if it goes by the same rules.
    pub fn new(config: &Config, before: Option<&Self>, told: Told) -> Self {
        let rules = Rules::of(config);
        let kept = before.filter(|before| before.rules == rules).map(|before| before.state.clone());
        let state = kept.unwrap_or_else(|| Arc::new(State::new(rules.window)));
        Self { rules, state, told }
    }

    /// Asks whether a request may go.
    ///
    /// # Errors
    /// It may not: the breaker is open, or enough probes are out.
    pub fn admit(&self, now: u64) -> Result<Pass, Open> {
        loop {
            let word = self.word();
            let next = match word.mode() {
                Mode::Closed => return Ok(Pass { round: word.round(), probes: false }),
                Mode::Open => word.probing(),
                Mode::Probing => word,
            };
            if self.is_shut_in(word, now) {
                return Err(self.open(word, now));
            }
            let next = next.sent();
            if self.exchange(word, next) {
                if word.mode() == Mode::Open {
                    (self.told)(Turn::Probes);
                }
                return Ok(Pass { round: next.round(), probes: true });
            }
        }
    }

    /// Whether [`admit`](Self::admit) would refuse now.
    pub fn is_shut(&self, now: u64) -> bool {
        self.is_shut_in(self.word(), now)
    }

    /// Takes in how a request ended, so many nanoseconds after it had gone.
    pub fn end(&self, pass: Pass, ended: Ended, took: u64, now: u64) {
        let (failed, slow) = (self.rules.failures.covers(ended), took > self.rules.slower_than);
        match pass.probes {
            true => self.end_probe(&pass, failed, slow, now),
            false => self.end_request(&pass, failed, slow, now),
        }
    }

    /// Nothing was learnt of a request: it never went, or its client left. A probe's place is free for another.
    pub fn abandon(&self, pass: Pass) {
        let mut word = self.word();
        while pass.probes && word.is_probing_in(pass.round) && !self.exchange(word, word.unsent()) {
            word = self.word();
        }
    }

    pub fn view(&self, now: u64) -> View {
        let word = self.word();
        match word.mode() {
            Mode::Closed => View::Closed(self.counts(now)),
            Mode::Open => View::Open { left: Duration::from_nanos(self.left(now)) },
            Mode::Probing => View::Probing { sent: word.sent_count(), ended: word.ended_count() },
        }
    }

    fn end_request(&self, pass: &Pass, failed: bool, slow: bool, now: u64) {
        let word = self.word();
        // What began before the breaker opened says nothing of the service after that.
        if word.mode() != Mode::Closed || word.round() != pass.round {
            return;
        }
        self.state.requests.add(now, 1);
        if failed {
            self.state.failed.add(now, 1);
        }
        if slow {
            self.state.slow.add(now, 1);
        }
        if failed || slow {
            self.judge(word, now);
        }
    }

    fn judge(&self, word: Word, now: u64) {
        let counts = self.counts(now);
        if counts.requests >= self.rules.min_requests && self.rules.are_broken_by(counts, counts.requests) {
            self.trip(word, counts, now);
        }
    }

    fn end_probe(&self, pass: &Pass, failed: bool, slow: bool, now: u64) {
        loop {
            let word = self.word();
            if !word.is_probing_in(pass.round) {
                return;
            }
            let next = word.ended(failed, slow);
            let counts = next.counts();
            let done = if self.rules.are_broken_by(counts, u64::from(self.rules.probes)) {
                self.trip(word, counts, now)
            } else if next.ended_count() >= self.rules.probes {
                self.close(word)
            } else {
                self.exchange(word, next)
            };
            if done {
                return;
            }
        }
    }

    fn trip(&self, word: Word, counts: Counts, now: u64) -> bool {
        // Before the word says so; that another thread may set it a little later does no harm.
        self.state.until.fetch_max(now.saturating_add(self.rules.open_for), Relaxed);
        let opens = self.exchange(word, word.open());
        if opens {
            (self.told)(Turn::Opens(counts));
        }
        opens
    }

    fn close(&self, word: Word) -> bool {
        // Nothing is counted while it is not closed.
        [&self.state.requests, &self.state.failed, &self.state.slow].into_iter().for_each(Sliding::clear);
        let closes = self.exchange(word, word.closed());
        if closes {
            (self.told)(Turn::Closes);
        }
        closes
    }

    fn is_shut_in(&self, word: Word, now: u64) -> bool {
        match word.mode() {
            Mode::Closed => false,
            Mode::Open => self.left(now) > 0,
            Mode::Probing => word.sent_count() >= self.rules.probes,
        }
    }

    fn open(&self, word: Word, now: u64) -> Open {
        let left = match word.mode() {
            Mode::Open => self.left(now),
            _ => self.rules.open_for.min(PROBED_SOON),
        };
        Open { retry_after: Duration::from_nanos(left) }
    }

    fn left(&self, now: u64) -> u64 {
        self.state.until.load(Relaxed).saturating_sub(now)
    }

    fn counts(&self, now: u64) -> Counts {
        let State { requests, failed, slow, .. } = &*self.state;
        Counts { requests: requests.sum(now), failed: failed.sum(now), slow: slow.sum(now) }
    }

    fn word(&self) -> Word {
        Word(self.state.word.load(Acquire))
    }

    fn exchange(&self, word: Word, next: Word) -> bool {
        self.state.word.compare_exchange(word.0, next.0, AcqRel, Relaxed).is_ok()
    }
}

impl Rules {
    fn of(config: &Config) -> Self {
        let nanos = |duration: crate::units::Duration| duration.as_std().as_nanos() as u64;
        Self {
            failures: Conditions::of(&config.failures),
            error_rate: config.error_rate,
            slow_rate: config.slow_rate,
            slower_than: config.slower_than.map_or(u64::MAX, nanos),
            window: nanos(config.window),
            min_requests: u64::from(config.min_requests.get()),
            open_for: nanos(config.open_for),
            probes: config.probes.get().min(crate::config::upstream::PROBES_MAX),
        }
    }

    /// Whether the counts reach a share of so many.
    fn are_broken_by(&self, counts: Counts, of: u64) -> bool {
        let slow = self.slow_rate.is_some_and(|rate| counts.slow > 0 && rate.is_reached(counts.slow, of));
        slow || counts.failed > 0 && self.error_rate.is_reached(counts.failed, of)
    }
}

impl State {
    fn new(window: u64) -> Self {
        let sliding = || Sliding::new(window / CELLS as u64, CELLS);
        Self { word: AtomicU64::new(0), until: AtomicU64::new(0), requests: sliding(), failed: sliding(), slow: sliding() }
    }
}

impl fmt::Debug for Breaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Breaker").field("rules", &self.rules).field("state", &self.state).finish_non_exhaustive()
    }
}
