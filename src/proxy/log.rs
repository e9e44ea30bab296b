//! The end of a request: its access log line and its metrics.

use std::{
    borrow::Cow,
    time::{Instant, SystemTime},
};

use http::{HeaderValue, StatusCode, header};
use pingora_core::protocols::tls::SslDigest;
use pingora_proxy::Session;

use super::{ctx::Ctx, head};
use crate::{
    exchange::{self, Facts, Flag},
    observe::{Record, Tls, line},
    query,
    reply::Told,
    stores::Stores,
};

/// What stands in the log of a request whose client went away. Nobody was told anything.
pub const CLIENT_GONE: Told =
    Told { status: StatusCode::BAD_REQUEST, grpc: 1, code: "client_gone", title: "", detail: "", flag: Flag::ClientGone };

/// Writes the log line and counts the request.
pub fn write(stores: &Stores, session: &Session, ctx: &mut Ctx) {
    let unread;
    let facts = match &ctx.facts {
        Some(facts) => facts,
        None => {
            unread = unreadable(session, ctx.request_id.as_ref(), ctx.started);
            &unread
        }
    };
    let ssl = session.digest().and_then(|digest| digest.ssl_digest.clone());
    let shown = shown(session, ctx, facts);
    let record = record(session, ctx, facts, &shown, ssl.as_deref());
    match &ctx.route {
        Some(route) => {
            let upstream = ctx.tries.upstream.as_ref().and_then(|upstream| route.metrics_of(upstream));
            stores.metrics.ended(&record, &route.metrics, upstream);
        }
        None => stores.metrics.ended(&record, &stores.metrics.no_route(), None),
    }
    if let (Some(sink), Some(format)) = (&stores.access_log, ctx.format) {
        sink.submit(line::line(&record, format));
    }
}

/// What a request says that may hold a credential, without it.
struct Shown<'a> {
    path: Cow<'a, str>,
    query: Option<Cow<'a, str>>,
    referer: Option<Cow<'a, [u8]>>,
}

fn shown<'a>(session: &'a Session, ctx: &Ctx, facts: &'a Facts) -> Shown<'a> {
    let referer = session.req_header().headers.get(header::REFERER).map(HeaderValue::as_bytes);
    let Some(guarded) = &ctx.guarded else {
        return Shown {
            path: facts.path.as_str().into(),
            query: facts.query.as_deref().map(Into::into),
            referer: referer.map(Into::into),
        };
    };
    Shown {
        path: guarded.shown(&facts.path),
        query: facts.query.as_deref().map(|query| query::masked(query, &guarded.parameters)),
        referer: referer.map(|referer| match std::str::from_utf8(referer) {
            Ok(referer) => match guarded.shown(referer) {
                Cow::Borrowed(referer) => Cow::Borrowed(referer.as_bytes()),
                Cow::Owned(referer) => Cow::Owned(referer.into_bytes()),
            },
            // What cannot be read cannot be searched.
            Err(_) => Cow::Borrowed(&b""[..]),
        }),
    }
}

fn record<'a>(
    session: &'a Session,
    ctx: &'a Ctx,
    facts: &'a Facts,
    shown: &'a Shown<'a>,
    ssl: Option<&'a SslDigest>,
) -> Record<'a> {
    let duration = ctx.started.elapsed();
    let headers = &session.req_header().headers;
    let field = |name| headers.get(name).map(HeaderValue::as_bytes);
    let none_matched = ctx.route.as_ref().is_none_or(|route| route.name.as_str() == "-");
    Record {
        time: SystemTime::now() - duration,
        request_id: facts.request_id.as_bytes(),
        trace: ctx.trace.as_ref().map(|trace| trace.trace_id),
        route: ctx.route.as_ref().filter(|_| !none_matched).map(|route| route.name.as_str()),
        upstream: ctx.tries.upstream.as_ref().map(|upstream| upstream.name().as_str()),
        endpoint: ctx.tries.lease.as_ref().map(crate::upstream::Lease::address),
        tries: ctx.tries.count,
        method: &facts.method,
        scheme: facts.scheme,
        host: &facts.host,
        path: &shown.path,
        query: shown.query.as_deref(),
        version: facts.version,
        status: head::sent(session).map_or(0, |head| head.status.as_u16()),
        received: session.body_bytes_read() as u64,
        sent: session.body_bytes_sent() as u64,
        duration,
        upstream_connect: ctx.tries.connect,
        upstream_first_byte: ctx.tries.first_byte,
        tls: ssl.map(|ssl| Tls { version: tls_version(&ssl.version), cipher: &ssl.cipher }),
        client: facts.client,
        peer: facts.peer,
        consumer: ctx.caller.consumer.as_ref().map(|consumer| consumer.name.as_str()),
        auth: ctx.caller.scheme,
        refusal: ctx.caller.refusal,
        limit: ctx.route.as_ref().and_then(|route| route.chain.refused_by(&ctx.memo)),
        user_agent: field(header::USER_AGENT),
        referer: shown.referer.as_deref(),
        flag: ctx.flag(),
        generation: ctx.generation,
    }
}

/// The version as everyone else writes it; rustls names it like a Rust identifier.
fn tls_version(name: &str) -> &str {
    match name {
        "TLSv1_2" => "TLSv1.2",
        "TLSv1_3" => "TLSv1.3",
        other => other,
    }
}

/// What can be said of a request whose head could not be read in one way: nothing that it claims.
pub fn unreadable(session: &Session, request_id: Option<&HeaderValue>, started: Instant) -> Facts {
    let head = session.req_header();
    let peer = exchange::peer(session.client_addr(), session.server_addr());
    let peer = peer.unwrap_or_else(|| std::net::SocketAddr::from(([0, 0, 0, 0], 0)));
    Facts {
        method: head.method.clone(),
        scheme: crate::config::route::Scheme::Http,
        host: String::new(),
        port: None,
        path: String::from_utf8_lossy(head.raw_path()).into_owned(),
        query: None,
        version: head.version,
        client: peer.ip(),
        peer,
        request_id: request_id.cloned().unwrap_or(HeaderValue::from_static("-")),
        started,
    }
}
