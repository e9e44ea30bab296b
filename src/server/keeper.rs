//! Keeps the configuration in force: health checks from the start, a reload on SIGHUP and when a file changes. SIGUSR1 opens the
//! access log anew.

use std::sync::Arc;

use async_trait::async_trait;
use pingora_core::{server::ShutdownWatch, services::background::BackgroundService};
use tokio::{runtime::Handle, signal::unix::SignalKind};

use super::{
    asker::{self, Wish},
    notify::Supervisor,
    signals,
    watch::Watch,
};
use crate::{live::Live, observe::access_log::Sink};

/// The background service that reloads.
pub struct Keeper {
    live: Arc<Live>,
    supervisor: Arc<Supervisor>,
}

impl Keeper {
    pub fn new(live: Arc<Live>, supervisor: Arc<Supervisor>) -> Self {
        Self { live, supervisor }
    }

    /// A rotation has moved the access log's file away.
    fn reopen_log(&self) {
        self.live.stores().access_log.iter().for_each(Sink::reopen);
    }

    /// Reads and compiles on a thread that may block. A refusal was logged where it was found.
    async fn reload(&self) -> Result<u64, String> {
        let (live, supervisor) = (self.live.clone(), self.supervisor.clone());
        let reload = move || supervisor.during_reload(&live, || live.reload());
        tokio::task::spawn_blocking(reload).await.unwrap_or_else(|fault| {
            tracing::error!(%fault, "the reload broke off");
            Err(fault.to_string())
        })
    }

    /// Reloads for who sent SIGHUP, and tells how it went.
    async fn reload_as_asked(&self) {
        let fault = self.reload().await.err();
        asker::tell(
            Wish::Reload,
            fault.map(|fault| format!("the configuration has errors, nothing was changed\n{fault}")).as_deref(),
        );
    }
}

/// Sheds what is too much, for ever.
async fn watch_over(live: Arc<Live>) {
    let stores = live.stores();
    stores.guard.watch(|| stores.in_flight()).await;
}

#[async_trait]
impl BackgroundService for Keeper {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        self.live.run_on(Handle::current());
        tokio::spawn(watch_over(self.live.clone()));
        let mut hangups = signals::listen(SignalKind::hangup());
        let mut rotations = signals::listen(SignalKind::user_defined1());
        let mut watch = Watch::new();
        loop {
            // What changed before it was followed was not seen.
            if watch.follow(&self.live.watched()) {
                // Nobody asked.
                let _ = self.reload().await;
                continue;
            }
            tokio::select! {
                () = signals::next(&mut hangups) => self.reload_as_asked().await,
                () = signals::next(&mut rotations) => self.reopen_log(),
                () = watch.changed() => drop(self.reload().await),
                _ = shutdown.changed() => return,
            }
        }
    }
}
