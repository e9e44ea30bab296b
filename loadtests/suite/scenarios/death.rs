//! One of two services dies in the middle of everything, and comes back.

use std::time::Duration;

use anyhow::ensure;

use super::{
    Ask, Contestant, Kind, Load, Pace, Party, Row, SMALL, Scenario, Section, Setup, Speech, Stage, Turn, quantile, tally,
    together,
};

/// A quarter until it dies, a quarter dead, the rest alive again.
const RUN: Duration = Duration::from_secs(8);

pub struct Death;

impl Scenario for Death {
    fn name(&self) -> &'static str {
        "death"
    }

    fn about(&self) -> &'static str {
        "one of two services dies for two seconds, at half of capacity; looked after every second"
    }

    fn setup(&self) -> Setup {
        Setup { is_watching: true, ..Setup::default() }
    }

    fn origins(&self) -> usize {
        2
    }

    /// The floor knows one service only.
    fn contestants(&self, all: &[Contestant]) -> Vec<Contestant> {
        all.iter().filter(|who| who.kind != Kind::Floor).cloned().collect()
    }

    fn load(&self, stage: &Stage) -> Load {
        Load { speech: Speech::Http1, asks: vec![Ask::get("/", SMALL)], connections: stage.connections() }
    }

    fn measure(&self, stage: &Stage) -> anyhow::Result<Section> {
        let load = self.load(stage);
        let mut section = stage.section();
        let rate = stage.half(&load)?;
        section.rate = Some(rate.round());
        let parties: Vec<&Party> = stage.parties.iter().collect();
        let told = |turn: &Turn| format!("{} of {} failed", turn.outcome.failed, turn.outcome.answered + turn.outcome.failed);
        let turns = stage.in_turns("death", &parties, |party| stage.turn(party, &load, Pace::Open(rate), || die(stage)), told)?;
        section.rows = parties.iter().zip(turns).map(|(party, turns)| row(&party.name, &turns)).collect();
        Ok(section)
    }
}

/// Kills the second service and has it live again. It is asked before and after.
fn die(stage: &Stage) -> anyhow::Result<()> {
    let [one, other] = stage.origins.as_slice() else { anyhow::bail!("two services are needed") };
    let begun = other.hits();
    std::thread::sleep(RUN / 4);
    ensure!(other.hits() > begun, "the service that is to die was not asked before");
    other.die();
    let (at_death, of_one) = (other.hits(), one.hits());
    std::thread::sleep(RUN / 4);
    other.live()?;
    ensure!(one.hits() > of_one, "the other service was not asked meanwhile");
    std::thread::sleep(RUN / 2);
    ensure!(other.hits() > at_death, "the service that came back was not asked again");
    Ok(())
}

fn row(party: &str, turns: &[Turn]) -> Row {
    let mut row = Row::of(party);
    let share = |turn: &Turn| 1e3 * turn.outcome.failed as f64 / (turn.outcome.answered + turn.outcome.failed) as f64;
    let until = |turn: &Turn| turn.outcome.last_failure.map_or(0.0, |last| (last.saturating_sub(RUN / 4)).as_secs_f64() * 1e3);
    row.set("failed", turns.iter().map(|turn| turn.outcome.failed as f64).collect());
    row.set("failed_permille", turns.iter().map(share).collect());
    row.set("failing_ms", turns.iter().map(until).collect());
    row.set("p50_us", turns.iter().map(|turn| quantile(&turn.outcome.latencies, 0.5)).collect());
    row.set("p99_us", turns.iter().map(|turn| quantile(&turn.outcome.latencies, 0.99)).collect());
    row.curve = super::curve(&together(turns));
    tally(&mut row, turns);
    row
}
