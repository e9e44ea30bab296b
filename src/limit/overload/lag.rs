//! How long a task waits for its turn on the threads that carry traffic.
//!
//! As CoDel does with packets (RFC 8289), it is the least wait of an interval that counts: a burst makes some wait, and only if all do is there more work than
//! can be done.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

/// How often a task waits for its turn.
const EVERY: Duration = Duration::from_millis(20);

/// What a timer is late on threads that have nothing else to do: it counts in milliseconds.
const TIMER: Duration = Duration::from_millis(1);

/// No wait was measured.
const NONE: u64 = u64::MAX;

/// The least wait since it was last asked for, in microseconds.
#[derive(Debug)]
pub struct Lag {
    least: AtomicU64,
    /// When a task last had its turn, in microseconds since the start; zero: never.
    turn: AtomicU64,
    since: Instant,
}

impl Default for Lag {
    fn default() -> Self {
        Self { least: AtomicU64::new(NONE), turn: AtomicU64::new(0), since: Instant::now() }
    }
}

impl Lag {
    /// Measures, on the runtime that this is polled on, for ever.
    pub async fn measure(&self) {
        loop {
            let asked = Instant::now();
            tokio::time::sleep(EVERY).await;
            self.note(asked.elapsed().saturating_sub(EVERY + TIMER));
        }
    }

    fn note(&self, wait: Duration) {
        self.least.fetch_min(micros(wait), Relaxed);
        self.turn.store(micros(self.since.elapsed()).max(1), Relaxed);
    }

    /// The least wait since the last time. If no task had its turn since, the wait of the one that is due. None: nothing is measured.
    pub fn take(&self) -> Option<Duration> {
        let (least, turn) = (self.least.swap(NONE, Relaxed), self.turn.load(Relaxed));
        match (least, turn) {
            (_, 0) => None,
            (NONE, turn) => Some((self.since.elapsed().saturating_sub(Duration::from_micros(turn))).saturating_sub(EVERY)),
            (least, _) => Some(Duration::from_micros(least)),
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(NONE - 1)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, mpsc};

    use super::*;

    #[test]
    fn the_least_wait_counts_and_is_told_once() {
        let lag = Lag::default();
        assert_eq!(lag.take(), None, "nothing was measured");
        for millis in [70, 30, 50] {
            lag.note(Duration::from_millis(millis));
        }
        assert_eq!(lag.take(), Some(Duration::from_millis(30)));
        assert!(lag.take().unwrap() < Duration::from_millis(30));
    }

    #[test]
    fn threads_that_are_stuck_are_late_though_nothing_is_measured() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let lag = Arc::new(Lag::default());
        let measured = lag.clone();
        runtime.spawn(async move { measured.measure().await });
        let calm = std::iter::repeat_with(|| lag.take()).find_map(|lag| lag.filter(|lag| *lag < Duration::from_millis(5)));
        assert!(calm.is_some());
        let (stick, stuck) = mpsc::channel::<()>();
        runtime.spawn(async move { stuck.recv().unwrap() });
        while lag.take().unwrap() < Duration::from_millis(60) {
            std::thread::yield_now();
        }
        stick.send(()).unwrap();
        while lag.take().unwrap() > Duration::from_millis(20) {
            std::thread::yield_now();
        }
    }
}
