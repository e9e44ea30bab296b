//! The same load in peace and while something else goes on, in turns: what the second does to latency.

use std::time::Duration;

use anyhow::ensure;

use super::{
    compare::{Stage, Turn, tally, target, together},
    generator::{Load, Pace, Running},
    party::Party,
    section::{Row, Section, curve, quantile},
};

/// What disturbs.
pub struct Disturbance<'a> {
    /// Asked beside, from before the run until after it. None of it may fail.
    pub beside: Option<(Load, Pace)>,
    /// What goes on meanwhile on the suite's own thread, for as long as a run takes. It asserts that it did happen.
    pub during: &'a dyn Fn(&Party) -> anyhow::Result<()>,
}

/// Two runs in one turn of a contestant.
struct Both {
    calm: Turn,
    during: Turn,
}

/// Everyone in turns, at half of Banyan's capacity: a run in peace and one with the disturbance.
///
/// # Errors
/// The disturbance did not come about.
pub fn compare(stage: &Stage, load: &Load, run: Duration, disturbance: &Disturbance) -> anyhow::Result<Section> {
    let mut section = stage.section();
    let rate = stage.half(load)?;
    section.rate = Some(rate.round());
    let parties: Vec<&Party> = stage.parties.iter().collect();
    let peace = || {
        std::thread::sleep(run);
        Ok(())
    };
    let turn = |party: &Party| {
        let calm = stage.turn(party, load, Pace::Open(rate), peace)?;
        let during = disturbed(stage, party, load, rate, disturbance)?;
        Ok(Both { calm, during })
    };
    let told = |both: &Both| {
        let p99 = |turn: &Turn| quantile(&turn.outcome.latencies, 0.99);
        format!("p99 {:.0} → {:.0} µs, {} failed", p99(&both.calm), p99(&both.during), both.during.outcome.failed)
    };
    let turns = stage.in_turns(section.name, &parties, turn, told)?;
    section.rows = parties.iter().zip(turns).map(|(party, turns)| row(&party.name, turns)).collect();
    Ok(section)
}

fn disturbed(stage: &Stage, party: &Party, load: &Load, rate: f64, disturbance: &Disturbance) -> anyhow::Result<Turn> {
    let start = |(load, pace): &(Load, Pace)| Running::start(load, &target(party, &load.speech), *pace);
    let beside = disturbance.beside.as_ref().map(start).transpose()?;
    let begun = beside.as_ref().map(Running::begin);
    let turn = stage.turn(party, load, Pace::Open(rate), || (disturbance.during)(party))?;
    if let (Some(beside), Some(begun)) = (beside, begun) {
        let beside = beside.end(begun);
        ensure!(beside.failed == 0, "{} of those beside failed: {:?}", beside.failed, beside.error);
        ensure!(beside.answered > 0, "nothing beside was answered");
    }
    Ok(turn)
}

fn row(party: &str, turns: Vec<Both>) -> Row {
    let mut row = Row::of(party);
    let (calm, during): (Vec<Turn>, Vec<Turn>) = turns.into_iter().map(|both| (both.calm, both.during)).unzip();
    let figures = [(0.5, "calm_p50_us", "during_p50_us", "p50_ratio"), (0.99, "calm_p99_us", "during_p99_us", "p99_ratio")];
    for (at, in_peace, meanwhile, ratio) in figures {
        let of = |turns: &[Turn]| turns.iter().map(|turn| quantile(&turn.outcome.latencies, at)).collect::<Vec<_>>();
        row.set(in_peace, of(&calm));
        row.set(meanwhile, of(&during));
        let between = row.figures[meanwhile].over(&row.figures[in_peace]);
        row.figures.insert(ratio, between);
    }
    row.set("failed", during.iter().map(|turn| turn.outcome.failed as f64).collect());
    row.curve = curve(&together(&during));
    tally(&mut row, &calm);
    tally(&mut row, &during);
    row
}
