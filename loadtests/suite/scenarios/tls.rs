//! The plain hop over kept TLS connections.

use super::{Ask, Load, SMALL, Scenario, Stage};

pub struct Tls;

impl Scenario for Tls {
    fn name(&self) -> &'static str {
        "tls"
    }

    fn about(&self) -> &'static str {
        "a small GET, kept connections of HTTP/1.1 over TLS 1.3"
    }

    fn load(&self, stage: &Stage) -> Load {
        Load { speech: stage.tls(), asks: vec![Ask::get("/", SMALL)], connections: stage.connections() }
    }
}
