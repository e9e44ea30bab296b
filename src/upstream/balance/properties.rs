//! What holds of every layout, whatever the endpoints, weights and tiers.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use crate::upstream::{
    balance::{
        Ask, Layout, Method, Tuning,
        latency::{Answer, Decay},
        sticky::Sticky,
    },
    member::{Member, Out, Tally, Vitals},
};
use proptest::prelude::*;

use super::simulator::{Chance, SECOND, address};

const ALL: [Method; 5] = [Method::RoundRobin, Method::LeastRequests, Method::PeakEwma, Method::Random, Method::Hash];
const STICKY: Sticky = Sticky::new([1; 32]);

fn member(n: usize, weight: u32, priority: u8) -> Member {
    Member { address: address(n), weight, priority, token: STICKY.token(address(n)), vitals: Arc::default() }
}

fn members(weights: &[u32]) -> Box<[Member]> {
    weights.iter().enumerate().map(|(n, weight)| member(n, *weight, 0)).collect()
}

fn layout(members: &[Member], method: Method) -> Layout {
    Layout::of(members.into(), Tuning { panic: 0.0, ..Tuning::of(method) }, None)
}

/// Where as many requests go, each with a key of its own.
fn positions(layout: &Layout, count: u64, now: u64) -> Vec<Option<usize>> {
    let (tally, mut chance) = (Tally::default(), Chance(7));
    let one = |key: u64| {
        let ask = Ask { key: Some(&key.to_le_bytes()), random: chance.next(), now, ..Ask::default() };
        layout.pick(&tally, &ask).map(|pick| pick.position)
    };
    (0..count).map(one).collect()
}

fn shares(layout: &Layout, count: u64, now: u64) -> Vec<f64> {
    let positions = positions(layout, count, now);
    (0..layout.members().len())
        .map(|n| positions.iter().filter(|position| **position == Some(n)).count() as f64 / count as f64)
        .collect()
}

fn method() -> impl Strategy<Value = Method> {
    prop::sample::select(ALL.to_vec())
}

#[derive(Clone, Copy, Debug)]
struct Situation {
    weight: u32,
    priority: u8,
    out: Option<Out>,
    /// After the layout.
    later: Option<Out>,
    tried: bool,
    cold: bool,
    in_flight: u8,
}

