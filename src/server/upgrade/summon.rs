//! SIGUSR2: the binary that is now in place is started, to take over.
//!
//! The running process starts it, not who sends the signal: what the service manager gave to the service alone (its credentials, its view of
//! the file system, its rights) is the successor's too.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, ensure};
use tokio::{process::Command, signal::unix::Signal};

use crate::server::{ear, signals};

/// Has `banyan reload --within` start a successor at each SIGUSR2. That one tells who asked how it went.
pub async fn at_signal(asked: &mut Option<Signal>) {
    loop {
        signals::next(asked).await;
        if let Err(fault) = summon().await {
            tracing::error!("no upgrade, this process carries on: {fault:#}");
            ear::tell(Some(&format!("{fault:#}")));
        }
    }
}

/// A process between us and the successor, which the service manager inherits when it ends, and so is told of its end.
async fn summon() -> anyhow::Result<()> {
    let first = std::env::args_os().next().unwrap_or_default();
    let binary = binary_in_place(&first, &std::env::current_exe().context("this process has no binary")?);
    tracing::info!("starting {} as a successor", binary.display());
    let mut command = Command::new(&binary);
    command.args(["reload", "--within", "--pid", &std::process::id().to_string()]).stdin(Stdio::null());
    let ended = command.status().await.with_context(|| format!("{} cannot be started", binary.display()))?;
    ensure!(ended.success(), "{} did not start a successor ({ended})", binary.display());
    Ok(())
}

/// The file of which a process was started, as it was named then: by the first of its arguments, or else by what it runs.
pub fn binary_in_place(first_argument: &OsStr, runs: &Path) -> PathBuf {
    let named = Path::new(first_argument);
    // By its name alone it was looked for.
    if named.components().nth(1).is_some() {
        return named.to_owned();
    }
    let runs = runs.to_string_lossy();
    PathBuf::from(runs.strip_suffix(" (deleted)").unwrap_or(&runs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binary_is_looked_for_where_it_was_named() {
        let of = |first: &str, runs: &str| binary_in_place(OsStr::new(first), Path::new(runs));
        assert_eq!(of("/usr/bin/banyan", "/opt/banyan-1/banyan"), Path::new("/usr/bin/banyan"), "it may be a link");
        assert_eq!(of("./banyan", "/srv/banyan"), Path::new("./banyan"));
        assert_eq!(of("banyan", "/usr/bin/banyan"), Path::new("/usr/bin/banyan"));
        assert_eq!(of("banyan", "/usr/bin/banyan (deleted)"), Path::new("/usr/bin/banyan"), "replaced since");
    }
}
