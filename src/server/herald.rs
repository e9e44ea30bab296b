//! Tells how the process fares, from ready to stopping: a predecessor, whose sockets it takes over; the service manager; a successor.

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use pingora_core::{server::ShutdownWatch, services::background::BackgroundService};
use tokio::{
    signal::unix::{Signal, SignalKind},
    time::sleep,
};

use super::{
    notify::{Supervisor, serving},
    signals::{self, End, Ender},
    sockets::Shutters,
    upgrade::{Accession, Estate, Handover, summon},
    watchdog::{Asleep, period_of_environment},
};
use crate::live::{Live, Stage};

/// How often we look whether the gateway is ready.
const READY_LOOK: Duration = Duration::from_millis(20);

/// How often the service manager hears of a drain.
const DRAIN_WORD: Duration = Duration::from_secs(1);

/// How long the process may take from one word on the drain to the next, or to its end: the access log has 5 s of it.
const DRAIN_MORE: Duration = Duration::from_secs(10);

/// The background service that tells.
pub struct Herald {
    live: Arc<Live>,
    supervisor: Arc<Supervisor>,
    shutters: Arc<Shutters>,
    ender: Ender,
    failure: Failure,
    errand: Mutex<Option<Errand>>,
}

/// What is told once.
pub struct Errand {
    pub probe: Asleep,
    /// Of a successor: whose place it takes.
    pub accession: Option<Accession>,
    pub handover: Handover,
}

/// Signals that wish for a successor.
struct Wishes {
    /// SIGQUIT: one comes, or has come.
    hand_over: Option<Signal>,
    /// SIGUSR2: one is to be started.
    summon: Option<Signal>,
}

/// Why the process ends before it should.
pub type Failure = Arc<OnceLock<String>>;

impl Herald {
    pub fn new(live: Arc<Live>, shutters: Arc<Shutters>, ender: Ender, failure: Failure, errand: Errand) -> Self {
        let supervisor = errand.handover.supervisor.clone();
        Self { live, supervisor, shutters, ender, failure, errand: Mutex::new(Some(errand)) }
    }

    /// Until a successor has taken over. Not to be polled on when the listeners close: it holds their sockets.
    async fn serve(&self, errand: Errand, mut wishes: Wishes) {
        let Errand { probe, accession, mut handover } = errand;
        self.ready().await;
        self.shutters.raise();
        self.shutters.up().await;
        let estate = match accession {
            None => Estate { notify: None, watchdog: period_of_environment() },
            Some(accession) => match accession.complete().await {
                Ok(estate) => estate,
                Err(fault) => return self.fail(format!("{fault:#}")),
            },
        };
        self.supervisor.ready(estate.notify.as_deref(), &serving(&self.live));
        if let Some(period) = estate.watchdog {
            let supervisor = self.supervisor.clone();
            match probe.wake() {
                Ok(probe) => drop(tokio::spawn(probe.watch(period, move || supervisor.pulse()))),
                Err(error) => tracing::error!(%error, "the watchdog cannot be fed"),
            }
        }
        handover.watchdog = estate.watchdog;
        tokio::select! {
            () = handover.at_signal(&mut wishes.hand_over) => self.end(),
            () = summon::at_signal(&mut wishes.summon) => {}
        }
    }

    /// The same moment that `/readyz` tells of.
    async fn ready(&self) {
        while !self.live.unready().is_empty() {
            sleep(READY_LOOK).await;
        }
    }

    fn fail(&self, reason: String) {
        tracing::error!("no upgrade: {reason}");
        // The first reason is the one.
        let _ = self.failure.set(reason);
        self.end();
    }

    /// Another process serves on our sockets.
    fn end(&self) {
        // Nobody listens to who ends already.
        let _ = self.ender.send(End::Succeeded);
    }

    async fn tell_of_the_drain(&self) {
        loop {
            self.supervisor.draining(self.live.stores().in_flight(), DRAIN_MORE);
            sleep(DRAIN_WORD).await;
        }
    }
}

#[async_trait]
impl BackgroundService for Herald {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let Some(errand) = self.errand.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        let wishes =
            Wishes { hand_over: signals::listen(SignalKind::quit()), summon: signals::listen(SignalKind::user_defined2()) };
        // Only now, so that whoever finds us serving may send them. A successor waits until it is ready.
        if errand.accession.is_none() {
            self.shutters.raise();
        }
        let mut stages = self.live.stages();
        tokio::select! {
            biased;
            _ = stages.wait_for(|stage| *stage >= Stage::Leaving) => {}
            () = async { self.serve(errand, wishes).await; std::future::pending().await } => {}
        }
        tokio::select! {
            () = self.tell_of_the_drain() => {}
            _ = shutdown.changed() => {}
        }
    }
}
