//! SIGUSR2: the binary of who asks, `banyan reload`, is started to take over.
//!
//! The running process starts it, not the command: what the service manager gave to the service alone (its credentials, its view of the file
//! system, its rights) is the successor's too.

use std::{process::Stdio, time::Duration};

use anyhow::{Context, bail, ensure};
use tokio::{process::Command, signal::unix::Signal, time::timeout};

use crate::server::{
    asker::{self, Wish},
    signals,
};

/// Longest wait for what starts a successor: it gives up before.
const SUMMON_MAX: Duration = Duration::from_secs(100);

/// Has a successor started at each SIGUSR2. What stands between tells who asked how it went.
pub async fn at_signal(asked: &mut Option<Signal>) {
    loop {
        signals::next(asked).await;
        if let Err(fault) = summon().await {
            tracing::error!("no upgrade, this process carries on: {fault:#}");
            asker::tell(Wish::Upgrade, Some(&format!("{fault:#}")));
        }
    }
}

/// A process between us and the successor, whose child the successor is: so the service manager inherits it at once, and is told of its end.
async fn summon() -> anyhow::Result<()> {
    let asker = asker::who().context("nobody asks: use `banyan reload`")?.as_raw_nonzero();
    tracing::info!(asker, "starting a successor");
    // By this name, not by its path: in the service's view of the file system what replaced a file that may be executed may not be.
    let mut command = Command::new(format!("/proc/{asker}/exe"));
    command.args(["reload", "--within", "--pid", &std::process::id().to_string()]).stdin(Stdio::null());
    let started = command.spawn();
    let mut child = started.with_context(|| format!("the binary of process {asker} cannot be started"))?;
    let Ok(ended) = timeout(SUMMON_MAX, child.wait()).await else {
        child.kill().await?;
        bail!("no successor came of it within {SUMMON_MAX:?}");
    };
    let ended = ended?;
    ensure!(ended.success(), "no successor came of it ({ended})");
    Ok(())
}
