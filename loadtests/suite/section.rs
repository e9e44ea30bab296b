//! What a scenario gave: figures by contestant, and how they stand to each other.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::stats::Estimate;

/// A figure: its key in the JSON file, its heading in tables, decimals.
pub struct Figure(pub &'static str, pub &'static str, pub usize);

/// All figures, in the order of tables. A scenario may have any of them.
pub const FIGURES: [Figure; 24] = [
    Figure("rps", "requests/s", 0),
    Figure("cpu_us", "CPU, µs/request", 1),
    Figure("busy", "busy", 2),
    Figure("open_cpu_us", "CPU at half, µs/request", 1),
    Figure("p50_us", "p50, µs", 0),
    Figure("p90_us", "p90, µs", 0),
    Figure("p99_us", "p99, µs", 0),
    Figure("p999_us", "p99.9, µs", 0),
    Figure("max_us", "max, µs", 0),
    Figure("added_p50_us", "added p50, µs", 0),
    Figure("added_p99_us", "added p99, µs", 0),
    Figure("calm_p50_us", "p50 in peace, µs", 0),
    Figure("calm_p99_us", "p99 in peace, µs", 0),
    Figure("during_p50_us", "p50 during, µs", 0),
    Figure("during_p99_us", "p99 during, µs", 0),
    Figure("p50_ratio", "p50 ratio", 2),
    Figure("p99_ratio", "p99 ratio", 2),
    Figure("failed", "failed/run", 0),
    Figure("failed_permille", "failed, ‰", 2),
    Figure("failing_ms", "until the last failure, ms", 0),
    Figure("idle_plain_kib", "KiB/idle connection", 1),
    Figure("idle_tls_kib", "KiB/idle connection, TLS", 1),
    Figure("rss_mib", "RSS idle, MiB", 1),
    Figure("peak_rss_mib", "peak RSS, MiB", 1),
];

/// A scenario's results.
#[derive(Debug, Serialize)]
pub struct Section {
    pub name: &'static str,
    pub about: &'static str,
    /// Requests a second of the open loop.
    pub rate: Option<f64>,
    pub rows: Vec<Row>,
    pub ratios: Vec<Ratio>,
    pub notes: Vec<String>,
}

/// A contestant's results.
#[derive(Debug, Default, Serialize)]
pub struct Row {
    pub party: String,
    pub figures: BTreeMap<&'static str, Estimate>,
    /// Latencies of all runs together: quantile, µs.
    pub curve: Vec<(f64, f64)>,
    pub answered: u64,
    pub failed: u64,
    pub error: Option<String>,
}

/// Run by run, how a contestant's figure stands to another's.
#[derive(Debug, Serialize)]
pub struct Ratio {
    pub figure: &'static str,
    pub of: String,
    pub to: String,
    #[serde(flatten)]
    pub ratio: Estimate,
}

impl Section {
    pub fn new(name: &'static str, about: &'static str) -> Self {
        Self { name, about, rate: None, rows: Vec::new(), ratios: Vec::new(), notes: Vec::new() }
    }

    pub fn row(&self, party: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.party == party)
    }

    /// Adds how this contestant's figure stands to that of every other one that has it.
    pub fn compare(&mut self, figure: &'static str, of: &str) {
        let others: Vec<String> = self.rows.iter().map(|row| row.party.clone()).filter(|other| other != of).collect();
        others.iter().for_each(|to| self.ratio(figure, of, to));
    }

    /// Adds how this contestant's figure stands to that one's, if both have it.
    pub fn ratio(&mut self, figure: &'static str, of: &str, to: &str) {
        let found = |party: &str| self.row(party)?.figures.get(figure);
        if let (Some(own), Some(theirs)) = (found(of), found(to)) {
            let ratio = own.over(theirs);
            self.ratios.push(Ratio { figure, of: of.to_owned(), to: to.to_owned(), ratio });
        }
    }
}

impl Row {
    pub fn of(party: &str) -> Self {
        Self { party: party.to_owned(), ..Self::default() }
    }

    pub fn set(&mut self, figure: &'static str, each: Vec<f64>) {
        debug_assert!(FIGURES.iter().any(|known| known.0 == figure), "{figure} has no heading");
        self.figures.insert(figure, Estimate::of(each));
    }

    pub fn median(&self, figure: &str) -> Option<f64> {
        self.figures.get(figure).map(|estimate| estimate.median)
    }
}

/// A quantile in µs.
pub fn quantile(latencies: &Histogram<u64>, quantile: f64) -> f64 {
    latencies.value_at_quantile(quantile) as f64 / 1e3
}

/// The distribution at quantiles whose distances to one shrink evenly, as plots of it need.
pub fn curve(latencies: &Histogram<u64>) -> Vec<(f64, f64)> {
    let steps = (0..=40).map(|step| 1.0 - 10_f64.powf(-f64::from(step) / 10.0));
    let enough = |at: &f64| (1.0 - at) * latencies.len() as f64 >= 1.0;
    let rounded = |value: f64, digits: f64| (value * digits).round() / digits;
    steps.filter(enough).map(|at| (rounded(at, 1e6), rounded(quantile(latencies, at), 10.0))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_contestant_is_compared_with_the_first() {
        let mut section = Section::new("a", "b");
        for (party, cpu) in [("banyan", 30.0), ("floor", 20.0), ("nginx", 15.0)] {
            let mut row = Row::of(party);
            row.set("cpu_us", vec![cpu; 3]);
            section.rows.push(row);
        }
        section.rows.push(Row::of("direct"));
        section.compare("cpu_us", "banyan");
        let found: Vec<_> = section.ratios.iter().map(|ratio| (ratio.to.as_str(), ratio.ratio.median)).collect();
        assert_eq!(found, [("floor", 1.5), ("nginx", 2.0)]);
    }

    #[test]
    fn a_curve_ends_where_there_are_no_more_requests() {
        let mut latencies = super::super::generator::histogram();
        (1..=1000_u64).for_each(|n| latencies.record(n * 1000).unwrap());
        let curve = curve(&latencies);
        let (at, micros) = *curve.last().unwrap();
        assert!((at - 0.999).abs() < 1e-6, "{at}");
        assert!((micros - 999.0).abs() <= 1.0, "{micros}");
        assert_eq!(curve[0].0, 0.0);
    }
}
