//! Real threads: together they are admitted no more than one would be.

use std::{
    sync::{
        Barrier,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use super::{
    super::{Algorithm, Key, Local, Rate},
    ALL, burst_of, rate,
};

const THREADS: u64 = 4;

/// Runs the same on all threads at once; the sum of what they give.
fn together(work: impl Fn(u64) -> u64 + Sync) -> u64 {
    let start = Barrier::new(THREADS as usize);
    thread::scope(|scope| {
        let run = |thread| {
            let (start, work) = (&start, &work);
            scope.spawn(move || {
                start.wait();
                work(thread)
            })
        };
        let threads: Vec<_> = (0..THREADS).map(run).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    })
}

fn limit() -> Rate {
    rate(10, Duration::from_secs(1))
}

fn local(algorithm: &Algorithm, keys: usize) -> Local {
    Local::new(algorithm, limit(), burst_of(algorithm, limit(), 10), keys)
}

/// At one moment.
fn most(algorithm: &Algorithm) -> u64 {
    local(algorithm, 1).look(Key::new(0), 0).limit
}

#[test]
fn threads_that_bring_a_new_key_at_once_share_its_limit() {
    for algorithm in ALL {
        let local = local(&algorithm, 10_000);
        for key in 0..150 {
            let admitted = together(|_| (0..8).filter(|_| local.take(Key::new(key), 1, 0).admitted).count() as u64);
            assert_eq!(admitted, most(&algorithm), "{algorithm:?}");
        }
    }
}

#[test]
fn threads_are_admitted_what_comes_in_time_and_no_more() {
    for single in [true, false] {
        let (clock, burst) = (AtomicU64::new(0), 10);
        let many = local(&Algorithm::TokenBucket, 1);
        let local = if single { Local::single(&Algorithm::TokenBucket, limit(), burst) } else { many };
        let turn = || local.take(Key::new(1), 1, clock.fetch_add(1_000_000, Ordering::Relaxed)).admitted;
        let admitted = together(|_| (0..50_000).filter(|_| turn()).count() as u64);
        let come = clock.load(Ordering::Relaxed) / 100_000_000;
        assert!((burst + come - 1..=burst + come).contains(&admitted), "{admitted} of {come}");
    }
}

#[test]
fn threads_that_fight_for_too_few_slots_are_admitted_no_more() {
    for algorithm in ALL {
        for round in 0..10 {
            let local = local(&algorithm, 1);
            let net: Vec<AtomicU64> = (0..40).map(|_| AtomicU64::new(0)).collect();
            together(|thread| {
                let mut random = fastrand_like(round * THREADS + thread);
                for _ in 0..3_000 {
                    let key = random() % 40;
                    let verdict = local.take(Key::new(key), 1, 0);
                    if verdict.admitted && !random().is_multiple_of(4) {
                        // First out of the sum: others may take it as soon as it is given back.
                        local.give_back(Key::new(key), 1, verdict.until, 0);
                    } else if verdict.admitted {
                        net[key as usize].fetch_add(1, Ordering::Relaxed);
                    }
                }
                0
            });
            let most = most(&algorithm);
            assert!(net.iter().all(|net| net.load(Ordering::Relaxed) <= most), "{algorithm:?} {net:?}");
        }
    }
}

#[test]
fn what_all_threads_give_back_is_there_again() {
    for algorithm in ALL {
        let local = local(&algorithm, 1_000);
        together(|thread| {
            for turn in 0..20_000 {
                let key = Key::new((turn * 7 + thread) % 100);
                let verdict = local.take(key, 1, turn);
                if verdict.admitted {
                    local.give_back(key, 1, verdict.until, turn);
                }
            }
            0
        });
        assert!((0..100).all(|key| local.look(Key::new(key), 20_000).remaining >= most(&algorithm)), "{algorithm:?}");
    }
}

#[test]
fn what_threads_charge_is_all_counted() {
    let local = local(&Algorithm::TokenBucket, 1);
    together(|thread| {
        (0..5_000).for_each(|turn| local.charge(Key::new((turn + thread) % 5), 1, 0));
        0
    });
    let debt = |key| local.look(Key::new(key), 0).reset;
    assert!((0..5).all(|key| debt(key) == Duration::from_millis(100) * 4_000));
}

/// Small random numbers from a seed (splitmix64).
fn fastrand_like(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed.wrapping_mul(0x2545_f491_4f6c_dd1d);
    move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) >> 16
    }
}
