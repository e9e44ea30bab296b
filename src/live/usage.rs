//! What a consumer has used of its limits, and that it be forgotten: for the operator.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use http::{HeaderValue, Method, Version};
use pingora_http::RequestHeader;
use serde_json::{Value, json};

use super::Snapshot;
use crate::{
    caller::{Caller, Consumer},
    config::route::Scheme,
    exchange::{Facts, Inbound},
    limit::{
        Verdict,
        quota::{Quota, wall},
    },
    name::ConsumerName,
    units::seconds_up,
};

/// What a consumer has used. `None`: there is no such consumer.
pub fn usage(snapshot: &Snapshot, name: &str, kept: bool) -> Option<Value> {
    let consumer = snapshot.quotas.consumer(&ConsumerName::new(name))?;
    let quota = snapshot.quotas.named(&consumer.name);
    let limits = asking(consumer, |inbound| {
        let routes = snapshot.router.routes();
        routes
            .flat_map(|route| {
                route
                    .chain
                    .standing(inbound)
                    .into_iter()
                    .map(|(limit, verdict)| shown(route.name.as_str(), limit.as_str(), &verdict))
            })
            .collect::<Vec<_>>()
    })?;
    Some(json!({
        "consumer": consumer.name.as_str(),
        "plan": consumer.plan.as_ref().map(|plan| plan.name.as_str()),
        "quota": quota.map(|quota| shown_quota(quota, wall(), kept)),
        "rate_limits": limits,
    }))
}

/// Forgets it. `None`: there is no such consumer.
pub fn reset(snapshot: &Snapshot, name: &str) -> Option<()> {
    let consumer = snapshot.quotas.consumer(&ConsumerName::new(name))?;
    if let Some(quota) = snapshot.quotas.named(&consumer.name) {
        quota.reset(wall());
    }
    asking(consumer, |inbound| snapshot.router.routes().for_each(|route| route.chain.forget(inbound)))?;
    tracing::info!(consumer = name, "what was used of quota and limits is forgotten, as asked");
    Some(())
}

fn shown_quota(quota: &Quota, now: u64, kept: bool) -> Value {
    let (verdict, period, calendar) = (quota.look(now), quota.period(now), quota.calendar());
    json!({
        "limit": verdict.limit,
        "period": calendar.unit().word(),
        "timezone": calendar.zone(),
        "used": quota.used(now),
        "remaining": verdict.remaining,
        "began": calendar.shown(period.start()),
        "ends": calendar.shown(period.end()),
        "survives_restart": kept,
    })
}

fn shown(route: &str, limit: &str, verdict: &Verdict) -> Value {
    json!({
        "route": route,
        "name": limit,
        "limit": verdict.limit,
        "remaining": verdict.remaining,
        "full_in_seconds": seconds_up(verdict.reset),
    })
}

/// Does something with a request that the consumer might have sent. `None`: never, it has a method and a path.
fn asking<T>(consumer: &Arc<Consumer>, look: impl FnOnce(&Inbound<'_>) -> T) -> Option<T> {
    let mut head = RequestHeader::build(Method::GET, b"/", None).ok()?;
    let facts = Facts {
        method: Method::GET,
        scheme: Scheme::Http,
        host: String::new(),
        port: None,
        path: "/".to_owned(),
        query: None,
        version: Version::HTTP_11,
        client: IpAddr::V4(Ipv4Addr::LOCALHOST),
        peer: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        request_id: HeaderValue::from_static("-"),
        started: Instant::now(),
    };
    let mut caller = Caller { consumer: Some(consumer.clone()), ..Caller::default() };
    Some(look(&Inbound { head: &mut head, facts: &facts, tls: None, caller: &mut caller }))
}
