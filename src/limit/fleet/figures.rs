//! What a store counts of itself, read when somebody asks for metrics.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Counters of one store.
#[derive(Debug, Default)]
pub struct Figures {
    pub latency: Histogram,
    pub slow: AtomicU64,
    pub gone: AtomicU64,
    pub busy: AtomicU64,
    pub refused: AtomicU64,
    /// Not asked, because it did not answer before.
    pub not_asked: AtomicU64,
    /// Refusals that were remembered.
    pub remembered: AtomicU64,
    pub leases: AtomicU64,
    /// Requests that leases are for.
    pub leased: AtomicU64,
    /// Of them, those given back.
    pub returned: AtomicU64,
    /// Admitted before the store was asked.
    pub on_credit: AtomicU64,
    /// Connections made, the first ones too.
    pub connects: AtomicU64,
}

/// Answers by how long they took.
#[derive(Debug, Default)]
pub struct Histogram {
    counts: [AtomicU64; BOUNDS.len() + 1],
    micros: AtomicU64,
}

/// Upper bounds, in microseconds.
pub const BOUNDS: [u64; 10] = [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 20_000, 50_000, 100_000];

impl Histogram {
    pub fn observe(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let index = BOUNDS.iter().position(|bound| micros <= *bound).unwrap_or(BOUNDS.len());
        if let Some(count) = self.counts.get(index) {
            count.fetch_add(1, Relaxed);
        }
        self.micros.fetch_add(micros, Relaxed);
    }

    /// How many took so long at most, by upper bound in seconds.
    pub fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> {
        let bounds = BOUNDS.iter().map(|micros| *micros as f64 / 1e6).chain([f64::INFINITY]);
        let mut sum = 0;
        bounds.zip(&self.counts).map(move |(bound, count)| {
            sum += count.load(Relaxed);
            (bound, sum)
        })
    }

    pub fn seconds(&self) -> f64 {
        self.micros.load(Relaxed) as f64 / 1e6
    }
}

/// Counts one more.
pub fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

/// Counts some more.
pub fn count_many(counter: &AtomicU64, many: u64) {
    counter.fetch_add(many, Relaxed);
}
