//! More keys than the table is made for.

use std::{collections::HashMap, time::Duration};

use proptest::{collection::vec, prelude::*};

use super::{
    super::{Algorithm, Key, Local},
    ALL, burst_of,
    models::{Model, most},
    rate,
};

#[test]
fn a_flood_of_keys_frees_no_offender() {
    let rate = rate(10, Duration::from_secs(60));
    for algorithm in ALL {
        let local = Local::new(&algorithm, rate, burst_of(&algorithm, rate, 10), 1_000);
        let offenders: Vec<Key> = (0..50).map(|offender| Key::new(offender << 40)).collect();
        let exhaust = |key: &Key| (0..1_000).filter(|_| local.take(*key, 1, 0).admitted).count();
        let admitted: Vec<usize> = offenders.iter().map(exhaust).collect();
        for stranger in 0..10_000 {
            local.take(Key::new(stranger), 1, stranger);
            local.take(Key::new(stranger / 3 + 20_000), 2, stranger);
        }
        assert!(offenders.iter().all(|key| !local.take(*key, 1, 10_000).admitted), "{algorithm:?}");
        assert!(
            admitted.iter().all(|admitted| (10..=11).contains(admitted)) || matches!(algorithm, Algorithm::LeakyBucket { .. })
        );
    }
}

#[test]
fn as_many_keys_as_it_is_made_for_each_have_their_own_count() {
    let rate = rate(1, Duration::from_secs(60));
    let local = Local::new(&Algorithm::TokenBucket, rate, 1, 50_000);
    assert!((0..50_000).all(|key| local.take(Key::new(key), 1, 0).admitted));
    assert!((0..50_000).all(|key| !local.take(Key::new(key), 1, 1).admitted));
}

#[test]
fn keys_that_have_used_nothing_make_room() {
    let rate = rate(10, Duration::from_secs(1));
    for algorithm in ALL {
        let local = Local::new(&algorithm, rate, burst_of(&algorithm, rate, 10), 1);
        // Fourteen slots: at any moment twelve are in use, each key for two seconds or less.
        let held = |turn: u64| local.take(Key::new(turn), 10, turn * 170_000_000).admitted;
        assert!((1..5_000).all(held), "{algorithm:?}");
    }
}

#[test]
fn one_that_is_forgotten_begins_anew_also_where_newcomers_do_not() {
    let rate = rate(10, Duration::from_secs(1));
    let local = Local::new(&Algorithm::TokenBucket, rate, 10, 1);
    (0..1_000).for_each(|key| local.charge(Key::new(key), 10, 0));
    assert!(!local.take(Key::new(5_000), 1, 0).admitted);
    local.forget(Key::new(5_000));
    assert_eq!(local.look(Key::new(5_000), 0).remaining, 10);
    assert!(local.take(Key::new(5_000), 10, 0).admitted);
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Take(u32),
    Charge(u32),
    GiveBack,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![6 => (1_u32..4).prop_map(Act::Take), 1 => (1_u32..6).prop_map(Act::Charge), 2 => Just(Act::GiveBack)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// Fourteen slots and up to sixty keys, with what is given back and charged: each key has at most what its model allows.
    #[test]
    fn a_table_that_overflows_admits_nobody_more_than_their_own(
        which in 0_usize..4, burst in 2_u64..8, acts in vec((0_u64..60, 0_u64..40_000_000, act()), 1..400),
    ) {
        let (algorithm, rate) = (ALL[which], rate(5, Duration::from_secs(1)));
        let burst = burst_of(&algorithm, rate, burst);
        let local = Local::new(&algorithm, rate, burst, 1);
        let (mut models, mut last, mut now) = (HashMap::<u64, Model>::new(), None, 0);
        for (key, pause, act) in acts {
            now += pause;
            match (act, last.take()) {
                (Act::Take(cost), _) => {
                    let verdict = local.take(Key::new(key), cost, now);
                    if verdict.admitted {
                        let model = models.entry(key).or_default();
                        last = Some((key, cost, model.count(now, cost), verdict.until));
                        prop_assert!(model.used(&algorithm, rate, now) <= most(&algorithm, rate, burst));
                    }
                }
                (Act::Charge(cost), _) => {
                    local.charge(Key::new(key), cost, now);
                    models.entry(key).or_default().count(now, cost);
                }
                (Act::GiveBack, Some((key, cost, number, until))) => {
                    local.give_back(Key::new(key), cost, until, now);
                    models.entry(key).or_default().take_out(number);
                }
                (Act::GiveBack, None) => {}
            }
        }
    }
}
