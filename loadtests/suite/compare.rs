//! Takes the contestants in turns. In every pair each has one turn, and who begins changes from pair to pair, so that what else the
//! machine does falls on all alike.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, ensure};
use hdrhistogram::Histogram;
use tempfile::TempDir;

use super::{
    cli::Arguments,
    client::{Client, Speech},
    generator::{self, Load, Outcome, Pace, Running, Target},
    identity::Identity,
    origin::Origin,
    party::{Contestant, Party},
    scenarios::Scenario,
    section::{Row, Section, curve, quantile},
};

/// How long a load runs before it is measured.
const WARMING: Duration = Duration::from_millis(300);

/// What every scenario stands on.
pub struct Ground {
    pub arguments: Arguments,
    pub contestants: Vec<Contestant>,
    identity: Identity,
    folder: TempDir,
}

impl Ground {
    /// # Errors
    /// Somebody who was named is not there.
    pub fn new(arguments: &Arguments) -> anyhow::Result<Self> {
        let mut contestants = arguments.contestants()?;
        for contestant in &mut contestants {
            contestant.program = std::path::absolute(&contestant.program)?;
        }
        let folder = tempfile::Builder::new().prefix("banyan-loadtest-").tempdir()?;
        Ok(Self { arguments: arguments.clone(), contestants, identity: Identity::new(), folder })
    }

    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// What is about to happen, and how long it takes at most.
    pub fn told(&self, scenarios: usize) -> String {
        let names: Vec<&str> = self.contestants.iter().map(|who| who.name.as_str()).collect();
        let turn = self.arguments.duration + WARMING * 2;
        let turns = (2 * names.len() + 1) * usize::from(self.arguments.pairs) * scenarios;
        let minutes = (turn * turns as u32).as_secs_f64() / 60.0;
        format!("{} of {} in {} pairs, about {minutes:.0} minutes", scenarios, names.join(", "), self.arguments.pairs)
    }

    /// Starts what a scenario needs, asserts its premise for everyone, and measures.
    ///
    /// # Errors
    /// The premise does not hold, or somebody does not start.
    pub fn run(&self, scenario: &dyn Scenario) -> anyhow::Result<Section> {
        let origins = (0..scenario.origins()).map(|_| Origin::start()).collect::<Result<Vec<_>, _>>()?;
        let mut stage = Stage { ground: self, scenario, origins, parties: Vec::new() };
        for who in scenario.contestants(&self.contestants) {
            let party = stage.start(&who)?;
            stage.parties.push(party);
        }
        for party in &stage.parties {
            stage.premise(party).with_context(|| format!("the premise of {} with {}", scenario.name(), party.name))?;
        }
        if self.arguments.hold {
            return stage.hold();
        }
        let section = scenario.measure(&stage);
        // Access logs are large.
        drop(stage);
        let _ = std::fs::remove_dir_all(self.folder.path().join(scenario.name()));
        section
    }
}

/// A scenario's services and contestants, all running.
pub struct Stage<'a> {
    pub ground: &'a Ground,
    scenario: &'a dyn Scenario,
    pub origins: Vec<Origin>,
    pub parties: Vec<Party>,
}

/// One turn of one contestant.
pub struct Turn {
    pub outcome: Outcome,
    /// Processor time of the contestant.
    pub cpu: Duration,
}

impl Turn {
    fn rps(&self) -> f64 {
        self.outcome.answered as f64 / self.outcome.time.as_secs_f64()
    }

    fn cpu_us(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.outcome.answered.max(1) as f64
    }
}

