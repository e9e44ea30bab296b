//! A reload every second, of 1,000 routes of which one is new each time.

use std::time::{Duration, Instant};

use anyhow::ensure;

use super::{Ask, Contestant, Disturbance, Kind, Load, Party, Row, SMALL, Scenario, Section, Setup, Speech, Stage, disturb};

const ROUTES: usize = 1000;
const EVERY: Duration = Duration::from_secs(1);

/// As long as five reloads take, at least.
const RUN: Duration = Duration::from_secs(5);

pub struct Reload;

impl Scenario for Reload {
    fn name(&self) -> &'static str {
        "reload"
    }

    fn about(&self) -> &'static str {
        "1,000 routes reloaded every second, at half of capacity"
    }

    fn setup(&self) -> Setup {
        Setup { routes: ROUTES, ..Setup::default() }
    }

    /// Builds of Banyan. The floor has nothing to reload, and the others start new processes for it.
    fn contestants(&self, all: &[Contestant]) -> Vec<Contestant> {
        all.iter().filter(|who| who.kind == Kind::Banyan).cloned().collect()
    }

    fn load(&self, stage: &Stage) -> Load {
        let asks = (0..ROUTES).map(|n| Ask::get(&format!("/r{n}/items"), SMALL)).collect();
        Load { speech: Speech::Http1, asks, connections: stage.connections() }
    }

    fn measure(&self, stage: &Stage) -> anyhow::Result<Section> {
        let run = stage.arguments().duration.max(RUN);
        let disturbance = Disturbance { beside: None, during: &|party| reload(party, run) };
        let mut section = disturb::compare(stage, &self.load(stage), run, &disturbance)?;
        stage.peaks(&mut section);
        let failed = |row: &Row| format!("{}: {} of {} requests failed.", row.party, row.failed, row.answered + row.failed);
        section.notes = section.rows.iter().map(failed).collect();
        Ok(section)
    }
}

/// Reloads as often as fits in, and asserts that each configuration came into force.
fn reload(party: &Party, run: Duration) -> anyhow::Result<()> {
    let (begun, before) = (Instant::now(), party.generation());
    let mut reloads = 0;
    while begun.elapsed() + EVERY <= run {
        reloads += 1;
        party.reload(reloads)?;
        std::thread::sleep(EVERY);
    }
    std::thread::sleep(run.saturating_sub(begun.elapsed()));
    let after = party.generation();
    ensure!(after == before + reloads, "{reloads} reloads took the configuration from generation {before} to {after}");
    ensure!(party.status(&format!("/only/{reloads}"))? == 200, "the last configuration's route is not there");
    Ok(())
}
