//! The results as Markdown tables.

use std::fmt::Write;

use super::{super::section::Section, Report, table, targets};

pub fn text(report: &Report) -> String {
    let mut out = format!("# Load tests of {}\n\n", report.date);
    for line in about(report) {
        let _ = writeln!(out, "- {line}");
    }
    let targets = targets::judged(report);
    if !targets.is_empty() {
        out.push_str("\n## Targets\n\n| what | target | measured | |\n|---|---|---|---|\n");
        for target in targets {
            let _ = writeln!(out, "| {} | {} | {} | {} |", target.what, target.bound, target.measured, target.verdict());
        }
    }
    for section in &report.sections {
        let _ = write!(out, "\n## {}\n\n{}", section.name, section.about);
        let _ = match section.rate {
            Some(rate) => writeln!(out, "; latencies at {} requests/s.\n", super::number(rate, 0)),
            None => writeln!(out, ".\n"),
        };
        let (headings, rows) = table(section);
        let _ = writeln!(out, "| | {} |\n|---|{}", headings.join(" | "), "---|".repeat(headings.len()));
        for (party, cells) in rows {
            let _ = writeln!(out, "| {party} | {} |", cells.join(" | "));
        }
        if !section.ratios.is_empty() {
            out.push('\n');
        }
        for line in ratios(section) {
            let _ = writeln!(out, "- {line}");
        }
        section.notes.iter().for_each(|note| out.push_str(&format!("\n{note}\n")));
    }
    if !report.broken.is_empty() {
        let _ = writeln!(out, "\nNot measured, since the premise did not hold: {}.", report.broken.join(", "));
    }
    out
}

/// What the figures depend on, a line each.
pub fn about(report: &Report) -> Vec<String> {
    let machine = &report.machine;
    let who: Vec<String> = report.contestants.iter().map(|(name, version)| format!("{name} ({version})")).collect();
    let pinned = if report.is_pinned {
        "contestants on the first core, clients and service on the others"
    } else {
        "nobody bound to a core"
    };
    vec![
        format!("{}, {} cores, Linux {}; load before the run {}", machine.processor, machine.cores, machine.kernel, machine.load),
        format!("{}; revision {}", who.join(", "), report.revision),
        format!("{} pairs, {} s a run, {} connections; {pinned}", report.pairs, report.seconds, report.connections),
        "median (95 % interval by order statistics; of fewer than six runs lowest and highest)".to_owned(),
    ]
}

/// How contestants stand to each other, a line each.
pub fn ratios(section: &Section) -> Vec<String> {
    let line = |ratio: &super::super::section::Ratio| {
        let what =
            super::super::section::FIGURES.iter().find(|figure| figure.0 == ratio.figure).map_or(ratio.figure, |figure| figure.1);
        let found = &ratio.ratio;
        format!("{what}: {} / {} = **{:.2}** ({:.2}–{:.2})", ratio.of, ratio.to, found.median, found.low, found.high)
    };
    section.ratios.iter().map(line).collect()
}
