//! The results as one page without anything from outside: tables, and a plot of each scenario's latencies.

use std::fmt::Write;

use super::{Report, markdown, table, targets};

use super::super::section::Section;

const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1d2327; --paper: #fff; --line: #d5d9dd; --faint: #667079;
  --c0: #0b7a4b; --c1: #c2571a; --c2: #3465c0; --c3: #9a3fa0; --c4: #667079; --c5: #a08000 }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7ea; --paper: #15191c; --line: #363d43; --faint: #98a2ab;
  --c0: #45c98a; --c1: #f0935a; --c2: #7fa8f5; --c3: #d889dd; --c4: #98a2ab; --c5: #d9bd3f } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 72rem; margin: 2rem auto; padding: 0 1rem }
h2 { margin-top: 2.5rem; border-top: 1px solid var(--line); padding-top: 1rem }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13px }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top }
th:first-child, td:first-child { text-align: left }
li, p { max-width: 60rem } li, .faint { color: var(--faint) }
svg { max-width: 100%; height: auto } svg text { font: 12px system-ui, sans-serif; fill: var(--faint) }
svg .grid { stroke: var(--line) } svg polyline { fill: none; stroke-width: 2 }
";

pub fn text(report: &Report) -> String {
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>Load tests of {0}</title><style>{STYLE}</style></head><body>\n<h1>Load tests of {0}</h1>\n",
        escape(&report.date)
    );
    list(&mut out, &markdown::about(report));
    let targets = targets::judged(report);
    if !targets.is_empty() {
        out.push_str("<h2>Targets</h2>\n");
        let rows = targets.iter().map(|target| {
            let verdict = target.verdict().replace("**", "");
            (target.what.to_owned(), vec![target.bound.to_owned(), target.measured.clone(), verdict])
        });
        rows_of(&mut out, &["target", "measured", ""], &rows.collect::<Vec<_>>());
    }
    report.sections.iter().for_each(|section| show(&mut out, section));
    if !report.broken.is_empty() {
        let _ = writeln!(out, "<p>Not measured, since the premise did not hold: {}.</p>", escape(&report.broken.join(", ")));
    }
    out + "</body></html>\n"
}

fn show(out: &mut String, section: &Section) {
    let _ = writeln!(out, "<h2>{}</h2>\n<p>{}.</p>", escape(section.name), escape(section.about));
    out.push_str(&plot(section));
    let (headings, rows) = table(section);
    rows_of(out, &headings, &rows);
    list(out, &markdown::ratios(section).iter().map(|line| line.replace("**", "")).collect::<Vec<_>>());
    section.notes.iter().for_each(|note| out.push_str(&format!("<p class=\"faint\">{}</p>\n", escape(note))));
}

fn list(out: &mut String, lines: &[String]) {
    if !lines.is_empty() {
        let items: String = lines.iter().map(|line| format!("<li>{}</li>\n", escape(line))).collect();
        let _ = writeln!(out, "<ul>\n{items}</ul>");
    }
}

fn rows_of(out: &mut String, headings: &[&str], rows: &[(String, Vec<String>)]) {
    let cells =
        |tag: &str, cells: &[String]| cells.iter().map(|cell| format!("<{tag}>{}</{tag}>", escape(cell))).collect::<String>();
    let headings: Vec<String> = headings.iter().map(|heading| (*heading).to_owned()).collect();
    let _ = writeln!(out, "<div class=\"wide\"><table>\n<tr><th></th>{}</tr>", cells("th", &headings));
    for (party, row) in rows {
        let _ = writeln!(out, "<tr><td>{}</td>{}</tr>", escape(party), cells("td", row));
    }
    out.push_str("</table></div>\n");
}

/// Width and height of a plot, and what lies left of it and below for its labels.
const SIZE: (f64, f64) = (860.0, 320.0);
const LEFT: f64 = 64.0;
/// Half of the last label has room there.
const RIGHT: f64 = 24.0;
const BELOW: f64 = 28.0;

/// Latency (logarithmic) by quantile (each nine as wide as the one before): where tails are.
fn plot(section: &Section) -> String {
    let curves: Vec<_> = section.rows.iter().enumerate().filter(|(_, row)| row.curve.len() > 1).collect();
    let points = || curves.iter().flat_map(|(_, row)| row.curve.iter().map(|(_, micros)| micros.max(1.0)));
    let (low, high) = points().fold((f64::MAX, 1.0_f64), |(low, high), micros| (low.min(micros), high.max(micros)));
    if curves.is_empty() {
        return String::new();
    }
    let (floor, top) = (low.log10().floor(), high.log10().ceil().max(low.log10().floor() + 1.0));
    let nines = curves.iter().flat_map(|(_, row)| row.curve.iter().map(|(at, _)| nine(*at))).fold(1.0, f64::max);
    let x = |at: f64| LEFT + (SIZE.0 - LEFT - RIGHT) * nine(at) / nines;
    let y = |micros: f64| 8.0 + (SIZE.1 - BELOW - 8.0) * (top - micros.max(1.0).log10()) / (top - floor);
    let mut out = format!("<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"latency by quantile\">\n", SIZE.0, SIZE.1 + 24.0);
    for decade in floor as i32..=top as i32 {
        let at = y(10_f64.powi(decade));
        let _ = writeln!(out, "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>", SIZE.0);
        let _ = writeln!(out, "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>", LEFT - 6.0, at + 4.0, time(decade));
    }
    for (at, label) in [(0.0, "0"), (0.5, "p50"), (0.9, "p90"), (0.99, "p99"), (0.999, "p99.9"), (0.9999, "p99.99")] {
        if nine(at) <= nines + 0.01 {
            let _ = writeln!(out, "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{label}</text>", x(at), SIZE.1 - 8.0);
        }
    }
    for (place, (number, row)) in curves.iter().enumerate() {
        let points: Vec<String> = row.curve.iter().map(|(at, micros)| format!("{:.1},{:.1}", x(*at), y(*micros))).collect();
        let (colour, left) = (number % 6, LEFT + place as f64 * 130.0);
        let _ = writeln!(out, "<polyline style=\"stroke:var(--c{colour})\" points=\"{}\"/>", points.join(" "));
        let _ = writeln!(
            out,
            "<rect x=\"{left}\" y=\"{}\" width=\"14\" height=\"4\" style=\"fill:var(--c{colour})\"/>",
            SIZE.1 + 10.0
        );
        let _ = writeln!(out, "<text x=\"{}\" y=\"{}\">{}</text>", left + 20.0, SIZE.1 + 16.0, escape(&row.party));
    }
    out + "</svg>\n"
}

/// How many nines a quantile has.
fn nine(at: f64) -> f64 {
    -(1.0 - at).max(1e-6).log10()
}

fn time(decade: i32) -> String {
    match decade {
        ..3 => format!("{} µs", 10_i64.pow(decade.max(0) as u32)),
        3..6 => format!("{} ms", 10_i64.pow(decade as u32 - 3)),
        _ => format!("{} s", 10_i64.pow(decade as u32 - 6)),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_become_markup() {
        assert_eq!(escape("<a & \"b\">"), "&lt;a &amp; &quot;b&quot;&gt;");
    }

    #[test]
    fn a_scenario_without_latencies_has_no_plot() {
        assert_eq!(plot(&Section::new("a", "b")), "");
    }

    #[test]
    fn quantiles_stand_as_far_apart_as_their_nines() {
        assert_eq!([0.0, 0.9, 0.99].map(|at| nine(at).round()), [0.0, 1.0, 2.0]);
    }
}
