use std::{
    collections::HashMap,
    num::{NonZeroU16, NonZeroU32},
    sync::{Mutex, mpsc},
    thread,
};

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{units, upstream::race::race};

const S: u64 = 1_000_000_000;
const GOOD: Ended = Ended::Answered(200);
const BAD: Ended = Ended::Answered(503);

fn config() -> Config {
    Config {
        window: units::Duration::from_secs(10),
        min_requests: NonZeroU32::new(4).unwrap(),
        open_for: units::Duration::from_secs(5),
        slow_rate: Some(Percent::of(75)),
        slower_than: Some(units::Duration::from_secs(1)),
        ..Config::default()
    }
}

fn breaker(config: &Config) -> (Breaker, mpsc::Receiver<Turn>) {
    let (told, turns) = mpsc::channel();
    (Breaker::new(config, None, Box::new(move |turn| _ = told.send(turn))), turns)
}

/// One request. Whether it passed.
fn ask(breaker: &Breaker, ended: Ended, took: u64, now: u64) -> bool {
    let pass = breaker.admit(now);
    let passed = pass.is_ok();
    pass.into_iter().for_each(|pass| breaker.end(pass, ended, took, now));
    passed
}

fn told(turns: &mpsc::Receiver<Turn>) -> Vec<Turn> {
    turns.try_iter().collect()
}

fn opened(config: &Config) -> (Breaker, mpsc::Receiver<Turn>) {
    let (breaker, turns) = breaker(config);
    for _ in 0..4 {
        ask(&breaker, BAD, 0, S);
    }
    assert_eq!(told(&turns), [Turn::Opens(Counts { requests: 4, failed: 4, slow: 0 })]);
    (breaker, turns)
}

#[test]
fn enough_failures_open_it() {
    let (breaker, turns) = breaker(&config());
    for (ended, opens) in [(BAD, false), (GOOD, false), (BAD, false), (GOOD, false), (GOOD, false), (BAD, true)] {
        assert!(ask(&breaker, ended, 0, S));
        assert_eq!(breaker.is_shut(S), opens);
    }
    assert_eq!(told(&turns), [Turn::Opens(Counts { requests: 6, failed: 3, slow: 0 })]);
    let open = breaker.admit(4 * S).unwrap_err();
    assert_eq!(open.retry_after, Duration::from_secs(2));
    assert_eq!(breaker.view(4 * S), View::Open { left: Duration::from_secs(2) });
}

#[test]
fn slow_answers_open_it_too() {
    let (breaker, turns) = breaker(&config());
    for took in [0, 2, 2, 2] {
        ask(&breaker, GOOD, took * S, S);
    }
    assert_eq!(told(&turns), [Turn::Opens(Counts { requests: 4, failed: 0, slow: 3 })]);
    let (patient, turns) = self::breaker(&Config { slow_rate: None, slower_than: None, ..config() });
    for _ in 0..9 {
        ask(&patient, GOOD, u64::MAX - 1, S);
    }
    assert_eq!(told(&turns), []);
}

#[test]
fn failures_long_ago_do_not_count() {
    let (breaker, turns) = breaker(&config());
    for _ in 0..3 {
        ask(&breaker, BAD, 0, S);
    }
    assert_eq!(breaker.view(9 * S), View::Closed(Counts { requests: 3, failed: 3, slow: 0 }));
    ask(&breaker, BAD, 0, 11 * S);
    assert_eq!(told(&turns), []);
}

#[test]
fn probes_that_go_well_close_it_and_what_was_is_forgotten() {
    let (breaker, turns) = opened(&config());
    let passes: Vec<_> = (0..5).map(|_| breaker.admit(6 * S)).collect();
    assert_eq!(passes.iter().filter(|pass| pass.as_ref().is_ok_and(Pass::is_probe)).count(), 3);
    assert_eq!(breaker.admit(6 * S).unwrap_err().retry_after, Duration::from_secs(1));
    assert_eq!(breaker.view(6 * S), View::Probing { sent: 3, ended: 0 });
    passes.into_iter().flatten().for_each(|pass| breaker.end(pass, GOOD, 0, 6 * S));
    assert_eq!(told(&turns), [Turn::Probes, Turn::Closes]);
    assert_eq!(breaker.view(6 * S), View::Closed(Counts::default()));
    (0..3).for_each(|_| assert!(ask(&breaker, BAD, 0, 6 * S)));
    assert_eq!(told(&turns), []);
}

