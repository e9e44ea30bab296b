//! What each way to balance is worth, in the simulator: the figures that docs promise.

use std::time::Duration;

use crate::upstream::balance::Method;

use super::simulator::{Chooser, Kind, Outcome, SECOND, Scenario, run};

fn ten(method: Method, last: Kind) -> Outcome {
    run(Chooser::Ours(method), &Scenario::ten(last))
}

#[test]
fn peak_ewma_hides_an_endpoint_that_is_ten_times_slow() {
    for seed in 1..=3 {
        let scenario = |kind| Scenario { seed, ..Scenario::ten(kind) };
        let fast = run(Chooser::Ours(Method::PeakEwma), &scenario(Kind::Fast)).quantile(0.99);
        let slow = run(Chooser::Ours(Method::PeakEwma), &scenario(Kind::Slow(10)));
        assert!(slow.quantile(0.99) <= 1.3 * fast, "{} ms, all fast {fast} ms", slow.quantile(0.99));
        assert_eq!(slow.errors(), 0.0);
    }
}

#[test]
fn peak_ewma_hides_it_from_a_fleet_of_gateways_too() {
    // 50 requests a second each, of which each has to find out for itself.
    let scenario = |kind| Scenario { gateways: 20, rate: 1_000, ..Scenario::ten(kind) };
    let fast = run(Chooser::Ours(Method::PeakEwma), &scenario(Kind::Fast)).quantile(0.99);
    let slow = run(Chooser::Ours(Method::PeakEwma), &scenario(Kind::Slow(10))).quantile(0.99);
    assert!(slow <= 1.3 * fast, "{slow} ms, all fast {fast} ms");
}

#[test]
fn round_robin_drowns_a_slow_endpoint_and_least_requests_does_not() {
    assert!(ten(Method::RoundRobin, Kind::Slow(10)).errors() > 0.05);
    let least = ten(Method::LeastRequests, Kind::Slow(10));
    assert_eq!(least.errors(), 0.0);
    assert!(least.quantile(0.99) < 3.0 * ten(Method::LeastRequests, Kind::Fast).quantile(0.99));
}

#[test]
fn five_slow_ones_of_ten_are_not_drowned_by_pairs_of_them() {
    let mut scenario = Scenario { rate: 1_400, ..Scenario::ten(Kind::Fast) };
    scenario.endpoints[5..].fill(Kind::Slow(10));
    for method in [Method::LeastRequests, Method::PeakEwma] {
        assert_eq!(run(Chooser::Ours(method), &scenario).errors(), 0.0, "{method:?}");
    }
}

#[test]
fn where_half_fail_one_in_ten_the_others_are_not_drowned_for_it() {
    let mut scenario = Scenario { rate: 2_800, ..Scenario::ten(Kind::Fast) };
    scenario.endpoints[5..].fill(Kind::Failing(10));
    for method in [Method::LeastRequests, Method::PeakEwma] {
        let outcome = run(Chooser::Ours(method), &scenario);
        assert!(outcome.quantile(0.99) < 80.0, "{method:?}: {} ms", outcome.quantile(0.99));
    }
}

#[test]
fn an_endpoint_that_only_refuses_is_no_black_hole() {
    for method in [Method::PeakEwma, Method::LeastRequests] {
        let outcome = ten(method, Kind::Dead);
        assert!(outcome.errors() < 0.003, "{method:?}: {}", outcome.errors());
    }
    // Not when the others have much to do either, and it looks idle.
    let scenario = Scenario { rate: 3_400, ..Scenario::ten(Kind::Dead) };
    assert!(run(Chooser::Ours(Method::LeastRequests), &scenario).errors() < 0.003);
    assert!(run(Chooser::Bounded, &Scenario::ten(Kind::Dead)).errors() < 0.01);
}

#[test]
fn an_endpoint_that_says_nothing_is_left_before_its_requests_time_out() {
    let scenario = Scenario { warm_up: 0, length: 10 * SECOND, ..Scenario::ten(Kind::Silent) };
    let outcome = run(Chooser::Ours(Method::PeakEwma), &scenario);
    assert!(outcome.errors() < 0.001, "{}", outcome.errors());
    assert!(outcome.share(9) > 0.0);
}

