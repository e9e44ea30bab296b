//! The series of routes. Kept apart from the registry's vectors: ten thousand routes must compile in milliseconds, and a
//! labelled counter costs microseconds to make.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
};

use prometheus::{Histogram, proto::MetricFamily};

use super::family::{counters, gauges, labels};
use crate::{name::RouteName, observe::Record};

/// Status classes, by the hundreds of a status; the first is for requests without an answer.
const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// The series of one route. A clone counts in the same series.
#[derive(Clone, Debug)]
pub struct RouteMetrics(Arc<Series>);

#[derive(Debug)]
struct Series {
    by_class: [AtomicU64; CLASSES.len()],
    in_flight: AtomicI64,
    duration: Histogram,
}

/// A request counts as in flight until this is dropped.
#[derive(Debug)]
pub struct InFlight(RouteMetrics);

impl RouteMetrics {
    pub(super) fn new(duration: Histogram) -> Self {
        Self(Arc::new(Series { by_class: Default::default(), in_flight: AtomicI64::new(0), duration }))
    }

    /// A request has begun.
    pub fn begin(&self) -> InFlight {
        self.0.in_flight.fetch_add(1, Relaxed);
        InFlight(self.clone())
    }

    /// A status outside of 100 to 599 counts as none: no answer that HTTP knows.
    pub(super) fn answered(&self, status: u16) {
        let [none, ..] = &self.0.by_class;
        self.0.by_class.get(usize::from(status / 100)).unwrap_or(none).fetch_add(1, Relaxed);
    }

    pub(super) fn ended(&self, record: &Record<'_>) {
        self.answered(record.status);
        self.0.duration.observe(record.duration.as_secs_f64());
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.0.in_flight.fetch_sub(1, Relaxed);
    }
}

/// What is counted of the routes, as of now. The durations are in the registry.
pub(super) fn families(routes: &BTreeMap<RouteName, RouteMetrics>) -> [MetricFamily; 2] {
    let by_class = routes.iter().flat_map(|(name, route)| {
        let classes = CLASSES.iter().zip(&route.0.by_class);
        classes.map(|(class, count)| (labels([("class", class), ("route", name.as_str())]), count.load(Relaxed) as f64))
    });
    let in_flight =
        routes.iter().map(|(name, route)| (labels([("route", name.as_str())]), route.0.in_flight.load(Relaxed) as f64));
    [
        counters("banyan_requests_total", "Requests that ended, by route and class of status.", by_class),
        gauges("banyan_requests_in_flight", "Requests that have not ended, by route.", in_flight),
    ]
}
