//! The services behind the gateway. [`Upstream::pick`] is the only way to an endpoint.
//!
//! `client` says how to connect (`announce` for whom), `endpoint` what an address is doing, `health` whether it takes traffic, `balance` whose
//! turn it is. What must outlive a reload is kept in [`States`] by upstream name and address.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, OnceLock, PoisonError, Weak},
    time::Instant,
};

use arc_swap::ArcSwap;
use tokio::task::AbortHandle;

use self::{
    balance::{Cursor, Turns},
    client::Client,
    endpoint::{Endpoint, Load},
    health::Health,
};
use crate::{
    config::{
        self,
        problem::{Path, Problem},
    },
    exchange::UpstreamFault,
    name::UpstreamName,
};

mod announce;
mod balance;
pub mod client;
mod budget;
mod ended;
mod endpoint;
mod health;
mod retry;
mod rules;
mod sliding;

pub use self::{
    ended::Ended,
    endpoint::{EffectiveTimeouts, EndpointView, Lease, Tried},
    retry::{Retries, Situation, Verdict},
};

/// A service, compiled: how it is reached and which of its endpoints is next.
#[derive(Debug)]
pub struct Upstream {
    name: UpstreamName,
    config: config::Upstream,
    client: Client,
    pool: Arc<Pool>,
    retries: Retries,
    epoch: Instant,
    checking: OnceLock<Checking>,
}

/// The endpoints of an upstream and the turns of those that take traffic.
#[derive(Debug)]
struct Pool {
    /// In the order of the file.
    endpoints: Box<[Arc<Endpoint>]>,
    turns: ArcSwap<Turns>,
    cursor: Cursor,
    /// Held while turns are laid out, so that the last layout has seen the last change.
    laying: Mutex<()>,
}

/// What outlives reloads: the running upstreams by name, with the state of their endpoints. A reload that touches nothing of an
/// upstream changes nothing of it.
#[derive(Debug)]
pub struct States {
    running: Mutex<HashMap<UpstreamName, Weak<Upstream>>>,
    /// From when the times of what they keep are counted.
    epoch: Instant,
}

impl Default for States {
    fn default() -> Self {
        Self { running: Mutex::default(), epoch: Instant::now() }
    }
}

/// The task that checks an upstream's endpoints. Ends when this is dropped.
#[derive(Debug)]
struct Checking(AbortHandle);

impl Drop for Checking {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Upstream {
    /// Compiles an upstream, or gives the running one if its configuration and the content of its TLS files are the same.
    /// Endpoints that are known keep what is known of them. Changes nothing that runs until [`start`](Self::start).
    ///
    /// # Errors
    /// Every mistake, at `upstreams.<name>.…`.
    pub fn compile(name: &UpstreamName, config: &config::Upstream, states: &States) -> Result<Arc<Self>, Vec<Problem>> {
        let at = Path::root().key("upstreams").key(name.as_str());
        let mut problems = rules::check(config, &at);
        let client = Client::compile(config, &at).map_err(|more| problems.extend(more)).ok();
        let Some(client) = client.filter(|_| problems.is_empty()) else { return Err(problems) };
        match states.running(name) {
            Some(running) if running.config == *config && running.client.is_same(&client) => Ok(running),
            running => Ok(Arc::new(Self::new(name, config, client, running.as_deref(), states.epoch))),
        }
    }

    fn new(name: &UpstreamName, config: &config::Upstream, client: Client, before: Option<&Self>, epoch: Instant) -> Self {
        let endpoints = config.endpoints.iter().map(|endpoint| {
            let (load, health) = before.map_or_else(Default::default, |before| before.known(endpoint.address, config, &client));
            Arc::new(Endpoint {
                address: endpoint.address,
                weight: endpoint.weight,
                peer: client.peer(endpoint.address),
                announcer: client.announcer().cloned(),
                host: client.host(endpoint.address),
                load,
                health,
            })
        });
        let pool = Arc::new(Pool::new(endpoints.collect()));
        let retries = Retries::new(&config.retries, before.map(|before| &before.retries));
        Self { name: name.clone(), config: config.clone(), client, pool, retries, epoch, checking: OnceLock::new() }
    }

    /// What is known of an address. Its health counts only if it would be checked in the same way.
    fn known(&self, address: SocketAddr, config: &config::Upstream, client: &Client) -> (Arc<Load>, Arc<Health>) {
        let Some(known) = self.pool.endpoints.iter().find(|endpoint| endpoint.address == address) else {
            return Default::default();
        };
        let same_check = self.config.health == config.health && self.client.is_same(client);
        (known.load.clone(), if same_check { known.health.clone() } else { Arc::default() })
    }

