//! The services behind the gateway. [`Upstream::pick`] is the only way to an endpoint.
//!
//! `client` says how to connect (`announce` for whom), `endpoint` what an address is doing, `health` whether it takes traffic, `balance` whose
//! turn it is. What must outlive a reload is kept in [`States`] by upstream name and address.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, OnceLock, PoisonError, Weak},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use http::{HeaderMap, HeaderValue};
use tokio::task::AbortHandle;

use self::{
    balance::{Ask, Layout, Method, Tuning},
    caps::Caps,
    client::Client,
    endpoint::{Endpoint, Load},
    health::Health,
    judge::Judge,
    member::{Member, Vitals},
    outlier::OutlierState,
    wish::Wishes,
};
use crate::{
    caller::Caller,
    config::{
        self,
        problem::{Path, Problem},
        route::Scheme,
        upstream::Balance,
    },
    exchange::{Facts, UpstreamFault},
    name::UpstreamName,
};

mod announce;
mod balance;
mod breaker;
mod budget;
mod caps;
pub mod client;
mod ended;
mod endpoint;
mod health;
mod judge;
mod member;
mod outlier;
mod retry;
mod rules;
mod sliding;
mod view;
mod wish;

pub use self::{
    breaker::View as BreakerView,
    caps::{Place, Refused},
    ended::Ended,
    endpoint::{EffectiveTimeouts, EndpointView, Lease, Tried},
    retry::{Retries, Situation, Verdict},
    view::{Deed, UpstreamView},
    wish::Wish,
};

/// A service, compiled: how it is reached and which of its endpoints is next.
#[derive(Debug)]
pub struct Upstream {
    name: UpstreamName,
    config: config::Upstream,
    client: Client,
    pool: Arc<Pool>,
    retries: Retries,
    caps: Option<Arc<Caps>>,
    wishes: Wishes,
    /// The tasks that look after its endpoints.
    watches: OnceLock<Box<[Watch]>>,
}

/// The endpoints of an upstream and the order among those that take traffic.
#[derive(Debug)]
struct Pool {
    /// In the order of the file.
    endpoints: Box<[Arc<Endpoint>]>,
    layout: ArcSwap<Layout>,
    judge: Arc<Judge>,
    /// Held while the order is laid out, so that the last layout has seen the last change.
    laying: Mutex<()>,
}

/// What is kept of an endpoint by its address.
#[derive(Default)]
struct Known {
    load: Arc<Load>,
    health: Arc<Health>,
    vitals: Arc<Vitals>,
    outlier: Arc<OutlierState>,
}

impl Known {
    fn arriving(now: u64) -> Self {
        Self { vitals: Arc::new(Vitals::arriving(now)), ..Self::default() }
    }
}

/// What outlives reloads: the running upstreams by name, with the state of their endpoints. A reload that touches nothing of an
/// upstream changes nothing of it.
#[derive(Debug)]
pub struct States {
    running: Mutex<HashMap<UpstreamName, Weak<Upstream>>>,
    /// From when the times of what they keep are counted.
    epoch: Instant,
    /// What endpoints are named under in cookies, unless the file says.
    secret: [u8; 32],
}

impl Default for States {
    fn default() -> Self {
        // Names of endpoints are no secrets that hold anything: who guesses one only chooses an endpoint for himself.
        let secret = std::array::from_fn(|_| fastrand::u8(..));
        Self { running: Mutex::default(), epoch: Instant::now(), secret }
    }
}

/// A task that looks after an upstream's endpoints. Ends when this is dropped.
#[derive(Debug)]
struct Watch(AbortHandle);

