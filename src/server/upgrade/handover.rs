//! The old process's part.

use std::{
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::PermissionsExt,
    },
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use rustix::process::geteuid;
use tokio::{net::UnixListener, signal::unix::Signal, time::timeout};

use super::{
    MEET_MAX,
    channel::{Channel, Estate, Offered, PATIENCE, PROTOCOL, SOCKETS_MAX, Word, is_gone},
    meeting_point,
};
use crate::{
    config::address::ListenAddress,
    live::Live,
    server::{
        notify::{Supervisor, serving},
        signals,
        socket_files::{Book, Files},
        sockets,
    },
};

/// Longest wait for a successor that has the sockets: it opens others, and its health checks make their first round. With the wait
/// for it that is less than the 90 s that systemd gives a reload.
const READY_MAX: Duration = Duration::from_secs(50);

/// Who may connect to the upgrade socket. Who can is looked at besides.
const MODE: u32 = 0o600;

/// A listening socket of this process, once more: to be handed over. As long as it is held the socket listens.
pub struct Spare {
    pub address: ListenAddress,
    pub socket: OwnedFd,
}

/// Everything that a successor gets. To be dropped when the listeners close.
pub struct Handover {
    pub live: Arc<Live>,
    pub supervisor: Arc<Supervisor>,
    pub spare: Vec<Spare>,
    pub files: Book,
    pub watchdog: Option<Duration>,
}

impl Handover {
    /// Hands over at SIGQUIT. Returns once a successor has taken over.
    pub async fn at_signal(self, quits: &mut Option<Signal>) {
        loop {
            signals::next(quits).await;
            match self.hand_over().await {
                Ok(pid) => return tracing::info!(pid, "a successor has taken over"),
                Err(fault) => {
                    tracing::error!("no upgrade, this process carries on: {fault:#}");
                    self.supervisor.status(&format!("upgrade failed: {fault:#}; {}", serving(&self.live)));
                }
            }
        }
    }

    async fn hand_over(&self) -> anyhow::Result<u32> {
        let (mut channel, pid) = self.meet().await?;
        tracing::info!(pid, "handing over");
        self.bequeath(&channel).await.context("the sockets could not be handed over")?;
        let taken = match timeout(READY_MAX, ready(&mut channel)).await {
            Ok(taken) => taken?,
            Err(_) => {
                let reason = format!("the successor was not ready within {READY_MAX:?}");
                // It may be gone, which is as well.
                let _ = channel.say(&Word::Refused { reason: reason.clone() }).await;
                bail!(reason);
            }
        };
        channel.say(&Word::Yours).await.context("the successor ended as it was ready")?;
        self.succeeded_by(pid, &taken);
        Ok(pid)
    }

    /// Opens the upgrade socket until a successor has come.
    async fn meet(&self) -> anyhow::Result<(Channel, u32)> {
        let (files, path) = (Files::default(), meeting_point());
        let mode = std::fs::Permissions::from_mode(MODE);
        let socket = sockets::open_unix(&path, mode, &files).with_context(|| format!("cannot listen on {}", path.display()))?;
        let listener = UnixListener::from_std(socket.into())?;
        tracing::info!("a successor may come within {MEET_MAX:?}, to {}", path.display());
        timeout(MEET_MAX, successor(&listener)).await.with_context(|| format!("no successor came within {MEET_MAX:?}"))
    }

    async fn bequeath(&self, channel: &Channel) -> std::io::Result<()> {
        let estate = Estate { notify: self.supervisor.name(), watchdog: self.watchdog };
        let parts = self.spare.len().div_ceil(SOCKETS_MAX).max(1);
        for part in 0..parts {
            let spare: Vec<&Spare> = self.spare.iter().skip(part * SOCKETS_MAX).take(SOCKETS_MAX).collect();
            let sockets: Vec<_> = spare.iter().map(|spare| spare.socket.as_fd()).collect();
            let offered = spare.iter().map(|spare| self.offered(spare)).collect();
            let offer = Word::Offer { sockets: offered, estate: estate.clone(), more: part + 1 < parts };
            channel.hand(&offer, &sockets).await?;
        }
        Ok(())
    }

