//! Finding a route among 10, 1,000 and 100,000, beside the rules applied one by one; and compiling 10,000.
//!
//! A hundred routes a host (a thousand hosts at 100,000): 60 exact, 25 with captures, 10 ending in `/**`, 5 regular
//! expressions. Each bench first checks that every request of it finds the route it was made for.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a bench may stop")]

#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../tests/it/route/naive.rs"]
mod naive;

use std::hint::black_box;

use banyan::{
    config::route::Match,
    exchange::Facts,
    name::RouteName,
    route::table::{Found, Table},
};
use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use http::HeaderMap;

use self::naive::{Answer, Naive, facts};

const ROUTES_A_HOST: usize = 100;

/// Kinds of routes, by their number within a host.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Kind {
    Exact,
    Capture,
    Open,
    Regex,
}

impl Kind {
    fn of(index: usize) -> Self {
        match (index % ROUTES_A_HOST) * 7 % 100 {
            0..60 => Self::Exact,
            60..85 => Self::Capture,
            85..95 => Self::Open,
            _ => Self::Regex,
        }
    }
}

/// A route, and the path of a request that it takes.
fn route(index: usize) -> (RouteName, Match, String) {
    let (n, area) = (index % ROUTES_A_HOST, ["orders", "users", "stock", "reports", "media"][index % 5]);
    let (pattern, path) = match Kind::of(index) {
        Kind::Exact => (format!("/api/v1/{area}/list-{n}"), format!("/api/v1/{area}/list-{n}")),
        Kind::Capture => (format!("/api/v1/{area}-{n}/{{id}}/items/{{item}}"), format!("/api/v1/{area}-{n}/81723/items/7")),
        Kind::Open => (format!("/static/{area}-{n}/**"), format!("/static/{area}-{n}/css/2026/site.css")),
        Kind::Regex => (format!("/archive-{n}/[0-9]{{4}}/[a-z-]+"), format!("/archive-{n}/2026/may-the-first")),
    };
    let host = format!("shop-{}.example", index / ROUTES_A_HOST);
    let matches = match Kind::of(index) {
        Kind::Regex => Match { hosts: vec![host], path_regex: Some(pattern), ..Match::default() },
        _ => Match { hosts: vec![host], path: Some(pattern), ..Match::default() },
    };
    (RouteName::new(&format!("r{index}")), matches, path)
}

struct Premise {
    routes: Vec<(RouteName, Match)>,
    requests: Vec<(Facts, u32)>,
}

impl Premise {
    /// Up to 4,096 requests for routes of these kinds, spread over all hosts.
    fn new(size: usize, kinds: &[Kind]) -> Self {
        let step = 7919;
        let spread = (0..size).map(|at| at * step % size).filter(|index| kinds.contains(&Kind::of(*index))).take(4096);
        let request = |index: usize| {
            let (_, matches, path) = route(index);
            (facts("GET", &matches.hosts[0], &path, None), u32::try_from(index).unwrap())
        };
        Self { requests: spread.map(request).collect(), routes: (0..size).map(route).map(|(n, m, _)| (n, m)).collect() }
    }

    fn compile(&self) -> Table {
        let (table, problems) = Table::compile(self.routes.iter().map(|(n, m)| (n, m)));
        assert!(problems.is_empty(), "{problems:?}");
        table
    }
}

const ALL: [Kind; 4] = [Kind::Exact, Kind::Capture, Kind::Open, Kind::Regex];

fn find(c: &mut Criterion) {
    for (mix, kinds) in [
        ("mixed", &ALL[..]),
        ("exact", &[Kind::Exact]),
        ("capture", &[Kind::Capture]),
        ("open", &[Kind::Open]),
        ("regex", &[Kind::Regex]),
    ] {
        let mut group = c.benchmark_group(format!("route/find/{mix}"));
        let sizes = if mix == "mixed" { &[10, 1_000, 100_000][..] } else { &[100_000] };
        for size in sizes {
            let premise = Premise::new(*size, kinds);
            let (table, headers) = (premise.compile(), HeaderMap::new());
            for (facts, index) in &premise.requests {
                let found = table.find(facts, &headers);
                assert!(matches!(found, Found::Route { index: i, .. } if i == *index), "{facts:?}: {found:?}");
            }
            let mut requests = premise.requests.iter().cycle();
            group.bench_function(BenchmarkId::new("table", size), |b| {
                b.iter(|| {
                    let (facts, _) = requests.next().unwrap();
                    black_box(table.find(black_box(facts), &headers))
                });
            });
        }
    }
}

fn naive(c: &mut Criterion) {
    let mut group = c.benchmark_group("route/find/mixed");
    group.sample_size(10);
    for size in [10, 1_000, 100_000] {
        let premise = Premise::new(size, &ALL);
        let (naive, headers) = (Naive::new(premise.routes.iter().map(|(n, m)| (n, m))), HeaderMap::new());
        for (facts, index) in premise.requests.iter().take(64) {
            assert!(matches!(naive.find(facts, &headers), Answer::Route(i, _) if i == *index));
        }
        let mut requests = premise.requests.iter().cycle();
        group.bench_function(BenchmarkId::new("naive", size), |b| {
            b.iter(|| {
                let (facts, _) = requests.next().unwrap();
                black_box(naive.find(black_box(facts), &headers))
            });
        });
    }
}

fn compile(c: &mut Criterion) {
    let mut group = c.benchmark_group("route/compile");
    group.sample_size(10);
    for size in [10_000, 100_000] {
        let premise = Premise::new(size, &ALL);
        let table = premise.compile();
        let (facts, index) = &premise.requests[0];
        assert!(matches!(table.find(facts, &HeaderMap::new()), Found::Route { index: i, .. } if i == *index));
        group.bench_function(BenchmarkId::new("table", size), |b| {
            b.iter_batched(|| (), |()| black_box(premise.compile()), BatchSize::PerIteration);
        });
    }
}

criterion_group!(benches, find, naive, compile);
criterion_main!(benches);
