//! Shares of the budget are taken ahead, so that no request waits for the store.
//!
//! **What a request meets**, in this order: a share that this node holds (an atomic on a local entry); a refusal that is remembered, or is being asked about again; credit:
//! one request of a key is admitted while the store is asked about it in the background, and is counted there whatever is left. Only what is
//! none of them waits for the store, as in [`Exact`]: requests of a key that come while its first is asked about, or faster than shares do.
//!
//! **The bound**. A share is counted in the store before it is used, and a credit when the store is asked, so over any window of time nodes
//! admit together at most what the limit admits, and for each node the share that it held when the window began and one request on credit:
//! [`Leased::bound`]. What is admitted beyond a bucket's size is a debt, which is drained before more is admitted: on the long run it is the
//! rate. A share ends with its term, or with the window that it is of.
//!
//! **Under-service**. What a node holds is not there for others: one share a node at most, for one term; then the rest is given back. A node
//! that dies gives nothing back: of a bucket the share drains with time, of a window it is lost until the window ends.

use std::{sync::Arc, time::Duration};

use tokio::{runtime::Handle, time::Instant};

pub use self::outstanding::Outstanding;
use self::{entry::Entry, table::Table};
use super::{
    Asked,
    exact::{Debit, Exact, nanos},
    figures::{count, count_many},
    law::Law,
    refusals::left,
    script::{Deed, Question},
    store::{Store, Unanswered},
};
use crate::limit::Verdict;

mod entry;
mod outstanding;
mod table;

/// Of the most that a limit admits at once, the part that one node may hold.
const SHARE: u64 = 10;

/// When those may ask again that are refused while the store is asked.
const SOON: Duration = Duration::from_millis(1);

/// A limit of which nodes take shares.
pub struct Leased {
    limit: Arc<Shared>,
}

/// What the requests and the tasks of a limit have in common.
pub struct Shared {
    exact: Exact,
    /// Most that this node holds of one key.
    share_max: u64,
    keys: usize,
    table: Table,
}

impl std::fmt::Debug for Leased {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Leased").field("limit", &self.limit.exact).finish_non_exhaustive()
    }
}

/// What nodes may admit of a key beyond its limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bound {
    /// For each node, in requests of cost 1: what it may hold when a window begins, and one on credit.
    pub per_node: u64,
}

impl Leased {
    /// `keys`: most that are known at once; of more, requests are asked about one by one. A law that delays is counted in no shares.
    pub fn new(exact: Exact, keys: usize) -> Self {
        let share_max = (exact.law.most() / SHARE).clamp(1, entry::TOKENS_MAX);
        Self { limit: Arc::new(Shared { exact, share_max, keys, table: Table::new(keys) }) }
    }

    pub fn store(&self) -> &Arc<Store> {
        &self.limit.exact.store
    }

    pub(super) fn is_of(&self, store: &Arc<Store>, law: Law, keys: usize) -> bool {
        self.limit.exact.is_of(store, law) && self.limit.keys == keys
    }

    pub fn bound(&self) -> Bound {
        Bound { per_node: self.limit.share_max + 1 }
    }

    /// What this node can say alone. None: the store has to be asked. `now` in nanoseconds.
    pub fn try_take(&self, key: u64, text: impl FnOnce() -> String, cost: u32, now: u64) -> Option<Verdict> {
        let limit = &self.limit;
        let entry = limit.table.entry(key, now, || limit.exact.key(&text()))?;
        if let Some(rest) = entry.spend(cost, now) {
            if entry.runs_low(rest) {
                limit.ask_ahead(&entry, now);
            }
            return Some(limit.admitted(&entry, rest, now));
        }
        if entry.is_refused(now) || entry.is_short() {
            count(&limit.exact.store.figures.remembered);
            return Some(limit.refused(&entry, now));
        }
        (u64::from(cost) <= limit.share_max
            && limit.exact.store.answers(&entry.key)
            && entry.lend(cost, now, limit.exact.law.most()))
        .then(|| {
            count(&limit.exact.store.figures.on_credit);
            limit.settle_soon(&entry, now);
            limit.admitted(&entry, 0, now)
        })
    }

