use super::*;
use crate::{
    config::upstream::{Backoff, Budget as Rules, Condition},
    units::{self, Percent},
};

const MS: Duration = Duration::from_millis(1);

fn config() -> Config {
    Config {
        retry_on: vec![
            Condition::Connect,
            Condition::Reset,
            Condition::RefusedStream,
            Condition::Timeout,
            Condition::Status(503),
        ],
        backoff: Backoff { base: units::Duration::from_millis(20), max: units::Duration::from_millis(50) },
        budget: Rules { share: Percent::ALL, floor: 1_000, ..Rules::default() },
        ..Config::default()
    }
}

const GET: Situation =
    Situation { ended: Ended::Reset, tries: 1, idempotent: true, replayable: true, answered: false, elsewhere: true, left: None };

const POST: Situation = Situation { idempotent: false, ..GET };

fn check(situation: Situation, expected: Result<Duration, Over>) {
    let verdict = Retries::new(&config(), None).decide(&situation, 0, || 0.5);
    let expected = expected.map_or_else(Verdict::Over, |after| Verdict::Again { after });
    assert_eq!(verdict, expected, "{situation:?}");
}

#[test]
fn a_try_that_ended_in_a_listed_way_is_made_again() {
    for ended in [Ended::NoConnection, Ended::Reset, Ended::Refused] {
        check(Situation { ended, ..GET }, Ok(Duration::ZERO));
    }
    check(Situation { ended: Ended::Answered(503), ..GET }, Ok(10 * MS));
    check(Situation { ended: Ended::Late, ..GET }, Ok(10 * MS));
    check(Situation { ended: Ended::Answered(500), ..GET }, Err(Over::NotListed));
}

#[test]
fn what_may_have_been_acted_upon_is_not_repeated() {
    check(Situation { ended: Ended::NoConnection, ..POST }, Ok(Duration::ZERO));
    check(Situation { ended: Ended::Refused, ..POST }, Ok(Duration::ZERO));
    for ended in [Ended::Reset, Ended::Late, Ended::Answered(503)] {
        check(Situation { ended, ..POST }, Err(Over::Method));
    }
    let told = Retries::new(&Config { non_idempotent: true, ..config() }, None);
    assert!(matches!(told.decide(&POST, 0, || 0.5), Verdict::Again { .. }));
}

#[test]
fn nothing_is_tried_again_once_the_client_hears_an_answer_or_the_body_is_gone() {
    check(Situation { answered: true, ..GET }, Err(Over::Answered));
    check(Situation { replayable: false, ..GET }, Err(Over::Body));
    check(Situation { replayable: false, ended: Ended::NoConnection, ..GET }, Err(Over::Body));
}

#[test]
fn tries_end() {
    check(Situation { tries: 2, ..GET }, Ok(20 * MS));
    check(Situation { tries: 3, ..GET }, Err(Over::Attempts));
    let none = Retries::new(&Config { attempts: 0, ..config() }, None);
    assert_eq!(none.decide(&GET, 0, || 0.5), Verdict::Over(Over::Attempts));
}

#[test]
fn waits_double_up_to_their_bound_and_are_drawn() {
    let retries = Retries::new(&Config { attempts: 10, ..config() }, None);
    let wait = |tries, draw| retries.decide(&Situation { tries, elsewhere: false, ..GET }, 0, || draw);
    for (tries, draw, after) in [(1, 0.0, 0), (1, 1.0, 20), (2, 1.0, 40), (3, 1.0, 50), (10, 1.0, 50), (10, 0.1, 5)] {
        assert_eq!(wait(tries, draw), Verdict::Again { after: after * MS }, "{tries} {draw}");
    }
}

#[test]
fn a_wait_that_outlasts_the_request_is_not_begun() {
    let late = |left| Situation { left: Some(left), elsewhere: false, ..GET };
    check(late(11 * MS), Ok(10 * MS));
    check(late(10 * MS), Err(Over::Time));
    check(Situation { elsewhere: true, ..late(Duration::ZERO) }, Err(Over::Time));
}

#[test]
fn only_a_try_that_is_made_again_is_charged() {
    let budget = Rules { share: Percent::NONE, floor: 1, ..Rules::default() };
    let retries = Retries::new(&Config { budget, ..config() }, None);
    for over in
        [Situation { answered: true, ..GET }, Situation { tries: 3, ..GET }, Situation { left: Some(Duration::ZERO), ..GET }]
    {
        assert!(matches!(retries.decide(&over, 0, || 0.5), Verdict::Over(_)));
    }
    assert!(matches!(retries.decide(&GET, 0, || 0.5), Verdict::Again { .. }));
    assert_eq!(retries.decide(&GET, 0, || 0.5), Verdict::Over(Over::Budget));
}

#[test]
fn to_go_past_an_endpoint_without_a_connection_is_not_charged() {
    let budget = Rules { share: Percent::NONE, floor: 0, ..Rules::default() };
    let retries = Retries::new(&Config { budget, ..config() }, None);
    let past = Situation { ended: Ended::NoConnection, ..GET };
    assert_eq!(retries.decide(&past, 0, || 0.5), Verdict::Again { after: Duration::ZERO });
    let same = Situation { elsewhere: false, ..past };
    assert_eq!(retries.decide(&same, 0, || 0.5), Verdict::Over(Over::Budget));
}

#[test]
fn the_budget_outlives_a_reload_that_leaves_it() {
    let budget = Rules { share: Percent::NONE, floor: 1, ..Rules::default() };
    let before = Retries::new(&Config { budget, ..config() }, None);
    before.decide(&GET, 0, || 0.5);
    let same = Retries::new(&Config { budget, attempts: 5, ..config() }, Some(&before));
    assert_eq!(same.decide(&GET, 0, || 0.5), Verdict::Over(Over::Budget));
    let other = Retries::new(&config(), Some(&before));
    assert!(matches!(other.decide(&GET, 0, || 0.5), Verdict::Again { .. }));
}

#[test]
fn a_try_is_as_patient_as_the_shorter_limit() {
    let retries = Retries::new(&Config { per_try: Some(units::Duration::from_secs(1)), ..config() }, None);
    assert_eq!(retries.patience(Duration::from_secs(30)), Duration::from_secs(1));
    assert_eq!(retries.patience(10 * MS), 10 * MS);
    assert_eq!(Retries::new(&config(), None).patience(10 * MS), 10 * MS);
}