    fn offered(&self, spare: &Spare) -> Offered {
        let owns_file = spare.address.path().is_some_and(|path| self.files.owns(path));
        Offered { address: spare.address.to_string(), owns_file }
    }

    /// The files of what it took are the successor's; those of what it did not take go with us.
    fn succeeded_by(&self, pid: u32, taken: &[String]) {
        for address in taken.iter().filter_map(|address| address.parse::<ListenAddress>().ok()) {
            address.path().into_iter().for_each(|path| self.files.disown(path));
        }
        self.supervisor.succeeded_by(pid);
    }
}

/// The first that may have the sockets.
async fn successor(listener: &UnixListener) -> (Channel, u32) {
    loop {
        let met = async {
            let (stream, _) = listener.accept().await?;
            let mut channel = Channel::new(stream);
            let pid = greeted(&mut channel).await?;
            anyhow::Ok((channel, pid))
        };
        match met.await {
            Ok(met) => return met,
            Err(fault) => tracing::warn!("turned away from the upgrade socket: {fault:#}"),
        }
    }
}

/// The number of the process, if it is one of ours that speaks as we do.
async fn greeted(channel: &mut Channel) -> anyhow::Result<u32> {
    let (pid, user) = channel.peer()?;
    let own = geteuid().as_raw();
    ensure!(user == own, "process {pid} runs as user {user}, this one as {own}");
    let (word, _) = timeout(PATIENCE, channel.hear()).await.context("it says nothing")??;
    match word {
        Word::Hello { protocol: PROTOCOL, .. } => Ok(pid),
        Word::Hello { version, protocol } => {
            let reason = format!("Banyan {version} upgrades by protocol {protocol}, this one by {PROTOCOL}: restart instead");
            channel.say(&Word::Refused { reason: reason.clone() }).await?;
            bail!(reason)
        }
        word => bail!("process {pid} said {word:?} before hello"),
    }
}

/// The addresses that the successor serves on.
async fn ready(channel: &mut Channel) -> anyhow::Result<Vec<String>> {
    match channel.hear().await {
        Ok((Word::Ready { taken }, _)) => Ok(taken),
        Ok((Word::Refused { reason }, _)) => bail!("the successor gave up: {reason}"),
        Ok((word, _)) => bail!("the successor said {word:?} instead of ready"),
        Err(error) if is_gone(&error) => bail!("the successor ended before it was ready"),
        Err(error) => Err(error).context("the successor cannot be understood"),
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixStream;

    use super::*;

    fn pair() -> (Channel, Channel) {
        let (one, other) = UnixStream::pair().unwrap();
        (Channel::new(one), Channel::new(other))
    }

    fn hello(protocol: u32) -> Word {
        Word::Hello { protocol, version: "9.9.9".to_owned() }
    }

    #[tokio::test]
    async fn a_successor_of_another_protocol_is_told_to_restart_instead() {
        let (mut old, mut new) = pair();
        new.say(&hello(PROTOCOL + 1)).await.unwrap();
        assert!(greeted(&mut old).await.is_err());
        let (Word::Refused { reason }, _) = new.hear().await.unwrap() else { panic!("no refusal") };
        assert_eq!(reason, "Banyan 9.9.9 upgrades by protocol 2, this one by 1: restart instead");
    }

    #[tokio::test]
    async fn a_successor_is_known_by_its_process() {
        let (mut old, new) = pair();
        new.say(&hello(PROTOCOL)).await.unwrap();
        assert_eq!(greeted(&mut old).await.unwrap(), std::process::id());
    }

    #[tokio::test]
    async fn who_does_not_say_hello_is_no_successor() {
        let (mut old, new) = pair();
        new.say(&Word::Ready { taken: Vec::new() }).await.unwrap();
        assert!(greeted(&mut old).await.is_err());
    }

    #[tokio::test]
    async fn a_successor_that_ends_before_it_is_ready_has_not_taken_over() {
        let (mut old, new) = pair();
        drop(new);
        assert_eq!(ready(&mut old).await.unwrap_err().to_string(), "the successor ended before it was ready");
    }
}
