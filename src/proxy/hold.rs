//! A request's body, held until the policies have seen it: those that vouch for bodies do so before any service is asked.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_LENGTH;
use pingora_proxy::Session;

use super::client::send_continue;
use crate::{
    caller::Caller,
    certs,
    exchange::{Facts, Held, Inbound, Stop},
    policy::chain::{Chain, Memo},
};

/// Longest body that is held, in bytes: as much as Pingora keeps to send it again.
const BODY_MAX: usize = 64 << 10;

/// Longest wait for such a body.
const BODY_WAIT: Duration = Duration::from_secs(10);

/// Tells the policies whether there is a body, and holds it if they ask for it.
///
/// # Errors
/// It did not come, or not in time.
pub async fn for_policies(
    session: &mut Session,
    chain: &Chain,
    memo: &mut Memo,
    facts: &Facts,
    tls: Option<&certs::Session>,
    caller: &mut Caller,
) -> Result<(), Stop> {
    memo.hold(unread(session));
    if chain.wants_body(&Inbound { head: session.req_header_mut(), facts, tls, caller }, memo) {
        memo.hold(whole(session).await?);
    }
    Ok(())
}

fn unread(session: &mut Session) -> Held {
    if session.as_downstream_mut().is_body_empty() { Held::Empty } else { Held::Unread }
}

/// Reads the body. Pingora keeps it for the service.
async fn whole(session: &mut Session) -> Result<Held, Stop> {
    if declared(session).is_some_and(|length| length > BODY_MAX as u64) {
        return Ok(Held::TooLarge);
    }
    session.as_downstream_mut().enable_retry_buffering();
    match tokio::time::timeout(BODY_WAIT, read(session)).await {
        Ok(read) => read.map_err(|_| Stop::Framing("The request body could not be read.")),
        Err(_) => Err(Stop::ClientTimeout),
    }
}

fn declared(session: &Session) -> Option<u64> {
    session.req_header().headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

async fn read(session: &mut Session) -> pingora_core::Result<Held> {
    send_continue(session).await?;
    let mut body = BytesMut::new();
    while let Some(chunk) = session.as_downstream_mut().read_request_body().await? {
        if body.len() + chunk.len() > BODY_MAX {
            return Ok(Held::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Held::Whole(Bytes::from(body)))
}
