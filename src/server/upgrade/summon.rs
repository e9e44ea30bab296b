//! SIGUSR2: the binary of who asks, `banyan reload`, is started to take over.
//!
//! The running process starts it, not the command: what the service manager gave to the service alone (its credentials, its view of the file
//! system, its rights) is the successor's too.

use std::process::Stdio;

use anyhow::{Context, ensure};
use tokio::{process::Command, signal::unix::Signal};

use crate::server::{asker, signals};

/// Has a successor started at each SIGUSR2. What stands between tells who asked how it went.
pub async fn at_signal(asked: &mut Option<Signal>) {
    loop {
        signals::next(asked).await;
        if let Err(fault) = summon().await {
            tracing::error!("no upgrade, this process carries on: {fault:#}");
            asker::tell(Some(&format!("{fault:#}")));
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
    let ended = command.status().await.with_context(|| {
        format!("the binary of process {asker} cannot be started: run `banyan reload` as the user of the service")
    })?;
    ensure!(ended.success(), "no successor came of it ({ended})");
    Ok(())
}
