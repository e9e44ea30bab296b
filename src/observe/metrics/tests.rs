use std::{
    collections::BTreeMap,
    time::{Duration, UNIX_EPOCH},
};

use http::{Method, Version};

use super::*;
use crate::{config::route::Scheme, units};

fn metrics() -> Arc<Metrics> {
    Arc::new(Metrics::new(&config::observe::Metrics::default()).unwrap())
}

fn record(status: u16, tries: u8, flag: Flag) -> Record<'static> {
    Record {
        time: UNIX_EPOCH,
        request_id: b"1",
        trace: None,
        route: None,
        upstream: None,
        endpoint: None,
        tries,
        method: &Method::GET,
        scheme: Scheme::Http,
        host: "a",
        path: "/",
        query: None,
        version: Version::HTTP_11,
        status,
        received: 0,
        sent: 0,
        duration: Duration::from_millis(3),
        upstream_connect: None,
        upstream_first_byte: (tries > 0).then_some(Duration::from_millis(2)),
        tls: None,
        client: [127, 0, 0, 1].into(),
        peer: ([127, 0, 0, 1], 1).into(),
        consumer: None,
        auth: None,
        refusal: None,
        limit: None,
        user_agent: None,
        referer: None,
        flag,
        generation: 1,
    }
}

fn endpoint(upstream: &UpstreamName, port: u16, healthy: bool) -> Endpoint<'_> {
    Endpoint { upstream, address: ([127, 0, 0, 1], port).into(), healthy, turned: [0, 0], in_flight: 0, faults: 0 }
}

/// The value of one series, if it is there.
fn value(text: &str, series: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

/// Every metric once, rendered.
fn complete() -> String {
    let metrics = metrics();
    let upstream = UpstreamName::new("u");
    let route = metrics.route(&RouteName::new("r"));
    let listener = metrics.listener(&ListenerName::new("l"));
    let _open = listener.accepted();
    listener.refused("timeout");
    listener.refused_head("no_host", 400);
    listener.flood("ping");
    listener.goaway("no_error");
    metrics.auth(&RouteName::new("r"), "api_key", Mode::Enforce).accepted();
    metrics.authz(&RouteName::new("r"), Mode::Enforce).accepted();
    metrics.limit(&RouteName::new("r"), "rate_limit", "l", Mode::Enforce).refused();
    metrics.ended(&record(200, 1, Flag::None), &route, Some(&metrics.upstream(&upstream)));
    metrics.published(1, UNIX_EPOCH);
    let keys = Keys { keys: 2, answers: (1, 0), good: Some(1) };
    let identity = Identity { name: "idp", tokens: 1, looks: (1, 1), keys: Some(keys), questions: Some((1, 0)) };
    metrics.render([endpoint(&upstream, 1, true)], &[identity], &Limiting::default())
}

/// Name → type and labels, of what is rendered.
fn rendered(text: &str) -> BTreeMap<String, (String, BTreeSet<String>)> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    types
        .map(|(name, kind)| {
            let series = text.lines().filter(|line| line.split(['{', ' ']).next().is_some_and(|own| own.starts_with(name)));
            let exact = |own: &str| ["", "_bucket", "_sum", "_count"].iter().any(|end| own.strip_prefix(name) == Some(end));
            let labels = series
                .filter_map(|line| line.split_once('{'))
                .filter(|(own, _)| exact(own))
                .flat_map(|(_, rest)| rest.split("=\"").filter_map(|part| part.rsplit(['{', ',', '"']).next()).map(str::to_owned))
                .filter(|label| label != "le" && !label.contains(['}', ' ']))
                .collect();
            (name.to_owned(), (kind.to_owned(), labels))
        })
        .collect()
}

