//! A slow service: hundreds of requests wait a second each, while quick ones must not.

use anyhow::ensure;

use super::{Ask, Disturbance, Load, Pace, Party, Running, SMALL, Scenario, Section, Speech, Stage, disturb};

/// Requests that wait at any time.
const WAITING: usize = 500;

pub struct Slow;

impl Scenario for Slow {
    fn name(&self) -> &'static str {
        "slow"
    }

    fn about(&self) -> &'static str {
        "quick requests at half of capacity, while 500 others wait a second each for the service"
    }

    fn load(&self, stage: &Stage) -> Load {
        Load { speech: Speech::Http1, asks: vec![Ask::get("/", SMALL)], connections: stage.connections() }
    }

    fn measure(&self, stage: &Stage) -> anyhow::Result<Section> {
        let run = stage.arguments().duration.max(std::time::Duration::from_secs(2));
        let disturbance: Disturbance = &|_: &Stage, party: &Party| {
            let waiting = Load { speech: Speech::Http1, asks: vec![Ask::get("/slow", SMALL)], connections: WAITING };
            let others = Running::start(&waiting, party.plain, Pace::Closed)?;
            let begun = others.begin();
            std::thread::sleep(run);
            let others = others.end(begun);
            ensure!(others.failed == 0, "{} that waited failed: {:?}", others.failed, others.error);
            ensure!(others.answered >= WAITING as u64 / 2, "only {} that waited were answered", others.answered);
            Ok(())
        };
        disturb::compare(stage, &self.load(stage), run, disturbance)
    }
}
