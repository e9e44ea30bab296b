//! What is measured. A new scenario is a file here that implements `Scenario`, a `mod` line and a line in `ALL`.

mod plain;
mod routes;
mod api_key;
mod jwt;
mod introspection;
mod limits;
mod tls;
mod handshakes;
mod http2;
mod post;
mod large;
mod workers;
mod idle;
mod reload;
mod slow;
mod death;

// What scenarios are made of.
use super::{
    client::{Ask, Client, Speech},
    compare::{Stage, Turn, tally, target, together},
    disturb::{self, Disturbance},
    filling::CALLER,
    generator::{Load, Pace, runtime},
    origin::{LARGE, SMALL},
    party::{self, Contestant, Kind, Limit, Party, Setup},
    section::{Row, Section, curve, quantile},
};

/// All scenarios, in the order in which they are run.
const ALL: [&dyn Scenario; 20] = [
    &plain::Plain,
    &routes::Routes,
    &api_key::ApiKey,
    &jwt::Warm,
    &jwt::Cold,
    &introspection::Cached,
    &limits::AMPLE,
    &limits::LEASED,
    &limits::EXACT,
    &limits::SPENT,
    &tls::Tls,
    &handshakes::Handshakes,
    &http2::Http2,
    &post::Post,
    &large::Large,
    &workers::Workers,
    &idle::Idle,
    &reload::Reload,
    &slow::Slow,
    &death::Death,
];

/// What is asked, of whom, and what must hold.
pub trait Scenario: Sync {
    /// As it is named on the command line.
    fn name(&self) -> &'static str;

    /// One line for people.
    fn about(&self) -> &'static str;

    /// What everyone is asked with. Answers other than the expected ones are failures.
    fn load(&self, stage: &Stage) -> Load;

    fn setup(&self) -> Setup {
        Setup::default()
    }

    /// How many services stand behind.
    fn origins(&self) -> usize {
        1
    }

    /// Whether a contestant has a core of its own, where there is more than one.
    fn is_pinned(&self) -> bool {
        true
    }

    /// Who takes part, of those who are there; Banyan comes first.
    fn contestants(&self, all: &[Contestant]) -> Vec<Contestant> {
        all.to_vec()
    }

    /// What proves that the path or policy in question is what is measured. That answers are as expected and requests reach the service
    /// is asserted for every scenario, before and in each run.
    ///
    /// # Errors
    /// It does not hold: nothing is measured.
    fn premise(&self, _stage: &Stage, _party: &Party) -> anyhow::Result<()> {
        Ok(())
    }

    /// How it is measured: capacity and CPU in the closed loop, then latency in the open one.
    ///
    /// # Errors
    /// Something did not hold while it was measured.
    fn measure(&self, stage: &Stage) -> anyhow::Result<Section> {
        stage.compare(&self.load(stage))
    }
}

/// Those named, or all.
///
/// # Errors
/// There is none of that name.
pub fn chosen(names: &[String]) -> anyhow::Result<Vec<&'static dyn Scenario>> {
    if names.is_empty() {
        return Ok(ALL.to_vec());
    }
    let known = || ALL.map(|scenario| scenario.name()).join(", ");
    let find = |name: &String| ALL.into_iter().find(|scenario| scenario.name() == name);
    names.iter().map(|name| find(name).ok_or_else(|| anyhow::anyhow!("no scenario {name}; there are {}", known()))).collect()
}

/// These, and beside each Banyan the same without what the scenario asks of callers, for the plain hop in the same turns.
fn beside_open<'a>(those: impl Iterator<Item = &'a Contestant>) -> Vec<Contestant> {
    let mut all: Vec<Contestant> = those.cloned().collect();
    let open: Vec<_> = all.iter().filter(|who| who.kind == Kind::Banyan).map(Contestant::open).collect();
    all.extend(open);
    all
}

/// Prints what there is.
pub fn list() {
    for scenario in ALL {
        println!("{:<12} {}", scenario.name(), scenario.about());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scenario_is_found_by_its_name_and_no_other_is() {
        assert_eq!(chosen(&[]).unwrap().len(), ALL.len());
        assert_eq!(chosen(&["tls".to_owned()]).unwrap()[0].name(), "tls");
        let error = chosen(&["tsl".to_owned()]).err().unwrap().to_string();
        assert!(error.contains("no scenario tsl; there are plain, routes"), "{error}");
    }

    #[test]
    fn no_two_scenarios_share_a_name() {
        let names: std::collections::BTreeSet<_> = ALL.iter().map(|scenario| scenario.name()).collect();
        assert_eq!(names.len(), ALL.len());
    }
}