    /// Makes this the running upstream of its name: it is checked from now on, its predecessor no longer. Does nothing if it runs.
    ///
    /// # Panics
    /// Outside of a tokio runtime, if health checks are configured.
    pub fn start(self: &Arc<Self>, states: &States) {
        if let Some(before) = states.replace(self) {
            before.checking.get().inspect(|checking| checking.0.abort());
        }
        self.pool.lay_out();
        if let Some(health) = &self.config.health {
            self.checking.get_or_init(|| {
                let watch = health::watch(self.name.clone(), health.clone(), self.pool.clone());
                Checking(tokio::spawn(watch).abort_handle())
            });
        }
    }

    /// Leases the endpoint whose turn it is; one that was tried only if there is no other.
    ///
    /// # Errors
    /// `NoEndpoint` if all that have weight are unhealthy.
    pub fn pick(&self, tried: &Tried) -> Result<Lease, UpstreamFault> {
        if tried.is_empty() {
            self.retries.begin(self.now());
        }
        self.next(tried).or_else(|| self.next(&Tried::default())).ok_or(UpstreamFault::NoEndpoint)
    }

    fn next(&self, tried: &Tried) -> Option<Lease> {
        let turns = self.pool.turns.load();
        let mut round = turns.round(&self.pool.cursor).filter_map(|position| self.pool.endpoints.get(position));
        let free = round.find(|endpoint| endpoint.health.is_healthy() && !tried.contains(&endpoint.address));
        free.map(|endpoint| Lease::of(endpoint.clone()))
    }

    /// Whether there is an endpoint that takes traffic and is none of these.
    pub fn has_other_than(&self, tried: &Tried) -> bool {
        self.pool.endpoints.iter().any(|endpoint| endpoint.takes_traffic() && !tried.contains(&endpoint.address))
    }

    /// Whether there is an endpoint that takes traffic.
    pub fn can_be_asked(&self) -> bool {
        self.has_other_than(&Tried::default())
    }

    /// Which requests are tried again.
    pub fn retries(&self) -> &Retries {
        &self.retries
    }

    /// Nanoseconds of the clock that all upstreams share.
    pub fn now(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    pub fn name(&self) -> &UpstreamName {
        &self.name
    }

    /// What should be mended, though it works.
    pub fn warnings(&self) -> &[Problem] {
        self.client.warnings()
    }

    pub fn speaks_http2(&self) -> bool {
        self.config.protocol != config::upstream::Protocol::Http1
    }

    pub fn timeouts(&self) -> &config::upstream::Timeouts {
        &self.config.timeouts
    }

    /// The endpoints in the order of the file.
    pub fn endpoints(&self) -> impl Iterator<Item = EndpointView> {
        self.pool.endpoints.iter().map(|endpoint| endpoint.view())
    }

    /// Whether each endpoint was checked at least once, or none is.
    pub fn first_round_done(&self) -> bool {
        self.config.health.is_none() || self.pool.endpoints.iter().all(|endpoint| endpoint.health.is_checked())
    }

    /// Returns when [`first_round_done`](Self::first_round_done) holds. Never, if checks are configured and not started.
    pub async fn first_round(&self) {
        if self.config.health.is_some() {
            for endpoint in &self.pool.endpoints {
                endpoint.health.first_check().await;
            }
        }
    }
}

impl Pool {
    fn new(endpoints: Box<[Arc<Endpoint>]>) -> Self {
        let turns = ArcSwap::from_pointee(turns_of(&endpoints));
        Self { endpoints, turns, cursor: Cursor::default(), laying: Mutex::default() }
    }

    /// Lays the turns out anew, after an endpoint's health has changed.
    fn lay_out(&self) {
        let _one_at_a_time = self.laying.lock().unwrap_or_else(PoisonError::into_inner);
        self.turns.store(Arc::new(turns_of(&self.endpoints)));
    }
}

fn turns_of(endpoints: &[Arc<Endpoint>]) -> Turns {
    let weight = |endpoint: &Arc<Endpoint>| if endpoint.health.is_healthy() { endpoint.weight } else { 0 };
    Turns::of(&endpoints.iter().map(weight).collect::<Vec<_>>())
}

impl States {
    /// The upstream that runs under this name.
    fn running(&self, name: &UpstreamName) -> Option<Arc<Upstream>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).get(name)?.upgrade()
    }

    /// Makes an upstream the running one. Gives the one that it takes the place of.
    fn replace(&self, upstream: &Arc<Upstream>) -> Option<Arc<Upstream>> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|_, upstream| upstream.strong_count() > 0);
        let before = running.insert(upstream.name.clone(), Arc::downgrade(upstream))?.upgrade()?;
        (!Arc::ptr_eq(&before, upstream)).then_some(before)
    }
}

#[cfg(test)]
mod race;

#[cfg(test)]
mod tests;