fn situation() -> impl Strategy<Value = Situation> {
    let out =
        || prop::option::weighted(0.4, prop::sample::select(vec![Out::Unhealthy, Out::Ejected, Out::Broken, Out::Draining]));
    let weight = prop_oneof![4 => 1..20_u32, 1 => Just(0), 1 => Just(1000)];
    (weight, 0..3_u8, out(), out(), any::<bool>(), any::<bool>(), 0..20_u8).prop_map(
        |(weight, priority, out, later, tried, cold, in_flight)| Situation {
            weight,
            priority,
            out,
            later,
            tried,
            cold,
            in_flight,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn shares_are_those_of_the_weights(weights in prop::collection::vec(1..20_u32, 1..12), method in method()) {
        prop_assume!(method != Method::Hash);
        let total: u32 = weights.iter().sum();
        let count = if method == Method::RoundRobin { 10 * u64::from(total) } else { 20_000 };
        // A round of turns is exact; else five standard deviations of the worst.
        let tolerance = if method == Method::RoundRobin { 1e-9 } else { 0.018 };
        for (share, weight) in shares(&layout(&members(&weights), method), count, SECOND).iter().zip(&weights) {
            let due = f64::from(*weight) / f64::from(total);
            prop_assert!((share - due).abs() <= tolerance, "{share} for {due}");
        }
    }

    #[test]
    fn shares_of_keys_are_about_those_of_the_weights(weights in prop::collection::vec(1..20_u32, 1..12)) {
        let total: u32 = weights.iter().sum();
        for (share, weight) in shares(&layout(&members(&weights), Method::Hash), 20_000, SECOND).iter().zip(&weights) {
            let due = f64::from(*weight) / f64::from(total);
            prop_assert!((share - due).abs() < 0.4 * due + 0.01, "{share} for {due}");
        }
    }

    #[test]
    fn who_is_out_or_tried_is_not_picked_and_another_is_if_there_is_one(
        situations in prop::collection::vec(situation(), 0..12), method in method(), bound in prop::option::of(Just(1.25_f32)), seed in any::<u64>(),
    ) {
        let (tally, now) = (Tally::default(), 5 * SECOND);
        let members: Box<[Member]> = situations.iter().enumerate().map(|(n, of)| {
            let vitals = if of.cold { Vitals::arriving(now) } else { Vitals::default() };
            of.out.map(|out| vitals.take_out(out));
            (0..of.in_flight).for_each(|_| vitals.begin(&tally, now));
            Member { vitals: Arc::new(vitals), ..member(n, of.weight, of.priority) }
        }).collect();
        let tuning = Tuning { panic: 0.0, bound, ..Tuning::of(method).starting_slowly(Duration::from_secs(10)) };
        let layout = Layout::of(members.clone(), tuning, None);
        for (member, of) in members.iter().zip(&situations) {
            of.later.map(|out| member.vitals.take_out(out));
        }
        let tried: Vec<SocketAddr> = situations.iter().enumerate().filter(|(_, of)| of.tried).map(|(n, _)| address(n)).collect();
        let fit = |n: usize| members[n].vitals.is_available() && !situations[n].tried && situations[n].weight > 0;
        let mut chance = Chance(seed);
        for key in 0..20_u64 {
            let ask = Ask { key: Some(&key.to_le_bytes()), session: None, tried: &tried, random: chance.next(), now };
            match layout.pick(&tally, &ask) {
                Some(pick) => prop_assert!(fit(pick.position), "{} of {situations:?}", pick.position),
                None => prop_assert!(!(0..members.len()).any(fit), "nobody of {situations:?}"),
            }
        }
    }

    #[test]
    fn keys_move_only_from_who_goes_and_come_back_with_him(count in 2..20_usize, gone in any::<prop::sample::Index>()) {
        let (all, gone) = (members(&vec![1; count]), gone.index(count));
        let before = positions(&layout(&all, Method::Hash), 5_000, SECOND);
        let rest: Vec<Member> = all.iter().filter(|member| member.address != address(gone)).cloned().collect();
        let without = layout(&rest, Method::Hash);
        all[gone].vitals.take_out(Out::Unhealthy);
        let out = positions(&layout(&all, Method::Hash), 5_000, SECOND);
        let removed = positions(&without, 5_000, SECOND);
        let moved = before.iter().zip(&out).filter(|(before, after)| before != after).count();
        prop_assert!(moved as f64 <= 1.6 * 5_000.0 / count as f64, "{moved} of 5000 among {count}");
        for ((before, out), removed) in before.iter().zip(&out).zip(&removed) {
            prop_assert!(*before == Some(gone) || before == out);
            prop_assert_eq!(out.map(address), removed.map(|n| rest[n].address), "out is as good as away");
        }
        all[gone].vitals.let_in(Out::Unhealthy, SECOND);
        prop_assert_eq!(positions(&layout(&all, Method::Hash), 5_000, SECOND), before);
    }

    #[test]
    fn nobody_has_more_than_the_bound_allows(weights in prop::collection::vec(1..5_u32, 2..10), seed in any::<u64>(), hot in 1..5_u64) {
        let (members, tally, mut chance) = (members(&weights), Tally::default(), Chance(seed));
        let tuning = Tuning { bound: Some(1.25), ..Tuning::of(Method::Hash) };
        let layout = Layout::of(members.clone(), tuning, None);
        let total = weights.iter().sum::<u32>() as f32;
        for _ in 0..500 {
            let key = (chance.next() % hot).to_le_bytes();
            let ask = Ask { key: Some(&key), random: chance.next(), now: SECOND, ..Ask::default() };
            let position = layout.pick(&tally, &ask).unwrap().position;
            members[position].vitals.begin(&tally, SECOND);
            let room = (1.25 * tally.in_flight() as f32 * weights[position] as f32 / total).ceil();
            prop_assert!(members[position].vitals.in_flight() as f32 <= room, "{room}");
        }
    }

    #[test]
    fn the_ramp_never_falls(over in 0..100 * SECOND, times in prop::collection::vec(0..200 * SECOND, 2..20)) {
        let (vitals, mut times) = (Vitals::arriving(SECOND), times);
        times.sort_unstable();
        let ramps: Vec<f32> = times.iter().map(|time| vitals.ramp(over, *time)).collect();
        prop_assert!(ramps.is_sorted() && ramps.iter().all(|ramp| (0.1..=1.0).contains(ramp)), "{ramps:?}");
    }
}

#[test]
fn the_share_of_a_newcomer_grows_from_a_tenth_to_all_of_it() {
    for method in ALL {
        let mut members = members(&[1; 5]);
        members[4].vitals = Arc::new(Vitals::arriving(SECOND));
        let tuning = Tuning::of(method).starting_slowly(Duration::from_secs(10));
        let layout = Layout::of(members, tuning, None);
        let grown: Vec<f64> = [1, 3, 5, 7, 9, 11].map(|second| shares(&layout, 20_000, second * SECOND)[4]).into();
        let full = grown[5];
        assert!(grown.is_sorted_by(|a, b| *a <= b + 0.005), "{method:?}: {grown:?}");
        assert!((0.04..0.2).contains(&(grown[0] / full)), "{method:?}: {grown:?}");
        let others = shares(&layout, 20_000, SECOND);
        assert!(
            others[..4].iter().all(|share| (0.17..0.33).contains(share)),
            "what it declines is spread: {method:?}: {others:?}"
        );
    }
}

#[test]
fn a_key_that_has_come_to_a_newcomer_stays() {
    let mut members = members(&[1; 5]);
    members[4].vitals = Arc::new(Vitals::arriving(SECOND));
    let layout = Layout::of(members, Tuning::of(Method::Hash).starting_slowly(Duration::from_secs(10)), None);
    let mut before = positions(&layout, 5_000, SECOND);
    for second in 2..=12 {
        let after = positions(&layout, 5_000, second * SECOND);
        assert!(before.iter().zip(&after).all(|(before, after)| before == after || *after == Some(4)));
        before = after;
    }
}

#[test]
fn under_load_each_has_in_flight_what_its_weight_says() {
    for method in [Method::LeastRequests, Method::PeakEwma] {
        let weights = [10, 3, 1, 1, 1];
        let (members, tally, mut chance) = (members(&weights), Tally::default(), Chance(3));
        let layout = layout(&members, method);
        let mut running: Vec<usize> = Vec::new();
        let mut sums = [0_u64; 5];
        for step in 0..40_000_u64 {
            let now = SECOND + step * 1_000_000;
            if running.len() == 160 {
                let over = running.swap_remove((chance.next() % 160) as usize);
                members[over].vitals.answered(Answer::Good, Duration::from_millis(10), now, Decay::default());
                members[over].vitals.end(&tally);
            }
            let position = layout.pick(&tally, &Ask { random: chance.next(), now, ..Ask::default() }).unwrap().position;
            members[position].vitals.begin(&tally, now);
            running.push(position);
            if step > 1_000 {
                sums.iter_mut().zip(&members).for_each(|(sum, member)| *sum += u64::from(member.vitals.in_flight()));
            }
        }
        let total: u64 = sums.iter().sum();
        for (sum, weight) in sums.iter().zip(weights) {
            let (share, due) = (*sum as f64 / total as f64, f64::from(weight) / 16.0);
            assert!((share / due - 1.0).abs() < 0.35, "{method:?}: {share} for {due}");
        }
    }
}

#[test]
fn noise_of_latencies_gives_a_light_endpoint_no_share_of_a_heavy_one() {
    let (members, tally, mut chance) = (members(&[10, 1]), Tally::default(), Chance(3));
    let layout = layout(&members, Method::PeakEwma);
    let mut light = 0;
    for step in 0..20_000_u64 {
        let now = SECOND + step * 10_000_000;
        let position = layout.pick(&tally, &Ask { random: chance.next(), now, ..Ask::default() }).unwrap().position;
        members[position].vitals.begin(&tally, now);
        members[position].vitals.answered(Answer::Good, Duration::from_millis(5 + chance.next() % 15), now, Decay::default());
        members[position].vitals.end(&tally);
        light += u64::from(position == 1);
    }
    let share = light as f64 / 20_000.0;
    assert!((0.3 / 11.0..1.5 / 11.0).contains(&share), "{share} for {}", 1.0 / 11.0);
}

#[test]
fn a_session_stays_through_a_drain_and_leaves_who_is_out() {
    for method in ALL {
        let members = members(&[1, 1, 0]);
        let (layout, tally) = (layout(&members, method), Tally::default());
        let pick = |session: usize, tried: &[SocketAddr]| {
            let ask = Ask { session: Some(members[session].token), tried, key: Some(b"key"), now: SECOND, ..Ask::default() };
            layout.pick(&tally, &ask).map(|pick| (pick.position, pick.kept)).unwrap()
        };
        assert_eq!(pick(1, &[]), (1, true));
        assert_eq!(pick(2, &[]), (2, true), "weight 0 keeps its sessions");
        assert_eq!(pick(1, &[address(1)]), (0, false), "a retry goes elsewhere");
        members[1].vitals.take_out(Out::Draining);
        assert_eq!(pick(1, &[]), (1, true));
        members[1].vitals.take_out(Out::Unhealthy);
        assert_eq!(pick(1, &[]), (0, false));
        let unknown = Ask { session: Some(STICKY.token(address(99))), now: SECOND, ..Ask::default() };
        assert_eq!(layout.pick(&tally, &unknown).map(|pick| (pick.position, pick.kept)), Some((0, false)));
    }
}

#[test]
fn tiers_take_the_shares_that_are_told() {
    for method in ALL {
        let members: Vec<Member> = (0..8).map(|n| member(n, 1, (n / 4) as u8)).collect();
        assert_eq!(layout(&members, method).shares().collect::<Vec<_>>(), [(0, 1.0), (1, 0.0)]);
        members[0].vitals.take_out(Out::Unhealthy);
        members[1].vitals.take_out(Out::Ejected);
        let layout = layout(&members, method);
        let told: Vec<f64> = layout.shares().map(|(_, share)| share).collect();
        assert!((told[0] - 0.7).abs() < 1e-9 && (told[1] - 0.3).abs() < 1e-9, "{told:?}");
        let found = shares(&layout, 20_000, SECOND);
        assert!((found[..4].iter().sum::<f64>() - 0.7).abs() < 0.02, "{method:?}: {found:?}");
    }
}

#[test]
fn a_retry_leaves_its_tier_when_all_there_were_tried() {
    let members: Vec<Member> = (0..3).map(|n| member(n, 1, n as u8)).collect();
    let (layout, tally) = (layout(&members, Method::PeakEwma), Tally::default());
    let pick =
        |tried: &[SocketAddr]| layout.pick(&tally, &Ask { tried, now: SECOND, ..Ask::default() }).map(|pick| pick.position);
    assert_eq!(pick(&[]), Some(0));
    assert_eq!(pick(&[address(0)]), Some(1));
    assert_eq!(pick(&[address(1), address(0)]), Some(2));
    assert_eq!(pick(&[address(0), address(1), address(2)]), None);
}

#[test]
fn in_a_panic_all_are_tried_but_the_draining_and_it_is_said() {
    for method in ALL {
        let members: Vec<Member> = (0..6).map(|n| member(n, 1, (n / 3) as u8)).collect();
        assert!(members.iter().all(|member| member.vitals.take_out(Out::Unhealthy)));
        members[5].vitals.take_out(Out::Draining);
        let never = layout(&members, method);
        assert!(!never.is_panicking() && positions(&never, 1, SECOND) == [None], "not with a threshold of 0");
        let panicking = Layout::of(members.clone().into(), Tuning::of(method), Some(&never));
        assert!(panicking.is_panicking());
        let found = shares(&panicking, 20_000, SECOND);
        assert!(found[..5].iter().all(|share| *share > 0.1) && found[5] == 0.0, "{method:?}: {found:?}");
        members[0].vitals.let_in(Out::Unhealthy, SECOND);
        assert!(!Layout::of(members.into(), Tuning::of(method), Some(&panicking)).is_panicking());
    }
}

#[test]
fn a_newcomer_that_nobody_knows_gets_one_request_at_a_time() {
    let (members, tally) = (members(&[1; 5]), Tally::default());
    let layout = layout(&members, Method::PeakEwma);
    for member in &members[..4] {
        member.vitals.begin(&tally, SECOND);
        member.vitals.answered(Answer::Good, Duration::from_millis(10), SECOND, Decay::default());
        member.vitals.end(&tally);
    }
    let mut chance = Chance(5);
    let mut first = 0;
    for _ in 0..200 {
        let position = layout.pick(&tally, &Ask { random: chance.next(), now: SECOND, ..Ask::default() }).unwrap().position;
        if position == 4 {
            members[4].vitals.begin(&tally, SECOND);
            first += 1;
        }
    }
    assert_eq!(first, 1);
}