#[test]
fn probes_are_judged_by_the_same_shares() {
    for (ends, last) in [
        (&[BAD, GOOD, GOOD][..], Turn::Closes),
        (&[GOOD, GOOD, BAD], Turn::Closes),
        (&[BAD, BAD], Turn::Opens(Counts { requests: 2, failed: 2, slow: 0 })),
        (&[GOOD, BAD, BAD], Turn::Opens(Counts { requests: 3, failed: 2, slow: 0 })),
    ] {
        let (breaker, turns) = opened(&config());
        ends.iter().for_each(|ended| assert!(ask(&breaker, *ended, 0, 6 * S)));
        assert_eq!(told(&turns), [Turn::Probes, last], "{ends:?}");
    }
    let (breaker, turns) = opened(&Config { probes: NonZeroU16::new(1).unwrap(), ..config() });
    ask(&breaker, GOOD, 2 * S, 6 * S);
    assert_eq!(told(&turns), [Turn::Probes, Turn::Opens(Counts { requests: 1, failed: 0, slow: 1 })]);
    assert_eq!(breaker.view(6 * S), View::Open { left: Duration::from_secs(5) });
}

#[test]
fn a_probe_that_tells_nothing_gives_its_place_to_another() {
    let (breaker, _turns) = opened(&Config { probes: NonZeroU16::new(1).unwrap(), ..config() });
    let pass = breaker.admit(6 * S).unwrap();
    assert!(breaker.is_shut(6 * S));
    breaker.abandon(pass);
    assert!(!breaker.is_shut(6 * S));
    assert!(ask(&breaker, GOOD, 0, 6 * S));
    assert_eq!(breaker.view(6 * S), View::Closed(Counts::default()));
}

#[test]
fn what_began_before_it_opened_says_nothing_after_that() {
    let (breaker, turns) = breaker(&config());
    let (late, later) = (breaker.admit(S).unwrap(), breaker.admit(S).unwrap());
    for _ in 0..4 {
        ask(&breaker, BAD, 0, S);
    }
    let probe = breaker.admit(6 * S).unwrap();
    breaker.end(late, BAD, 0, 6 * S);
    assert_eq!(breaker.view(6 * S), View::Probing { sent: 1, ended: 0 });
    breaker.end(probe, GOOD, 0, 6 * S);
    for _ in 0..2 {
        ask(&breaker, GOOD, 0, 6 * S);
    }
    breaker.end(later, BAD, 0, 6 * S);
    assert_eq!(breaker.view(6 * S), View::Closed(Counts::default()));
    assert_eq!(told(&turns).len(), 3);
}

#[test]
fn its_state_outlives_a_reload_that_leaves_its_rules() {
    let (before, _turns) = opened(&config());
    assert!(Breaker::new(&config(), Some(&before), Box::new(|_| {})).is_shut(2 * S));
    let other = Config { open_for: units::Duration::from_secs(6), ..config() };
    assert!(!Breaker::new(&other, Some(&before), Box::new(|_| {})).is_shut(2 * S));
}

#[test]
fn threads_that_find_it_open_no_more_send_so_many_probes() {
    let one = Config { probes: NonZeroU16::new(1).unwrap(), ..config() };
    let breakers: Vec<_> = (0..5_000).map(|_| opened(&one).0).collect();
    for (one, other) in race(&breakers, |breaker| breaker.admit(7 * S).is_ok()) {
        assert!(one != other, "one of the two is the probe");
    }
}