#[test]
fn an_endpoint_that_is_stopped_is_left_before_its_requests_time_out() {
    let scenario = Scenario { length: 12 * SECOND, ..Scenario::ten(Kind::Stopping(10 * SECOND)) };
    let outcome = run(Chooser::Ours(Method::PeakEwma), &scenario);
    // Ten or so of 14,000; those who look at requests in flight only lose as many in each second.
    assert!(outcome.errors() < 0.001, "{}", outcome.errors());
    assert!(outcome.longest[9] < 15, "{}", outcome.longest[9]);
}

#[test]
fn an_endpoint_that_fails_one_in_ten_gets_less_than_half_of_its_share_from_peak_ewma() {
    let (peak, turns) = (ten(Method::PeakEwma, Kind::Failing(10)), ten(Method::RoundRobin, Kind::Failing(10)));
    assert!(peak.errors() < 0.5 * turns.errors(), "{} and {}", peak.errors(), turns.errors());
    assert!(peak.share(9) > 0.001, "it is tried now and then");
}

#[test]
fn an_endpoint_that_was_slow_gets_its_share_again() {
    let scenario = Scenario { length: 90 * SECOND, warm_up: 60 * SECOND, ..Scenario::ten(Kind::Recovering(10, 20 * SECOND)) };
    let share = run(Chooser::Ours(Method::PeakEwma), &scenario).share(9);
    assert!(share > 0.07, "{share}");
}

#[test]
fn an_endpoint_that_refused_from_the_beginning_gets_its_share_when_it_is_there() {
    for (method, rate) in
        [(Method::PeakEwma, 2_000), (Method::PeakEwma, 50), (Method::LeastRequests, 2_000), (Method::LeastRequests, 50)]
    {
        let scenario =
            Scenario { rate, length: 120 * SECOND, warm_up: 90 * SECOND, ..Scenario::ten(Kind::Returning(20 * SECOND)) };
        let share = run(Chooser::Ours(method), &scenario).share(9);
        assert!(share > 0.05, "{method:?} at {rate}: {share}");
    }
}

#[test]
fn one_more_try_saves_all_while_one_of_ten_is_dead() {
    for method in [Method::RoundRobin, Method::LeastRequests, Method::PeakEwma, Method::Random, Method::Hash] {
        let outcome = run(Chooser::Ours(method), &Scenario { tries: 2, length: 15 * SECOND, ..Scenario::ten(Kind::Dead) });
        assert_eq!(outcome.errors(), 0.0, "{method:?}");
    }
}

/// Twenty gateways that all learn of an endpoint at the same moment: the most requests that it and any other had at once.
fn herd(chooser: Chooser, slow_start: u64) -> (usize, usize) {
    let scenario = Scenario {
        gateways: 20,
        slow_start: Duration::from_secs(slow_start),
        length: 12 * SECOND,
        ..Scenario::ten(Kind::Joining(8 * SECOND))
    };
    let outcome = run(chooser, &scenario);
    (outcome.longest[9], outcome.longest[..9].iter().copied().max().unwrap())
}

#[test]
fn gateways_do_not_all_run_to_a_newcomer() {
    for method in [Method::LeastRequests, Method::PeakEwma] {
        let (newcomer, other) = herd(Chooser::Ours(method), 0);
        assert!(newcomer <= 3 * other, "{method:?}: {newcomer} at the newcomer, {other} at others");
        let (newcomer, other) = herd(Chooser::Ours(method), 10);
        assert!(newcomer <= 3 * other / 2, "{method:?}, slowly: {newcomer} at the newcomer, {other} at others");
    }
    // That there is something to be avoided: who takes the best of all makes a herd.
    let (newcomer, _) = herd(Chooser::Greedy, 0);
    let (ours, _) = herd(Chooser::Ours(Method::PeakEwma), 0);
    assert!(newcomer > ours, "{newcomer} and {ours}");
}

#[test]
fn the_same_seed_gives_the_same() {
    let scenario = Scenario { length: 8 * SECOND, ..Scenario::ten(Kind::Failing(10)) };
    let twice = [(); 2].map(|()| run(Chooser::Ours(Method::PeakEwma), &scenario));
    assert_eq!(twice[0].tries, twice[1].tries);
    assert_eq!(twice[0].errors(), twice[1].errors());
}
