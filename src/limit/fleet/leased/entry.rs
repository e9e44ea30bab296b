//! What a node knows of one key, and holds of it.

use std::{
    sync::atomic::{
        AtomicBool, AtomicI64, AtomicU32, AtomicU64,
        Ordering::{AcqRel, Acquire, Relaxed, Release},
    },
    time::Duration,
};

use super::super::{law::Law, refusals::RECALL_MAX, script::Told};
use crate::limit::{Verdict, fleet::exact::nanos};

/// How long a share lasts, in nanoseconds.
pub const TERM: u64 = 1_000_000_000;

/// Longest until what is left of a share is given back, in nanoseconds. What would come after its window would free the next one.
const RETURN_MAX: u64 = 3 * TERM;

/// For how long ahead a share is meant to last, in nanoseconds.
const AHEAD: u64 = 100_000_000;

/// Bits of a share's word that count requests; the others are when it ends, in milliseconds.
const TOKEN_BITS: u32 = 24;

/// Most that one share can be.
pub const TOKENS_MAX: u64 = (1 << TOKEN_BITS) - 1;

#[derive(Debug)]
pub struct Entry {
    pub hash: u64,
    /// In the store.
    pub key: Box<str>,
    /// Until when, and how many.
    share: AtomicU64,
    /// What the last share was meant to be.
    size: AtomicU64,
    owed: AtomicI64,
    /// Somebody asks the store.
    asking: AtomicBool,
    /// It stands in the list of what is outstanding.
    pub listed: AtomicBool,
    /// It was granted more since it was looked at there.
    pub renewed: AtomicBool,
    /// What is left can be given back: the window that it is of does not end before.
    returnable: AtomicBool,
    /// When the store admits again, when all of it is there; in nanoseconds.
    retry: AtomicU64,
    recall: AtomicU64,
    reset: AtomicU64,
    /// Earliest that a further share is asked for.
    next: AtomicU64,
    remaining: AtomicU64,
    /// Requests since `since`, and as many as came in `AHEAD` before.
    used: AtomicU32,
    since: AtomicU64,
    pace: AtomicU64,
}

impl Entry {
    pub fn new(hash: u64, key: String, now: u64) -> Self {
        Self {
            hash,
            key: key.into(),
            share: AtomicU64::new(0),
            size: AtomicU64::new(0),
            owed: AtomicI64::new(0),
            asking: AtomicBool::new(false),
            listed: AtomicBool::new(false),
            renewed: AtomicBool::new(false),
            returnable: AtomicBool::new(true),
            retry: AtomicU64::new(0),
            recall: AtomicU64::new(0),
            reset: AtomicU64::new(0),
            next: AtomicU64::new(0),
            remaining: AtomicU64::new(0),
            used: AtomicU32::new(0),
            since: AtomicU64::new(now),
            pace: AtomicU64::new(0),
        }
    }

    /// Spends of the share. Gives what is left of it; None: it has not so much.
    pub fn spend(&self, cost: u32, now: u64) -> Option<u64> {
        let tokens = u64::from(cost);
        let spent = self.share.fetch_update(AcqRel, Acquire, |share| (live(share, now) >= tokens).then(|| share - tokens));
        let before = spent.ok()?;
        self.used(cost);
        Some((before & TOKENS_MAX) - tokens)
    }

    /// Half of what it was meant to be is gone.
    pub fn runs_low(&self, rest: u64) -> bool {
        rest * 2 <= self.size.load(Relaxed)
    }

    pub fn used(&self, cost: u32) {
        self.used.fetch_add(cost, Relaxed);
    }

    /// The store refused it, and would still.
    pub fn is_refused(&self, now: u64) -> bool {
        now < self.recall.load(Relaxed)
    }

    /// The store refused it when it was last asked, and is asked again now.
    pub fn is_short(&self) -> bool {
        self.retry.load(Relaxed) != 0 && self.asking.load(Relaxed)
    }

    /// The last share was not whole, so another would not be yet.
    pub fn is_told_to_wait(&self, now: u64) -> bool {
        now < self.next.load(Relaxed)
    }

    /// Admits one request on credit, if nobody asks the store and, as far as is known, it has so much. `most`: when nothing is used.
    pub fn lend(&self, cost: u32, now: u64, most: u64) -> bool {
        let left = self.left(now, most);
        let may = left >= u64::from(cost) && !self.owes() && self.ask();
        if may {
            self.remaining.store(left - u64::from(cost), Relaxed);
            self.used(cost);
            self.owe(i64::from(cost));
        }
        may
    }

