//! The keys of an issuer through time: read once, or fetched in the background and fetched again.
//!
//! One task a key set asks the issuer, so there is never more than one question under way. While the issuer cannot be reached, what it
//! last said is in force; what it then leaves out is withdrawn at once.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime},
};

use arc_swap::ArcSwapOption;
use tokio::{
    sync::{Notify, watch},
    time::{timeout, timeout_at},
};

use super::{fetch::Place, key_set::KeySet};
use crate::identity::{outgoing::Outgoing, token::Moment};

/// The keys in force, and how they are kept so.
pub struct Keys {
    name: Box<str>,
    /// `None`: the issuer was never reached.
    current: ArcSwapOption<KeySet>,
    source: Option<Source>,
    started: AtomicBool,
    rounds: watch::Sender<Round>,
    /// Somebody holds a token whose key is not known, or the keys are wanted no longer.
    demand: Arc<Notify>,
    withdrawals: AtomicU64,
    figures: Figures,
}

/// Where keys come from, and how often.
pub struct Source {
    pub place: Place,
    pub outgoing: Outgoing,
    pub pace: Pace,
}

/// When keys are asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pace {
    /// From one good answer to the next question.
    pub refresh: Duration,
    /// After a failure: doubled each time, up to a minute, or `refresh` if that is less.
    pub retry: Duration,
    /// Least time from an answer to a question that a token with an unknown key gives rise to.
    pub unknown: Duration,
    /// Longest that a request waits for an answer. The question goes on.
    pub patience: Duration,
}

/// Longest wait after a failure.
const RETRY_MAX: Duration = Duration::from_secs(60);

impl Pace {
    /// The usual, with a question each `refresh`.
    pub fn every(refresh: Duration) -> Self {
        let seconds = Duration::from_secs;
        Self { refresh, retry: seconds(1), unknown: seconds(10).min(refresh), patience: seconds(5) }
    }

    fn after(self, failures: u32) -> Duration {
        match failures {
            0 => self.refresh,
            n => self.retry.saturating_mul(1 << (n - 1).min(16)).min(RETRY_MAX).min(self.refresh),
        }
    }
}

/// One question to the issuer.
#[derive(Clone, Copy, Debug, Default)]
struct Round {
    /// How many have ended.
    ended: u64,
    under_way: bool,
    last: Option<Instant>,
}

/// What is counted of a key set.
#[derive(Debug, Default)]
struct Figures {
    fetched: AtomicU64,
    failed: AtomicU64,
    /// When the issuer last answered well, in seconds since 1970; 0 for never.
    good: AtomicU64,
}

/// What is known of a key set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Status {
    pub keys: usize,
    pub fetched: u64,
    pub failed: u64,
    /// When the issuer last answered well, in seconds since 1970. `None`: never, or it is not asked.
    pub good: Option<u64>,
}

impl Keys {
    /// Keys that stay as they are.
    pub fn fixed(name: &str, keys: KeySet) -> Arc<Self> {
        Self::new(name, Some(keys), None)
    }

    /// Keys that an issuer publishes. Nothing is asked before [`Keys::start`].
    pub fn fetched(name: &str, source: Source) -> Arc<Self> {
        Self::new(name, None, Some(source))
    }

    fn new(name: &str, keys: Option<KeySet>, source: Option<Source>) -> Arc<Self> {
        Arc::new(Self {
            name: name.into(),
            current: ArcSwapOption::from_pointee(keys),
            source,
            started: AtomicBool::new(false),
            rounds: watch::Sender::new(Round::default()),
            demand: Arc::default(),
            withdrawals: AtomicU64::new(0),
            figures: Figures::default(),
        })
    }

    /// Begins to ask for keys, on the runtime that this is called in, until the last holder of the keys is gone. Again: does nothing.
    pub fn start(self: &Arc<Self>) {
        if self.source.is_some() && !self.started.swap(true, Relaxed) {
            self.rounds.send_modify(|round| round.under_way = true);
            tokio::spawn(keep(Arc::downgrade(self)));
        }
    }

    /// The keys in force. `None`: the issuer was never reached.
    pub fn current(&self) -> Option<Arc<KeySet>> {
        self.current.load_full()
    }

