//! Upstreams as the admin listener shows them.

use std::net::SocketAddr;

use serde_json::{Map, Value, json};

use crate::{
    admin,
    live::Live,
    upstream::{BreakerView, Deed, EndpointView, UpstreamView},
};

/// All of them, by name.
pub fn shown(live: &Live) -> Value {
    let snapshot = live.snapshot();
    let upstreams = snapshot.upstreams.iter().map(|(name, upstream)| (name.as_str().to_owned(), one(&upstream.view())));
    Value::Object(upstreams.collect::<Map<_, _>>())
}

/// Does to an endpoint what an operator says. Whether there is such a one.
pub fn tend(live: &Live, tend: &admin::Tend) -> bool {
    let Ok(address) = tend.endpoint.parse::<SocketAddr>() else { return false };
    let snapshot = live.snapshot();
    let upstream = snapshot.upstreams.iter().find(|(name, _)| name.as_str() == tend.upstream).map(|(_, upstream)| upstream);
    let deed = if tend.drains { Deed::Drain } else { Deed::Resume };
    upstream.is_some_and(|upstream| upstream.tend(address, deed))
}

fn one(view: &UpstreamView) -> Value {
    json!({
        "endpoints": view.endpoints.iter().map(endpoint).collect::<Vec<_>>(),
        "tiers": view.tiers.iter().map(|(priority, share)| json!({ "priority": priority, "share": share })).collect::<Vec<_>>(),
        "breaker": view.breaker.map(breaker),
        "limits": view.limits.map(|caps| json!({ "connections": caps.taken, "of": caps.of, "pending": caps.waiting })),
    })
}

fn endpoint(endpoint: &EndpointView) -> Value {
    let why = why_out(endpoint);
    json!({
        "address": endpoint.address.to_string(),
        "weight": endpoint.weight,
        "state": if why.is_empty() { "in" } else { "out" },
        "why": why,
        "in_flight": endpoint.in_flight,
        "latency_ms": endpoint.latency.map(|latency| latency.as_secs_f64() * 1e3),
        "failures": endpoint.failures,
        "faults": endpoint.faults,
    })
}

fn why_out(endpoint: &EndpointView) -> Vec<String> {
    let unhealthy = (!endpoint.healthy).then(|| "its health checks fail".to_owned());
    let ejected = endpoint.ejection.map(|ejection| format!("ejected: {}", ejection.why));
    let draining = endpoint.draining.then(|| "draining".to_owned());
    unhealthy.into_iter().chain(ejected).chain(draining).collect()
}

fn breaker(view: BreakerView) -> Value {
    match view {
        BreakerView::Closed(counts) => {
            json!({ "state": "closed", "requests": counts.requests, "failed": counts.failed, "slow": counts.slow })
        }
        BreakerView::Open { left } => json!({ "state": "open", "left_ms": left.as_millis() as u64 }),
        BreakerView::Probing { sent, ended } => json!({ "state": "probing", "sent": sent, "ended": ended }),
    }
}
