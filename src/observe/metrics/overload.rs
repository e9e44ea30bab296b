//! The series of the guard against overload, and of what is kept of quotas.

use prometheus::proto::MetricFamily;

use super::family::{counters, gauges, labels};
use crate::limit::{
    overload::{self, Priority, Reason},
    quota,
};

/// How what is shed and what is kept of quotas fare, at the moment of a scrape.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Limiting {
    pub overload: overload::Status,
    pub quotas: quota::Status,
}

/// As of now.
pub(super) fn families(limiting: &Limiting) -> [MetricFamily; 3] {
    let Limiting { overload, quotas } = limiting;
    let pressure =
        Reason::ALL.iter().zip(overload.pressure).map(|(reason, pressure)| (labels([("reason", reason.word())]), pressure));
    let shed = Priority::ALL.iter().zip(overload.shed).flat_map(|(priority, reasons)| {
        let series = Reason::ALL.iter().zip(reasons);
        series.map(|(reason, count)| (labels([("priority", priority.word()), ("reason", reason.word())]), count as f64))
    });
    [
        gauges("banyan_overload_pressure", "How near to overload the gateway is, from 0 to 1, by reason.", pressure),
        counters("banyan_overload_shed_total", "Requests shed by the guard against overload, by priority and reason.", shed),
        counters(
            "banyan_quota_write_errors_total",
            "Failed attempts to write what is used of quotas.",
            std::iter::once((Vec::new(), quotas.failures as f64)),
        ),
    ]
}
