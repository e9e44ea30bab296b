//! One address of a service: what it is doing now, and the lease that a request has on it.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::HeaderValue;
use pingora_core::upstreams::peer::HttpPeer;
use smallvec::SmallVec;

use super::{
    announce::Announcer,
    balance::{latency::Decay, sticky::Token},
    breaker::Pass,
    ended::Ended,
    health::Health,
    judge::Judge,
    member::{Out, Vitals},
    outlier::{Ejection, OutlierState},
};
use crate::{
    config::{route::RouteTimeouts, upstream::Timeouts},
    proxy_protocol::Addresses,
};

/// `timeouts.idle` where neither route nor upstream sets one.
const IDLE_DEFAULT: Duration = Duration::from_secs(60);

/// The same for upgraded connections: people leave a chat open over lunch.
const IDLE_UPGRADED_DEFAULT: Duration = Duration::from_secs(3600);

/// An address of a service, with what outlives reloads.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub address: SocketAddr,
    pub weight: u32,
    /// How to connect in our own name, but for the timeouts.
    pub peer: HttpPeer,
    /// Set if connections name their client.
    pub announcer: Option<Announcer>,
    /// The name it goes by: the TLS server name, else its address.
    pub host: HeaderValue,
    pub load: Arc<Load>,
    pub health: Arc<Health>,
    pub vitals: Arc<Vitals>,
    pub outlier: Arc<OutlierState>,
    pub judge: Arc<Judge>,
}

/// What an endpoint carries. Kept over reloads by upstream name and address.
#[derive(Debug, Default)]
pub(super) struct Load {
    faults: AtomicU64,
    /// How often the endpoint became healthy, and unhealthy.
    turned: [AtomicU64; 2],
}

/// What is to be seen of an endpoint from outside.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct EndpointView {
    pub address: SocketAddr,
    pub weight: u32,
    pub healthy: bool,
    /// Leases that are out now.
    pub in_flight: usize,
    /// Leases that came back with a fault, since the endpoint was first named.
    pub faults: u64,
    /// How often it became healthy, and unhealthy.
    pub turned: [u64; 2],
    /// Out because its tries failed, and why.
    pub ejection: Option<Ejection>,
    /// Its operator wants it empty.
    pub draining: bool,
    /// The peak-sensitive average of its time to the response head.
    pub latency: Option<Duration>,
    /// Share of failures among its last answers, 0 to 1.
    pub failures: f32,
}

/// The addresses that one request has tried already.
#[derive(Clone, Debug, Default)]
pub struct Tried(SmallVec<[SocketAddr; 4]>);

/// A request's claim on an endpoint. Counted in flight until it is dropped.
#[derive(Debug)]
pub struct Lease {
    endpoint: Arc<Endpoint>,
    /// When it was given.
    began: u64,
    pass: Option<Pass>,
    /// Nothing was said of the try yet.
    is_open: bool,
    /// The name of the endpoint, if the client does not know it.
    token: Option<Token>,
}

/// How long one request waits for what, once route and upstream have been heard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EffectiveTimeouts {
    /// Longest wait for a connection, TLS included.
    pub connect: Duration,
    /// Longest wait from the request sent to the response head, in each try.
    pub response: Duration,
    /// From the request head received to the response head sent, all tries together.
    pub request: Duration,
    /// Longest silence after the response head.
    pub idle: Duration,
    /// The same for a connection that was upgraded.
    pub idle_upgraded: Duration,
    /// How long an idle pooled connection is kept.
    pub keepalive: Duration,
}

impl EffectiveTimeouts {
    /// A route's own timeouts over its upstream's.
    pub fn of(route: &RouteTimeouts, upstream: &Timeouts) -> Self {
        let idle = route.idle.or(upstream.idle).map(|idle| idle.as_std());
        Self {
            connect: upstream.connect.as_std(),
            response: route.response.unwrap_or(upstream.response).as_std(),
            request: route.request.as_std(),
            idle: idle.unwrap_or(IDLE_DEFAULT),
            idle_upgraded: idle.unwrap_or(IDLE_UPGRADED_DEFAULT),
            keepalive: upstream.keepalive.as_std(),
        }
    }

    /// Those of a request that asks for an upgrade.
    #[must_use]
    pub fn upgraded(self) -> Self {
        Self { idle: self.idle_upgraded, ..self }
    }

