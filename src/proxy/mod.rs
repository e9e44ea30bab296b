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
use http::{HeaderMap, HeaderValue, StatusCode, Version, header};
use pingora_core::{Error, ErrorType, protocols::Digest, upstreams::peer::HttpPeer};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, ProxyHttp, Session};

use self::{
    client::{is_taken_back, send_continue},
    ctx::Ctx,
    fault::Meaning,
    time::{CLIENT_SILENCE_MAX, begin_upload, idle_from_now, request_sent, set_timeouts},
};
use crate::{
    certs,
    exchange::{Captures, Facts, Inbound, Stop, UpstreamFault},
    live::{Live, Snapshot, Stage},
    observe::trace,
    origin::Origin,
    reply::Reply,
    route::Route,
    stores::Stores,
    upstream::{EffectiveTimeouts, Ended},
};

mod again;
mod client;
pub mod ctx;
pub mod facts;
pub mod fault;
pub mod forwarded;
mod framing;
mod grpc;
mod head;
mod hold;
mod log;
mod time;
mod upgrade;
mod wait;

/// Keeps why a request goes no further, and makes the error by which Pingora's hooks say so.
fn stopped(ctx: &mut Ctx, stop: Stop) -> Box<Error> {
    ctx.stopped = Some(stop);
    // As an error of the client's side it ends the request at once; of another it would wait for a service that gets no more.
    Error::new_down(ErrorType::Custom("stopped"))
}

/// Only the chain gives a permit, and without it nothing leaves: a fault of ours if we ever get here.
fn no_permit() -> Stop {
    Stop::Fault(anyhow::anyhow!("no permit"))
}

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
        ctx.guarded = (!snapshot.guarded.parameters.is_empty()).then(|| snapshot.guarded.clone());
        let connection = facts::connection(session, &snapshot)?;
        let framed = framing::check(session.req_header());
        upgrade::settle(session.req_header_mut());
        let head = session.req_header();
        let request_id = ctx.request_id.insert(facts::request_id(&head.headers, connection.trusted)).clone();
        ctx.hops = facts::hops(&head.headers, connection.trusted);
        ctx.trace = Some(trace::continue_or_start(&head.headers));
        let is_trusted = |address: &std::net::IpAddr| snapshot.is_trusted(address);
        let read =
            framed.and_then(|()| facts::read(head, connection, &ctx.hops, is_trusted, snapshot.slashes, request_id, ctx.started));
        let limit = grpc::timeout(&head.headers);
        let facts = match read.and_then(|facts| limit.map(|limit| (facts, limit))) {
            Ok((facts, limit)) => {
                if let Some(limit) = limit {
                    ctx.clock.call_by(ctx.started + limit);
                }
                facts
            }
            Err(stop) => {
                let unmatched = snapshot.unmatched.clone();
                drop(snapshot);
                return Err(unreadable(session, ctx, unmatched, stop));
            }
        };
        let carried = session.digest().and_then(|digest| digest.proxy_digest.clone());
        let tls = carried.as_deref().and_then(certs::Session::within);
        let misdirected = tls.is_some_and(|tls| tls.misdirects(&facts.host));
        let (route, captures, missed) = match misdirected {
            true => (snapshot.unmatched.clone(), Captures::new(), Some(Stop::Misdirected)),
            false => choose(&snapshot, &facts, head),
        };
        drop(snapshot);
        ctx.captures = captures;
        ctx.in_flight = Some(route.metrics.begin());
        let route = ctx.route.insert(route).clone();
        let facts = ctx.facts.insert(facts);
        route.chain.admit(&mut ctx.memo)?;
        if route.chain.may_hold() {
            hold::for_policies(session, &route.chain, &mut ctx.memo, facts, tls, &mut ctx.caller).await?;
        }
        let mut inbound = Inbound { head: session.req_header_mut(), facts, tls, caller: &mut ctx.caller };
        ctx.permit = Some(route.chain.enter(&mut inbound, &mut ctx.memo).await?);
        missed.map_or(Ok(()), Err)
    }

    /// Goes where the route leads: an answer to send, or none when an upstream was named.
    fn lead(&self, ctx: &mut Ctx) -> Result<Option<Reply>, Stop> {
        let (Some(route), Some(facts), Some(_permit)) = (&ctx.route, &ctx.facts, &ctx.permit) else { return Err(no_permit()) };
        ctx.tries.upstream = match &route.origin {
            Origin::Upstream(upstream) => Some(upstream.clone()),
            Origin::Split(split) => Some(split.draw().clone()),
            Origin::Redirect(redirect) => return redirect.answer(facts, &ctx.captures).map(Some),
            Origin::Respond(respond) => return Ok(Some(respond.answer().clone())),
            Origin::Nowhere => return Err(Stop::NoRoute),
        };
        Ok(None)
    }

    /// Sends an answer of our own, through the response policies. Boxed where it is waited for: a hook's future is moved, and nearly always
    /// goes without its room.
    async fn answer(&self, session: &mut Session, ctx: &mut Ctx, mut reply: Reply) -> pingora_core::Result<()> {
        head::finish(&mut reply.head, ctx);
        self.part(session);
        reply.send(session).await
    }

    /// While the process ends, every answer says that its connection does.
    fn part(&self, session: &mut Session) {
        if self.live.is(Stage::Closing) {
            session.set_keepalive(None);
        }
    }

    /// Tells the client why its request goes no further.
    async fn refuse(&self, session: &mut Session, ctx: &mut Ctx, stop: &Stop) -> pingora_core::Result<()> {
        if let Stop::Fault(fault) = stop {
            tracing::error!(error = format!("{fault:#}"), "fault of the gateway");
        }
        let told = ctx.stop(stop);
        // What follows may be meant for the other end of a tunnel, or for a request that we see another end of.
        if matches!(stop, Stop::Framing(_) | Stop::Tunnel) {
            session.set_keepalive(None);
        }
        let request_id = ctx.request_id.clone().unwrap_or(HeaderValue::from_static("-"));
        let reply = Reply::of(stop, &told, session.req_header(), &request_id)?;
        self.answer(session, ctx, reply).await
    }

    /// Picks an endpoint that was not tried yet.
    fn pick(&self, session: &Session, ctx: &mut Ctx) -> Result<Box<HttpPeer>, Stop> {
        let (Some(route), Some(facts), Some(upstream), Some(_permit)) =
            (&ctx.route, &ctx.facts, &ctx.tries.upstream, &ctx.permit)
        else {
            return Err(no_permit());
        };
        if ctx.clock.left().is_some_and(|left| left.is_zero()) {
            return Err(Stop::RequestTimeout);
        }
        let wish = upstream.wish(&session.req_header().headers, facts, &ctx.caller);
        let lease = upstream.pick(&ctx.tries.tried, &wish).map_err(|fault| Stop::Upstream(ctx.tries.fault.unwrap_or(fault)))?;
        let timeouts = ctx.tries.timeouts.unwrap_or_else(|| EffectiveTimeouts::of(&route.timeouts, upstream.timeouts()));
        let timeouts = ctx.clock.left().map_or(timeouts, |left| timeouts.within(left));
        let mut peer = lease.peer(&timeouts, || facts::ends(facts, session.server_addr().and_then(|address| address.as_inet())));
        if ctx.tries.upgrades {
            upgrade::prepare(&mut peer, &ctx.clock);
        }
        // What was learnt of the try before says nothing of this one.
        (ctx.tries.head_came, ctx.tries.sent) = (false, None);
        ctx.tries.count += 1;
        ctx.tries.began = Some(Instant::now());
        ctx.tries.lease = Some(lease);
        Ok(peer)
    }
}