impl Stage<'_> {
    /// Starts a contestant afresh.
    pub fn start(&self, who: &Contestant) -> anyhow::Result<Party> {
        let origins: Vec<_> = self.origins.iter().map(Origin::address).collect();
        let folder = self.ground.folder.path().join(self.scenario.name());
        let is_pinned = !self.ground.arguments.no_pin && self.scenario.is_pinned();
        Party::start(who, &self.scenario.setup(), &origins, &self.ground.identity, &folder, is_pinned)
    }

    /// Tells where everyone listens, and waits until standard input ends.
    fn hold(&self) -> anyhow::Result<Section> {
        for party in &self.parties {
            println!("{} http://{} https://{}", party.name, party.plain, party.tls);
        }
        self.origins.iter().for_each(|origin| println!("service http://{}", origin.address()));
        std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
        Ok(self.section())
    }

    pub fn section(&self) -> Section {
        Section::new(self.scenario.name(), self.scenario.about())
    }

    pub fn arguments(&self) -> &Arguments {
        &self.ground.arguments
    }

    pub fn connections(&self) -> usize {
        usize::from(self.ground.arguments.connections)
    }

    /// HTTP/1.1 over TLS, HTTP/2, or a handshake for each request.
    pub fn tls(&self) -> Speech {
        Speech::Tls(self.ground.identity.client("http/1.1"))
    }

    pub fn http2(&self) -> Speech {
        Speech::Http2(self.ground.identity.client("h2"))
    }

    pub fn handshakes(&self) -> Speech {
        Speech::Fresh(Some(self.ground.identity.client("http/1.1")))
    }

    /// Requests that reached the services.
    pub fn hits(&self) -> u64 {
        self.origins.iter().map(Origin::hits).sum()
    }

    /// Tokens that the services were asked about.
    pub fn introspections(&self) -> u64 {
        self.origins.iter().map(Origin::introspections).sum()
    }

    /// Asks a few of the load's requests one by one: each is answered as it must be and reaches the service once, with its body. Then what
    /// the scenario itself asserts.
    fn premise(&self, party: &Party) -> anyhow::Result<()> {
        let load = self.scenario.load(self);
        let target = target(party, &load.speech);
        let step = (load.asks.len() / 20).max(1);
        let asks: Vec<_> = load.asks.iter().step_by(step).collect();
        let (hits, bytes) = (self.hits(), self.bytes());
        generator::runtime().block_on(async {
            let mut clients = Client::open(target.address, &load.speech).await?;
            let client = clients.first_mut().context("a client")?;
            for ask in &asks {
                tokio::time::timeout(Duration::from_secs(5), client.ask(ask)).await.context("no answer within 5 s")??;
            }
            anyhow::Ok(())
        })?;
        let (hits, bytes) = (self.hits() - hits, self.bytes() - bytes);
        if !load.may_be_refused() {
            ensure!(hits == asks.len() as u64, "{} requests were answered, {hits} reached the service", asks.len());
            let sent: u64 = asks.iter().map(|ask| ask.sent() as u64).sum();
            ensure!(bytes == sent, "{sent} bytes of bodies were sent, {bytes} reached the service");
        }
        self.scenario.premise(self, party)
    }

    fn bytes(&self) -> u64 {
        self.origins.iter().map(Origin::bytes).sum()
    }

    /// Lets everyone have a turn in each of so many pairs; gives the turns of each.
    pub fn in_turns<T>(
        &self,
        what: &str,
        parties: &[&Party],
        mut turn: impl FnMut(&Party) -> anyhow::Result<T>,
        told: impl Fn(&T) -> String,
    ) -> anyhow::Result<Vec<Vec<T>>> {
        let pairs = usize::from(self.arguments().pairs);
        let mut turns: Vec<Vec<T>> = parties.iter().map(|_| Vec::new()).collect();
        for pair in 0..pairs {
            let mut line = vec![String::new(); parties.len()];
            for place in 0..parties.len() {
                let at = (place + pair) % parties.len();
                let party = parties[at];
                let done = turn(party).with_context(|| format!("{what}, {}", party.name))?;
                line[at] = format!("{} {}", party.name, told(&done));
                turns[at].push(done);
            }
            eprintln!("  {what} {}/{pairs}: {}", pair + 1, line.join(" · "));
        }
        Ok(turns)
    }

    /// One turn, with something else going on meanwhile on this thread, or nothing.
    ///
    /// # Errors
    /// What was answered did not reach the services, or the other way round.
    pub fn turn(
        &self,
        party: &Party,
        load: &Load,
        pace: Pace,
        meanwhile: impl FnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<Turn> {
        let load = Load { speech: speech(party, &load.speech), ..load.clone() };
        let hits = self.hits();
        let running = Running::start(&load, &target(party, &load.speech), pace)?;
        std::thread::sleep(WARMING);
        let (begun, cpu) = (running.begin(), party.cpu());
        meanwhile()?;
        let cpu = party.cpu().saturating_sub(cpu);
        let outcome = running.end(begun);
        ensure!(outcome.answered > 0, "nothing was answered; {}", outcome.error.as_deref().unwrap_or("nothing failed"));
        if !load.may_be_refused() {
            self.same(self.hits() - hits, &outcome, load.connections)?;
        }
        Ok(Turn { outcome, cpu })
    }

    /// What was answered is what reached the services. What failed may have, and what was under way when a service died twice.
    fn same(&self, hits: u64, outcome: &Outcome, connections: usize) -> anyhow::Result<()> {
        let twice = if self.origins.len() > 1 { connections as u64 } else { 0 };
        let most = outcome.answered_in_all + outcome.failed_in_all + twice;
        let is_same = (outcome.answered_in_all..=most).contains(&hits);
        ensure!(is_same, "{} requests were answered, {hits} reached the service", outcome.answered_in_all);
        Ok(())
    }

    /// A turn of the usual length, with nothing else going on.
    pub fn calm(&self, party: &Party, load: &Load, pace: Pace) -> anyhow::Result<Turn> {
        self.turn(party, load, pace, || {
            std::thread::sleep(self.arguments().duration);
            Ok(())
        })
    }

    /// Requests a second of everyone in the closed loop, and what each costs.
    pub fn capacity(&self, load: &Load) -> anyhow::Result<Section> {
        let mut section = self.section();
        let parties: Vec<&Party> = self.parties.iter().collect();
        let told = |turn: &Turn| format!("{:.0}/s {:.1} µs", turn.rps(), turn.cpu_us());
        let turns = self.in_turns("capacity", &parties, |party| self.calm(party, load, Pace::Closed), told)?;
        section.rows = parties.iter().zip(turns).map(|(party, turns)| capacity(&party.name, &turns)).collect();
        Ok(section)
    }

    /// Capacity of everyone, then latencies of everyone and of the service itself at half of Banyan's capacity.
    pub fn compare(&self, load: &Load) -> anyhow::Result<Section> {
        let mut section = self.capacity(load)?;
        section.compare("cpu_us", "banyan");
        section.compare("rps", "banyan");
        let mut parties: Vec<&Party> = self.parties.iter().collect();
        let direct = Party::direct(self.origins.first().context("a service")?.address());
        parties.push(&direct);
        section.rows.push(Row::of("direct"));
        let half = section.rows[0].median("rps").unwrap_or_default() / 2.0;
        let rate = self.arguments().rate.map_or(half, f64::from).max(1.0);
        section.rate = Some(rate.round());
        let told = |turn: &Turn| format!("{:.0} µs", quantile(&turn.outcome.latencies, 0.5));
        let turns = self.in_turns("latency", &parties, |party| self.calm(party, load, Pace::Open(rate)), told)?;
        for (row, turns) in section.rows.iter_mut().zip(&turns) {
            latency(row, turns);
        }
        added(&mut section);
        self.peaks(&mut section);
        Ok(section)
    }

    /// Half of Banyan's capacity, or what was asked for.
    pub fn half(&self, load: &Load) -> anyhow::Result<f64> {
        if let Some(rate) = self.arguments().rate {
            return Ok(f64::from(rate));
        }
        let mut rates = Vec::new();
        for _ in 0..3 {
            rates.push(self.calm(&self.parties[0], load, Pace::Closed)?.rps());
        }
        rates.sort_unstable_by(f64::total_cmp);
        eprintln!("  half of capacity: {:.0}/s", rates[1] / 2.0);
        Ok(rates[1] / 2.0)
    }

    /// Adds the highest memory of each so far.
    pub fn peaks(&self, section: &mut Section) {
        for row in &mut section.rows {
            if let Some(party) = self.parties.iter().find(|party| party.name == row.party) {
                row.set("peak_rss_mib", vec![party.memory("VmHWM") / 1024.0]);
            }
        }
    }
}

