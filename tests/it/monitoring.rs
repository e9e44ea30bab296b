//! The example dashboard and alert rules: every metric in them exists, and promtool finds them right.
//!
//! What exists is the table of `docs/operations/metrics.md`, which a test of `observe::metrics` holds to the code.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use regex::Regex;
use serde_json::Value;

use crate::harness::tool::{said, tool};

/// Series that Prometheus makes itself.
const OF_PROMETHEUS: &[&str] = &["up"];

#[test]
fn every_metric_of_the_dashboard_exists() {
    let dashboard: Value = serde_json::from_str(&read("dashboard.json")).unwrap();
    let queries = expressions(&dashboard);
    assert!(queries.len() > 30, "{queries:?}");
    for query in &queries {
        assert_exist(query);
    }
    let lists = dashboard["templating"]["list"].as_array().unwrap();
    let lists: Vec<_> = lists.iter().filter_map(|list| list["definition"].as_str()).collect();
    assert_eq!(lists.len(), 3);
    lists.into_iter().for_each(assert_exist);
}

#[test]
fn every_metric_of_the_rules_exists() {
    let rules: Value = serde_yaml::from_str(&read("banyan.rules.yaml")).unwrap();
    let queries = expressions(&rules);
    assert!(queries.len() > 10, "{queries:?}");
    queries.iter().for_each(|query| assert_exist(query));
}

#[test]
fn every_metric_is_on_the_dashboard() {
    let dashboard = read("dashboard.json");
    let missing: Vec<_> = documented().into_iter().filter(|name| !dashboard.contains(name.as_str())).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_alert_is_explained() {
    let rules: Value = serde_yaml::from_str(&read("banyan.rules.yaml")).unwrap();
    let page = fs::read_to_string(root().join("docs/operations/monitoring.md")).unwrap();
    let rules = rules["groups"][0]["rules"].as_array().unwrap();
    for alert in rules.iter().map(|rule| rule["alert"].as_str().unwrap()) {
        assert!(page.contains(&format!("| `{alert}` |")), "docs/operations/monitoring.md has no row for {alert}");
    }
}

#[test]
fn promtool_finds_the_rules_right() {
    for arguments in ["check rules banyan.rules.yaml", "check config scrape.yaml", "test rules banyan.rules.test.yaml"] {
        let Some(mut promtool) = tool("promtool") else { return };
        let told = said(promtool.current_dir(folder()).args(arguments.split(' ')));
        assert!(told.contains("SUCCESS"), "{told}");
    }
}

/// The values of every key `expr`, however deep.
fn expressions(value: &Value) -> Vec<String> {
    match value {
        Value::Object(map) => {
            let own = map.get("expr").and_then(Value::as_str).map(str::to_owned);
            own.into_iter().chain(map.values().flat_map(expressions)).collect()
        }
        Value::Array(items) => items.iter().flat_map(expressions).collect(),
        _ => Vec::new(),
    }
}

#[track_caller]
fn assert_exist(query: &str) {
    let known = documented();
    let named = names(query);
    assert!(!named.is_empty(), "no metric in {query}");
    for name in named {
        let family =
            ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix)).filter(|f| known.contains(*f));
        assert!(known.contains(family.unwrap_or(&name)) || OF_PROMETHEUS.contains(&name.as_str()), "no metric {name}: {query}");
    }
}

/// The words of a query that are metrics: neither labels, functions nor operators.
fn names(query: &str) -> Vec<String> {
    let without = |pattern: &str, text: &str| Regex::new(pattern).unwrap().replace_all(text, " ").into_owned();
    let bare = without(r#""[^"]*""#, query);
    // Of `label_values(metric, label)` the label.
    let bare = without(r"\{[^}]*\}|\[[^\]]*\]|\b(by|without|on|ignoring)\s*\([^)]*\)|,\s*\w+\s*\)\s*$", &bare);
    let bare = without(r"\b(and|or|unless)\b|\w+\s*\(|\b[0-9.]+\b", &bare);
    Regex::new(r"\w+").unwrap().find_iter(&bare).map(|name| name.as_str().to_owned()).collect()
}

fn documented() -> BTreeSet<String> {
    let page = fs::read_to_string(root().join("docs/operations/metrics.md")).unwrap();
    let names: BTreeSet<_> =
        page.lines().filter_map(|line| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned())).collect();
    assert!(names.len() > 20, "{names:?}");
    names
}

fn read(file: &str) -> String {
    fs::read_to_string(folder().join(file)).unwrap()
}

fn folder() -> PathBuf {
    root().join("packaging/monitoring")
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn names_are_found_in_queries() {
    let check = |query: &str, expected: &[&str]| assert_eq!(names(query), expected, "{query}");
    check("up{job=\"banyan\"} == 0", &["up"]);
    check("sum by (le, route) (rate(a_bucket{b=~\"c}d\"}[5m])) / sum(e_total) > 0.5", &["a_bucket", "e_total"]);
    check("count(a{$b} == 0) or vector(0)", &["a"]);
    check("label_values(a{b=~\"$c\"}, d)", &["a"]);
    check("time() - a_seconds", &["a_seconds"]);
}
