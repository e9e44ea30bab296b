//! Compiling a configuration of 10,000 routes, YAML parsing apart: what a reload costs.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a bench may stop")]

use std::{fmt::Write, hint::black_box, time::Duration};

use banyan::{
    config::load::{self, Loaded},
    live,
    stores::Stores,
};
use criterion::{Criterion, criterion_group, criterion_main};

const ROUTES: usize = 10_000;
const HOSTS: usize = 1_000;
const UPSTREAMS: usize = 100;

/// Ten routes a host: six exact, two or three with a capture, one prefix, and for every second host a regex.
fn configuration() -> String {
    let mut text = String::from("listeners: { web: { address: 127.0.0.1:8080 } }\nupstreams:\n");
    for n in 0..UPSTREAMS {
        writeln!(text, "  u{n}: {{ endpoints: [10.0.{}.{}:80] }}", n / 250, n % 250 + 1).unwrap();
    }
    text.push_str("policies: { request_limits: { body: 1MiB } }\nroutes:\n");
    for n in 0..ROUTES {
        let (host, kind, to) = (n % HOSTS, n / HOSTS, n % UPSTREAMS);
        let path = match kind {
            0..=5 => format!("path: /service/{kind}/item"),
            6 | 7 => format!("path: \"/service/{kind}/{{id}}/part\""),
            8 if host % 2 == 0 => format!("path_regex: \"^/reports/{kind}/[0-9]{{4}}/[a-z-]+$\""),
            _ => format!("path: \"/service/{kind}/**\""),
        };
        writeln!(text, "  r{n}: {{ match: {{ hosts: [h{host}.example], {path} }}, rewrite: {{ strip_prefix: /service }}, to: {{ upstream: u{to} }} }}").unwrap();
    }
    text
}

fn stores(loaded: &Loaded) -> Stores {
    Stores::closed(&loaded.config).unwrap()
}

fn compile(criterion: &mut Criterion) {
    let loaded = std::sync::Arc::new(load::from_text("bench", &configuration()));
    let candidate = live::compile(&loaded, &stores(&loaded), 1).unwrap_or_else(|problems| panic!("{}", problems[0].message));
    assert_eq!(candidate.snapshot.router.routes().count(), ROUTES, "every route is compiled");
    let mut group = criterion.benchmark_group("live");
    group.sample_size(20).measurement_time(Duration::from_secs(10));
    // The first load of a process: nothing is known of its upstreams and metrics.
    group.bench_function("compile 10,000 routes", |bench| {
        bench.iter_batched(
            || stores(&loaded),
            |stores| black_box(live::compile(&loaded, &stores, 1).is_ok()),
            criterion::BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, compile);
criterion_main!(benches);
