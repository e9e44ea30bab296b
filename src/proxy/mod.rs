//! The gateway in Pingora's hooks: each hook a few lines, no policy of its own.
//!
//! Reading order: `request_filter` reads the [`facts`], finds the route, lets the policies judge, and either answers here or
//! names an upstream; `upstream_peer` picks an endpoint; the response hooks go the way back; `logging` ends it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderName, StatusCode, header};
use pingora_core::{
    Error, ErrorType,
    protocols::Digest,
    upstreams::peer::{HttpPeer, Peer},
};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, ProxyHttp, Session};

use self::{
    ctx::Ctx,
    facts::Connection,
    fault::Meaning,
};
use crate::{
    config::route::Scheme,
    exchange::{Facts, Inbound, Stop, UpstreamFault},
    live::{Live, Snapshot},
    observe::trace::Trace,
    origin::{Answer, HostRewrite, Origin},
    reply::{self, Reply},
    route::{Route, table::Found},
    stores::Stores,
    upstream::{EffectiveTimeouts, Upstream},
};

pub mod ctx;
pub mod facts;
pub mod fault;
pub mod forwarded;
mod log;

/// Most tries to connect for one request: the first, and others on other endpoints.
const TRIES_MAX: u8 = 3;

/// How long an idle client connection is kept, in seconds.
const KEEPALIVE_SECONDS: u64 = 75;

/// Longest silence of a client in the middle of its body, and longest wait for it to take a piece of the answer.
const CLIENT_SILENCE_MAX: Duration = Duration::from_secs(60);

/// Default of `timeouts.request`.
const REQUEST_DEFAULT: Duration = Duration::from_secs(60);

/// Defaults of `timeouts.idle`: of a response, and of an upgraded connection.
const IDLE_DEFAULT: Duration = Duration::from_secs(60);
const IDLE_UPGRADED: Duration = Duration::from_secs(3600);

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Response headers that speak to the next hop only (RFC 9110 §7.6.1). Framing is Pingora's.
const HOP_BY_HOP: [HeaderName; 4] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::UPGRADE,
];

/// The gateway as Pingora drives it.
pub struct Gateway {
    live: Arc<Live>,
    stores: Arc<Stores>,
}

impl Gateway {
    pub fn new(live: Arc<Live>, stores: Arc<Stores>) -> Self {
        Self { live, stores }
    }

    /// Reads the head, finds the route, asks the policies.
    async fn admit(&self, session: &mut Session, ctx: &mut Ctx) -> Result<(), Stop> {
        let snapshot = self.live.snapshot();
        ctx.generation = snapshot.generation;
        ctx.format = Some(snapshot.log_format);
        let connection = connection(session, &snapshot)?;
        let head = session.req_header();
        let request_id = facts::request_id(&head.headers, connection.trusted);
        ctx.hops = facts::hops(&head.headers, connection.trusted);
        ctx.trace = Some(Trace::continue_or_start(&head.headers));
        let is_trusted = |address: &std::net::IpAddr| snapshot.is_trusted(address);
        let facts = facts::read(head, connection, &ctx.hops, is_trusted, snapshot.slashes, request_id, ctx.started)?;
        let (route, missed) = choose(&snapshot, &facts, head, ctx);
        drop(snapshot);
        ctx.in_flight = Some(route.metrics.begin());
        let route = ctx.route.insert(route).clone();
        let facts = ctx.facts.insert(facts);
        let mut inbound = Inbound { head: session.req_header_mut(), facts };
        ctx.permit = Some(route.chain.enter(&mut inbound, &mut ctx.memo).await?);
        missed.map_or(Ok(()), Err)
    }

    /// Goes where the route leads: an answer to send, or none when an upstream was named.
    fn lead(&self, ctx: &mut Ctx) -> Result<Option<Answer>, Stop> {
        let (Some(route), Some(facts), Some(_permit)) = (&ctx.route, &ctx.facts, &ctx.permit) else { return Err(no_permit()) };
        ctx.tries.upstream = match &route.origin {
            Origin::Upstream(upstream) => Some(upstream.clone()),
            Origin::Split(split) => Some(split.draw().clone()),
            Origin::Redirect(redirect) => return redirect.answer(facts, &ctx.captures).map(Some),
            Origin::Respond(respond) => return Ok(Some(respond.answer())),
            Origin::Nowhere => return Err(Stop::NoRoute),
        };
        Ok(None)
    }

    /// Sends an answer of our own, through the response policies.
    async fn answer(&self, session: &mut Session, ctx: &mut Ctx, mut reply: Reply) -> pingora_core::Result<()> {
        finish_head(&mut reply.head, ctx);
        reply.send(session).await
    }

    /// Tells the client why its request goes no further.
    async fn refuse(&self, session: &mut Session, ctx: &mut Ctx, stop: &Stop) -> pingora_core::Result<()> {
        if let Stop::Fault(fault) = stop {
            tracing::error!(error = format!("{fault:#}"), "fault of the gateway");
        }
        let told = ctx.stop(stop);
        if matches!(stop, Stop::Malformed(_)) {
            session.set_keepalive(None);
        }
        let request_id = match &ctx.facts {
            Some(facts) => facts.request_id.clone(),
            None => facts::request_id(&session.req_header().headers, false),
        };
        let reply = Reply::of(stop, &told, &session.req_header().headers, &request_id)?;
        self.answer(session, ctx, reply).await
    }

