//! The series of authentication and authorisation: who was let pass by which scheme, and why the others were not.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use prometheus::proto::MetricFamily;

use super::family::{counters, labels};
use crate::{
    caller::{Lack, Reason},
    name::RouteName,
};

/// Route, scheme and mode.
pub(super) type SchemeKey = (RouteName, &'static str, &'static str);

/// Route and mode.
pub(super) type RouteKey = (RouteName, &'static str);

/// The series of one scheme on one route. A clone counts in the same series.
#[derive(Clone, Debug, Default)]
pub struct AuthMetrics(Arc<Counts<{ Reason::ALL.len() }>>);

/// The series of authorisation on one route. A clone counts in the same series.
#[derive(Clone, Debug, Default)]
pub struct AuthzMetrics(Arc<Counts<{ Lack::ALL.len() }>>);

#[derive(Debug)]
struct Counts<const REASONS: usize> {
    accepted: AtomicU64,
    refused: [AtomicU64; REASONS],
}

impl<const REASONS: usize> Default for Counts<REASONS> {
    fn default() -> Self {
        Self { accepted: AtomicU64::new(0), refused: [const { AtomicU64::new(0) }; REASONS] }
    }
}

impl<const REASONS: usize> Counts<REASONS> {
    fn accepted(&self) {
        self.accepted.fetch_add(1, Relaxed);
    }

    fn refused(&self, reason: usize) {
        if let Some(count) = self.refused.get(reason) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// As of now. A reason that was never given has no series: there are many.
    fn series(&self, words: impl Iterator<Item = &'static str>) -> impl Iterator<Item = (&'static str, f64)> {
        let refused = words.zip(&self.refused).map(|(word, count)| (word, count.load(Relaxed))).filter(|(_, count)| *count > 0);
        std::iter::once(("ok", self.accepted.load(Relaxed))).chain(refused).map(|(word, count)| (word, count as f64))
    }
}

impl AuthMetrics {
    /// A caller proved who it is.
    pub fn accepted(&self) {
        self.0.accepted();
    }

    /// A request was refused, or would have been.
    pub fn refused(&self, reason: Reason) {
        self.0.refused(reason as usize);
    }
}

impl AuthzMetrics {
    /// A caller has what is needed.
    pub fn accepted(&self) {
        self.0.accepted();
    }

    /// A caller was refused, or would have been.
    pub fn refused(&self, lack: Lack) {
        self.0.refused(lack as usize);
    }
}

/// What is counted, as of now.
pub(super) fn families(auth: &BTreeMap<SchemeKey, AuthMetrics>, authz: &BTreeMap<RouteKey, AuthzMetrics>) -> [MetricFamily; 2] {
    let by_scheme = auth.iter().flat_map(|((route, scheme, mode), counts)| {
        let series = counts.0.series(Reason::ALL.iter().map(|reason| reason.word()));
        series.map(move |(reason, count)| {
            (labels([("mode", *mode), ("reason", reason), ("route", route.as_str()), ("scheme", *scheme)]), count)
        })
    });
    let by_route = authz.iter().flat_map(|((route, mode), counts)| {
        let series = counts.0.series(Lack::ALL.iter().map(|lack| lack.word()));
        series.map(move |(reason, count)| (labels([("mode", *mode), ("reason", reason), ("route", route.as_str())]), count))
    });
    [
        counters(
            "banyan_auth_total",
            "Requests by what authentication said of them, by route, scheme, mode and reason; `ok` if it let them pass.",
            by_scheme,
        ),
        counters(
            "banyan_authz_total",
            "Requests by what authorisation said of them, by route, mode and reason; `ok` if it let them pass.",
            by_route,
        ),
    ]
}