    /// One hop.
    ///
    /// # Errors
    /// The store did not answer in time.
    pub async fn take(&self, key: Asked<'_>, cost: u32, now: u64, deadline: Instant) -> Result<Verdict, Unanswered> {
        let limit = &self.limit;
        let Some(entry) = limit.table.find(key.hash) else {
            return limit.exact.take(key, cost, now, deadline).await;
        };
        entry.used(cost);
        let owed = entry.take_owed();
        let verdict = limit.exact.take_owing(&entry.key, key.hash, Debit { cost, owed }, now, deadline).await;
        match &verdict {
            // What is too much for a large cost may not be for a small one.
            Ok(verdict) => entry.learn(verdict, limit.exact.law.sooner(verdict.retry_after, cost), now),
            Err(_) => entry.owe(owed),
        }
        verdict
    }

    /// Counts what was admitted before anybody asked, or gives back (negative). Nobody waits for it.
    pub fn settle(&self, key: u64, text: Option<&str>, amount: i64, now: u64) {
        match self.limit.table.find(key) {
            Some(entry) => {
                entry.owe(amount);
                if entry.ask() {
                    self.limit.settle_soon(&entry, now);
                }
            }
            // What is of no entry had to be asked about, with its text.
            None => text.into_iter().for_each(|text| self.limit.exact.settle(Asked { hash: key, text }, amount)),
        }
    }
}

impl Shared {
    fn admitted(&self, entry: &Entry, rest: u64, now: u64) -> Verdict {
        self.exact.law.admits(entry.remaining() + rest, left(entry.reset(), now))
    }

    fn refused(&self, entry: &Entry, now: u64) -> Verdict {
        self.exact.law.refuses(left(entry.retry(), now).max(SOON), left(entry.reset(), now))
    }

    /// Takes the next share, unless that is under way.
    fn ask_ahead(self: &Arc<Self>, entry: &Arc<Entry>, now: u64) {
        if !entry.is_told_to_wait(now) && entry.ask() {
            self.settle_soon(entry, now);
        }
    }

    /// Asks in the background. Who calls has the entry's turn, which is given up when the store has answered.
    fn settle_soon(self: &Arc<Self>, entry: &Arc<Entry>, now: u64) {
        let Ok(runtime) = Handle::try_current() else { return entry.asked() };
        let (shared, entry) = (self.clone(), entry.clone());
        runtime.spawn(async move {
            let begun = Instant::now();
            // What came to be owed meanwhile is told too; a store that does not answer learns of it with the next share.
            loop {
                let answered = shared.lease(&entry, now + nanos(begun.elapsed())).await;
                entry.asked();
                if !(answered && entry.owes() && entry.ask()) {
                    break;
                }
            }
        });
    }

    /// Settles what is owed and takes a share. Gives whether the store answered.
    async fn lease(self: &Arc<Self>, entry: &Arc<Entry>, now: u64) -> bool {
        let (store, words) = (&self.exact.store, &self.exact.words);
        let begun = Instant::now();
        let (owed, wanted) = (entry.take_owed(), entry.wanted(self.share_max, now));
        let cost = u32::try_from(wanted).unwrap_or(u32::MAX);
        match store.ask(Deed::Lease, &[Question { key: &entry.key, words, cost, owed }]).await {
            Ok(told) => {
                let Some(told) = told.first() else { return false };
                let answered = now + nanos(begun.elapsed());
                entry.granted(told, &self.exact.law, now, answered);
                if told.granted > 0 {
                    count(&store.figures.leases);
                    count_many(&store.figures.leased, told.granted);
                    store.outstanding.add(entry, &self.exact.words);
                }
                true
            }
            Err(_) => {
                entry.owe(owed);
                false
            }
        }
    }
}