/// The answer to a head that cannot be read goes through the gateway's own policies too.
fn unreadable(session: &mut Session, ctx: &mut Ctx, unmatched: Arc<Route>, stop: Stop) -> Stop {
    let facts = ctx.facts.insert(log::unreadable(session, ctx.request_id.as_ref(), ctx.started));
    let inbound = Inbound { head: session.req_header_mut(), facts, tls: None, caller: &mut ctx.caller };
    unmatched.chain.look(&inbound, &mut ctx.memo);
    ctx.route = Some(unmatched);
    stop
}

/// The route that takes a request; the one of unmatched requests, and why, if none does.
fn choose(snapshot: &Snapshot, facts: &Facts, head: &RequestHeader) -> (Arc<Route>, Captures, Option<Stop>) {
    match snapshot.router.find(facts, &head.headers) {
        Ok((route, captures)) => (route.clone(), captures, None),
        Err(stop) => (snapshot.unmatched.clone(), Captures::new(), Some(stop)),
    }
}

#[async_trait]
impl ProxyHttp for Gateway {
    /// Boxed: Pingora moves it from future to future.
    type CTX = Box<Ctx>;

    fn new_ctx(&self) -> Box<Ctx> {
        Box::new(Ctx::new(self.stores.carry()))
    }

    /// No modules: compression comes with its policy.
    fn init_downstream_modules(&self, _: &mut pingora_core::modules::http::HttpModules) {}

