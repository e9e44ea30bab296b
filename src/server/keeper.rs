//! Keeps the configuration in force: health checks from the start, a reload on SIGHUP and when a file changes. SIGUSR1 opens the
//! access log anew.

use std::sync::Arc;

use async_trait::async_trait;
use pingora_core::{server::ShutdownWatch, services::background::BackgroundService};
use tokio::{runtime::Handle, signal::unix::SignalKind};

use super::{notify::Supervisor, signals, watch::Watch};
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

    /// Reads and compiles on a thread that may block.
    async fn reload(&self) {
        let (live, supervisor) = (self.live.clone(), self.supervisor.clone());
        // A refusal was logged where it was found.
        let reload = move || drop(supervisor.during_reload(&live, || live.reload()));
        if let Err(fault) = tokio::task::spawn_blocking(reload).await {
            tracing::error!(%fault, "the reload broke off");
        }
    }
}

#[async_trait]
impl BackgroundService for Keeper {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        self.live.run_on(Handle::current());
        let mut hangups = signals::listen(SignalKind::hangup());
        let mut rotations = signals::listen(SignalKind::user_defined1());
        let mut watch = Watch::new();
        loop {
            // What changed before it was followed was not seen.
            if watch.follow(&self.live.watched()) {
                self.reload().await;
                continue;
            }
            tokio::select! {
                () = signals::next(&mut hangups) => self.reload().await,
                () = signals::next(&mut rotations) => self.reopen_log(),
                () = watch.changed() => self.reload().await,
                _ = shutdown.changed() => return,
            }
        }
    }
}
