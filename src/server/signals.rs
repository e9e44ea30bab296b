//! Signals that end the process. SIGTERM lets requests finish; SIGINT does not wait.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use pingora_core::server::{ShutdownSignal, ShutdownSignalWatch};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::live::Live;

/// Longest wait for requests in flight after SIGTERM.
const DRAIN_MAX: Duration = Duration::from_secs(30);

/// How often the drain looks whether requests are left.
const DRAIN_LOOK: Duration = Duration::from_millis(20);

/// Longest wait for the access log to be written at the end.
pub const LOG_PATIENCE: Duration = Duration::from_secs(5);

/// Watches for the end.
pub struct Signals {
    live: Arc<Live>,
}

impl Signals {
    pub fn new(live: Arc<Live>) -> Self {
        Self { live }
    }

    /// Readiness fails; what is in flight may finish.
    async fn drain(&self) {
        self.live.drain();
        tracing::info!("draining");
        let begun = Instant::now();
        while self.live.stores().in_flight() > 0 && begun.elapsed() < DRAIN_MAX {
            tokio::time::sleep(DRAIN_LOOK).await;
        }
    }
}

#[async_trait]
impl ShutdownSignalWatch for Signals {
    async fn recv(&self) -> ShutdownSignal {
        let (mut terminate, mut interrupt) = (listen(SignalKind::terminate()), listen(SignalKind::interrupt()));
        tokio::select! {
            () = next(&mut terminate) => {}
            () = next(&mut interrupt) => return ShutdownSignal::FastShutdown,
        }
        tokio::select! {
            () = self.drain() => ShutdownSignal::GracefulTerminate,
            () = next(&mut interrupt) => ShutdownSignal::FastShutdown,
        }
    }
}

/// A stream of a signal; none if the system refuses, which is logged: the process still serves.
pub fn listen(kind: SignalKind) -> Option<Signal> {
    signal(kind).inspect_err(|error| tracing::error!(?kind, %error, "cannot listen for a signal")).ok()
}

/// The next signal; never, if it cannot be listened for.
pub async fn next(signals: &mut Option<Signal>) {
    match signals {
        Some(signals) => {
            signals.recv().await;
        }
        None => std::future::pending().await,
    }
}
