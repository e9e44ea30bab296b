//! A slow service: hundreds of requests wait a second each, while quick ones must not.

use std::time::Duration;

use super::{Ask, Disturbance, Load, Pace, Party, SMALL, Scenario, Section, Speech, Stage, disturb};

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
        let run = stage.arguments().duration.max(Duration::from_secs(2));
        let waiting = Load { speech: Speech::Http1, asks: vec![Ask::get("/slow", SMALL)], connections: WAITING + WAITING / 5 };
        let sleep = |_: &Party| {
            std::thread::sleep(run);
            Ok(())
        };
        // A second each: so many a second are as many at any time, and they do not come in one heap.
        let disturbance = Disturbance { beside: Some((waiting, Pace::Open(WAITING as f64))), during: &sleep };
        disturb::compare(stage, &self.load(stage), run, &disturbance)
    }
}
