//! What outlives a reload, keyed by the names in the file.

use std::{collections::BTreeMap, sync::Arc};

use arc_swap::ArcSwap;

use crate::{
    certs::Showcase,
    config::Config,
    identity::{Identities, Passwords, password::NoRandomness, signature::replay::Replays},
    limit::{
        Counters,
        overload::{Guard, Settings},
        quota::{self, Ledger},
    },
    name::ListenerName,
    observe::{
        access_log::{OpenError, Sink, Target},
        metrics::Metrics,
    },
    upstream::States,
};

/// What outlives a reload.
pub struct Stores {
    pub upstreams: States,
    /// Those in force, with what they have learnt.
    pub identities: ArcSwap<Identities>,
    pub metrics: Arc<Metrics>,
    /// Absent: the access log is `off`.
    pub access_log: Option<Sink>,
    /// Passwords that were proven, and the turns in which they are verified.
    pub passwords: Arc<Passwords>,
    /// Cloned by each request, so its count tells how many there are.
    carried: Carried,
    /// Cloned by each connection of a client, and by the listeners while they take more.
    held: Held,
    /// Signatures of requests that were used.
    pub replays: Arc<Replays>,
    /// What limits count.
    pub counters: Arc<Counters>,
    /// What is used of quotas.
    pub ledger: Ledger,
    /// Sheds what is too much.
    pub guard: Arc<Guard>,
    /// The certificates of each TLS listener. Listeners do not change without a restart; their certificates do.
    pub showcases: BTreeMap<ListenerName, Arc<Showcase>>,
}

/// Held by each request that is being carried.
pub type Carried = Arc<()>;

/// Held by each connection, and by what may still take one.
pub type Held = Arc<()>;

/// Something that outlives reloads could not be had.
#[derive(Debug, thiserror::Error)]
pub enum StoresError {
    #[error(transparent)]
    AccessLog(#[from] OpenError),
    #[error(transparent)]
    Passwords(#[from] NoRandomness),
    #[error(transparent)]
    Quota(#[from] quota::OpenError),
    #[error("metrics cannot be registered")]
    Metrics(#[from] prometheus::Error),
}

impl Stores {
    /// Opens what a configuration names.
    ///
    /// # Errors
    /// The access log or the journal of quotas cannot be opened, or the latency buckets make no histogram.
    pub fn open(config: &Config) -> Result<Self, StoresError> {
        let closed = Self::closed(config)?;
        let log = &config.observe.access_log;
        let losses = closed.metrics.access_log();
        let access_log = Target::of(&log.path).map(|target| Sink::open(target, log.queue, losses)).transpose()?;
        let stores = Self { access_log, ledger: Ledger::new(config.process.state_directory()), ..closed };
        if config.has_quotas() {
            stores.ledger.open()?;
        }
        Ok(stores)
    }

    /// The same without any file opened: enough to compile a configuration.
    ///
    /// # Errors
    /// The latency buckets make no histogram.
    pub fn closed(config: &Config) -> Result<Self, StoresError> {
        let with_tls = config.listeners.iter().filter(|(_, listener)| listener.tls.is_some());
        Ok(Self {
            upstreams: States::default(),
            identities: ArcSwap::default(),
            metrics: Arc::new(Metrics::new(&config.observe.metrics)?),
            access_log: None,
            passwords: Arc::new(Passwords::new()?),
            carried: Carried::default(),
            held: Held::default(),
            replays: Arc::default(),
            counters: Arc::default(),
            ledger: Ledger::default(),
            guard: Arc::new(Guard::new(Settings::of(&config.overload, config.process.threads))),
            showcases: with_tls.map(|(name, _)| (name.clone(), Arc::default())).collect(),
        })
    }

    /// To be held by a request until it has ended.
    pub fn carry(&self) -> Carried {
        self.carried.clone()
    }

    /// To be held by a connection while it is open, and by a listener while it is.
    pub fn hold(&self) -> Held {
        self.held.clone()
    }

    /// Requests that have not ended.
    pub fn in_flight(&self) -> usize {
        Arc::strong_count(&self.carried) - 1
    }

    /// Nothing is in flight, and nothing is open that a request could come by.
    pub fn is_idle(&self) -> bool {
        self.in_flight() == 0 && self.held() == 0
    }

    /// Connections that are open, and listeners.
    pub fn held(&self) -> usize {
        Arc::strong_count(&self.held) - 1
    }
}
