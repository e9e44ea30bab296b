//! Uploads of 16 KiB. That they arrive whole is asserted for every scenario: the service counts what it reads.

use super::{Ask, Load, SMALL, Scenario, Speech, Stage};

pub struct Post;

impl Scenario for Post {
    fn name(&self) -> &'static str {
        "post"
    }

    fn about(&self) -> &'static str {
        "a POST of 16 KiB, kept connections of HTTP/1.1"
    }

    fn load(&self, stage: &Stage) -> Load {
        Load { speech: Speech::Http1, asks: vec![Ask::post("/", 16 << 10, SMALL)], connections: stage.connections() }
    }
}
