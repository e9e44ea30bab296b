//! One hop and one route: a small GET over kept connections of HTTP/1.1.

use super::{Ask, Load, SMALL, Scenario, Speech, Stage};

pub struct Plain;

impl Scenario for Plain {
    fn name(&self) -> &'static str {
        "plain"
    }

    fn about(&self) -> &'static str {
        "a small GET, one route, kept connections of HTTP/1.1"
    }

    fn load(&self, stage: &Stage) -> Load {
        Load { speech: Speech::Http1, asks: vec![Ask::get("/", SMALL)], connections: stage.connections() }
    }
}