    async fn early_request_filter(&self, session: &mut Session, _: &mut Self::CTX) -> pingora_core::Result<()> {
        session.set_read_timeout(Some(CLIENT_SILENCE_MAX));
        session.set_write_timeout(Some(CLIENT_SILENCE_MAX));
        Ok(())
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut Self::CTX) -> pingora_core::Result<bool> {
        let led = match self.admit(session, ctx).await {
            Ok(()) if ctx.route.as_ref().is_some_and(|route| route.faults.is_some()) => {
                Box::pin(wait::befall(session, ctx)).await.and_then(|()| self.lead(ctx))
            }
            Ok(()) => self.lead(ctx),
            Err(stop) => Err(stop),
        };
        match led {
            Ok(Some(answer)) => {
                Box::pin(self.answer(session, ctx, answer)).await?;
                Ok(true)
            }
            Ok(None) if is_taken_back(session).await => Err(Error::new_down(ErrorType::ConnectionClosed)),
            Ok(None) => {
                set_timeouts(ctx, session);
                send_continue(session).await?;
                Ok(false)
            }
            Err(stop) => {
                Box::pin(self.refuse(session, ctx, &stop)).await?;
                Ok(true)
            }
        }
    }

    /// Picks the first endpoint here: where there is none the client is told on a connection that stays open. After a try Pingora
    /// closes it.
    async fn proxy_upstream_filter(&self, session: &mut Session, ctx: &mut Self::CTX) -> pingora_core::Result<bool> {
        let entered = if wait::is_limited(ctx) { Box::pin(wait::enter(ctx)).await } else { Ok(()) };
        match entered.and_then(|()| self.pick(session, ctx)) {
            Ok(peer) => {
                ctx.tries.first = Some(peer);
                Ok(true)
            }
            Err(stop) => {
                Box::pin(self.refuse(session, ctx, &stop)).await?;
                Ok(false)
            }
        }
    }

    async fn upstream_peer(&self, session: &mut Session, ctx: &mut Self::CTX) -> pingora_core::Result<Box<HttpPeer>> {
        match ctx.tries.first.take() {
            Some(peer) => Ok(peer),
            None => {
                wait::pause(std::mem::take(&mut ctx.tries.pause)).await;
                self.pick(session, ctx).map_err(|stop| stopped(ctx, stop))
            }
        }
    }

    fn fail_to_connect(&self, session: &mut Session, _: &HttpPeer, ctx: &mut Self::CTX, mut error: Box<Error>) -> Box<Error> {
        let fault = fault::upstream(&error, false);
        let late = ctx.clock.left().is_some_and(|left| left.is_zero());
        ctx.tries.fault = Some(fault);
        match &mut ctx.tries.lease {
            // The endpoint had no more time than was left of the request's.
            Some(_) if late && fault == UpstreamFault::ConnectTimeout => ctx.stopped = Some(Stop::RequestTimeout),
            Some(lease) => lease.report(Ended::NoConnection),
            None => {}
        }
        ctx.tries.leave();
        error.set_retry(!late && again::decide(session, ctx, Ended::NoConnection));
        error
    }

    async fn connected_to_upstream(
        &self,
        _: &mut Session,
        reused: bool,
        _: &HttpPeer,
        fd: std::os::unix::io::RawFd,
        digest: Option<&Digest>,
        ctx: &mut Self::CTX,
    ) -> pingora_core::Result<()> {
        let began = ctx.tries.began.unwrap_or(ctx.started);
        ctx.tries.connect = (!reused).then(|| began.elapsed());
        ctx.clock.line(fd, digest.and_then(|digest| digest.socket_digest.clone()));
        Ok(())
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        head: &mut RequestHeader,
        ctx: &mut Self::CTX,
    ) -> pingora_core::Result<()> {
        head::prepare(head, ctx).map_err(|stop| stopped(ctx, stop))?;
        ctx.tries.sent = Some(Instant::now());
        ctx.clock.cork();
        match session.as_downstream_mut().is_body_empty() {
            true => request_sent(ctx),
            false => begin_upload(session, ctx),
        }
        Ok(())
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        chunk: &mut Option<Bytes>,
        end: bool,
        ctx: &mut Self::CTX,
    ) -> pingora_core::Result<()> {
        let Some(route) = ctx.route.clone() else { return Ok(()) };
        // An empty last chunk would be written as a second end of the body, and stand before the next request on the connection.
        if end && chunk.as_ref().is_some_and(Bytes::is_empty) {
            *chunk = None;
        }
        // What follows an upgrade is no request body.
        if route.chain.watches_body() && !session.was_upgraded() {
            route.chain.request_chunk(chunk, end, &mut ctx.memo).map_err(|stop| stopped(ctx, stop))?;
        }
        if end {
            ctx.clock.uncork();
        }
        match ctx.tries.head_came {
            true => idle_from_now(ctx),
            false if end => request_sent(ctx),
            false => ctx.clock.uploaded(chunk.as_ref().map_or(0, Bytes::len)),
        }
        Ok(())
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        head: &mut ResponseHeader,
        ctx: &mut Self::CTX,
    ) -> pingora_core::Result<()> {
        framing::settle_bodiless(head);
        if head.status.is_informational() && head.status != StatusCode::SWITCHING_PROTOCOLS {
            return Ok(());
        }
        // Nobody asked for another protocol: what follows would be no HTTP for anyone.
        if head.status == StatusCode::SWITCHING_PROTOCOLS && !session.is_upgrade_req() {
            return Err(stopped(ctx, UpstreamFault::Protocol.into()));
        }
        if framing::is_strange(head) {
            return Err(stopped(ctx, UpstreamFault::Protocol.into()));
        }
        if let Some(lease) = &mut ctx.tries.lease {
            lease.report(Ended::Answered(head.status.as_u16()));
        }
        if let Some(error) = again::instead_of(head.status, session, ctx) {
            return Err(error);
        }
        ctx.clock.head_came();
        ctx.tries.head_came = true;
        ctx.tries.first_byte = ctx.tries.sent.map(|sent| sent.elapsed());
        match head::is_bodiless(session.req_header(), head) {
            true => ctx.clock.stop(),
            false => idle_from_now(ctx),
        }
        if head.status != StatusCode::SWITCHING_PROTOCOLS {
            head::strip_hop_by_hop(head);
        }
        head::keep_session(head, ctx);
        // What we send is HTTP/1.1 whatever the service speaks (RFC 9110 §2.5).
        if head.version < Version::HTTP_11 {
            head.set_version(Version::HTTP_11);
        }
        let (Some(route), Some(facts)) = (ctx.route.clone(), &ctx.facts) else { return Ok(()) };
        route.chain.upstream_response(head, facts, &mut ctx.memo).map_err(|stop| stopped(ctx, stop))
    }

