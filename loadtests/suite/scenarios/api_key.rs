//! The plain hop with an API key among those of 100,000 consumers, a thousand of whom ask in turns. nginx has no SHA-256 without a module; the floor,
//! Banyan without consumers and the service itself look at no key: they show what the hop alone costs.

use anyhow::ensure;

use super::{Ask, Contestant, Kind, Load, Party, SMALL, Scenario, Setup, Speech, Stage, beside_open, party};

const CONSUMERS: usize = 100_000;

/// Who asks: consumers from all over the table.
const ASKING: usize = 1000;

pub struct ApiKey;

impl Scenario for ApiKey {
    fn name(&self) -> &'static str {
        "api-key"
    }

    fn about(&self) -> &'static str {
        "the same with an API key among 100,000 consumers"
    }

    fn setup(&self) -> Setup {
        Setup { consumers: CONSUMERS, ..Setup::default() }
    }

    fn load(&self, stage: &Stage) -> Load {
        let step = CONSUMERS / ASKING;
        let asks = (0..ASKING).map(|n| Ask::get_with("/", ("X-Api-Key", &party::api_key(n * step)), SMALL)).collect();
        Load { speech: Speech::Http1, asks, connections: stage.connections() }
    }

    fn contestants(&self, all: &[Contestant]) -> Vec<Contestant> {
        beside_open(all.iter().filter(|who| !matches!(who.kind, Kind::Nginx { .. })))
    }

    /// Who asks for a key refuses whoever has none, and Banyan logs whose it was.
    fn premise(&self, _: &Stage, party: &Party) -> anyhow::Result<()> {
        if matches!(party.kind, Kind::Floor | Kind::Open) {
            return Ok(());
        }
        let status = party.status("/without-a-key")?;
        ensure!(status == 401, "a request without a key was answered with {status}");
        if party.kind == Kind::Banyan {
            let line = party.logged("/without-a-key")?;
            ensure!(line.contains("\"refusal\":\"- missing\""), "the access log does not tell of it: {line}");
            party.logged("\"consumer\":\"c")?;
        }
        Ok(())
    }
}
