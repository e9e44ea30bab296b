//! What a request waits for before its service is asked: a place in line, the pause before another try, a delay made on purpose.

use std::time::Duration;

use pingora_proxy::Session;

use super::{ctx::Ctx, no_permit};
use crate::{
    exchange::{Stop, UpstreamFault},
    upstream::Refused,
};

/// What befalls a request on purpose.
pub async fn befall(session: &Session, ctx: &Ctx) -> Result<(), Stop> {
    let Some(faults) = ctx.route.as_ref().and_then(|route| route.faults.as_ref()) else { return Ok(()) };
    let mishap = faults.draw(&session.req_header().headers, fastrand::f64);
    pause(mishap.delay.unwrap_or_default()).await;
    mishap.abort.map_or(Ok(()), |status| Err(Stop::Mishap(status)))
}

/// Waits for a place at the service. Kept until the request is over, through all of its tries.
pub async fn enter(ctx: &mut Ctx) -> Result<(), Stop> {
    let (Some(upstream), Some(timeouts)) = (&ctx.tries.upstream, &ctx.tries.timeouts) else { return Err(no_permit()) };
    let place = upstream.enter(ctx.clock.left().unwrap_or(timeouts.request)).await;
    ctx.tries.place = place.map_err(|refused| match refused {
        Refused::Full => Stop::Upstream(UpstreamFault::Full),
        Refused::Late => Stop::RequestTimeout,
    })?;
    Ok(())
}

/// Whether there is a limit on what is asked of the service at once.
pub fn is_limited(ctx: &Ctx) -> bool {
    ctx.tries.upstream.as_ref().is_some_and(|upstream| upstream.is_limited())
}

pub async fn pause(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}
