//! The largest and the smallest of everything: nothing overflows, and what does not fit is refused.

use std::time::Duration;

use proptest::prelude::*;

use super::{
    super::{Algorithm, CLOCK_MAX, Key, Local, Rate, STATE_MAX, Unfit, meter::Meter},
    ALL, burst_of, rate,
};

fn edges() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        (0_u32..64, -2_i64..3).prop_map(|(bits, off)| (1_u64 << bits).wrapping_add_signed(off)),
        0_u64..100,
        (0_u64..100).prop_map(|less| CLOCK_MAX - less),
    ]
}

fn any_rate() -> impl Strategy<Value = Rate> {
    (edges(), edges()).prop_map(|(count, per)| rate(count.max(1), Duration::from_nanos(per.max(1))))
}

fn any_algorithm() -> impl Strategy<Value = Algorithm> {
    let leaky = edges().prop_map(|delay| Algorithm::LeakyBucket { max_delay: Duration::from_nanos(delay) });
    prop_oneof![Just(Algorithm::TokenBucket), leaky, Just(Algorithm::SlidingWindow), Just(Algorithm::FixedWindow)]
}

fn costs() -> impl Strategy<Value = u32> {
    prop_oneof![0_u32..4, any::<u32>(), Just(u32::MAX)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_state_no_time_and_no_cost_overflows(
        algorithm in any_algorithm(), rate in any_rate(), burst in edges(), state in edges(), cost in costs(), now in 0..=CLOCK_MAX, until in edges(),
    ) {
        let meter = Meter::new(&algorithm, rate, burst);
        let state = state & STATE_MAX;
        let (after, verdict) = meter.take(state, cost, now);
        prop_assert!(after <= STATE_MAX && verdict.remaining <= verdict.limit);
        prop_assert!(verdict.admitted || after == state);
        prop_assert_eq!(verdict.admitted, verdict.retry_after.is_zero());
        let charged = meter.charge(state, cost, now);
        prop_assert!(charged <= STATE_MAX && meter.used(charged, now) >= meter.used(state, now));
        prop_assert!(!verdict.admitted || charged == after);
        prop_assert!(meter.give_back(charged, cost, until, now) <= charged);
        prop_assert!(meter.join(state, charged) <= STATE_MAX);
        meter.look(state, now);
    }

    #[test]
    fn whatever_fits_is_counted_to_its_limit_and_not_beyond(algorithm in any_algorithm(), rate in any_rate(), burst in edges(), now in 0..=CLOCK_MAX) {
        let (algorithm, rate, burst) = fitted(algorithm, rate, burst);
        let local = Local::single(&algorithm, rate, burst);
        let verdict = local.look(Key::new(1), now);
        let takes = |cost: u64| u32::try_from(cost).is_ok_and(|cost| local.take(Key::new(1), cost, now).admitted);
        prop_assert!(verdict.admitted && verdict.remaining == verdict.limit && verdict.limit >= burst);
        prop_assert!(!takes(verdict.limit + 1));
        if u32::try_from(verdict.limit).is_ok() {
            prop_assert!(takes(verdict.limit));
            prop_assert!(!takes(1));
        }
    }

    /// What a join admits, each of the two would have: at once, and after more was counted in all three.
    #[test]
    fn a_join_has_used_no_less_than_each(
        algorithm in any_algorithm(), count in 1_u64..200, per in 1_000_u64..100_000_000, burst in 1_u64..200,
        one in proptest::collection::vec((0_u64..100_000_000, 0_u32..150), 0..6),
        other in proptest::collection::vec((0_u64..100_000_000, 0_u32..150), 0..6),
        more in proptest::collection::vec((0_u64..100_000_000, 0_u32..20), 1..6),
    ) {
        let meter = Meter::new(&algorithm, rate(count, Duration::from_nanos(per)), burst);
        let run = |steps: &[(u64, u32)]| steps.iter().fold((0, 0), |(state, now), (pause, cost)| (meter.charge(state, *cost, now + pause), now + pause));
        let ((one, first), (other, second)) = (run(&one), run(&other));
        let (mut joined, mut each, mut now) = (meter.join(one, other), [one, other], first.max(second));
        for (pause, cost) in more {
            now += pause;
            for state in &mut each {
                prop_assert!(meter.look(joined, now).remaining <= meter.look(*state, now).remaining);
                prop_assert!(meter.used(joined, now) >= meter.used(*state, now));
                *state = meter.charge(*state, cost, now);
            }
            joined = meter.charge(joined, cost, now);
        }
    }
}

/// As told, until it fits.
fn fitted(algorithm: Algorithm, asked: Rate, burst: u64) -> (Algorithm, Rate, u64) {
    let burst = burst_of(&algorithm, asked, burst);
    match algorithm.fits(asked, burst) {
        Ok(()) => (algorithm, asked, burst),
        Err(Unfit::Rate { most }) => fitted(algorithm, rate(most, Duration::from_nanos(asked.nanos())), burst),
        Err(Unfit::Window { longest }) => fitted(algorithm, rate(asked.count(), longest), burst),
        Err(Unfit::Burst { most }) => fitted(algorithm, asked, if burst == 0 { 1 } else { most }),
        Err(Unfit::Delay { longest }) => fitted(Algorithm::LeakyBucket { max_delay: longest }, asked, burst),
        Err(Unfit::NoBurst) => fitted(algorithm, asked, asked.count()),
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let second = Duration::from_secs(1);
    let century = Duration::from_secs(3_200_000_000);
    let longest = Duration::from_nanos(CLOCK_MAX);
    let check = |algorithm: Algorithm, count, per, burst, expected| {
        assert_eq!(algorithm.fits(rate(count, per), burst), expected, "{algorithm:?}")
    };
    for algorithm in ALL {
        check(algorithm, 1, century, 1, Err(Unfit::Window { longest }));
        check(algorithm, 10, second, 10, Ok(()));
    }
    check(Algorithm::TokenBucket, 1_000_000_001, second, 1, Err(Unfit::Rate { most: 1_000_000_000 }));
    check(Algorithm::TokenBucket, 10, second, 0, Err(Unfit::Burst { most: 11_529_215_046 }));
    check(Algorithm::TokenBucket, 10, second, u64::MAX, Err(Unfit::Burst { most: 11_529_215_046 }));
    check(
        Algorithm::LeakyBucket { max_delay: century },
        10,
        second,
        1,
        Err(Unfit::Delay { longest: Duration::from_nanos(STATE_MAX / 16) }),
    );
    check(Algorithm::SlidingWindow, 131_070, second, 131_070, Ok(()));
    check(Algorithm::SlidingWindow, 131_071, second, 131_071, Err(Unfit::Rate { most: 131_070 }));
    check(Algorithm::FixedWindow, 1 << 34, second, 1 << 34, Err(Unfit::Rate { most: (1 << 34) - 2 }));
    check(Algorithm::FixedWindow, 10, second, 20, Err(Unfit::NoBurst));
    check(Algorithm::SlidingWindow, 10, second, 20, Err(Unfit::NoBurst));
}

#[test]
fn after_its_last_moment_time_stands_still() {
    for algorithm in ALL {
        let local = Local::new(&algorithm, rate(1, Duration::from_secs(1)), 1, 1);
        let admitted = (0..100).filter(|turn| local.take(Key::new(1), 1, u64::MAX - 100 + turn).admitted).count();
        assert!(admitted <= 1, "{algorithm:?}");
    }
}
