//! The plain hop behind a limit of so many requests for each of 1,000 callers, whom a header field names: one that nobody reaches, counted here or
//! leased from a Redis or asked of it, and one that everybody has used up. The floor limits nobody.

use anyhow::ensure;

use super::{Ask, CALLER, Contestant, Kind, Limit, Load, Party, SMALL, Scenario, Setup, Speech, Stage, beside_open};

/// Callers that come again and again.
const CALLERS: usize = 1_000;

pub struct Limited {
    name: &'static str,
    about: &'static str,
    limit: Limit,
}

pub const AMPLE: Limited = Limited {
    name: "rate-limit",
    about: "the same with a limit for each of 1,000 callers, which none reaches",
    limit: Limit::Ample,
};
pub const LEASED: Limited =
    Limited { name: "rate-limit-leased", about: "the same with that limit leased from a Redis", limit: Limit::Leased };
pub const EXACT: Limited =
    Limited { name: "rate-limit-exact", about: "the same with that limit asked of a Redis each time", limit: Limit::Exact };
pub const SPENT: Limited = Limited {
    name: "rate-limited",
    about: "the same with a limit that everybody has used up: what a 429 costs",
    limit: Limit::Spent,
};

impl Limited {
    fn is_shared(&self) -> bool {
        matches!(self.limit, Limit::Leased | Limit::Exact)
    }

    /// Whether this contestant counts.
    fn counts(&self, party: &Party) -> bool {
        !matches!(party.kind, Kind::Floor | Kind::Open | Kind::Direct)
    }
}

impl Scenario for Limited {
    fn name(&self) -> &'static str {
        self.name
    }

    fn about(&self) -> &'static str {
        self.about
    }

    fn setup(&self) -> Setup {
        Setup { limit: self.limit, ..Setup::default() }
    }

    fn load(&self, stage: &Stage) -> Load {
        let ask = |caller: usize| Ask::get_with("/", (CALLER, &format!("caller-{caller}")), SMALL);
        let asks = (0..CALLERS).map(ask).map(|ask| if self.limit == Limit::Spent { ask.or_refused() } else { ask });
        Load { speech: Speech::Http1, asks: asks.collect(), connections: stage.connections() }
    }

    fn contestants(&self, all: &[Contestant]) -> Vec<Contestant> {
        let can = |who: &&Contestant| !self.is_shared() || matches!(who.kind, Kind::Banyan | Kind::Floor);
        beside_open(all.iter().filter(can))
    }

    /// Who limits refuses what is over the limit, tells what is left otherwise, and refuses nobody else.
    fn premise(&self, _: &Stage, party: &Party) -> anyhow::Result<()> {
        let answers: Vec<String> = (0..3).map(|_| party.answer("/", (CALLER, "premise"))).collect::<Result<_, _>>()?;
        let refused = answers.iter().filter(|answer| answer.starts_with("HTTP/1.1 429 ")).count();
        let expected = if self.limit == Limit::Spent && self.counts(party) { 2 } else { 0 };
        ensure!(refused == expected, "of three requests {refused} were refused and not {expected}");
        if party.kind == Kind::Banyan {
            let told = answers.iter().filter(|answer| answer.to_lowercase().contains("\r\nratelimit: \"hop\"")).count();
            ensure!(told == 3, "{told} of three answers tell what is left: {answers:?}");
        }
        Ok(())
    }
}
