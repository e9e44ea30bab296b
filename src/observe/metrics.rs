//! Prometheus metrics. One registry, no globals; what a request touches is resolved when its route is compiled.
//!
//! Labels are names of the configuration, fixed words and endpoint addresses, never something a client sent. Every metric
//! stands in `docs/operations/metrics.md`; a test holds the two together.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use prometheus::{
    Error, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
    core::Collector, proto::MetricFamily,
};

use super::{Record, access_log::Losses, process};
use crate::{
    config::{self, policy::auth::Mode},
    exchange::Flag,
    name::{ListenerName, RouteName, UpstreamName},
};

mod auth;
mod family;
mod identity;
mod limit;
mod overload;
mod route;

pub(super) use self::family::{counters, gauges};
pub use self::{
    auth::{AuthMetrics, AuthzMetrics},
    identity::{Identity, Keys},
    limit::LimitMetrics,
    overload::Limiting,
    route::{InFlight, RouteMetrics},
};

/// The `route` of requests that no route took. No route can have this name.
const NO_ROUTE: &str = "-";

/// All metrics of a gateway.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    duration: HistogramVec,
    flagged: Vec<IntCounter>,
    first_byte: HistogramVec,
    retries: IntCounterVec,
    connections: IntGaugeVec,
    connections_total: IntCounterVec,
    connections_refused: IntCounterVec,
    heads_refused: IntCounterVec,
    http2_floods: IntCounterVec,
    http2_ended: IntCounterVec,
    generation: IntGauge,
    reload_success: IntGauge,
    reload_time: IntGauge,
    reloads: IntCounterVec,
    losses: Losses,
    unmatched: RouteMetrics,
    known: Mutex<Known>,
}

/// Names that have series.
#[derive(Debug, Default)]
struct Known {
    routes: BTreeMap<RouteName, RouteMetrics>,
    auth: BTreeMap<auth::SchemeKey, AuthMetrics>,
    authz: BTreeMap<auth::RouteKey, AuthzMetrics>,
    limits: BTreeMap<limit::LimitKey, LimitMetrics>,
    upstreams: BTreeSet<UpstreamName>,
}

/// The series of one upstream. A clone counts in the same series.
#[derive(Clone, Debug)]
pub struct UpstreamMetrics {
    first_byte: Histogram,
    retries: IntCounter,
}

/// The series of one listener. A clone counts in the same series.
#[derive(Clone, Debug)]
pub struct ListenerMetrics {
    name: ListenerName,
    current: IntGauge,
    total: IntCounter,
    /// What goes wrong is looked up by its name: it is seldom.
    metrics: Arc<Metrics>,
}

/// A connection counts as open until this is dropped.
#[derive(Debug)]
pub struct Open(IntGauge);

/// An endpoint's health at the moment of a scrape.
#[derive(Clone, Debug)]
pub struct Endpoint<'a> {
    pub upstream: &'a UpstreamName,
    pub address: SocketAddr,
    pub healthy: bool,
    /// How often it became healthy, and unhealthy.
    pub turned: [u64; 2],
    /// Requests that it has now.
    pub in_flight: usize,
    /// Tries that ended with a fault of its own.
    pub faults: u64,
}

