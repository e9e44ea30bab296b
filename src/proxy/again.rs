//! Whether a request is tried again: what the hooks know of it, and what follows.

use http::StatusCode;
use pingora_core::{Error, ErrorSource, ErrorType, RetryType};
use pingora_proxy::Session;

use super::{ctx::Ctx, fault, head};
use crate::{
    deadline::Expired,
    upstream::{Ended, Situation, Verdict},
};

/// Decides, and notes what is decided. The endpoint of the last try is among those that were tried.
pub fn decide(session: &Session, ctx: &mut Ctx, ended: Ended) -> bool {
    let (Some(upstream), None) = (&ctx.tries.upstream, &ctx.stopped) else { return false };
    let situation = Situation {
        ended,
        tries: ctx.tries.count,
        idempotent: session.req_header().method.is_idempotent(),
        replayable: !session.as_ref().retry_buffer_truncated(),
        answered: head::is_sent(session),
        elsewhere: upstream.has_other_than(&ctx.tries.tried),
        left: ctx.clock.left(),
    };
    match upstream.retries().decide(&situation, upstream.now(), fastrand::f64) {
        Verdict::Again { after } => {
            ctx.tries.pause = after;
            ctx.clock.next_try();
            true
        }
        Verdict::Over(over) => {
            tracing::debug!(why = over.name(), "not tried again");
            false
        }
    }
}

/// Whether an answer is given up for another try. If so, the error that says it.
pub fn instead_of(status: StatusCode, session: &Session, ctx: &mut Ctx) -> Option<Box<Error>> {
    let ended = Ended::Answered(status.as_u16());
    let upstream = ctx.tries.upstream.as_ref()?;
    // The service's own answer is better than ours, so there has to be one that can be asked.
    if !upstream.retries().may_follow(ended) || !upstream.can_be_asked() {
        return None;
    }
    ctx.tries.leave();
    decide(session, ctx, ended).then(|| {
        ctx.tries.again = true;
        Error::explain(ErrorType::Custom("again"), "an answer is given up for another try").into_up()
    })
}

/// What follows a try that failed after its connection was there: said to the endpoint, to Pingora, and noted.
pub fn or_over(session: &Session, ctx: &mut Ctx, error: &mut Error, reused: bool) {
    let told = head::is_sent(session);
    if *error.esource() == ErrorSource::Upstream {
        ctx.tries.fault = match ctx.clock.expired() {
            Some(expired) => fault::of_silence(expired),
            None => Some(fault::upstream(error, told)),
        };
    }
    let ended = ended(error, ctx, told);
    if let (Some(lease), Some(ended)) = (&mut ctx.tries.lease, ended) {
        lease.report(ended);
    }
    ctx.tries.leave();
    match is_downgrade(error) {
        true => error.retry.decide_reuse(reused),
        false => error.set_retry(ended.is_some_and(|ended| decide(session, ctx, ended))),
    }
}

/// How a try ended that failed after its connection was there. `None`: that says nothing of the service.
fn ended(error: &Error, ctx: &Ctx, told: bool) -> Option<Ended> {
    match (ctx.clock.expired(), error.esource()) {
        (Some(Expired::Response | Expired::Request | Expired::Idle), _) => Some(Ended::Late),
        (Some(Expired::Upload | Expired::Call), _) => None,
        (None, ErrorSource::Upstream) if is_untouched(error) => Some(Ended::Refused),
        (None, ErrorSource::Upstream) => Ended::of(fault::upstream(error, told)),
        (None, _) => None,
    }
}

/// The service said that it did nothing with the request: `REFUSED_STREAM`, or `GOAWAY` before it (RFC 9113 §8.7).
fn is_untouched(error: &Error) -> bool {
    *error.etype() == ErrorType::H2Error && matches!(error.retry, RetryType::Decided(true))
}

/// Whether the try failed by the protocol that was spoken: Pingora has decided what follows.
fn is_downgrade(error: &Error) -> bool {
    matches!(error.etype(), ErrorType::H2Downgrade | ErrorType::InvalidH2)
}