impl Drop for Watch {
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
            running => Ok(Arc::new(Self::new(name, config, client, running.as_deref(), states))),
        }
    }

    fn new(name: &UpstreamName, config: &config::Upstream, client: Client, before: Option<&Self>, states: &States) -> Self {
        let known = |address| before.and_then(|before| before.known(address, config, &client));
        let now = states.epoch.elapsed().as_nanos() as u64;
        // Among others that have run for a while, a new endpoint starts slowly.
        let new = || before.map_or_else(Known::default, |_| Known::arriving(now));
        let known: Vec<_> = config.endpoints.iter().map(|endpoint| known(endpoint.address).unwrap_or_else(new)).collect();
        let outliers = known.iter().map(|known| known.outlier.clone());
        let judge = Arc::new(Judge::new(name, config, outliers, before.map(|before| &*before.pool.judge), states.epoch));
        let endpoints = config.endpoints.iter().zip(known).map(|(endpoint, known)| {
            let Known { load, health, vitals, outlier } = known;
            Arc::new(Endpoint {
                address: endpoint.address,
                weight: endpoint.weight,
                peer: client.peer(endpoint.address),
                announcer: client.announcer().cloned(),
                host: client.host(endpoint.address),
                load,
                health,
                vitals,
                outlier,
                judge: judge.clone(),
            })
        });
        let wishes = Wishes::of(config, &states.secret);
        let pool = Arc::new(Pool::new(endpoints.collect(), config, &wishes, judge));
        let retries = Retries::new(&config.retries, before.map(|before| &before.retries));
        let kept = before.and_then(|before| before.caps.clone());
        let caps = config.limits.as_ref().map(|limits| kept.unwrap_or_else(|| Caps::new(limits)));
        Self { name: name.clone(), config: config.clone(), client, pool, retries, caps, wishes, watches: OnceLock::new() }
    }

    /// What is known of an address. Its health counts only if it would be checked in the same way.
    fn known(&self, address: SocketAddr, config: &config::Upstream, client: &Client) -> Option<Known> {
        let known = self.pool.endpoints.iter().find(|endpoint| endpoint.address == address)?;
        let same_check = self.config.health == config.health && self.client.is_same(client);
        Some(Known {
            load: known.load.clone(),
            health: if same_check { known.health.clone() } else { Arc::default() },
            vitals: known.vitals.clone(),
            outlier: known.outlier.clone(),
        })
    }

    /// Makes this the running upstream of its name: it is checked from now on, its predecessor no longer. Does nothing if it runs.
    ///
    /// # Panics
    /// Outside of a tokio runtime, if health checks or ejection are configured.
    pub fn start(self: &Arc<Self>, states: &States) {
        if let Some(before) = states.replace(self) {
            before.watches.get().into_iter().flatten().for_each(|watch| watch.0.abort());
        }
        if let (Some(caps), Some(limits)) = (&self.caps, &self.config.limits) {
            caps.resize(limits);
        }
        self.pool.lay_out();
        self.watches.get_or_init(|| {
            let health = self.config.health.as_ref();
            let checks = health.map(|health| tokio::spawn(health::watch(self.name.clone(), health.clone(), self.pool.clone())));
            let returns = self.pool.judge.ejects().then(|| tokio::spawn(judge::watch(self.pool.clone())));
            checks.into_iter().chain(returns).map(|task| Watch(task.abort_handle())).collect()
        });
    }

    /// Leases the endpoint that is to be asked; one that was tried only if there is no other.
    ///
    /// # Errors
    /// `NoEndpoint` if all that have weight are out; `Broken` while the upstream is left alone.
    pub fn pick(&self, tried: &Tried, wish: &Wish<'_>) -> Result<Lease, UpstreamFault> {
        let judge = &self.pool.judge;
        let now = judge.now();
        let pass = judge.admit(now)?;
        let picked = self.pool.next(tried.as_slice(), wish, now).or_else(|| self.pool.next(&[], wish, now));
        let Some((endpoint, kept)) = picked else {
            pass.into_iter().for_each(|pass| judge.take_back(pass));
            return Err(UpstreamFault::NoEndpoint);
        };
        if tried.is_empty() {
            self.retries.begin(now);
        }
        let token = (self.config.sticky.is_some() && !kept).then(|| self.wishes.token(endpoint.address));
        Ok(Lease::of(endpoint.clone(), pass, token, now))
    }

    /// Whether there is a limit on what is asked of it at once.
    pub fn is_limited(&self) -> bool {
        self.caps.is_some()
    }

    /// A place among the requests that the service works on: now, or within this time. None is needed without `limits`.
    ///
    /// # Errors
    /// Too many wait already, or the time passed.
    pub async fn enter(&self, left: Duration) -> Result<Option<Place>, Refused> {
        match &self.caps {
            Some(caps) => caps.enter(left).await.map(Some),
            None => Ok(None),
        }
    }

    /// What a request brings to the choice of its endpoint.
    pub fn wish<'a>(&self, headers: &'a HeaderMap, facts: &'a Facts, caller: &'a Caller) -> Wish<'a> {
        self.wishes.of_request(headers, facts, caller)
    }

    /// The cookie by which the client comes back to its endpoint, if it is to be told.
    pub fn session_cookie(&self, lease: &Lease, scheme: Scheme) -> Option<HeaderValue> {
        lease.token().and_then(|token| self.wishes.cookie(token, scheme))
    }

    /// Whether there is an endpoint that takes traffic and is none of these.
    pub fn has_other_than(&self, tried: &Tried) -> bool {
        let open = |endpoint: &&Arc<Endpoint>| endpoint.weight > 0 && endpoint.vitals.is_available();
        self.pool.endpoints.iter().filter(open).any(|endpoint| !tried.contains(&endpoint.address))
    }

    /// Whether there is an endpoint that takes traffic.
    pub fn can_be_asked(&self) -> bool {
        self.has_other_than(&Tried::default()) && !self.pool.judge.is_shut()
    }

    /// Which requests are tried again.
    pub fn retries(&self) -> &Retries {
        &self.retries
    }

    /// Nanoseconds of the clock that all upstreams share.
    pub fn now(&self) -> u64 {
        self.pool.judge.now()
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
    fn new(endpoints: Box<[Arc<Endpoint>]>, config: &config::Upstream, wishes: &Wishes, judge: Arc<Judge>) -> Self {
        let priorities = config.endpoints.iter().map(|endpoint| endpoint.priority);
        let members = endpoints.iter().zip(priorities).map(|(endpoint, priority)| Member {
            address: endpoint.address,
            weight: endpoint.weight,
            priority,
            token: wishes.token(endpoint.address),
            vitals: endpoint.vitals.clone(),
        });
        let layout = Layout::of(members.collect(), tuning(config), None);
        Self { endpoints, layout: ArcSwap::from_pointee(layout), judge, laying: Mutex::default() }
    }

    /// Lays the order out anew, after what is known of an endpoint has changed.
    fn lay_out(&self) {
        let _one_at_a_time = self.laying.lock().unwrap_or_else(PoisonError::into_inner);
        self.judge.settle(&self.endpoints);
        let before = self.layout.load();
        self.layout.store(Arc::new(Layout::of(before.members().into(), *before.tuning(), Some(&before))));
    }

    /// Who is to be asked, and whether the request's session stays with it.
    fn next(&self, tried: &[SocketAddr], wish: &Wish<'_>, now: u64) -> Option<(&Arc<Endpoint>, bool)> {
        let key = wish.key.as_ref().map(wish::Key::as_slice);
        let ask = Ask { key, session: wish.session, tried, random: fastrand::u64(..), now };
        let pick = self.layout.load().pick(&self.judge.tally, &ask)?;
        Some((self.endpoints.get(pick.position)?, pick.kept))
    }
}

fn tuning(config: &config::Upstream) -> Tuning {
    let (method, bound) = match &config.balance {
        Balance::RoundRobin => (Method::RoundRobin, None),
        Balance::LeastRequests => (Method::LeastRequests, None),
        Balance::PeakEwma => (Method::PeakEwma, None),
        Balance::Random => (Method::Random, None),
        Balance::Hash(hash) => (Method::Hash, hash.bound.map(|bound| bound as f32)),
    };
    // An endpoint that its checks find unhealthy is believed to be; `outlier.panic_at` says when ejections are not.
    Tuning { bound, panic: 0.0, ..Tuning::of(method) }.starting_slowly(config.slow_start.as_std())
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