/// Name → type and labels, of the documentation's table.
fn documented() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let page = include_str!("../../../docs/operations/metrics.md");
    let rows = page.lines().filter(|row| row.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let labels = cells[3].split(", ").filter(|label| !label.is_empty()).map(|label| label.trim_matches('`').to_owned());
        (cells[1].trim_matches('`').to_owned(), (cells[2].to_owned(), labels.collect()))
    })
    .collect()
}

#[test]
fn every_metric_is_documented_with_its_type_and_labels() {
    assert_eq!(rendered(&complete()), documented());
}

#[test]
fn requests_count_by_route_and_class() {
    let metrics = metrics();
    let route = metrics.route(&RouteName::new("orders"));
    for status in [200, 204, 404, 503, 0, 999] {
        metrics.ended(&record(status, 0, Flag::None), &route, None);
    }
    metrics.ended(&record(404, 0, Flag::NoRoute), &metrics.no_route(), None);
    let text = metrics.render([], &[], &Limiting::default());
    let requests =
        |route: &str, class: &str| value(&text, &format!(r#"banyan_requests_total{{class="{class}",route="{route}"}}"#));
    for (class, count) in [("none", 2.0), ("1xx", 0.0), ("2xx", 2.0), ("3xx", 0.0), ("4xx", 1.0), ("5xx", 1.0)] {
        assert_eq!(requests("orders", class), Some(count), "{class}");
    }
    assert_eq!(requests("-", "4xx"), Some(1.0));
    assert_eq!(value(&text, r#"banyan_request_duration_seconds_count{route="orders"}"#), Some(6.0));
    assert_eq!(value(&text, r#"banyan_request_duration_seconds_bucket{route="orders",le="0.002"}"#), Some(0.0));
    assert_eq!(value(&text, r#"banyan_request_duration_seconds_bucket{route="orders",le="0.005"}"#), Some(6.0));
    assert_eq!(value(&text, r#"banyan_requests_flagged_total{flag="NR"}"#), Some(1.0));
}

#[test]
fn flags_stand_at_their_index() {
    for (index, flag) in Flag::ALL.into_iter().enumerate() {
        assert_eq!(flag as usize, index, "{flag:?}");
    }
}

#[test]
fn every_flag_but_none_counts_as_itself() {
    for flag in Flag::ALL {
        let metrics = metrics();
        metrics.ended(&record(502, 0, flag), &metrics.no_route(), None);
        let text = metrics.render([], &[], &Limiting::default());
        for other in Flag::ALL.iter().skip(1) {
            let series = format!(r#"banyan_requests_flagged_total{{flag="{}"}}"#, other.code());
            assert_eq!(value(&text, &series), Some(f64::from(*other == flag)), "{series}");
        }
        assert!(!text.contains(r#"flag="-""#));
    }
}

#[test]
fn upstreams_count_tries_and_first_bytes() {
    let metrics = metrics();
    let upstream = metrics.upstream(&UpstreamName::new("legacy"));
    metrics.ended(&record(200, 3, Flag::None), &metrics.no_route(), Some(&upstream));
    metrics.ended(&record(503, 0, Flag::NoEndpoint), &metrics.no_route(), Some(&upstream));
    let name = UpstreamName::new("legacy");
    let endpoint = |port, turned| Endpoint { turned, ..endpoint(&name, port, true) };
    let text = metrics.render([endpoint(1, [1, 1]), endpoint(2, [0, 2])], &[], &Limiting::default());
    assert_eq!(value(&text, r#"banyan_upstream_retries_total{upstream="legacy"}"#), Some(2.0));
    assert_eq!(value(&text, r#"banyan_upstream_first_byte_seconds_count{upstream="legacy"}"#), Some(1.0));
    assert_eq!(value(&text, r#"banyan_upstream_health_transitions_total{to="unhealthy",upstream="legacy"}"#), Some(3.0));
    assert_eq!(value(&text, r#"banyan_upstream_health_transitions_total{to="healthy",upstream="legacy"}"#), Some(1.0));
}

#[test]
fn guards_count_while_they_live() {
    let metrics = metrics();
    let (route, listener) = (metrics.route(&RouteName::new("r")), metrics.listener(&ListenerName::new("web")));
    let read = || {
        let text = metrics.render([], &[], &Limiting::default());
        [
            "banyan_requests_in_flight{route=\"r\"}",
            "banyan_connections{listener=\"web\"}",
            "banyan_connections_total{listener=\"web\"}",
        ]
        .map(|series| value(&text, series).unwrap())
    };
    let held = (route.begin(), route.begin(), listener.accepted());
    assert_eq!(read(), [2.0, 1.0, 1.0]);
    drop(held);
    assert_eq!(read(), [0.0, 0.0, 1.0]);
}

#[test]
fn names_no_longer_configured_lose_their_series() {
    let metrics = metrics();
    let (kept, gone) = (RouteName::new("kept"), RouteName::new("gone"));
    let (kept_upstream, gone_upstream) = (UpstreamName::new("kept-u"), UpstreamName::new("gone-u"));
    for (route, upstream) in [(&kept, &kept_upstream), (&gone, &gone_upstream)] {
        metrics.ended(&record(200, 1, Flag::None), &metrics.route(route), Some(&metrics.upstream(upstream)));
    }
    metrics.ended(&record(404, 0, Flag::NoRoute), &metrics.no_route(), None);
    metrics.retain(&BTreeSet::from([&kept]), &BTreeSet::from([&kept_upstream]));
    let text = metrics.render([endpoint(&kept_upstream, 1, true)], &[], &Limiting::default());
    assert!(!text.contains("gone"), "{text}");
    assert_eq!(value(&text, r#"banyan_requests_total{class="2xx",route="kept"}"#), Some(1.0));
    assert_eq!(value(&text, r#"banyan_requests_total{class="4xx",route="-"}"#), Some(1.0));
    assert_eq!(value(&text, r#"banyan_upstream_first_byte_seconds_count{upstream="kept-u"}"#), Some(1.0));
}

#[test]
fn endpoints_show_their_health_at_the_scrape() {
    let metrics = metrics();
    let upstream = UpstreamName::new("u");
    let text = metrics.render([endpoint(&upstream, 1, true), endpoint(&upstream, 2, false)], &[], &Limiting::default());
    let healthy = |text: &str, port| {
        value(text, &format!(r#"banyan_upstream_endpoint_healthy{{endpoint="127.0.0.1:{port}",upstream="u"}}"#))
    };
    assert_eq!((healthy(&text, 1), healthy(&text, 2)), (Some(1.0), Some(0.0)));
    let later = metrics.render([endpoint(&upstream, 2, true)], &[], &Limiting::default());
    assert_eq!((healthy(&later, 1), healthy(&later, 2)), (None, Some(1.0)));
}

#[test]
fn reloads_show_their_result() {
    let metrics = metrics();
    let read = || {
        let text = metrics.render([], &[], &Limiting::default());
        [
            "banyan_config_generation",
            "banyan_config_last_reload_success",
            "banyan_config_last_reload_timestamp_seconds",
            r#"banyan_config_reloads_total{result="success"}"#,
            r#"banyan_config_reloads_total{result="failure"}"#,
        ]
        .map(|series| value(&text, series).unwrap())
    };
    metrics.published(7, UNIX_EPOCH + Duration::from_secs(100));
    assert_eq!(read(), [7.0, 1.0, 100.0, 1.0, 0.0]);
    metrics.refused(UNIX_EPOCH + Duration::from_secs(200));
    assert_eq!(read(), [7.0, 0.0, 200.0, 1.0, 1.0]);
}

#[test]
fn buckets_must_ascend() {
    let latency_buckets = vec![units::Duration::from_millis(5), units::Duration::from_millis(1)];
    assert!(Metrics::new(&config::observe::Metrics { latency_buckets }).is_err());
}
