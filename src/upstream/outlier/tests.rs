use std::{num::NonZeroU32, thread};

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::units::Duration;

const S: u64 = 1_000_000_000;

fn config() -> Config {
    let three = NonZeroU32::new(3).unwrap();
    Config {
        consecutive_failures: three,
        eject_for: Duration::from_secs(10),
        eject_for_max: Duration::from_secs(25),
        ..Config::default()
    }
}

fn members(count: usize) -> Vec<Arc<OutlierState>> {
    (0..count).map(|_| Arc::default()).collect()
}

fn outliers(config: &Config, count: usize) -> Outliers {
    Outliers::new(config, members(count))
}

fn fail(outliers: &Outliers, member: usize, times: usize, now: u64) -> Option<Ejection> {
    (0..times).filter_map(|_| outliers.report(&outliers.members[member], Ended::Reset, now)).last()
}

fn out(outliers: &Outliers) -> Vec<bool> {
    outliers.members.iter().map(|member| member.is_ejected()).collect()
}

#[test]
fn failures_in_a_row_eject() {
    let outliers = outliers(&config(), 2);
    assert_eq!(fail(&outliers, 0, 2, S), None);
    outliers.report(&outliers.members[0], Ended::Answered(500), S);
    assert_eq!(fail(&outliers, 0, 2, S), None, "an answer ends the row");
    let ejection = fail(&outliers, 0, 1, S).unwrap();
    assert_eq!((ejection.at, ejection.until, ejection.times), (S, 11 * S, 1));
    assert_eq!(ejection.why.to_string(), "3 failures in a row, the last a reset");
    assert_eq!(outliers.members[0].ejection(), Some(ejection));
    assert_eq!(fail(&outliers, 0, 9, S), None, "it is told once");
    assert_eq!(out(&outliers), [true, false]);
}

#[test]
fn time_out_grows_and_good_standing_takes_it_back() {
    let outliers = outliers(&config(), 2);
    let mut now = 100 * S;
    for (pause, expected) in [(0, 10), (1, 20), (1, 25), (1, 25), (25, 25), (1000, 10)] {
        now += pause * S;
        let ejection = fail(&outliers, 0, 3, now).unwrap();
        assert_eq!((ejection.until - now) / S, expected, "{ejection:?}");
        assert_eq!(outliers.sweep(ejection.until - 1), []);
        now = ejection.until;
        assert_eq!(outliers.sweep(now), [(0, Change::Returned)]);
        assert_eq!(outliers.sweep(now), [], "it is told once");
    }
    assert_eq!(outliers.members[0].last_ejection().unwrap().times, 1);
}

#[test]
fn no_more_are_out_than_may_be() {
    for (count, share, most) in [(1, 50, 0), (2, 50, 1), (2, 10, 1), (10, 50, 5), (4, 0, 0), (3, 100, 3), (1, 100, 1)] {
        let outliers = outliers(&Config { max_ejected: Percent::of(share), ..config() }, count);
        for member in 0..count {
            fail(&outliers, member, 3, S);
        }
        assert_eq!(out(&outliers).into_iter().filter(|out| *out).count(), most, "{count} {share}%");
    }
}

#[test]
fn one_that_had_to_stay_goes_when_there_is_room() {
    let outliers = outliers(&config(), 2);
    fail(&outliers, 0, 3, S);
    assert_eq!(fail(&outliers, 1, 5, S), None);
    outliers.sweep(11 * S);
    let ejection = fail(&outliers, 1, 1, 11 * S).unwrap();
    assert_eq!(ejection.why, Why::FailuresInARow { failures: 6, last: Ended::Reset });
}

#[test]
fn all_are_tried_when_all_are_out_and_that_is_told_once() {
    let outliers = outliers(&Config { max_ejected: Percent::ALL, ..config() }, 2);
    let all = || outliers.members.iter().map(Arc::as_ref);
    fail(&outliers, 0, 3, S);
    assert_eq!(outliers.settle(all()), None);
    assert!(outliers.is_out(&outliers.members[0]) && !outliers.is_panicking());
    fail(&outliers, 1, 3, S);
    assert_eq!(outliers.settle(all()), Some(true));
    assert_eq!(outliers.settle(all()), None);
    assert!(outliers.is_panicking() && !outliers.is_out(&outliers.members[0]));
    outliers.members[0].readmit(2 * S);
    assert_eq!(outliers.settle(all()), Some(false));
    assert!(outliers.is_out(&outliers.members[1]));
}

#[test]
fn panic_looks_at_the_healthy_only() {
    let outliers = outliers(&Config { panic_at: Percent::of(50), ..config() }, 4);
    fail(&outliers, 0, 3, S);
    assert_eq!(outliers.settle(outliers.members.iter().map(Arc::as_ref)), None, "three of four are more than half");
    assert_eq!(outliers.settle(outliers.members[..2].iter().map(Arc::as_ref)), Some(true), "one of two is not");
    assert_eq!(outliers.settle([]), Some(false), "where nobody is out there is nothing to overlook");
}

