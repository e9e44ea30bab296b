//! Shares that nodes hold, in the order in which they end; what is left of one then is given back.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::Ordering::{AcqRel, Release},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::entry::{Entry, TERM};
use crate::limit::fleet::{
    figures::count_many,
    script::{Deed, Question, Words},
    store::Store,
};

/// The shares of one store.
#[derive(Default)]
pub struct Outstanding(Mutex<VecDeque<Share>>);

struct Share {
    ends: Instant,
    entry: Arc<Entry>,
    words: Words,
}

impl Outstanding {
    /// To be called when a share was granted, also in addition to one.
    pub fn add(&self, entry: &Arc<Entry>, words: &Words) {
        entry.renewed.store(true, Release);
        self.list(entry, words);
    }

    fn list(&self, entry: &Arc<Entry>, words: &Words) {
        if !entry.listed.swap(true, AcqRel) {
            let ends = Instant::now() + Duration::from_nanos(TERM);
            self.all().push_back(Share { ends, entry: entry.clone(), words: words.clone() });
        }
    }

    /// Gives back what is left of shares that ended.
    pub fn settle(&self, store: &Arc<Store>) {
        for Share { entry, words, .. } in self.ended() {
            entry.listed.store(false, Release);
            if entry.renewed.swap(false, AcqRel) {
                self.list(&entry, &words);
                continue;
            }
            let rest = entry.revoke();
            if rest > 0 {
                count_many(&store.figures.returned, rest);
                tokio::spawn(give_back(store.clone(), entry, words, rest));
            }
        }
    }

    fn ended(&self) -> Vec<Share> {
        let (now, mut all) = (Instant::now(), self.all());
        let ended = all.iter().take_while(|share| share.ends <= now).count();
        all.drain(..ended).collect()
    }

    fn all(&self) -> std::sync::MutexGuard<'_, VecDeque<Share>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the store does not learn now, it learns with the next share.
async fn give_back(store: Arc<Store>, entry: Arc<Entry>, words: Words, rest: u64) {
    let owed = -i64::try_from(rest).unwrap_or(0);
    if store.ask(Deed::Lease, &[Question { key: &entry.key, words: &words, cost: 0, owed }]).await.is_err() {
        entry.owe(owed);
    }
}
