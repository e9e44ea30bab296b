//! The plain hop behind opaque tokens that their issuer was asked about before (RFC 7662): what an answer that is kept costs. HAProxy and nginx
//! ask nobody without a module; the floor shows what the hop alone costs.

use anyhow::ensure;

use super::{Ask, Contestant, Kind, Load, Party, SMALL, Scenario, Setup, Speech, Stage, beside_open};

pub struct Cached;

/// Callers that come again and again.
const CALLERS: usize = 1_000;

impl Scenario for Cached {
    fn name(&self) -> &'static str {
        "introspection"
    }

    fn about(&self) -> &'static str {
        "the same behind opaque tokens of 1,000 callers, whose issuer was asked before"
    }

    fn setup(&self) -> Setup {
        Setup { is_introspecting: true, ..Setup::default() }
    }

    fn load(&self, stage: &Stage) -> Load {
        let asks = (0..CALLERS).map(|caller| Ask::get("/", SMALL).bearing(&token(caller))).collect();
        Load { speech: Speech::Http1, asks, connections: stage.connections() }
    }

    fn contestants(&self, all: &[Contestant]) -> Vec<Contestant> {
        beside_open(all.iter().filter(|who| matches!(who.kind, Kind::Banyan | Kind::Floor)))
    }

    /// Nothing is to be had without a token, and the issuer is asked about one once.
    fn premise(&self, stage: &Stage, party: &Party) -> anyhow::Result<()> {
        if party.kind != Kind::Banyan {
            return Ok(());
        }
        let status = party.status("/")?;
        ensure!(status == 401, "a request without a token was answered with {status}");
        let before = stage.introspections();
        for _ in 0..3 {
            let status = party.status_bearing("/", &token(CALLERS))?;
            ensure!(status == 200, "a token was answered with {status}");
        }
        let asked = stage.introspections() - before;
        ensure!(asked == 1, "the issuer was asked {asked} times about one token");
        party.logged("\"auth\":\"introspection\"").map(|_| ())
    }
}

/// Nothing can be read out of it.
fn token(caller: usize) -> String {
    format!("opaque-{caller:036}")
}
