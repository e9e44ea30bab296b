//! The series of limits: what each said of the requests that it judged.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use prometheus::proto::MetricFamily;

use super::family::{counters, labels};
use crate::name::RouteName;

/// Route, policy, limit and mode.
pub(super) type LimitKey = (RouteName, &'static str, String, &'static str);

/// The series of one limit on one route. A clone counts in the same series.
#[derive(Clone, Debug, Default)]
pub struct LimitMetrics(Arc<[AtomicU64; OUTCOMES.len()]>);

/// What a limit says, in the order of the series.
const OUTCOMES: [&str; 3] = ["admitted", "delayed", "refused"];

impl LimitMetrics {
    /// A request passed; one that had to wait for its turn counts apart.
    pub fn admitted(&self, wait: Duration) {
        self.count(usize::from(!wait.is_zero()));
    }

    /// A request was refused, or would have been.
    pub fn refused(&self) {
        self.count(2);
    }

    fn count(&self, outcome: usize) {
        if let Some(count) = self.0.get(outcome) {
            count.fetch_add(1, Relaxed);
        }
    }
}

/// What is counted, as of now. An outcome that never was has no series, but for the two that always are.
pub(super) fn family(limits: &BTreeMap<LimitKey, LimitMetrics>) -> MetricFamily {
    let series = limits.iter().flat_map(|((route, policy, limit, mode), counts)| {
        let outcomes = OUTCOMES.iter().zip(counts.0.iter()).map(|(word, count)| (*word, count.load(Relaxed)));
        let outcomes = outcomes.filter(|(word, count)| *word != "delayed" || *count > 0);
        outcomes.map(move |(outcome, count)| {
            let route = route.as_str();
            (
                labels([("limit", limit.as_str()), ("mode", *mode), ("outcome", outcome), ("policy", *policy), ("route", route)]),
                count as f64,
            )
        })
    });
    counters("banyan_limits_total", "Requests by what a limit said of them, by route, policy, limit, mode and outcome.", series)
}