impl Metrics {
    /// # Errors
    /// When the buckets are not ascending.
    pub fn new(config: &config::observe::Metrics) -> Result<Self, Error> {
        let registry = Registry::new();
        let buckets: Vec<_> = config.latency_buckets.iter().map(|bound| bound.as_std().as_secs_f64()).collect();
        let new = New { registry: &registry, buckets };
        new.build_info()?;
        let flagged =
            new.counters("requests_flagged_total", "Requests that ended otherwise than they should, by how.", &["flag"])?;
        let help = "Time from a request's head to the end of its response, by route.";
        let duration = new.histograms("request_duration_seconds", help, "route")?;
        let unmatched = RouteMetrics::new(duration.with_label_values(&[NO_ROUTE]));
        let routes = BTreeMap::from([(RouteName::new(NO_ROUTE), unmatched.clone())]);
        Ok(Self {
            duration,
            flagged: Flag::ALL.iter().skip(1).map(|flag| flagged.with_label_values(&[flag.code()])).collect(),
            first_byte: new.histograms(
                "upstream_first_byte_seconds",
                "Time from a request's head sent to its response's head received, by upstream.",
                "upstream",
            )?,
            retries: new.counters("upstream_retries_total", "Tries after the first, by upstream.", &["upstream"])?,
            connections: new.gauges("connections", "Open client connections, by listener.", "listener")?,
            connections_total: new.counters("connections_total", "Accepted client connections, by listener.", &["listener"])?,
            connections_refused: new.counters(
                "connections_refused_total",
                "Client connections closed before their first request, by listener and why.",
                &["listener", "reason"],
            )?,
            heads_refused: new.counters(
                "request_heads_refused_total",
                "Request heads that went no further than the edge, by listener and why.",
                &["listener", "reason"],
            )?,
            http2_floods: new.counters(
                "http2_floods_total",
                "HTTP/2 connections closed because of too many frames that cost the client nothing, by listener and kind.",
                &["listener", "kind"],
            )?,
            http2_ended: new.counters(
                "http2_ended_total",
                "GOAWAY and RST_STREAM frames sent to clients, by listener, frame and error code.",
                &["listener", "frame", "code"],
            )?,
            generation: new.gauge("config_generation", "Number of the active configuration since the start.")?,
            reload_success: new
                .gauge("config_last_reload_success", "1 if the last load of the configuration was published, else 0.")?,
            reload_time: new
                .gauge("config_last_reload_timestamp_seconds", "When the configuration was last loaded, in Unix time.")?,
            reloads: new.reloads()?,
            losses: Losses {
                dropped: new.counter("access_log_dropped_total", "Access log lines dropped because the queue was full.")?,
                write_errors: new.counter("access_log_write_errors_total", "Failed attempts to write the access log.")?,
            },
            unmatched,
            known: Mutex::new(Known { routes, ..Known::default() }),
            registry,
        })
    }

    /// The series of a route.
    pub fn route(&self, name: &RouteName) -> RouteMetrics {
        let mut known = self.known();
        let series = known.routes.entry(name.clone());
        series.or_insert_with(|| RouteMetrics::new(self.duration.with_label_values(&[name.as_str()]))).clone()
    }

    /// The series of requests that no route took; their `route` is `-`.
    pub fn no_route(&self) -> RouteMetrics {
        self.unmatched.clone()
    }

    /// The series of a scheme on a route.
    pub fn auth(&self, route: &RouteName, scheme: &'static str, mode: Mode) -> AuthMetrics {
        self.known().auth.entry((route.clone(), scheme, mode.word())).or_default().clone()
    }

    /// The series of authorisation on a route.
    pub fn authz(&self, route: &RouteName, mode: Mode) -> AuthzMetrics {
        self.known().authz.entry((route.clone(), mode.word())).or_default().clone()
    }

    /// The series of a limit on a route.
    pub fn limit(&self, route: &RouteName, policy: &'static str, limit: &str, mode: Mode) -> LimitMetrics {
        self.known().limits.entry((route.clone(), policy, limit.to_owned(), mode.word())).or_default().clone()
    }

    pub fn upstream(&self, name: &UpstreamName) -> UpstreamMetrics {
        self.known().upstreams.insert(name.clone());
        let name = name.as_str();
        UpstreamMetrics {
            first_byte: self.first_byte.with_label_values(&[name]),
            retries: self.retries.with_label_values(&[name]),
        }
    }

    pub fn listener(self: &Arc<Self>, name: &ListenerName) -> ListenerMetrics {
        ListenerMetrics {
            name: name.clone(),
            metrics: self.clone(),
            current: self.connections.with_label_values(&[name.as_str()]),
            total: self.connections_total.with_label_values(&[name.as_str()]),
        }
    }

    /// What the access log counts.
    pub fn access_log(&self) -> Losses {
        self.losses.clone()
    }

    /// Counts a request that has ended.
    pub fn ended(&self, record: &Record<'_>, route: &RouteMetrics, upstream: Option<&UpstreamMetrics>) {
        route.ended(record);
        if let Some(upstream) = upstream {
            upstream.ended(record);
        }
        if let Some(counter) = (record.flag as usize).checked_sub(1).and_then(|index| self.flagged.get(index)) {
            counter.inc();
        }
    }

    /// Counts a request whose head could not be read.
    pub fn unread(&self, status: u16) {
        self.no_route().answered(status);
        if let Some(counter) = self.flagged.get(Flag::ClientProtocol as usize - 1) {
            counter.inc();
        }
    }

