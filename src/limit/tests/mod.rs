//! The algorithms beside their models, and the table under threads and floods.

mod models;
mod against_models;
mod extremes;
mod flood;
mod threads;
mod renewed;

use std::time::Duration;

use super::{Algorithm, Rate};

fn rate(count: u64, per: Duration) -> Rate {
    Rate::new(count, per).unwrap()
}

/// As the configuration would have it: windows have no burst of their own.
fn burst_of(algorithm: &Algorithm, rate: Rate, burst: u64) -> u64 {
    match algorithm {
        Algorithm::TokenBucket | Algorithm::LeakyBucket { .. } => burst,
        Algorithm::SlidingWindow | Algorithm::FixedWindow => rate.count(),
    }
}

const ALL: [Algorithm; 4] = [
    Algorithm::TokenBucket,
    Algorithm::LeakyBucket { max_delay: Duration::from_millis(700) },
    Algorithm::SlidingWindow,
    Algorithm::FixedWindow,
];