/// Anything in any order by four threads: in no round are more probes out or ended than may be, and each change is told once.
#[test]
fn threads_see_each_change_once_and_no_probe_too_many() {
    let turned = Arc::new(AtomicU64::new(0));
    let counted = turned.clone();
    let breaker = Breaker::new(&config(), None, Box::new(move |_| _ = counted.fetch_add(1, Relaxed)));
    let (clock, probes) = (AtomicU64::new(S), Mutex::new(HashMap::<u32, i32>::new()));
    thread::scope(|scope| {
        for seed in 0..4 {
            let (breaker, clock, probes) = (&breaker, &clock, &probes);
            scope.spawn(move || {
                let mut dice = fastrand::Rng::with_seed(seed);
                let mut held = Vec::new();
                for _ in 0..20_000 {
                    let now = clock.fetch_add(dice.u64(0..S / 2), Relaxed);
                    if let Ok(pass) = breaker.admit(now) {
                        if pass.probes {
                            let mut probes = probes.lock().unwrap();
                            let out = probes.entry(pass.round).or_default();
                            *out += 1;
                            assert!(*out <= 3, "{out} probes in round {}", pass.round);
                        }
                        held.push(pass);
                    }
                    while held.len() > dice.usize(0..4) {
                        let pass = held.swap_remove(dice.usize(..held.len()));
                        if dice.u8(0..8) == 0 {
                            if pass.probes {
                                *probes.lock().unwrap().entry(pass.round).or_default() -= 1;
                            }
                            breaker.abandon(pass);
                        } else {
                            breaker.end(pass, if dice.bool() { GOOD } else { BAD }, 0, now);
                        }
                    }
                }
                held.into_iter().for_each(|pass| breaker.abandon(pass));
            });
        }
    });
    let turned = turned.load(Relaxed);
    assert_eq!(u64::from(breaker.word().round()), turned, "each change begins a round");
    assert!(turned > 100, "{turned}");
}

/// What should come out, in plain words.
#[derive(Debug)]
enum Model {
    Closed { round: u32, ends: Vec<(u64, bool, bool)> },
    Open { round: u32, until: u64 },
    Probing { round: u32, sent: u64, counts: Counts },
}

impl Model {
    fn round(&self) -> u32 {
        match self {
            Self::Closed { round, .. } | Self::Open { round, .. } | Self::Probing { round, .. } => *round,
        }
    }

    fn admit(&mut self, now: u64) -> bool {
        if let Self::Open { until, round } = self
            && now >= *until
        {
            *self = Self::Probing { round: *round + 1, sent: 0, counts: Counts::default() };
        }
        match self {
            Self::Closed { .. } => true,
            Self::Open { .. } => false,
            Self::Probing { sent, .. } => {
                *sent += 1;
                *sent <= 3 || {
                    *sent -= 1;
                    false
                }
            }
        }
    }

    fn end(&mut self, failed: bool, slow: bool, now: u64) {
        let round = self.round();
        match self {
            Self::Open { .. } => {}
            Self::Closed { ends, .. } => {
                ends.push((now, failed, slow));
                ends.retain(|(at, ..)| now / S - at / S < 10);
                let of = |which: fn(&(u64, bool, bool)) -> bool| ends.iter().filter(|end| which(end)).count();
                let (all, bad, late) = (ends.len(), of(|end| end.1), of(|end| end.2));
                if (failed || slow) && all >= 4 && (2 * bad >= all || 4 * late >= 3 * all) {
                    *self = Self::Open { round: round + 1, until: now + 5 * S };
                }
            }
            Self::Probing { counts, .. } => {
                counts.requests += 1;
                counts.failed += u64::from(failed);
                counts.slow += u64::from(slow);
                if counts.failed >= 2 || counts.slow >= 3 {
                    *self = Self::Open { round: round + 1, until: now + 5 * S };
                } else if counts.requests == 3 {
                    *self = Self::Closed { round: round + 1, ends: Vec::new() };
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn it_does_what_the_model_does(steps in vec((0..2 * S, 0..4_u8, any::<bool>(), any::<bool>(), any::<prop::sample::Index>()), 1..400)) {
        let (breaker, turns) = breaker(&config());
        let mut model = Model::Closed { round: 0, ends: Vec::new() };
        let (mut now, mut held, mut told) = (S, Vec::new(), 0);
        for (pause, what, failed, slow, which) in steps {
            now += pause;
            if what < 2 {
                let pass = breaker.admit(now);
                prop_assert_eq!(pass.is_ok(), model.admit(now));
                held.extend(pass);
            } else if !held.is_empty() {
                let pass = held.swap_remove(which.index(held.len()));
                let counts = pass.round == model.round();
                if what == 2 {
                    if counts {
                        model.end(failed, slow, now);
                    }
                    breaker.end(pass, if failed { BAD } else { GOOD }, if slow { 2 * S } else { S }, now);
                } else {
                    if let (true, Model::Probing { sent, .. }) = (counts, &mut model) {
                        *sent -= 1;
                    }
                    breaker.abandon(pass);
                }
            }
            told += turns.try_iter().count() as u32;
            prop_assert_eq!(breaker.word().round(), model.round(), "{:?}", model);
            prop_assert_eq!(told, model.round());
        }
    }
}