    /// How long to wait for this request's service.
    fn timeouts(&self, ctx: &Ctx, route: &Route, upstream: &Upstream) -> EffectiveTimeouts {
        let own = upstream.timeouts();
        let idle = route.timeouts.idle.or(own.idle).map(crate::units::Duration::as_std);
        let left = ctx.clock.left().unwrap_or(REQUEST_DEFAULT);
        EffectiveTimeouts {
            connect: own.connect.as_std().min(left),
            response: route.timeouts.response.unwrap_or(own.response).as_std(),
            idle: idle.unwrap_or(if ctx.tries.upgrade { IDLE_UPGRADED } else { IDLE_DEFAULT }),
            keepalive: own.keepalive.as_std(),
        }
    }

    /// Picks an endpoint that was not tried yet.
    fn pick(&self, ctx: &mut Ctx) -> Result<Box<HttpPeer>, Stop> {
        let (Some(route), Some(upstream), Some(_permit)) = (&ctx.route, &ctx.tries.upstream, &ctx.permit) else {
            return Err(no_permit());
        };
        if ctx.clock.left().is_some_and(|left| left.is_zero()) {
            return Err(Stop::RequestTimeout);
        }
        let lease = upstream.pick(&ctx.tries.tried).map_err(|fault| Stop::Upstream(ctx.tries.fault.unwrap_or(fault)))?;
        let timeouts = self.timeouts(ctx, route, upstream);
        let peer = lease.peer(&timeouts);
        ctx.tries.idle = Some(timeouts.idle);
        ctx.tries.count += 1;
        ctx.tries.began = Some(Instant::now());
        ctx.tries.lease = Some(lease);
        Ok(peer)
    }

    /// Starts the wait for the response head: the request is sent.
    fn request_sent(ctx: &Ctx) {
        let (Some(route), Some(upstream)) = (&ctx.route, &ctx.tries.upstream) else { return };
        let response = route.timeouts.response.unwrap_or(upstream.timeouts().response).as_std();
        let now = Instant::now();
        ctx.clock.response_by(now + response);
        if ctx.clock.left().is_none() {
            ctx.clock.request_by(Some(now + request_timeout(route)));
        }
    }
}

#[async_trait]
impl ProxyHttp for Gateway {
    type CTX = Ctx;

    fn new_ctx(&self) -> Ctx {
        Ctx::new()
    }

    /// No modules: compression comes with its policy.
    fn init_downstream_modules(&self, _: &mut pingora_core::modules::http::HttpModules) {}

    async fn early_request_filter(&self, session: &mut Session, _: &mut Ctx) -> pingora_core::Result<()> {
        if session.get_keepalive().is_some() {
            session.set_keepalive(Some(KEEPALIVE_SECONDS));
        }
        session.set_read_timeout(Some(CLIENT_SILENCE_MAX));
        session.set_write_timeout(Some(CLIENT_SILENCE_MAX));
        Ok(())
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut Ctx) -> pingora_core::Result<bool> {
        let led = match self.admit(session, ctx).await {
            Ok(()) => self.lead(ctx),
            Err(stop) => Err(stop),
        };
        match led {
            Ok(Some(answer)) => {
                self.answer(session, ctx, Reply { head: answer.head, body: answer.body }).await?;
                Ok(true)
            }
            Ok(None) => {
                ctx.tries.upgrade = session.is_upgrade_req();
                let bodiless = session.as_downstream_mut().is_body_empty();
                let timeout = ctx.route.as_deref().map_or(REQUEST_DEFAULT, request_timeout);
                ctx.clock.request_by(bodiless.then(|| ctx.started + timeout));
                Ok(false)
            }
            Err(stop) => {
                self.refuse(session, ctx, &stop).await?;
                Ok(true)
            }
        }
    }

    async fn upstream_peer(&self, _: &mut Session, ctx: &mut Ctx) -> pingora_core::Result<Box<HttpPeer>> {
        self.pick(ctx).map_err(|stop| stopped(ctx, &stop))
    }

    fn fail_to_connect(&self, _: &mut Session, peer: &HttpPeer, ctx: &mut Ctx, mut error: Box<Error>) -> Box<Error> {
        let fault = fault::upstream(&error, false);
        ctx.tries.fault = Some(fault);
        if let Some(lease) = &mut ctx.tries.lease {
            lease.report(Err(fault));
        }
        if let Some(address) = peer.address().as_inet() {
            ctx.tries.tried.add(*address);
        }
        let again = ctx.tries.count < TRIES_MAX && ctx.tries.upstream.as_ref().is_some_and(|u| u.has_other(&ctx.tries.tried));
        error.set_retry(again);
        error
    }