    /// A configuration was published, the first one too.
    pub fn published(&self, generation: u64, at: SystemTime) {
        self.generation.set(i64::try_from(generation).unwrap_or(i64::MAX));
        self.loaded("success", 1, at);
    }

    /// A configuration was refused; the one before stays.
    pub fn refused(&self, at: SystemTime) {
        self.loaded("failure", 0, at);
    }

    fn loaded(&self, result: &str, success: i64, at: SystemTime) {
        self.reloads.with_label_values(&[result]).inc();
        self.reload_success.set(success);
        let seconds = at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        self.reload_time.set(i64::try_from(seconds).unwrap_or(i64::MAX));
    }

    /// Removes the series of routes and upstreams that are no longer configured, so reloads do not pile them up. To be
    /// called when a snapshot was published or a candidate refused, with the names of the active snapshot.
    ///
    /// A request that is still in flight on a removed route ends uncounted.
    pub fn retain(&self, routes: &BTreeSet<&RouteName>, upstreams: &BTreeSet<&UpstreamName>) {
        let mut known = self.known();
        known.routes.retain(|name, _| routes.contains(name) || name.as_str() == NO_ROUTE || self.forget_route(name.as_str()));
        let stays = |name: &RouteName| routes.contains(name) || name.as_str() == NO_ROUTE;
        known.auth.retain(|(name, _, _), _| stays(name));
        known.authz.retain(|(name, _), _| stays(name));
        known.limits.retain(|(name, ..), _| stays(name));
        known.upstreams.retain(|name| upstreams.contains(name) || self.forget_upstream(name.as_str()));
    }

    /// The text format, with the health of these endpoints, the figures of these identities, of limits and those of the process as of now.
    pub fn render<'a>(
        &self,
        endpoints: impl IntoIterator<Item = Endpoint<'a>>,
        identities: &[Identity<'a>],
        limiting: &Limiting,
    ) -> String {
        let mut families = self.registry.gather();
        {
            let known = self.known();
            families.extend(route::families(&known.routes));
            families.extend(auth::families(&known.auth, &known.authz));
            families.push(limit::family(&known.limits));
        }
        let endpoints: Vec<_> = endpoints.into_iter().collect();
        families.extend(by_endpoint(&endpoints));
        families.push(transitions(&endpoints));
        families.extend(identity::families(identities));
        families.extend(overload::families(limiting));
        families.extend(process::families());
        families.retain(|family| !family.get_metric().is_empty());
        families.sort_by(|a, b| a.name().cmp(b.name()));
        // Encoding fails only for families without a name or a series.
        TextEncoder::new().encode_to_string(&families).unwrap_or_default()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives `false`, for `retain`. What is not there needs no removal.
    fn forget_route(&self, name: &str) -> bool {
        let _ = self.duration.remove_label_values(&[name]);
        false
    }

    /// Gives `false`, for `retain`.
    fn forget_upstream(&self, name: &str) -> bool {
        let _ = self.first_byte.remove_label_values(&[name]);
        let _ = self.retries.remove_label_values(&[name]);
        false
    }
}

impl UpstreamMetrics {
    fn ended(&self, record: &Record<'_>) {
        self.retries.inc_by(u64::from(record.tries.saturating_sub(1)));
        if let Some(first_byte) = record.upstream_first_byte {
            self.first_byte.observe(first_byte.as_secs_f64());
        }
    }
}

impl ListenerMetrics {
    /// A connection was accepted; it is open until the guard is dropped.
    pub fn accepted(&self) -> Open {
        self.total.inc();
        self.current.inc();
        Open(self.current.clone())
    }

    /// A connection was closed before its first request.
    pub fn refused(&self, reason: &str) {
        self.count(&self.metrics.connections_refused, &[reason]);
    }

    /// A request head went no further than the edge.
    pub fn refused_head(&self, reason: &str, status: u16) {
        self.count(&self.metrics.heads_refused, &[reason]);
        self.metrics.unread(status);
    }

    /// A head over HTTP/2 did not come in time; there is no stream to answer on.
    pub fn slow_head(&self) {
        self.count(&self.metrics.heads_refused, &["header_timeout"]);
    }

    /// An HTTP/2 connection was closed for what it sent.
    pub fn flood(&self, kind: &str) {
        self.count(&self.metrics.http2_floods, &[kind]);
    }

    /// A GOAWAY was sent.
    pub fn goaway(&self, code: &str) {
        self.count(&self.metrics.http2_ended, &["goaway", code]);
    }