    /// Those of a try that starts when this much of `request` is left.
    #[must_use]
    pub fn within(self, left: Duration) -> Self {
        Self { connect: self.connect.min(left), ..self }
    }

    /// Longest time that a service may leave a chunk untaken. Pingora's write timeout does not know whether the response has begun, so
    /// the longer of the two that might apply.
    pub fn silence(&self) -> Duration {
        self.response.max(self.idle)
    }
}

impl Tried {
    pub fn push(&mut self, address: SocketAddr) {
        self.0.push(address);
    }

    pub fn contains(&self, address: &SocketAddr) -> bool {
        self.0.contains(address)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn as_slice(&self) -> &[SocketAddr] {
        &self.0
    }
}

impl Endpoint {
    /// Whether it would take traffic if ejections did not count.
    pub fn takes_traffic(&self) -> bool {
        self.weight > 0 && self.health.is_healthy() && !self.vitals.is(Out::Draining)
    }

    /// Notes whether it is out for this reason.
    pub fn mark(&self, why: Out, out: bool, now: u64) {
        match out {
            true => self.vitals.take_out(why),
            false => self.vitals.is(why) && self.vitals.let_in(why, now),
        };
    }

    /// Notes that its health has turned.
    pub fn turned(&self, healthy: bool) {
        let [to_healthy, to_unhealthy] = &self.load.turned;
        if healthy { to_healthy } else { to_unhealthy }.fetch_add(1, Ordering::Relaxed);
    }

    pub fn view(&self) -> EndpointView {
        let now = self.judge.now();
        EndpointView {
            address: self.address,
            weight: self.weight,
            healthy: self.health.is_healthy(),
            in_flight: self.vitals.in_flight() as usize,
            faults: self.load.faults.load(Ordering::Relaxed),
            turned: self.load.turned.each_ref().map(|count| count.load(Ordering::Relaxed)),
            ejection: self.outlier.ejection(),
            draining: self.vitals.is(Out::Draining),
            latency: self.vitals.latency(now, Decay::default()),
            failures: self.vitals.failures(now, Decay::default()),
        }
    }
}

impl Lease {
    pub(super) fn of(endpoint: Arc<Endpoint>, pass: Option<Pass>, token: Option<Token>, now: u64) -> Self {
        endpoint.vitals.begin(&endpoint.judge.tally, now);
        Self { endpoint, began: now, pass, is_open: true, token }
    }

    /// The endpoint's name, if the client is to be told it.
    pub(super) fn token(&self) -> Option<Token> {
        self.token
    }

    pub fn address(&self) -> SocketAddr {
        self.endpoint.address
    }

    /// The service's own name, for `rewrite.host: upstream`.
    pub fn host(&self) -> &HeaderValue {
        &self.endpoint.host
    }

    /// Where and how Pingora connects. On HTTP/2 its one timeout also runs while the request is still being sent. `client` is asked
    /// only where connections name it.
    pub fn peer(&self, timeouts: &EffectiveTimeouts, client: impl FnOnce() -> Addresses) -> Box<HttpPeer> {
        let mut peer = Box::new(self.endpoint.peer.clone());
        if let Some(announcer) = &self.endpoint.announcer {
            announcer.for_client(&mut peer, client());
        }
        peer.options.connection_timeout = Some(timeouts.connect);
        peer.options.total_connection_timeout = Some(timeouts.connect);
        // No read timeout: Pingora's counts while the client still sends. The request's clock knows what is waited for.
        // While a chunk waits to be written nothing is read, so this alone bounds a service that stops reading.
        peer.options.write_timeout = Some(timeouts.silence());
        peer.options.idle_timeout = Some(timeouts.keepalive);
        peer
    }

    /// Says how the try went. After its answer it may still come to a bad end.
    pub fn report(&mut self, ended: Ended) {
        let (endpoint, is_fault) = (&self.endpoint, !matches!(ended, Ended::Answered(_)));
        if is_fault {
            endpoint.load.faults.fetch_add(1, Ordering::Relaxed);
        }
        match std::mem::take(&mut self.is_open) {
            true => endpoint.judge.end(endpoint, self.pass.take(), ended, self.began),
            false if is_fault => endpoint.judge.cut_short(endpoint, ended),
            false => {}
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.is_open {
            self.endpoint.judge.abandon(&self.endpoint, self.pass.take());
        }
        self.endpoint.vitals.end(&self.endpoint.judge.tally);
    }
}
