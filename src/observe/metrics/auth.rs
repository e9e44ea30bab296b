//! The series of authentication: who was let pass by which scheme, and why the others were not.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use prometheus::proto::MetricFamily;

use super::family::{counters, labels};
use crate::{caller::Reason, name::RouteName};

/// Route, scheme and mode.
pub(super) type Key = (RouteName, &'static str, &'static str);

/// The series of one scheme on one route. A clone counts in the same series.
#[derive(Clone, Debug, Default)]
pub struct AuthMetrics(Arc<Series>);

#[derive(Debug, Default)]
struct Series {
    accepted: AtomicU64,
    refused: [AtomicU64; Reason::ALL.len()],
}

impl AuthMetrics {
    /// A caller proved who it is.
    pub fn accepted(&self) {
        self.0.accepted.fetch_add(1, Relaxed);
    }

    /// A request was refused, or would have been.
    pub fn refused(&self, reason: Reason) {
        if let Some(count) = self.0.refused.get(reason as usize) {
            count.fetch_add(1, Relaxed);
        }
    }
}

/// What is counted, as of now. A reason that was never given has no series: there are many.
pub(super) fn family(series: &BTreeMap<Key, AuthMetrics>) -> MetricFamily {
    let by_reason = series.iter().flat_map(|((route, scheme, mode), counts)| {
        let refused = Reason::ALL.iter().zip(&counts.0.refused).map(|(reason, count)| (reason.word(), count.load(Relaxed)));
        let refused = refused.filter(|(_, count)| *count > 0);
        std::iter::once(("ok", counts.0.accepted.load(Relaxed))).chain(refused).map(move |(reason, count)| {
            let pairs = [("mode", *mode), ("reason", reason), ("route", route.as_str()), ("scheme", *scheme)];
            (labels(pairs), count as f64)
        })
    });
    let help = "Requests by what authentication said of them, by route, scheme, mode and reason; `ok` if it let them pass.";
    counters("banyan_auth_total", help, by_reason)
}
