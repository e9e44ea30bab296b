//! When a request's deadlines begin to run, and when they end. The [clock](crate::deadline) keeps them.

use std::time::{Duration, Instant};

use pingora_proxy::Session;

use super::ctx::Ctx;
use crate::{reply::is_grpc, upstream::EffectiveTimeouts};

/// Longest silence of a client in the middle of its body, and longest wait for it to take a piece of the answer.
pub const CLIENT_SILENCE_MAX: Duration = Duration::from_secs(60);

/// What the request's route and upstream say of time. `timeouts.request` runs from now, if there is no body to wait for.
pub fn set_timeouts(ctx: &mut Ctx, session: &mut Session) {
    let (Some(route), Some(upstream)) = (&ctx.route, &ctx.tries.upstream) else { return };
    let mut timeouts = EffectiveTimeouts::of(&route.timeouts, upstream.timeouts());
    timeouts.response = upstream.retries().patience(timeouts.response);
    if session.as_downstream_mut().is_body_empty() {
        ctx.clock.request_by(ctx.started + timeouts.request);
    }
    ctx.tries.upgrades = session.is_upgrade_req();
    ctx.tries.timeouts = Some(if ctx.tries.upgrades { timeouts.upgraded() } else { timeouts });
}

/// The client's body is on its way. A gRPC stream may speak seldom, and wait for an answer that says nothing before it does: only a
/// service that speaks HTTP/2 has such streams, whatever the client says that its body is.
pub fn begin_upload(session: &Session, ctx: &Ctx) {
    let streams = ctx.tries.upstream.as_ref().is_some_and(|upstream| upstream.speaks_http2());
    match ctx.tries.timeouts {
        Some(timeouts) if streams && session.is_http2() && is_grpc(&session.req_header().headers) => {
            ctx.clock.upload_at_leisure(timeouts.idle)
        }
        _ => ctx.clock.upload(CLIENT_SILENCE_MAX),
    }
}

/// Starts the wait for the response head: the request is sent. The time of `timeouts.request` starts here too if the client had
/// a body to send, so that a long upload does not count.
pub fn request_sent(ctx: &Ctx) {
    let Some(timeouts) = ctx.tries.timeouts else { return };
    let now = Instant::now();
    ctx.clock.response_by(now + timeouts.response);
    ctx.clock.request_by(now + timeouts.request);
}

/// Arms `timeouts.idle` anew.
pub fn idle_from_now(ctx: &Ctx) {
    if let Some(timeouts) = ctx.tries.timeouts {
        ctx.clock.idle_for(timeouts.idle);
    }
}