    /// Whether an issuer publishes them.
    pub fn is_fetched(&self) -> bool {
        self.source.is_some()
    }

    /// How often keys were withdrawn.
    pub fn withdrawals(&self) -> u64 {
        self.withdrawals.load(Relaxed)
    }

    /// Waits for the answer under way, or asks anew if the last is old enough. Whether there is an answer that was not there before.
    pub async fn renewed(&self) -> bool {
        let Some(source) = &self.source else { return false };
        let mut rounds = self.rounds.subscribe();
        let before = *rounds.borrow_and_update();
        if !before.under_way {
            if before.last.is_some_and(|last| last.elapsed() < source.pace.unknown) {
                return false;
            }
            self.demand.notify_one();
        }
        let ended = rounds.wait_for(|round| round.ended > before.ended);
        timeout(source.pace.patience, ended).await.is_ok_and(|round| round.is_ok())
    }

    pub fn status(&self) -> Status {
        let good = self.figures.good.load(Relaxed);
        Status {
            keys: self.current.load().as_ref().map_or(0, |set| set.len()),
            fetched: self.figures.fetched.load(Relaxed),
            failed: self.figures.failed.load(Relaxed),
            good: (good > 0).then_some(good),
        }
    }

    /// Whether the issuer was asked once, however it answered.
    pub fn was_asked(&self) -> bool {
        self.source.is_none() || self.rounds.borrow().ended > 0
    }

    /// Asks the issuer, once. Whether it answered well.
    async fn ask(&self, source: &Source) -> bool {
        self.rounds.send_modify(|round| round.under_way = true);
        let good = match source.place.keys(&source.outgoing).await {
            Ok(set) => {
                self.publish(set);
                true
            }
            Err(error) => {
                self.figures.failed.fetch_add(1, Relaxed);
                let kept = self.current.load().is_some();
                tracing::warn!(identity = %self.name, %error, kept, "keys were not renewed");
                false
            }
        };
        self.rounds.send_modify(|round| *round = Round { ended: round.ended + 1, under_way: false, last: Some(Instant::now()) });
        good
    }

    fn publish(&self, set: KeySet) {
        let before = self.current.load_full().unwrap_or_default();
        for (index, error) in set.left_out() {
            tracing::debug!(identity = %self.name, key = index, %error, "a key of the set is left out");
        }
        let (new, gone) = (before.lacks(&set), set.lacks(&before));
        let set = set.in_place_of(&before);
        if new + gone > 0 {
            tracing::info!(identity = %self.name, keys = set.len(), new, withdrawn = gone, "keys have changed");
        }
        self.current.store(Some(Arc::new(set)));
        if gone > 0 {
            self.withdrawals.fetch_add(1, Relaxed);
        }
        self.figures.fetched.fetch_add(1, Relaxed);
        self.figures.good.store(Moment::from(SystemTime::now()).seconds(), Relaxed);
    }
}

/// The task ends soon after the keys are wanted no longer.
impl Drop for Keys {
    fn drop(&mut self) {
        self.demand.notify_one();
    }
}

async fn keep(keys: Weak<Keys>) {
    let mut failures = 0;
    loop {
        let Some(strong) = keys.upgrade() else { return };
        let Some(source) = &strong.source else { return };
        failures = if strong.ask(source).await { 0 } else { failures + 1 };
        let (pace, demand) = (source.pace, strong.demand.clone());
        drop(strong);
        rest(&keys, &demand, pace.after(failures), pace.unknown).await;
    }
}

/// Waits until it is time to ask again, or until somebody wants to know and the last answer is old enough, or nobody wants the keys.
async fn rest(keys: &Weak<Keys>, demand: &Notify, pause: Duration, unknown: Duration) {
    let answered = Instant::now();
    let deadline = tokio::time::Instant::now() + pause;
    while timeout_at(deadline, demand.notified()).await.is_ok() {
        // Several may have asked for the answer that one of them got.
        let last = keys.upgrade().map(|keys| keys.rounds.borrow().last.unwrap_or(answered));
        if last.is_none_or(|last| last.elapsed() >= unknown) {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
