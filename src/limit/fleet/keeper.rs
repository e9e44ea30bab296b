//! Keeps a store's connections: connects, asks a question of its own each second, and puts a part that did not answer back in force
//! when it does.

use std::{
    sync::{Arc, Weak, atomic::Ordering::Relaxed},
    time::Duration,
};

use super::{
    breaker,
    figures::count,
    link::{self, Connection},
    script::{Question, Words},
    store::{Store, Unanswered},
};

/// How often a store that answers is asked, so that a connection that broke in silence is found before a request finds it.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Waits between attempts at one that does not: doubled each time, between these.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// Attempts on the same connections, after which they are made anew.
const ATTEMPTS: u32 = 2;

/// How often leases that ended are looked for.
pub const SWEEP: Duration = Duration::from_millis(100);

pub async fn keep(store: Weak<Store>) {
    let mut keeper = Keeper::default();
    while let Some(strong) = store.upgrade() {
        let pause = keeper.visit(&strong).await;
        strong.tried.store(true, Relaxed);
        let until = tokio::time::Instant::now() + pause;
        while tokio::time::Instant::now() < until {
            strong.outstanding.settle(&strong);
            let next = until.min(tokio::time::Instant::now() + SWEEP);
            tokio::select! {
                () = tokio::time::sleep_until(next) => {}
                () = strong.trouble.notified() => break,
            }
            if Arc::strong_count(&strong) == 1 {
                break;
            }
        }
    }
}

#[derive(Default)]
struct Keeper {
    failures: u32,
    /// The connections are of no use. They are replaced when there are others.
    stale: bool,
    /// The connections were made where requests are served.
    at_home: bool,
    /// The part whose turn it is to be asked.
    next: usize,
    /// A key in each part, found when it is first needed.
    keys: Vec<String>,
}

impl Keeper {
    /// Gives how long to wait before the next visit.
    async fn visit(&mut self, store: &Arc<Store>) -> Duration {
        if self.look_after(store).await {
            self.failures = 0;
            return HEARTBEAT;
        }
        self.failures += 1;
        // A cluster's connections find their way themselves, as long as any part answers.
        self.stale |= self.failures.is_multiple_of(ATTEMPTS) && store.open_share() == 1.0;
        RETRY_MAX.min(RETRY_MIN * 2u32.pow(self.failures.min(8) - 1))
    }

    /// Gives whether all of it answers.
    async fn look_after(&mut self, store: &Arc<Store>) -> bool {
        let moved = store.home.get().is_some() && !self.at_home;
        if self.stale || moved || !store.is_connected() {
            self.at_home = store.home.get().is_some();
            if !connect(store).await {
                return false;
            }
            self.stale = false;
        }
        let open: Vec<_> = store.breakers.open().collect();
        if open.is_empty() {
            self.next = (self.next + 1) % store.breakers.len();
            return self.ask(store, self.next).await;
        }
        let mut all = true;
        for part in open {
            all &= self.ask(store, part).await;
        }
        all
    }

    async fn ask(&mut self, store: &Arc<Store>, part: usize) -> bool {
        if self.keys.is_empty() {
            self.keys = keys(&store.settings().prefix, store.breakers.len());
        }
        let (Some(key), Some(breaker)) = (self.keys.get(part), store.breakers.at(part)) else { return true };
        // What a request would ask, so that a server which only answers to PING does not pass.
        let words = Words { kind: "b", pace: "1".to_owned(), most: "1000000".to_owned() };
        let answer = store.probe(Question { key, words: &words, cost: 1, owed: 0 }).await;
        match answer {
            Ok(()) => {
                if breaker.close() {
                    tracing::info!("a store of limits answers");
                }
            }
            Err(Unanswered::Gone) => {
                self.stale |= !store.is_cluster();
                breaker.trip();
            }
            Err(_) => drop(breaker.failed()),
        }
        answer.is_ok()
    }
}

/// Replaces the connections, if others can be had.
async fn connect(store: &Arc<Store>) -> bool {
    let dialled = match store.home.get() {
        // Where nobody serves any more, there is nobody to ask either.
        Some(home) => home.spawn(dial(store.clone())).await.ok().flatten(),
        None => dial(store.clone()).await,
    };
    let is_there = dialled.is_some();
    dialled.into_iter().for_each(|connections| store.put(connections));
    is_there
}

async fn dial(store: Arc<Store>) -> Option<Vec<Connection>> {
    let mut connections = Vec::new();
    for _ in 0..store.settings().connections {
        let dialled = store.dialler.connect().await;
        let told = |error: &redis::RedisError| tracing::debug!(error = link::told(error), "a store of limits cannot be reached");
        connections.push(dialled.inspect_err(told).ok()?);
        count(&store.figures.connects);
    }
    Some(connections)
}

/// A key for each part.
fn keys(prefix: &str, parts: usize) -> Vec<String> {
    let mut keys = vec![String::new(); parts];
    let candidates = (0..).map(|number: u64| format!("{{{prefix}:probe:{number}}}"));
    for key in candidates {
        let part = if parts == 1 { 0 } else { breaker::part(&key) };
        if let Some(free) = keys.get_mut(part).filter(|key| key.is_empty()) {
            *free = key;
        }
        if keys.iter().all(|key| !key.is_empty()) {
            break;
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_of_a_cluster_has_a_key_to_be_asked_by() {
        let keys = keys("banyan", 64);
        assert!(keys.iter().enumerate().all(|(index, key)| breaker::part(key) == index));
    }
}
