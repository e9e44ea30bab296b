//! The heads on their way: what a service gets of a request, and what a client gets of a response.

use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use pingora_core::Error;
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;

use super::{
    ctx::{Ctx, Tries},
    forwarded, grpc, no_permit,
};
use crate::{
    exchange::{Captures, Facts, Stop},
    origin::HostRewrite,
    route::Route,
};

/// Pingora takes a name to write as text: without a copy of it, if it is static.
const X_REQUEST_ID: &str = "x-request-id";

/// Response headers that speak to the next hop only (RFC 9110 §7.6.1). Framing is Pingora's.
fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(name.as_str(), "connection" | "keep-alive" | "proxy-connection" | "upgrade" | "te" | "proxy-authenticate")
}

/// The response head that the client was sent, if it was. A 100 is only a word on the way.
pub fn sent(session: &Session) -> Option<&ResponseHeader> {
    let is_final = |head: &&ResponseHeader| !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS;
    session.response_written().filter(is_final)
}

pub fn is_sent(session: &Session) -> bool {
    sent(session).is_some()
}

/// What a service gets: the head as it was matched, with what the gateway says of the client.
pub fn prepare(head: &mut RequestHeader, ctx: &mut Ctx) -> Result<(), Stop> {
    let (Some(route), Some(facts), Some(_permit)) = (&ctx.route, &ctx.facts, &ctx.permit) else { return Err(no_permit()) };
    let fault = |error: Box<Error>| Stop::Fault(anyhow::anyhow!("request head: {error}"));
    if !head.headers.contains_key(header::HOST)
        && let Some(host) = named_host(facts, &ctx.tries)
    {
        head.insert_header(header::HOST, host).map_err(fault)?;
    }
    head.remove_header(&header::EXPECT);
    join_cookies(head).map_err(fault)?;
    forwarded::write(head, facts, &ctx.hops).map_err(fault)?;
    head.insert_header(X_REQUEST_ID, facts.request_id.clone()).map_err(fault)?;
    if let Some(left) = ctx.clock.call_left() {
        grpc::tell(head, left).map_err(fault)?;
    }
    if let Some(trace) = &ctx.trace {
        trace.apply(head).map_err(fault)?;
    }
    set_target(head, route, facts, &ctx.captures)?;
    if let Some(host) = upstream_host(route, &ctx.tries) {
        head.insert_header(header::HOST, host).map_err(fault)?;
    }
    route.chain.upstream_request(head, facts, &ctx.caller, &mut ctx.memo)
}

/// The Host of a request that has no such field: the one in its target, else, of HTTP/1.0, the service's own name.
fn named_host(facts: &Facts, tries: &Tries) -> Option<HeaderValue> {
    match (facts.host.as_str(), facts.port) {
        ("", _) => tries.lease.as_ref().map(|lease| lease.host().clone()),
        (host, None) => HeaderValue::from_str(host).ok(),
        (host, Some(port)) => HeaderValue::from_str(&format!("{host}:{port}")).ok(),
    }
}

/// HTTP/2 may split cookies over several fields; elsewhere they are one (RFC 9113 §8.2.3).
fn join_cookies(head: &mut RequestHeader) -> pingora_core::Result<()> {
    let mut fields = head.headers.get_all(header::COOKIE).iter();
    if fields.next().is_none() || fields.next().is_none() {
        return Ok(());
    }
    let joined: Vec<&[u8]> = head.headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    let joined = joined.join(&b"; "[..]);
    head.insert_header(header::COOKIE, joined)
}

/// The normalised path, rewritten, in place of what the client wrote.
fn set_target(head: &mut RequestHeader, route: &Route, facts: &Facts, captures: &Captures) -> Result<(), Stop> {
    let target = route.rewrite.path_and_query(facts, captures).map_err(|_| Stop::Malformed("The path cannot be rewritten."))?;
    if head.raw_path() == target.as_bytes() && head.uri.authority().is_none() {
        return Ok(());
    }
    head.set_raw_path(target.as_bytes()).map_err(|_| Stop::Malformed("The request target is not a URI."))
}

fn upstream_host(route: &Route, tries: &Tries) -> Option<HeaderValue> {
    match route.rewrite.host() {
        HostRewrite::Preserve => None,
        HostRewrite::Upstream => tries.lease.as_ref().map(|lease| lease.host().clone()),
        HostRewrite::Literal(host) => Some(host.clone()),
    }
}

/// Takes out what speaks to the next hop only, and what the service itself says speaks to it.
pub fn strip_hop_by_hop(head: &mut ResponseHeader) {
    let mut removed: Vec<HeaderName> = head
        .headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|list| list.split(',').map(str::trim))
        // What nearly all say, and what goes anyway.
        .filter(|option| !option.eq_ignore_ascii_case("keep-alive"))
        .filter_map(|name| name.parse().ok())
        .filter(|name| *name != header::TRANSFER_ENCODING && *name != header::CONTENT_LENGTH)
        .collect();
    removed.extend(head.headers.keys().filter(|name| is_hop_by_hop(name)).cloned());
    for name in &removed {
        head.remove_header(name);
    }
}

/// Tells the client which endpoint its session is with, where sessions stay.
pub fn keep_session(head: &mut ResponseHeader, ctx: &Ctx) {
    let (Some(upstream), Some(lease), Some(facts)) = (&ctx.tries.upstream, &ctx.tries.lease, &ctx.facts) else { return };
    if let Some(cookie) = upstream.session_cookie(lease, facts.scheme) {
        // It is a header value already; this cannot fail.
        let _ = head.append_header(header::SET_COOKIE, cookie);
    }
}

/// A response without a body: nothing can be waited for after its head (RFC 9112 §6.3).
pub fn is_bodiless(request: &RequestHeader, head: &ResponseHeader) -> bool {
    request.method == Method::HEAD
        || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
        || head.headers.get(header::CONTENT_LENGTH).is_some_and(|length| length == "0")
}

/// The last of a response head before the client gets it: the edge ring, and the request's id.
pub fn finish(head: &mut ResponseHeader, ctx: &mut Ctx) {
    if let Some(id) = &ctx.request_id {
        // The id is a header value already; this cannot fail.
        let _ = head.insert_header(X_REQUEST_ID, id.clone());
    }
    let (Some(route), Some(facts)) = (&ctx.route, &ctx.facts) else { return };
    if let Err(stop) = route.chain.response(head, facts, &mut ctx.memo) {
        tracing::error!(?stop, "fault of a response policy");
    }
}
