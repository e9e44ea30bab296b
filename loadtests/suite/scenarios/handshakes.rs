//! What a new client costs: a connection, a whole handshake of TLS 1.3, one request, and the end of it.

use super::{Ask, Load, SMALL, Scenario, Stage};

pub struct Handshakes;

impl Scenario for Handshakes {
    fn name(&self) -> &'static str {
        "handshakes"
    }

    fn about(&self) -> &'static str {
        "a small GET on a TLS 1.3 connection of its own each: ECDSA P-256, X25519, no resumption"
    }

    fn load(&self, stage: &Stage) -> Load {
        Load { speech: stage.handshakes(), asks: vec![Ask::get("/", SMALL)], connections: stage.connections() }
    }
}
