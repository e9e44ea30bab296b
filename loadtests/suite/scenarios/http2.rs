//! The plain hop over HTTP/2 with TLS, eight streams on each connection; HTTP/1.1 to the service.

use super::{Ask, Load, SMALL, Scenario, Stage};

pub struct Http2;

impl Scenario for Http2 {
    fn name(&self) -> &'static str {
        "http2"
    }

    fn about(&self) -> &'static str {
        "a small GET over HTTP/2 with TLS, eight streams a connection"
    }

    fn load(&self, stage: &Stage) -> Load {
        Load { speech: stage.http2(), asks: vec![Ask::get("/", SMALL)], connections: stage.connections() }
    }
}