    /// A RST_STREAM was sent.
    pub fn reset(&self, code: &str) {
        self.count(&self.metrics.http2_ended, &["rst_stream", code]);
    }

    fn count(&self, counters: &IntCounterVec, labels: &[&str]) {
        let labels: Vec<_> = std::iter::once(self.name.as_str()).chain(labels.iter().copied()).collect();
        counters.with_label_values(&labels).inc();
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Made anew for each scrape, so endpoints that are gone leave nothing behind.
fn by_endpoint(endpoints: &[Endpoint<'_>]) -> [MetricFamily; 3] {
    let series = |figure: fn(&Endpoint<'_>) -> f64| {
        endpoints.iter().map(move |endpoint| {
            let address = endpoint.address.to_string();
            let labels = family::labels([("endpoint", address.as_str()), ("upstream", endpoint.upstream.as_str())]);
            (labels, figure(endpoint))
        })
    };
    let healthy = series(|endpoint| f64::from(u8::from(endpoint.healthy)));
    let in_flight = series(|endpoint| endpoint.in_flight as f64);
    let faults = series(|endpoint| endpoint.faults as f64);
    [
        gauges("banyan_upstream_endpoint_healthy", "1 if an endpoint takes requests, else 0.", healthy),
        gauges("banyan_upstream_endpoint_in_flight", "Requests that an endpoint has now.", in_flight),
        counters("banyan_upstream_endpoint_faults_total", "Tries that ended with a fault of the endpoint.", faults),
    ]
}

/// Kept by the endpoints, which outlive reloads.
fn transitions(endpoints: &[Endpoint<'_>]) -> MetricFamily {
    let mut counts = BTreeMap::new();
    for endpoint in endpoints {
        for (to, count) in ["healthy", "unhealthy"].into_iter().zip(endpoint.turned) {
            *counts.entry((endpoint.upstream.as_str(), to)).or_insert(0) += count;
        }
    }
    let series =
        counts.into_iter().map(|((upstream, to), count)| (family::labels([("to", to), ("upstream", upstream)]), count as f64));
    let help = "Endpoints that became healthy or unhealthy, by upstream.";
    counters("banyan_upstream_health_transitions_total", help, series)
}

/// Makes metrics and registers them.
struct New<'a> {
    registry: &'a Registry,
    buckets: Vec<f64>,
}

impl New<'_> {
    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, Error> {
        self.register(IntCounterVec::new(opts(name, help), labels)?)
    }

    fn counter(&self, name: &str, help: &str) -> Result<IntCounter, Error> {
        self.register(IntCounter::with_opts(opts(name, help))?)
    }

    fn gauges(&self, name: &str, help: &str, label: &str) -> Result<IntGaugeVec, Error> {
        self.register(IntGaugeVec::new(opts(name, help), &[label])?)
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, Error> {
        self.register(IntGauge::with_opts(opts(name, help))?)
    }

    fn histograms(&self, name: &str, help: &str, label: &str) -> Result<HistogramVec, Error> {
        let opts = HistogramOpts { common_opts: opts(name, help), buckets: self.buckets.clone() };
        // The vector would look at the buckets at its first series only, and panic.
        Histogram::with_opts(opts.clone())?;
        self.register(HistogramVec::new(opts, &[label])?)
    }

    /// Both results are there from the start, so a rate over them works from the first failure on.
    fn reloads(&self) -> Result<IntCounterVec, Error> {
        let reloads =
            self.counters("config_reloads_total", "Loads of the configuration, by result; the first one too.", &["result"])?;
        for result in ["success", "failure"] {
            reloads.with_label_values(&[result]);
        }
        Ok(reloads)
    }

    fn build_info(&self) -> Result<(), Error> {
        let info = self.register(IntGaugeVec::new(
            opts("build_info", "Always 1; its labels name the version and the source revision."),
            &["version", "revision"],
        )?)?;
        let revision = option_env!("BANYAN_REVISION").unwrap_or("unknown");
        info.with_label_values(&[env!("CARGO_PKG_VERSION"), revision]).set(1);
        Ok(())
    }

    fn register<C: Collector + Clone + 'static>(&self, metric: C) -> Result<C, Error> {
        self.registry.register(Box::new(metric.clone()))?;
        Ok(metric)
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("banyan")
}

#[cfg(test)]
mod tests;