    async fn connected_to_upstream(
        &self,
        _: &mut Session,
        reused: bool,
        _: &HttpPeer,
        fd: std::os::unix::io::RawFd,
        _: Option<&Digest>,
        ctx: &mut Ctx,
    ) -> pingora_core::Result<()> {
        let began = ctx.tries.began.unwrap_or(ctx.started);
        ctx.tries.connect = Some(if reused { Duration::ZERO } else { began.elapsed() });
        ctx.clock.line(fd);
        Ok(())
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        head: &mut RequestHeader,
        ctx: &mut Ctx,
    ) -> pingora_core::Result<()> {
        prepare_head(head, ctx).map_err(|stop| stopped(ctx, &stop))?;
        if session.as_downstream_mut().is_body_empty() {
            Self::request_sent(ctx);
        }
        Ok(())
    }

    async fn request_body_filter(
        &self,
        _: &mut Session,
        chunk: &mut Option<Bytes>,
        end: bool,
        ctx: &mut Ctx,
    ) -> pingora_core::Result<()> {
        let Some(route) = ctx.route.clone() else { return Ok(()) };
        if route.chain.watches_body() {
            route.chain.request_chunk(chunk, end, &mut ctx.memo).map_err(|stop| stopped(ctx, &stop))?;
        }
        if end {
            Self::request_sent(ctx);
        }
        Ok(())
    }

    async fn upstream_response_filter(
        &self,
        _: &mut Session,
        head: &mut ResponseHeader,
        ctx: &mut Ctx,
    ) -> pingora_core::Result<()> {
        if head.status.is_informational() && head.status != StatusCode::SWITCHING_PROTOCOLS {
            return Ok(());
        }
        ctx.clock.head_came();
        ctx.tries.first_byte = Some(ctx.started.elapsed());
        if let Some(idle) = ctx.tries.idle {
            ctx.clock.idle_by(Instant::now() + idle);
        }
        if head.status != StatusCode::SWITCHING_PROTOCOLS {
            strip_hop_by_hop(head);
        }
        let (Some(route), Some(facts)) = (ctx.route.clone(), &ctx.facts) else { return Ok(()) };
        route.chain.upstream_response(head, facts, &mut ctx.memo).map_err(|stop| stopped(ctx, &stop))
    }

    fn upstream_response_body_filter(
        &self,
        _: &mut Session,
        _: &mut Option<Bytes>,
        end: bool,
        ctx: &mut Ctx,
    ) -> pingora_core::Result<Option<Duration>> {
        match ctx.tries.idle {
            _ if end => ctx.clock.stop(),
            Some(idle) => ctx.clock.idle_by(Instant::now() + idle),
            None => {}
        }
        Ok(None)
    }

    async fn response_filter(&self, _: &mut Session, head: &mut ResponseHeader, ctx: &mut Ctx) -> pingora_core::Result<()> {
        if !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS {
            finish_head(head, ctx);
        }
        Ok(())
    }

    fn error_while_proxy(
        &self,
        _: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        ctx: &mut Ctx,
        reused: bool,
    ) -> Box<Error> {
        ctx.clock.end_try();
        let told = session.response_written().is_some();
        if *error.esource() == pingora_core::ErrorSource::Upstream {
            let fault = fault::upstream(&error, told);
            ctx.tries.fault = Some(fault);
            if let Some(lease) = &mut ctx.tries.lease {
                lease.report(Err(fault));
            }
        }
        let replayable = session.req_header().method.is_idempotent() && !session.as_ref().retry_buffer_truncated();
        if told || !replayable || ctx.clock.expired().is_some() || ctx.told.is_some() {
            error.set_retry(false);
        } else {
            error.retry.decide_reuse(reused);
        }
        error
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, ctx: &mut Ctx) -> FailToProxy {
        let head_came = session.response_written().is_some();
        let meaning = match (ctx.clock.expired(), ctx.told) {
            (Some(expired), _) => Meaning::Stop(expired.into()),
            (None, Some(_)) => Meaning::Stop(pending_stop(ctx)),
            (None, None) => fault::meaning(error, head_came),
        };
        tracing::debug!(%error, "request failed");
        let Meaning::Stop(stop) = meaning else {
            ctx.told = Some(log::CLIENT_GONE);
            return FailToProxy { error_code: 0, can_reuse_downstream: false };
        };
        let told = ctx.stop(&stop);
        if head_came {
            return FailToProxy { error_code: told.status.as_u16(), can_reuse_downstream: false };
        }
        let sent = self.refuse(session, ctx, &stop).await;
        FailToProxy { error_code: told.status.as_u16(), can_reuse_downstream: sent.is_ok() && session.get_keepalive().is_some() }
    }

    /// Errors are told in the access log, once.
    fn suppress_error_log(&self, _: &Session, _: &Ctx, _: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(&self, _: &Session, _: &Ctx, _: &Error, _: pingora_proxy::ProxyWarnLogContext) -> bool {
        true
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, ctx: &mut Ctx) {
        ctx.clock.stop();
        log::write(&self.stores, session, error, ctx);
    }
}
