//! What an idle connection costs: resident memory with so many, each after one answered request, over what it was before.

use std::{net::SocketAddr, time::Duration};

use anyhow::ensure;
use tokio::task::JoinSet;

use super::{Ask, Client, Contestant, Load, Party, Row, SMALL, Scenario, Section, Speech, Stage, runtime, target};

/// Connections that are opened at once.
const AT_ONCE: usize = 50;

/// How long memory is given to settle.
const SETTLING: Duration = Duration::from_secs(1);

pub struct Idle;

impl Scenario for Idle {
    fn name(&self) -> &'static str {
        "idle"
    }

    fn about(&self) -> &'static str {
        "memory of 10,000 idle connections, plain and with TLS, each after one request"
    }

    fn load(&self, stage: &Stage) -> Load {
        Load { speech: Speech::Http1, asks: vec![Ask::get("/", SMALL)], connections: stage.connections() }
    }

    /// Afresh in each turn, so that no memory is there from the turn before. Three turns: memory hardly differs from one to the next.
    fn measure(&self, stage: &Stage) -> anyhow::Result<Section> {
        let mut section = stage.section();
        let pairs = usize::from(stage.arguments().pairs).min(3);
        let mut figures = vec![Figures::default(); stage.ground.contestants.len()];
        for pair in 0..pairs {
            for (who, figures) in stage.ground.contestants.iter().zip(&mut figures) {
                measure(stage, who, figures)?;
                let last = |each: &[f64]| each.last().copied().unwrap_or_default();
                let (plain, tls) = (last(&figures.plain), last(&figures.tls));
                eprintln!("  idle {}/{pairs}: {} {plain:.1} KiB, TLS {tls:.1} KiB", pair + 1, who.name);
            }
        }
        for (who, figures) in stage.ground.contestants.iter().zip(figures) {
            let mut row = Row::of(&who.name);
            row.set("rss_mib", figures.before);
            row.set("idle_plain_kib", figures.plain);
            row.set("idle_tls_kib", figures.tls);
            section.rows.push(row);
        }
        section.notes.push(format!("{} connections at once.", stage.arguments().idle));
        Ok(section)
    }
}

#[derive(Clone, Default)]
struct Figures {
    before: Vec<f64>,
    plain: Vec<f64>,
    tls: Vec<f64>,
}

fn measure(stage: &Stage, who: &Contestant, figures: &mut Figures) -> anyhow::Result<()> {
    for (speech, is_tls) in [(Speech::Http1, false), (stage.tls(), true)] {
        let party = stage.start(who)?;
        let before = settled(&party);
        let count = stage.arguments().idle;
        let runtime = runtime();
        let held = runtime.block_on(open(target(&party, &speech).address, &speech, count))?;
        let each = (settled(&party) - before) / count as f64;
        // Nobody was turned away meanwhile: each of them still answers.
        ensure!(held.len() == count, "{} of {count} connections stand", held.len());
        runtime.block_on(again(held))?;
        if is_tls {
            figures.tls.push(each);
        } else {
            figures.before.push(before / 1024.0);
            figures.plain.push(each);
        }
    }
    Ok(())
}

/// Resident memory in KiB, after a while.
fn settled(party: &Party) -> f64 {
    std::thread::sleep(SETTLING);
    party.memory("VmRSS")
}

async fn open(target: SocketAddr, speech: &Speech, count: usize) -> anyhow::Result<Vec<Client>> {
    let mut held = Vec::with_capacity(count);
    let mut tasks = JoinSet::new();
    for _ in 0..count {
        if tasks.len() == AT_ONCE {
            held.extend(tasks.join_next().await.transpose()?.transpose()?);
        }
        let speech = speech.clone();
        tasks.spawn(async move {
            let mut client = Client::open(target, &speech).await?.remove(0);
            client.ask(&Ask::get("/", SMALL)).await?;
            anyhow::Ok(client)
        });
    }
    while let Some(client) = tasks.join_next().await {
        held.push(client??);
    }
    Ok(held)
}

async fn again(held: Vec<Client>) -> anyhow::Result<()> {
    let ask = Ask::get("/", SMALL);
    for mut client in held {
        client.ask(&ask).await?;
    }
    Ok(())
}
