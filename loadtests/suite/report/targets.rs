//! What Banyan has to hold, and whether this run shows that it does. A target is judged by its median.

use super::{Report, number};

/// A figure's bound, and what it was.
pub struct Target {
    pub what: &'static str,
    pub bound: &'static str,
    pub measured: String,
    is_held: bool,
}

impl Target {
    pub fn verdict(&self) -> &'static str {
        if self.is_held { "holds" } else { "**missed**" }
    }
}

/// Scenario, figure, what it is of, most or least of it, in words.
const FIGURES: [(&str, &str, &str, Bound, &str); 6] = [
    ("routes", "added_p50_us", "added p50 among 1,000 routes, µs", Bound::Most(150.0), "≤ 150"),
    ("routes", "added_p99_us", "added p99 among 1,000 routes, µs", Bound::Most(1000.0), "≤ 1,000"),
    ("routes", "peak_rss_mib", "peak RSS with 1,000 routes, MiB", Bound::Most(60.0), "≤ 60"),
    ("idle", "idle_plain_kib", "idle connection, KiB", Bound::Most(16.0), "≤ 16"),
    ("reload", "p99_ratio", "p99 with a reload every second, ratio", Bound::Most(2.0), "≤ 2"),
    ("reload", "failed", "requests failed for a reload, a run", Bound::Most(0.0), "0"),
];

#[derive(Clone, Copy)]
enum Bound {
    Most(f64),
    Least(f64),
}

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::Most(most) => value <= most,
            Self::Least(least) => value >= least,
        }
    }
}

/// Those that this run has figures for.
pub fn judged(report: &Report) -> Vec<Target> {
    let ratio = |scenario: &str, figure: &str, of: &str, to: &str| {
        let section = report.sections.iter().find(|section| section.name == scenario)?;
        section.ratios.iter().find(|ratio| (ratio.figure, ratio.of.as_str(), ratio.to.as_str()) == (figure, of, to))
    };
    let ratios = [
        ("CPU among 1,000 routes by the floor's", "≤ 1.10", Bound::Most(1.10), ratio("routes", "cpu_us", "banyan", "floor")),
        ("throughput of two threads by one's", "≥ 1.70", Bound::Least(1.70), ratio("workers", "rps", "banyan-2", "banyan")),
    ];
    let of_ratios = ratios.into_iter().filter_map(|(what, words, bound, found)| {
        let found = &found?.ratio;
        Some(target(what, words, bound, found, 2))
    });
    let of_figures = FIGURES.into_iter().filter_map(|(scenario, figure, what, bound, words)| {
        let section = report.sections.iter().find(|section| section.name == scenario)?;
        Some(target(what, words, bound, section.row("banyan")?.figures.get(figure)?, 1))
    });
    of_ratios.chain(of_figures).collect()
}

fn target(
    what: &'static str,
    words: &'static str,
    bound: Bound,
    found: &super::super::stats::Estimate,
    decimals: usize,
) -> Target {
    let shown = |value| number(value, decimals);
    let measured = format!("{} ({}–{})", shown(found.median), shown(found.low), shown(found.high));
    Target { what, bound: words, measured, is_held: bound.holds(found.median) }
}