    fn upstream_response_body_filter(
        &self,
        _: &mut Session,
        _: &mut Option<Bytes>,
        end: bool,
        ctx: &mut Self::CTX,
    ) -> pingora_core::Result<Option<Duration>> {
        if end {
            ctx.clock.stop();
        } else {
            idle_from_now(ctx);
        }
        Ok(None)
    }

    fn upstream_response_trailer_filter(
        &self,
        _: &mut Session,
        _: &mut HeaderMap,
        ctx: &mut Self::CTX,
    ) -> pingora_core::Result<()> {
        ctx.clock.stop();
        Ok(())
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        head: &mut ResponseHeader,
        ctx: &mut Self::CTX,
    ) -> pingora_core::Result<()> {
        // A client of HTTP/1.0 knows no chunks: the end of its connection ends the body (RFC 9112 §6.1).
        if session.req_header().version < Version::HTTP_11 {
            head.remove_header(&header::TRANSFER_ENCODING);
        }
        if !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS {
            head::finish(head, ctx);
        }
        self.part(session);
        Ok(())
    }

    fn error_while_proxy(
        &self,
        _: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        ctx: &mut Self::CTX,
        reused: bool,
    ) -> Box<Error> {
        ctx.clock.end_try();
        if std::mem::take(&mut ctx.tries.again) {
            error.set_retry(true);
            return error;
        }
        again::or_over(session, ctx, &mut error, reused);
        error
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, ctx: &mut Self::CTX) -> FailToProxy {
        let head_came = head::is_sent(session);
        let meaning = match (ctx.stopped.take(), ctx.clock.expired()) {
            (Some(stop), _) => Meaning::Stop(stop),
            _ if ctx.clock.refused().is_some() => Meaning::Stop(Stop::Framing(ctx.clock.refused().unwrap_or_default())),
            (None, Some(expired)) => Meaning::Stop(expired.into()),
            (None, None) => fault::meaning(error, head_came),
        };
        tracing::debug!(%error, "request failed");
        let Meaning::Stop(stop) = meaning else {
            ctx.told = Some(log::CLIENT_GONE);
            return FailToProxy { error_code: 0, can_reuse_downstream: false };
        };
        let told = ctx.stop(&stop);
        if head_came {
            ctx.clock.cut();
            return FailToProxy { error_code: told.status.as_u16(), can_reuse_downstream: false };
        }
        // Pingora closes the connection after a try that failed, so the client must not be told that it stays.
        if ctx.tries.count > 0 {
            session.set_keepalive(None);
        }
        let sent = Box::pin(self.refuse(session, ctx, &stop)).await;
        FailToProxy { error_code: told.status.as_u16(), can_reuse_downstream: sent.is_ok() && session.get_keepalive().is_some() }
    }

    /// Errors are told in the access log, once.
    fn suppress_error_log(&self, _: &Session, _: &Self::CTX, _: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(&self, _: &Session, _: &Self::CTX, _: &Error, _: pingora_proxy::ProxyWarnLogContext) -> bool {
        true
    }

    async fn logging(&self, session: &mut Session, _: Option<&Error>, ctx: &mut Self::CTX) {
        ctx.clock.stop();
        log::write(&self.stores, session, ctx);
    }
}
