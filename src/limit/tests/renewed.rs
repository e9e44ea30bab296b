//! Limits whose terms change while they count.

use std::time::Duration;

use super::{
    super::{Algorithm, Key, Local},
    ALL, burst_of, rate,
};

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn what_was_used_is_used_under_other_terms() {
    for (before, after) in ALL.iter().flat_map(|before| ALL.map(|after| (*before, after))) {
        let (old, new) = (rate(10, HOUR), rate(20, HOUR));
        let local = Local::new(&before, old, burst_of(&before, old, 10), 1_000);
        for key in 0..800 {
            local.take(Key::new(key), (key % 11) as u32, 5);
        }
        let renewed = local.renewed(&after, new, burst_of(&after, new, 20), 5);
        for key in 0..800 {
            let (was, is) = (local.look(Key::new(key), 5), renewed.look(Key::new(key), 5));
            assert_eq!(is.limit - is.remaining, was.limit - was.remaining, "{key}: {before:?} {after:?}");
        }
    }
}

#[test]
fn nobody_is_freed_by_less_and_a_full_table_stays_one() {
    let (old, new) = (rate(10, HOUR), rate(5, HOUR));
    let local = Local::new(&Algorithm::TokenBucket, old, 10, 1);
    (0..1_000).for_each(|key| local.charge(Key::new(key), 9, 5));
    let renewed = local.renewed(&Algorithm::TokenBucket, new, 5, 5);
    assert!((0..2_000).all(|key| !renewed.take(Key::new(key), 1, 5).admitted));
}

#[test]
fn one_count_goes_over_too() {
    let local = Local::single(&Algorithm::TokenBucket, rate(10, HOUR), 10);
    local.take(Key::new(1), 4, 5);
    assert_eq!(local.renewed(&Algorithm::FixedWindow, rate(6, HOUR), 6, 5).look(Key::new(2), 5).remaining, 2);
}