/// The address for this speech.
pub fn target(party: &Party, speech: &Speech) -> Target {
    let address = match speech {
        Speech::Http1 | Speech::Fresh(None) => party.plain,
        Speech::Tls(_) | Speech::Http2(_) | Speech::Fresh(Some(_)) => party.tls,
    };
    Target { address, next: party.next.clone() }
}

/// The service speaks plain HTTP/1.1, to whoever asks it directly.
fn speech(party: &Party, speech: &Speech) -> Speech {
    match (party.kind, speech) {
        (super::party::Kind::Direct, Speech::Fresh(_)) => Speech::Fresh(None),
        (super::party::Kind::Direct, _) => Speech::Http1,
        _ => speech.clone(),
    }
}

fn capacity(party: &str, turns: &[Turn]) -> Row {
    let mut row = Row::of(party);
    row.set("rps", turns.iter().map(Turn::rps).collect());
    row.set("cpu_us", turns.iter().map(Turn::cpu_us).collect());
    row.set("busy", turns.iter().map(|turn| turn.cpu.as_secs_f64() / turn.outcome.time.as_secs_f64()).collect());
    tally(&mut row, turns);
    row
}

/// Adds what was answered and what failed.
pub fn tally(row: &mut Row, turns: &[Turn]) {
    for Turn { outcome, .. } in turns {
        row.answered += outcome.answered;
        row.failed += outcome.failed;
        row.error = row.error.take().or_else(|| outcome.error.clone());
    }
}

fn latency(row: &mut Row, turns: &[Turn]) {
    let quantiles = [("p50_us", 0.5), ("p90_us", 0.9), ("p99_us", 0.99), ("p999_us", 0.999), ("max_us", 1.0)];
    for (figure, at) in quantiles {
        row.set(figure, turns.iter().map(|turn| quantile(&turn.outcome.latencies, at)).collect());
    }
    if row.party != "direct" {
        row.set("open_cpu_us", turns.iter().map(Turn::cpu_us).collect());
    }
    row.curve = curve(&together(turns));
    tally(row, turns);
}

/// Latencies of all turns.
pub fn together(turns: &[Turn]) -> Histogram<u64> {
    let mut all = generator::histogram();
    turns.iter().for_each(|turn| all.add(&turn.outcome.latencies).expect("of the same bounds"));
    all
}

/// Adds what each hop adds to the service itself, turn by turn.
fn added(section: &mut Section) {
    let Some(direct) = section.row("direct").map(|row| row.figures.clone()) else { return };
    for row in section.rows.iter_mut().filter(|row| row.party != "direct") {
        for (figure, added) in [("p50_us", "added_p50_us"), ("p99_us", "added_p99_us")] {
            if let (Some(own), Some(of_service)) = (row.figures.get(figure), direct.get(figure)) {
                let more = own.minus(of_service);
                row.figures.insert(added, more);
            }
        }
    }
}
