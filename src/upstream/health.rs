//! Active health checks: Pingora's probes, with our own state so that it outlives reloads.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use http::{HeaderValue, Uri, Version, header};
use pingora_core::{
    Error, ErrorType,
    connectors::{ConnectorOptions, TransportConnector, http::Connector},
    upstreams::peer::{ALPN, HttpPeer},
};
use pingora_http::RequestHeader;
use pingora_load_balancing::{
    Backend, Extensions,
    health_check::{HealthCheck, HttpHealthCheck},
};
use tokio::{sync::Notify, task::JoinSet, time};

use super::{Pool, endpoint::Endpoint};
use crate::{
    config::upstream::{Health as Config, HttpHealth},
    name::UpstreamName,
};

/// How the checks name themselves in a service's logs.
const USER_AGENT: &str = concat!("banyan/", env!("CARGO_PKG_VERSION"), " (health check)");

/// Whether an endpoint takes traffic. Kept over reloads by upstream name and address.
#[derive(Debug)]
pub(super) struct Health {
    healthy: AtomicBool,
    /// Results in a row that contradict `healthy`.
    against: AtomicU32,
    /// Whether it was checked at least once.
    checked: AtomicBool,
    /// Rung after each check.
    bell: Notify,
}

impl Default for Health {
    /// Until its first checks an endpoint takes traffic.
    fn default() -> Self {
        let never = AtomicBool::new(false);
        Self { healthy: AtomicBool::new(true), against: AtomicU32::new(0), checked: never, bell: Notify::new() }
    }
}

/// What a result changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Turn {
    Stays,
    Flips,
}

impl Health {
    pub fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }

    pub fn is_checked(&self) -> bool {
        self.checked.load(Ordering::Relaxed)
    }

    /// Returns when the endpoint has been checked at least once.
    pub async fn first_check(&self) {
        loop {
            let rung = self.bell.notified();
            if self.is_checked() {
                return;
            }
            rung.await;
        }
    }

    /// Returns after the next check.
    #[cfg(test)]
    pub async fn next_check(&self) {
        self.bell.notified().await;
    }

    #[cfg(test)]
    pub fn force(&self, healthy: bool) {
        self.healthy.store(healthy, Ordering::Relaxed);
    }

    /// Takes in the result of a check. Only the endpoint's one checking task calls this.
    fn observe(&self, passed: bool, flips_after: u16) -> Turn {
        let turn = self.weigh(passed, flips_after);
        self.checked.store(true, Ordering::Relaxed);
        self.bell.notify_waiters();
        turn
    }

    fn weigh(&self, passed: bool, flips_after: u16) -> Turn {
        if passed == self.is_healthy() {
            self.against.store(0, Ordering::Relaxed);
            return Turn::Stays;
        }
        if self.against.fetch_add(1, Ordering::Relaxed) + 1 < u32::from(flips_after) {
            return Turn::Stays;
        }
        self.against.store(0, Ordering::Relaxed);
        self.healthy.store(passed, Ordering::Relaxed);
        Turn::Flips
    }
}

/// How the endpoints of an upstream are checked.
#[derive(Clone, Copy, Debug)]
struct Pace {
    interval: Duration,
    timeout: Duration,
    healthy_after: u16,
    unhealthy_after: u16,
}

impl From<&Config> for Pace {
    fn from(config: &Config) -> Self {
        let (interval, timeout, healthy_after, unhealthy_after) = match config {
            Config::Http(http) => (http.interval, http.timeout, http.healthy_after, http.unhealthy_after),
            Config::Tcp(tcp) => (tcp.interval, tcp.timeout, tcp.healthy_after, tcp.unhealthy_after),
        };
        let (interval, timeout) = (interval.as_std(), timeout.as_std());
        Self { interval, timeout, healthy_after: healthy_after.get(), unhealthy_after: unhealthy_after.get() }
    }
}

/// Checks all endpoints of a pool until it is dropped, each at its own pace.
pub(super) async fn watch(upstream: UpstreamName, config: Config, pool: Arc<Pool>) {
    let checks = checks(&config, &pool);
    let pace = Pace::from(&config);
    let mut tasks = JoinSet::new();
    for (endpoint, check) in pool.endpoints.iter().zip(checks) {
        tasks.spawn(watch_one(upstream.clone(), pace, pool.clone(), Probe::new(check, endpoint.clone(), pace.timeout)));
    }
    while tasks.join_next().await.is_some() {}
}

async fn watch_one(upstream: UpstreamName, pace: Pace, pool: Arc<Pool>, probe: Probe) {
    let health = &probe.endpoint.health;
    // Known endpoints are looked at when their turn comes, new ones at once; then the checks of many are spread in time.
    if health.is_checked() {
        time::sleep(pace.interval.mul_f64(fastrand::f64())).await;
    }
    let mut wait = pace.interval.mul_f64(0.5 + fastrand::f64() / 2.0);
    loop {
        let result = probe.run().await;
        let flips_after = if result.is_ok() { pace.healthy_after } else { pace.unhealthy_after };
        if health.observe(result.is_ok(), flips_after) == Turn::Flips {
            probe.endpoint.turned(result.is_ok());
            pool.lay_out();
            tell(&upstream, &probe.endpoint, result);
        }
        time::sleep(wait).await;
        // Many gateways that were started together do not go on asking together.
        wait = pace.interval.mul_f64(0.9 + fastrand::f64() / 5.0);
    }
}

fn tell(upstream: &UpstreamName, endpoint: &Endpoint, result: Result<(), String>) {
    let address = endpoint.address;
    match result {
        Ok(()) => tracing::info!(%upstream, endpoint = %address, "endpoint is healthy again"),
        Err(reason) => tracing::warn!(%upstream, endpoint = %address, reason, "endpoint is unhealthy, it takes no traffic"),
    }
}

