//! A local decision among a million keys in use, drawn at random: on one thread, and on two at once, beside a map under a lock.
//!
//! Each bench first checks its premise: every key has its own count, which was not inherited.

use std::{
    collections::HashMap,
    hint::black_box,
    sync::{Barrier, Mutex},
    thread,
    time::{Duration, Instant},
};

use banyan::{
    limit::{Algorithm, Key, Local},
    units::Rate,
};
use criterion::{Criterion, criterion_group, criterion_main};

const KEYS: u64 = 1_000_000;

/// Nanoseconds between two requests: every key comes about once in 0.2 s, so all are in use all the time.
const STEP: u64 = 200;

/// Nanoseconds since the start when the table has been filled.
const FILLED: u64 = KEYS * STEP;

fn rate(count: u64) -> Rate {
    Rate::new(count, Duration::from_secs(60)).expect("neither is zero")
}

/// A table with a million keys, each of which has used one of a hundred.
fn filled(algorithm: &Algorithm, count: u64) -> Local {
    let local = Local::new(algorithm, rate(count), count, KEYS as usize);
    let inherited = (0..KEYS).filter(|key| local.take(of(*key), 1, key * STEP).remaining < count - 1).count();
    assert!(inherited < 5, "{inherited} of a million began with what another had");
    local
}

fn of(number: u64) -> Key {
    Key::new(number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// A random key of those (xorshift).
fn draw(random: &mut u64) -> Key {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    of(((u128::from(*random) * u128::from(KEYS)) >> 64) as u64)
}

/// The time that each of `threads` takes for so many decisions.
fn on_threads(threads: u64, turns: u64, decide: impl Fn(&mut u64, u64) + Sync) -> Duration {
    let start = Barrier::new(threads as usize);
    thread::scope(|scope| {
        let run = |thread| {
            let (start, decide) = (&start, &decide);
            scope.spawn(move || {
                let mut random = 0x9e37_79b9_7f4a_7c15 + thread;
                start.wait();
                let began = Instant::now();
                (0..turns).for_each(|turn| decide(&mut random, FILLED + turn * STEP));
                began.elapsed()
            })
        };
        let threads: Vec<_> = (0..threads).map(run).collect();
        threads.into_iter().map(|thread| thread.join().expect("it does not panic")).max().unwrap_or_default()
    })
}

fn local(c: &mut Criterion) {
    let algorithms = [
        ("token_bucket", Algorithm::TokenBucket, 100),
        ("token_bucket_uneven", Algorithm::TokenBucket, 101),
        ("leaky_bucket", Algorithm::LeakyBucket { max_delay: Duration::from_secs(1) }, 100),
        ("sliding_window", Algorithm::SlidingWindow, 100),
        ("fixed_window", Algorithm::FixedWindow, 100),
    ];
    for (name, algorithm, count) in algorithms {
        let local = filled(&algorithm, count);
        for threads in [1, 2] {
            c.bench_function(&format!("limiter/million_keys/{name}/{threads}"), |b| {
                b.iter_custom(|turns| on_threads(threads, turns, |random, now| _ = black_box(local.take(draw(random), 1, now))));
            });
        }
    }
}

/// Every decision is about a key that never came before: the table is full of others, some in use.
fn strangers(c: &mut Criterion) {
    let local = filled(&Algorithm::TokenBucket, 100);
    c.bench_function("limiter/strangers/token_bucket/1", |b| {
        b.iter_custom(|turns| {
            on_threads(1, turns, |random, now| {
                draw(random);
                black_box(local.take(Key::new(*random), 1, now));
            })
        });
    });
}

fn single(c: &mut Criterion) {
    let local = Local::single(&Algorithm::TokenBucket, rate(6_000_000_000), 1_000_000_000);
    for threads in [1, 2] {
        c.bench_function(&format!("limiter/single_cell/token_bucket/{threads}"), |b| {
            b.iter_custom(|turns| on_threads(threads, turns, |_, now| _ = black_box(local.take(Key::new(0), 1, now))));
        });
    }
}

/// What it would be without the table: a map under a lock, and tokens in numbers with a point.
fn naive(c: &mut Criterion) {
    let map: Mutex<HashMap<u64, (f64, u64)>> = Mutex::new((0..KEYS).map(|key| (of(key).hash(), (99.0, key * STEP))).collect());
    let take = |key: Key, now: u64| {
        let mut map = map.lock().expect("none panics");
        let (tokens, last) = map.entry(key.hash()).or_insert((100.0, now));
        *tokens = (*tokens + (now.saturating_sub(*last)) as f64 * 100.0 / 60e9).min(100.0);
        *last = now;
        let admitted = *tokens >= 1.0;
        *tokens -= f64::from(u8::from(admitted));
        admitted
    };
    for threads in [1, 2] {
        c.bench_function(&format!("limiter/million_keys/naive_map/{threads}"), |b| {
            b.iter_custom(|turns| on_threads(threads, turns, |random, now| _ = black_box(take(draw(random), now))));
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2)).sample_size(20);
    targets = local, strangers, single, naive
}
criterion_main!(benches);