    /// What the store has, as far as is known: what it said, or one more since.
    fn left(&self, now: u64, most: u64) -> u64 {
        let (remaining, retry) = (self.remaining.load(Relaxed), self.retry.load(Relaxed));
        match retry {
            _ if now >= self.reset.load(Relaxed) => most,
            0 => remaining.min(most),
            retry => u64::from(now >= retry),
        }
    }

    /// Gives whether it is the caller's turn to ask the store.
    pub fn ask(&self) -> bool {
        !self.asking.swap(true, AcqRel)
    }

    pub fn asked(&self) {
        self.asking.store(false, Release);
    }

    pub fn owe(&self, amount: i64) {
        self.owed.fetch_add(amount, AcqRel);
    }

    pub fn owes(&self) -> bool {
        self.owed.load(Acquire) != 0
    }

    pub fn take_owed(&self) -> i64 {
        self.owed.swap(0, AcqRel)
    }

    /// What a share should have more than it has: what was used of late, for a while ahead. Nothing, if that is so little that a share
    /// would end unused.
    pub fn wanted(&self, most: u64, now: u64) -> u64 {
        let since = self.since.load(Relaxed);
        let passed = now.saturating_sub(since);
        if passed >= AHEAD {
            let used = u64::from(self.used.swap(0, Relaxed));
            self.since.store(now, Relaxed);
            self.pace.store(used * AHEAD / passed, Relaxed);
        }
        let size = self.pace.load(Relaxed).max(u64::from(self.used.load(Relaxed))).min(most);
        let size = if size < 2 { 0 } else { size };
        self.size.store(size, Relaxed);
        size.saturating_sub(live(self.share.load(Acquire), now))
    }

    /// Takes in what the store says. Its times are of when it was asked, which is earlier: a share ends here before it ends there.
    pub fn granted(&self, told: &Told, law: &Law, asked: u64, now: u64) {
        let term = if law.is_window() { TERM.min(nanos(told.wait)) } else { TERM };
        let ends = (asked + term) / 1_000_000;
        if told.granted > 0 {
            self.returnable.store(!law.is_window() || nanos(told.wait) >= RETURN_MAX, Release);
        }
        let _ = self.share.fetch_update(AcqRel, Acquire, |share| {
            let tokens = (live(share, now) + told.granted).min(TOKENS_MAX);
            Some(ends << TOKEN_BITS | tokens)
        });
        if told.granted < self.size.load(Relaxed) && told.remaining == 0 {
            self.next.store(now + nanos(told.retry.max(law.pause())), Relaxed);
        }
        self.remaining.store(told.remaining, Relaxed);
        self.reset.store(now + nanos(told.reset), Relaxed);
        self.wait_until(if told.retry.is_zero() { 0 } else { now + nanos(told.retry.max(law.pause())) }, now);
    }

    /// Takes in what the store said to one request. `retry`: when even the smallest would pass, if that is known.
    pub fn learn(&self, verdict: &Verdict, retry: Option<Duration>, now: u64) {
        self.remaining.store(verdict.remaining, Relaxed);
        self.reset.store(now + nanos(verdict.reset), Relaxed);
        match retry {
            _ if verdict.admitted => self.wait_until(0, now),
            Some(retry) => self.wait_until(now + nanos(retry), now),
            None => {}
        }
    }

    fn wait_until(&self, retry: u64, now: u64) {
        self.retry.store(retry, Relaxed);
        self.recall.store(retry.min(now + RECALL_MAX), Relaxed);
    }

    pub fn retry(&self) -> u64 {
        self.retry.load(Relaxed)
    }

    pub fn reset(&self) -> u64 {
        self.reset.load(Relaxed)
    }

    pub fn remaining(&self) -> u64 {
        self.remaining.load(Relaxed)
    }

    /// Takes the share away. Gives what of it can be given back.
    pub fn revoke(&self) -> u64 {
        let rest = self.share.swap(0, AcqRel) & TOKENS_MAX;
        if self.returnable.load(Acquire) { rest } else { 0 }
    }

    /// Nothing would be lost with it: it holds nothing, owes nothing, and no refusal is known.
    pub fn is_idle(&self, now: u64) -> bool {
        live(self.share.load(Acquire), now) == 0
            && !self.owes()
            && !self.asking.load(Acquire)
            && now >= self.retry.load(Relaxed)
            && now.saturating_sub(self.since.load(Relaxed)) >= TERM
    }
}

/// What a share has now.
fn live(share: u64, now: u64) -> u64 {
    if share >> TOKEN_BITS > now / 1_000_000 { share & TOKENS_MAX } else { 0 }
}