/// The check of one endpoint.
struct Probe {
    check: Check,
    endpoint: Arc<Endpoint>,
    target: Backend,
    timeout: Duration,
}

type Check = Arc<dyn HealthCheck + Send + Sync>;

impl Probe {
    fn new(check: Check, endpoint: Arc<Endpoint>, timeout: Duration) -> Self {
        let target = Backend { addr: endpoint.address.into(), weight: 1, ext: Extensions::new() };
        Self { check, endpoint, target, timeout }
    }

    async fn run(&self) -> Result<(), String> {
        match time::timeout(self.timeout, self.check.check(&self.target)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer within {:?}", self.timeout)),
        }
    }
}

/// The check of each endpoint: one for all, unless each endpoint goes by a Host of its own.
fn checks(config: &Config, pool: &Pool) -> Vec<Check> {
    let make = |endpoint: &Arc<Endpoint>| -> Check {
        match config {
            Config::Http(http) => Arc::new(http_check(http, endpoint)),
            Config::Tcp(_) => Arc::new(TcpCheck::new(&endpoint.peer)),
        }
    };
    let own_host = matches!(config, Config::Http(http) if http.host.is_none());
    match pool.endpoints.first() {
        Some(first) if !own_host || first.peer.is_tls() => vec![make(first); pool.endpoints.len()],
        _ => pool.endpoints.iter().map(make).collect(),
    }
}

fn http_check(config: &HttpHealth, endpoint: &Endpoint) -> HttpHealthCheck {
    let mut peer = endpoint.peer.clone();
    // One stream a connection, so that each check opens its own: a kept one hides a service that no longer accepts.
    peer.options.max_h2_streams = 1;
    let mut check = HttpHealthCheck::new_custom("", false, Connector::new(connector_options(&peer)));
    check.req = request(config, endpoint);
    let statuses = config.statuses.clone();
    check.validator = Some(Box::new(move |head| match statuses.contains(&head.status.as_u16()) {
        true => Ok(()),
        false => Error::e_explain(ErrorType::HTTPStatus(head.status.as_u16()), "answered to the check"),
    }));
    check.peer_template = peer;
    check
}

/// A connection that must open, with TLS where the upstream has it. Pingora's own `TcpHealthCheck` reads the system's authorities before a
/// connector can be set, and panics where they cannot be read.
struct TcpCheck {
    peer: HttpPeer,
    connector: TransportConnector,
}

impl TcpCheck {
    fn new(peer: &HttpPeer) -> Self {
        Self { peer: peer.clone(), connector: TransportConnector::new(connector_options(peer)) }
    }
}

#[async_trait]
impl HealthCheck for TcpCheck {
    async fn check(&self, target: &Backend) -> pingora_core::Result<()> {
        let mut peer = self.peer.clone();
        peer._address = target.addr.clone();
        self.connector.new_stream(&peer).await.map(drop)
    }

    /// Thresholds are counted in [`Health`], which outlives the check.
    fn health_threshold(&self, _: bool) -> usize {
        1
    }
}

/// A connector reads and keeps the system's authorities (145 here, in two copies) unless it is told of a file. Only peers that are
/// verified against them need that; the others bring their own or speak plain text, and many connectors would add up.
fn connector_options(peer: &HttpPeer) -> Option<ConnectorOptions> {
    let system = peer.is_tls() && peer.options.ca.is_none();
    if system || std::fs::File::open(NO_AUTHORITIES).is_err() {
        return None;
    }
    let mut options = ConnectorOptions::new(1);
    options.ca_file = Some(NO_AUTHORITIES.to_owned());
    Some(options)
}

/// A PEM file without certificates.
const NO_AUTHORITIES: &str = "/dev/null";

/// The request of a check. Path and host were found valid when the upstream was compiled.
fn request(config: &HttpHealth, endpoint: &Endpoint) -> RequestHeader {
    let host = config.host.as_deref().and_then(|host| HeaderValue::from_str(host).ok());
    let host = host.unwrap_or_else(|| endpoint.host.clone());
    let target = match endpoint.peer.options.alpn {
        ALPN::H1 => config.path.parse::<Uri>(),
        // HTTP/2 says scheme and authority beside the path.
        _ => format!("{}://{}{}", scheme(&endpoint.peer), host.to_str().unwrap_or_default(), config.path).parse(),
    };
    let mut head = http::Request::new(()).into_parts().0;
    head.uri = target.unwrap_or_default();
    head.headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
    match endpoint.peer.options.alpn {
        ALPN::H1 => drop(head.headers.insert(header::HOST, host)),
        _ => head.version = Version::HTTP_2,
    }
    head.into()
}

fn scheme(peer: &HttpPeer) -> &'static str {
    if peer.is_tls() { "https" } else { "http" }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds results with thresholds 2 up, 3 down; gives the health after each.
    fn check(results: &[bool], expected: &[bool]) {
        let health = Health::default();
        let after = results.iter().map(|passed| {
            health.observe(*passed, if *passed { 2 } else { 3 });
            health.is_healthy()
        });
        assert_eq!(after.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn health_flips_after_as_many_results_in_a_row() {
        check(&[false, false, false], &[true, true, false]);
        check(&[false, false, true, false, false], &[true; 5]);
        check(&[false, false, false, true, false, true, true], &[true, true, false, false, false, false, true]);
    }

    #[test]
    fn endpoint_takes_traffic_until_it_was_checked() {
        let health = Health::default();
        assert!(health.is_healthy() && !health.is_checked());
        health.observe(false, 2);
        assert!(health.is_healthy() && health.is_checked());
    }
}
