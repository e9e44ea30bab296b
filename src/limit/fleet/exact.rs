//! Each request is asked about: the count is one for all nodes, to the request.

use std::{fmt::Write, sync::Arc};

use sha2::{Digest, Sha256};
use tokio::{runtime::Handle, time::Instant};

use super::{
    Asked,
    figures::count,
    law::Law,
    refusals::Refusals,
    script::{Deed, Question, Told, Words},
    store::{Store, Unanswered},
};
use crate::limit::Verdict;

/// Longest key that stands in the store as it is, in bytes. Longer ones, and those with other than printable characters, stand there as a digest.
const TEXT_MAX: usize = 64;

/// A limit that the store counts.
#[derive(Debug)]
pub struct Exact {
    pub(super) store: Arc<Store>,
    pub(super) law: Law,
    pub(super) words: Words,
    /// What its keys begin with.
    scope: String,
    refusals: Refusals,
}

/// What a request takes, and what was admitted before it and nobody was told of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Debit {
    pub cost: u32,
    pub owed: i64,
}

/// One limit of a request that has several.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    pub limit: &'a Exact,
    pub key: Asked<'a>,
    pub cost: u32,
}

impl Exact {
    /// `name` is the same on every node.
    pub fn new(store: Arc<Store>, name: &str, law: Law) -> Self {
        let scope = format!("{{{}:{name}:", store.settings().prefix);
        Self { words: law.words(), scope, law, store, refusals: Refusals::new() }
    }

    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    pub(super) fn is_of(&self, store: &Arc<Store>, law: Law) -> bool {
        Arc::ptr_eq(&self.store, store) && self.law == law
    }

    /// What needs no asking: a refusal that is remembered. `now` in nanoseconds.
    pub fn try_take(&self, key: u64, now: u64) -> Option<Verdict> {
        let refused = self.refusals.recall(key, now)?;
        count(&self.store.figures.remembered);
        Some(self.law.refuses(refused.retry_after, refused.reset))
    }

    /// One hop, within the store's timeout and until the deadline at most. `now` in nanoseconds.
    ///
    /// # Errors
    /// The store did not answer in time.
    pub async fn take(&self, key: Asked<'_>, cost: u32, now: u64, deadline: Instant) -> Result<Verdict, Unanswered> {
        let debit = Debit { cost, owed: 0 };
        self.take_owing(&self.key(key.text), key.hash, debit, now, deadline).await
    }

    pub(super) async fn take_owing(
        &self,
        key: &str,
        hash: u64,
        Debit { cost, owed }: Debit,
        now: u64,
        deadline: Instant,
    ) -> Result<Verdict, Unanswered> {
        let asked = Instant::now();
        let question = Question { key, words: &self.words, cost, owed };
        let told = self.store.ask_until(deadline, Deed::Take, &[question]).await?;
        let told = told.first().ok_or(Unanswered::Refused)?;
        Ok(self.told(told, hash, cost, now + nanos(asked.elapsed())))
    }

    fn told(&self, told: &Told, hash: u64, cost: u32, now: u64) -> Verdict {
        let verdict = self.law.verdict(told, cost);
        if !verdict.admitted
            && let Some(retry) = self.law.sooner(told.retry, cost)
        {
            self.refusals.remember(hash, now, now + nanos(retry), now + nanos(told.reset));
        }
        verdict
    }

    /// Counts what was admitted before anybody asked, or gives back (negative). Nobody waits for it; a store that does not answer never
    /// learns of it.
    pub fn settle(&self, key: Asked<'_>, amount: i64) {
        if amount < 0 {
            self.refusals.forget(key.hash);
        }
        let (store, words, key) = (self.store.clone(), self.words.clone(), self.key(key.text));
        let Ok(runtime) = Handle::try_current() else { return };
        runtime.spawn(async move {
            let _ = store.ask(Deed::Lease, &[Question { key: &key, words: &words, cost: 0, owed: amount }]).await;
        });
    }

    /// The key in the store. Its braces make all of it one slot's.
    pub(super) fn key(&self, text: &str) -> String {
        let mut key = String::with_capacity(self.scope.len() + text.len().min(TEXT_MAX) + 1);
        key.push_str(&self.scope);
        match is_plain(text) {
            true => key.push_str(text),
            false => digest(text, &mut key),
        }
        key.push('}');
        key
    }
}

/// All of them or none, in one hop if one server has all of them. Gives their verdicts as far as the first that refused, or was not answered.
///
/// # Errors
/// The store did not answer in time; nothing was taken that was not given back.
pub async fn take_all(asks: &[Ask<'_>], now: u64, deadline: Instant) -> Result<Vec<Verdict>, Unanswered> {
    match asks {
        [] => Ok(Vec::new()),
        [first, rest @ ..]
            if !first.limit.store.is_cluster() && rest.iter().all(|ask| Arc::ptr_eq(&ask.limit.store, &first.limit.store)) =>
        {
            together(&first.limit.store, asks, now, deadline).await
        }
        asks => one_by_one(asks, now, deadline).await,
    }
}

async fn together(store: &Store, asks: &[Ask<'_>], now: u64, deadline: Instant) -> Result<Vec<Verdict>, Unanswered> {
    let keys: Vec<_> = asks.iter().map(|ask| ask.limit.key(ask.key.text)).collect();
    let each = asks.iter().zip(&keys);
    let questions: Vec<_> = each.map(|(ask, key)| Question { key, words: &ask.limit.words, cost: ask.cost, owed: 0 }).collect();
    let asked = Instant::now();
    let told = store.ask_until(deadline, Deed::Take, &questions).await?;
    let now = now + nanos(asked.elapsed());
    Ok(asks.iter().zip(&told).map(|(ask, told)| ask.limit.told(told, ask.key.hash, ask.cost, now)).collect())
}

async fn one_by_one(asks: &[Ask<'_>], now: u64, deadline: Instant) -> Result<Vec<Verdict>, Unanswered> {
    let mut verdicts = Vec::with_capacity(asks.len());
    for (index, ask) in asks.iter().enumerate() {
        let verdict = ask.limit.take(ask.key, ask.cost, now, deadline).await;
        if !matches!(verdict, Ok(Verdict { admitted: true, .. })) {
            asks.iter().take(index).for_each(|before| before.limit.settle(before.key, -i64::from(before.cost)));
        }
        let verdict = verdict?;
        verdicts.push(verdict);
        if !verdict.admitted {
            break;
        }
    }
    Ok(verdicts)
}

/// Whether a text can stand in a key as it is, and cannot be taken for a digest.
fn is_plain(text: &str) -> bool {
    text.len() <= TEXT_MAX
        && !text.starts_with('#')
        && text.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'{' | b'}'))
}

fn digest(text: &str, into: &mut String) {
    into.push('#');
    for byte in Sha256::digest(text.as_bytes()).iter().take(16) {
        let _ = write!(into, "{byte:02x}");
    }
}

pub(super) fn nanos(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 4)
}
