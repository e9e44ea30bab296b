//! The plain hop among 1,000 routes, all of which are asked in turns. The floor has none: it shows what the hop alone costs.

use anyhow::ensure;

use super::{Ask, Kind, Load, Party, SMALL, Scenario, Setup, Speech, Stage};

const ROUTES: usize = 1000;

pub struct Routes;

impl Scenario for Routes {
    fn name(&self) -> &'static str {
        "routes"
    }

    fn about(&self) -> &'static str {
        "the same among 1,000 routes, asked in turns"
    }

    fn setup(&self) -> Setup {
        Setup { routes: ROUTES, ..Setup::default() }
    }

    fn load(&self, stage: &Stage) -> Load {
        let asks = (0..ROUTES).map(|n| Ask::get(&format!("/r{n}/items"), SMALL)).collect();
        Load { speech: Speech::Http1, asks, connections: stage.connections() }
    }

    /// Who has routes knows no other path, and Banyan logs which one it took.
    fn premise(&self, _: &Stage, party: &Party) -> anyhow::Result<()> {
        if party.kind == Kind::Floor {
            return Ok(());
        }
        let status = party.status("/elsewhere")?;
        ensure!(status == 404, "a path without a route was answered with {status}");
        if party.kind == Kind::Banyan {
            party.status("/r777/items")?;
            let line = party.logged("/r777/items")?;
            ensure!(line.contains("\"route\":\"r777\""), "the access log does not tell the route: {line}");
        }
        Ok(())
    }
}
