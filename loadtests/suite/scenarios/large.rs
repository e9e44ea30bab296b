//! Answers of 64 KiB.

use super::{Ask, LARGE, Load, Scenario, Speech, Stage};

pub struct Large;

impl Scenario for Large {
    fn name(&self) -> &'static str {
        "large"
    }

    fn about(&self) -> &'static str {
        "an answer of 64 KiB, kept connections of HTTP/1.1"
    }

    fn load(&self, stage: &Stage) -> Load {
        Load { speech: Speech::Http1, asks: vec![Ask::get("/large", LARGE)], connections: stage.connections() }
    }
}
