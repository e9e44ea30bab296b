//! Signals that end the process, and how it ends. SIGTERM lets what is in flight finish; SIGINT does not wait.

use std::{
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use pingora_core::server::{ShutdownSignal, ShutdownSignalWatch, ShutdownWatch};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{Mutex, mpsc, watch},
    time::{sleep, timeout_at},
};

use crate::{
    edge::PARTING_MAX,
    live::{Live, Stage},
};

/// How often the drain looks whether something is left.
const DRAIN_LOOK: Duration = Duration::from_millis(20);

/// Longest wait for what is cut to end, so that its access log lines are written.
const CUT_PATIENCE: Duration = Duration::from_millis(500);

/// Longest wait for the access log to be written at the end.
pub const LOG_PATIENCE: Duration = Duration::from_secs(5);

/// How the process is told to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// SIGTERM: drain.
    Terminate,
    /// SIGINT, or a second SIGTERM: what is left is cut.
    Quick,
    /// A successor listens on the same sockets: drain, with nothing to wait for first.
    Succeeded,
}

/// Tells the process to end, from within.
pub type Ender = mpsc::UnboundedSender<End>;

/// Watches for the end.
pub struct Signals {
    live: Arc<Live>,
    listeners: watch::Sender<bool>,
    admin: watch::Sender<bool>,
    ender: Ender,
    told: Mutex<mpsc::UnboundedReceiver<End>>,
}

impl Signals {
    pub fn new(live: Arc<Live>) -> Self {
        let (ender, told) = mpsc::unbounded_channel();
        Self { live, listeners: watch::Sender::default(), admin: watch::Sender::default(), ender, told: Mutex::new(told) }
    }

    pub fn ender(&self) -> Ender {
        self.ender.clone()
    }

    /// Turns true when the listeners are to close.
    pub fn listeners(&self) -> ShutdownWatch {
        self.listeners.subscribe()
    }

    /// Turns true when the admin listener is to close: it tells of the drain until its end, unless a successor tells of itself.
    pub fn admin(&self) -> ShutdownWatch {
        self.admin.subscribe()
    }

    /// Lets what is in flight finish, until nothing is left or the deadline.
    async fn drain(&self, end: End) {
        let terms = self.live.snapshot().drain();
        let deadline = Instant::now() + terms.deadline.as_std();
        self.live.enter(Stage::Leaving);
        tracing::info!(delay = ?terms.delay.as_std(), deadline = ?terms.deadline.as_std(), "draining");
        match end {
            End::Terminate => sleep(terms.delay.as_std()).await,
            _ => drop(self.admin.send_replace(true)),
        }
        self.listeners.send_replace(true);
        self.live.enter(Stage::Closing);
        let mut nothing_left = pin!(self.nothing_left());
        if end == End::Succeeded {
            // A successor serves: there is time.
            let parting = deadline.checked_sub(PARTING_MAX).unwrap_or(deadline);
            if timeout_at(parting.into(), &mut nothing_left).await.is_ok() {
                return;
            }
        }
        self.live.enter(Stage::Parting);
        if timeout_at(deadline.into(), nothing_left).await.is_err() {
            let stores = self.live.stores();
            let (requests, connections) = (stores.in_flight(), stores.held());
            tracing::warn!(requests, connections, "the deadline of the drain has come, what is left is cut");
        }
    }

    /// Returns at the second look in a row that finds nothing: a connection is counted only once its task has run.
    async fn nothing_left(&self) {
        let mut empty = 0;
        while empty < 2 {
            sleep(DRAIN_LOOK).await;
            empty = if self.live.stores().is_idle() { empty + 1 } else { 0 };
        }
    }

    /// Ends what is left.
    async fn cut(&self) {
        self.live.enter(Stage::Cut);
        let stores = self.live.stores();
        let patience = Instant::now() + CUT_PATIENCE;
        while stores.in_flight() > 0 && Instant::now() < patience {
            sleep(Duration::from_millis(1)).await;
        }
        self.listeners.send_replace(true);
        self.admin.send_replace(true);
    }
}

#[async_trait]
impl ShutdownSignalWatch for Signals {
    async fn recv(&self) -> ShutdownSignal {
        let (mut terminate, mut interrupt) = (listen(SignalKind::terminate()), listen(SignalKind::interrupt()));
        let mut told = self.told.lock().await;
        let end = tokio::select! {
            () = next(&mut terminate) => End::Terminate,
            () = next(&mut interrupt) => End::Quick,
            Some(end) = told.recv() => end,
        };
        if end != End::Quick {
            let hurried = async {
                // What a successor began, a first SIGTERM would have begun.
                if end == End::Succeeded {
                    next(&mut terminate).await;
                    self.live.enter(Stage::Parting);
                }
                next(&mut terminate).await;
            };
            tokio::select! {
                () = self.drain(end) => {}
                () = hurried => {}
                () = next(&mut interrupt) => {}
            }
        }
        self.cut().await;
        // Nothing is left that Pingora could wait for.
        ShutdownSignal::FastShutdown
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