#[test]
fn what_is_known_outlives_the_list() {
    let known = members(3);
    let before = Outliers::new(&config(), known.clone());
    fail(&before, 0, 3, S);
    let without = Outliers::new(&config(), known[1..].iter().cloned());
    fail(&without, 0, 2, S);
    let after = Outliers::new(&config(), known);
    assert_eq!(out(&after), [true, false, false]);
    assert_eq!(fail(&after, 1, 1, S), None, "one is out already of three");
    assert_eq!(after.sweep(11 * S), [(0, Change::Returned)]);
    assert!(fail(&after, 1, 1, 11 * S).is_some(), "its failures are remembered too");
}

fn success_rate() -> Config {
    Config { success_rate: Some(SuccessRate::default()), ..Config::default() }
}

fn answers(outliers: &Outliers, member: usize, good: usize, bad: usize) {
    for _ in 0..bad {
        outliers.report(&outliers.members[member], Ended::Answered(503), S);
        outliers.report(&outliers.members[member], Ended::Answered(200), S);
    }
    for _ in bad..good {
        outliers.report(&outliers.members[member], Ended::Answered(200), S);
    }
}

#[test]
fn one_that_fails_more_often_than_the_others_is_out() {
    let outliers = outliers(&success_rate(), 6);
    assert_eq!(outliers.sweep(S), []);
    assert_eq!(outliers.next_sweep(), Some(11 * S));
    (0..5).for_each(|member| answers(&outliers, member, 200, 0));
    answers(&outliers, 5, 150, 50);
    assert_eq!(outliers.sweep(10 * S), []);
    let changes = outliers.sweep(11 * S);
    let [(5, Change::Ejected(Ejection { why: Why::SuccessRate { rate, .. }, .. }))] = changes[..] else { panic!("{changes:?}") };
    assert_eq!(rate, 0.75);
    assert_eq!(outliers.sweep(21 * S), [], "each interval is counted anew");
}

#[test]
fn few_requests_or_few_endpoints_are_not_compared() {
    let few = outliers(&success_rate(), 4);
    few.sweep(S);
    (0..3).for_each(|member| answers(&few, member, 200, 0));
    answers(&few, 3, 100, 100);
    assert_eq!(few.sweep(11 * S), []);
    let seldom = outliers(&success_rate(), 6);
    seldom.sweep(S);
    (0..5).for_each(|member| answers(&seldom, member, 200, 0));
    answers(&seldom, 5, 40, 40);
    assert_eq!(seldom.sweep(11 * S), []);
}

#[test]
fn threads_eject_each_member_once_and_never_too_many() {
    let outliers = outliers(&config(), 8);
    let ejected: usize = thread::scope(|scope| {
        let threads =
            (0..4).map(|_| scope.spawn(|| (0..8).cycle().take(8_000).filter_map(|member| fail(&outliers, member, 1, S)).count()));
        threads.collect::<Vec<_>>().into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!((ejected, outliers.out()), (4, 4));
    let returned: usize = thread::scope(|scope| {
        let threads = (0..4).map(|_| scope.spawn(|| outliers.sweep(100 * S).len()));
        threads.collect::<Vec<_>>().into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!((returned, outliers.out()), (4, 0));
}

/// What should come out, in plain words: one value a fact, no atomics.
#[derive(Clone, Default)]
struct Model {
    row: u32,
    until: Option<u64>,
    times: u64,
    returned: u64,
}

proptest! {
    #[test]
    fn it_does_what_the_model_does(count in 1..6_usize, share in 0..=100_u8, steps in vec((0..6_usize, 0..4_u8, 0..8_u64), 1..300)) {
        let config = Config { max_ejected: Percent::of(share), ..config() };
        let outliers = outliers(&config, count);
        let mut model = vec![Model::default(); count];
        let most = match usize::from(share) * count / 100 {
            0 if count > 1 && share > 0 => 1,
            some => some,
        };
        let mut now = 1000 * S;
        for (member, what, pause) in steps {
            now += pause * S;
            let member = member % count;
            if what == 0 {
                outliers.sweep(now);
                for member in model.iter_mut().filter(|member| member.until.is_some_and(|until| until <= now)) {
                    *member = Model { row: 0, until: None, times: member.times, returned: now };
                }
            } else if what == 1 {
                outliers.report(&outliers.members[member], Ended::Answered(200), now);
                model[member].row = 0;
            } else {
                let told = outliers.report(&outliers.members[member], Ended::Late, now);
                let room = model.iter().filter(|member| member.until.is_some()).count() < most;
                let member = &mut model[member];
                member.row += 1;
                let goes = member.row >= 3 && member.until.is_none() && room;
                if goes {
                    member.times = member.times.saturating_sub((now - member.returned) / (10 * S)) + 1;
                    member.until = Some(now + (10 * S * member.times).min(25 * S));
                }
                prop_assert_eq!(told.map(|ejection| ejection.until), goes.then_some(member.until).flatten());
            }
            let expected: Vec<_> = model.iter().map(|member| member.until).collect();
            let found: Vec<_> = outliers.members.iter().map(|member| member.ejection().map(|ejection| ejection.until)).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
