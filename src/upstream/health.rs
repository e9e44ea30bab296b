//! Active health checks: Pingora's probes, with our own state so that it outlives reloads.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use http::{HeaderValue, Uri, Version, header};
use pingora_core::{
    connectors::http::Connector,
    upstreams::peer::{ALPN, HttpPeer},
};
use pingora_http::RequestHeader;
use pingora_load_balancing::{
    Backend, Extensions,
    health_check::{HealthCheck, HttpHealthCheck, TcpHealthCheck},
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
    let mut tasks = JoinSet::new();
    for position in 0..pool.endpoints.len() {
        tasks.spawn(watch_one(upstream.clone(), config.clone(), pool.clone(), position));
    }
    while tasks.join_next().await.is_some() {}
}

async fn watch_one(upstream: UpstreamName, config: Config, pool: Arc<Pool>, position: usize) {
    let Some(endpoint) = pool.endpoints.get(position) else { return };
    let pace = Pace::from(&config);
    let probe = Probe::new(&config, endpoint, pace.timeout);
    // Known endpoints are looked at when their turn comes, new ones at once; then the checks of many are spread in time.
    if endpoint.health.is_checked() {
        time::sleep(pace.interval.mul_f64(fastrand::f64())).await;
    }
    let mut wait = pace.interval.mul_f64(0.5 + fastrand::f64() / 2.0);
    loop {
        let result = probe.run().await;
        let flips_after = if result.is_ok() { pace.healthy_after } else { pace.unhealthy_after };
        if endpoint.health.observe(result.is_ok(), flips_after) == Turn::Flips {
            pool.lay_out();
            tell(&upstream, endpoint, result);
        }
        time::sleep(wait).await;
        wait = pace.interval;
    }
}

fn tell(upstream: &UpstreamName, endpoint: &Endpoint, result: Result<(), String>) {
    let address = endpoint.address;
    match result {
        Ok(()) => tracing::info!(%upstream, endpoint = %address, "endpoint is healthy again"),
        Err(reason) => tracing::warn!(%upstream, endpoint = %address, reason, "endpoint is unhealthy, it takes no traffic"),
    }
}

/// One kind of check against one endpoint.
struct Probe {
    check: Box<dyn HealthCheck + Send + Sync>,
    target: Backend,
    timeout: Duration,
}

impl Probe {
    fn new(config: &Config, endpoint: &Endpoint, timeout: Duration) -> Self {
        let check: Box<dyn HealthCheck + Send + Sync> = match config {
            Config::Http(http) => Box::new(http_check(http, endpoint)),
            Config::Tcp(_) => Box::new(tcp_check(&endpoint.peer)),
        };
        let target = Backend { addr: endpoint.address.into(), weight: 1, ext: Extensions::new() };
        Self { check, target, timeout }
    }

    async fn run(&self) -> Result<(), String> {
        match time::timeout(self.timeout, self.check.check(&self.target)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer within {:?}", self.timeout)),
        }
    }
}

fn http_check(config: &HttpHealth, endpoint: &Endpoint) -> HttpHealthCheck {
    let mut peer = endpoint.peer.clone();
    // One stream a connection, so that each check opens its own: a kept one hides a service that no longer accepts.
    peer.options.max_h2_streams = 1;
    let mut check = HttpHealthCheck::new_custom("", false, Connector::new(None));
    check.req = request(config, endpoint);
    check.peer_template = peer;
    check
}

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

fn tcp_check(peer: &HttpPeer) -> TcpHealthCheck {
    let mut check = TcpHealthCheck::default();
    check.peer_template.sni.clone_from(&peer.sni);
    check.peer_template.options = peer.options.clone();
    check
}
