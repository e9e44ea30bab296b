//! The series of stores that nodes count in together.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use prometheus::proto::{Bucket, Histogram, LabelPair, Metric, MetricFamily, MetricType};

use super::family::{counters, gauges, labels};
use crate::{limit::fleet::Store, name::StoreName};

pub(super) fn families(stores: &[(&StoreName, &Store)]) -> [MetricFamily; 8] {
    let each = || stores.iter().map(|(name, store)| (name.as_str(), *store));
    let count = |of: fn(&Store) -> &AtomicU64| each().map(move |(name, store)| (label(name), of(store).load(Relaxed) as f64));
    let unanswered = each().flat_map(|(name, store)| {
        let figures = &store.figures;
        let reasons = [
            ("busy", &figures.busy),
            ("connection", &figures.gone),
            ("error", &figures.refused),
            ("not_asked", &figures.not_asked),
            ("timeout", &figures.slow),
        ];
        reasons.map(|(reason, count)| (labels([("reason", reason), ("store", name)]), count.load(Relaxed) as f64))
    });
    let leased = each().flat_map(|(name, store)| {
        let (granted, returned) = (store.figures.leased.load(Relaxed), store.figures.returned.load(Relaxed));
        [("granted", granted), ("returned", returned)]
            .map(|(what, count)| (labels([("store", name), ("what", what)]), count as f64))
    });
    [
        latency(stores),
        counters("banyan_store_unanswered_total", "Questions to a store without an answer, by why.", unanswered),
        gauges(
            "banyan_store_open",
            "The share of a store that is not asked since it did not answer: 0 to 1.",
            each().map(|(name, store)| (label(name), store.open_share())),
        ),
        counters(
            "banyan_store_opened_total",
            "How often a store, or a part of it, was not asked any more.",
            each().map(|(name, store)| (label(name), store.opened() as f64)),
        ),
        counters("banyan_store_connects_total", "Connections made to a store.", count(|store| &store.figures.connects)),
        counters(
            "banyan_store_remembered_total",
            "Requests refused without asking, because the store had refused the key.",
            count(|store| &store.figures.remembered),
        ),
        counters(
            "banyan_store_credit_total",
            "Requests admitted by `sync: leased` before the store was asked.",
            count(|store| &store.figures.on_credit),
        ),
        counters("banyan_store_leased_total", "Requests that shares were for: granted, and given back unused.", leased),
    ]
}

fn label(name: &str) -> Vec<LabelPair> {
    labels([("store", name)])
}

fn latency(stores: &[(&StoreName, &Store)]) -> MetricFamily {
    let metric = |(name, store): &(&StoreName, &Store)| {
        let latency = &store.figures.latency;
        let (mut histogram, mut all) = (Histogram::default(), 0);
        let buckets = latency.cumulative().map(|(bound, count)| {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(bound);
            bucket.set_cumulative_count(count);
            all = count;
            bucket
        });
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(all);
        histogram.set_sample_sum(latency.seconds());
        let mut metric = Metric::from_label(label(name.as_str()));
        metric.set_histogram(histogram);
        metric
    };
    let mut family = MetricFamily::default();
    family.set_name("banyan_store_answer_seconds".to_owned());
    family.set_help("Time that a store took to answer, of questions that it answered in time.".to_owned());
    family.set_field_type(MetricType::HISTOGRAM);
    family.set_metric(stores.iter().map(metric).collect());
    family
}
