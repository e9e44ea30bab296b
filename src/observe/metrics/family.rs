//! Metric families built at the scrape, from figures that are kept elsewhere.

use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

/// A counter family; each series with its labels.
pub(in crate::observe) fn counters(name: &str, help: &str, series: impl Iterator<Item = (Vec<LabelPair>, f64)>) -> MetricFamily {
    let metric = |(labels, value)| {
        let mut counter = Counter::default();
        counter.set_value(value);
        let mut metric = Metric::from_label(labels);
        metric.set_counter(counter);
        metric
    };
    family(name, help, MetricType::COUNTER, series.map(metric).collect())
}

/// A gauge family; each series with its labels.
pub(in crate::observe) fn gauges(name: &str, help: &str, series: impl Iterator<Item = (Vec<LabelPair>, f64)>) -> MetricFamily {
    let metric = |(labels, value)| {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        let mut metric = Metric::from_label(labels);
        metric.set_gauge(gauge);
        metric
    };
    family(name, help, MetricType::GAUGE, series.map(metric).collect())
}

/// Labels, to be given in the order of their names as everywhere in the text.
pub(in crate::observe) fn labels<const N: usize>(pairs: [(&str, &str); N]) -> Vec<LabelPair> {
    let label = |(name, value): (&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name(name.to_owned());
        pair.set_value(value.to_owned());
        pair
    };
    pairs.map(label).into()
}

fn family(name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}
