//! What a client wishes beside its answer: a word that it may send its body; none at all any more.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    task::Poll,
};

use http::{Version, header};
use pingora_core::protocols::http::ServerSession;
use pingora_proxy::Session;

/// The client has cancelled its stream already, so nobody would read the answer. Floods are made of such (CVE-2023-44487); no service is to
/// feel them.
pub async fn is_taken_back(session: &mut Session) -> bool {
    let ServerSession::H2(stream) = session.as_downstream_mut() else { return false };
    let mut end = stream.idle();
    poll_fn(|cx| Poll::Ready(Pin::new(&mut end).poll(cx).is_ready())).await
}

/// The policies let the request pass, so a client that waits for this may send its body (RFC 9110 §10.1.1). The service is not
/// asked: it would have to be waited for, and HTTP/2 services cannot say it.
pub async fn send_continue(session: &mut Session) -> pingora_core::Result<()> {
    let head = session.req_header();
    let expected = head.headers.get(header::EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    if !expected || head.version < Version::HTTP_11 || session.as_downstream_mut().is_body_done() {
        return Ok(());
    }
    let downstream = session.as_downstream_mut();
    // Else Pingora takes it for an answer given before the body's end, after which the connection cannot go on.
    downstream.set_close_on_response_before_downstream_finish(false);
    let sent = downstream.write_continue_response().await;
    downstream.set_close_on_response_before_downstream_finish(true);
    sent
}
