//! Our own answers: what a client is told when a request goes no further.
//!
//! The only module that knows which status a [`Stop`] has, and the only one beside `proxy` that writes to a client.
//! Nothing of the inside is told: the detail is a fixed text for each kind of stop.

use http::{HeaderValue, Method, StatusCode, header};
use pingora_core::protocols::http::{HttpTask, date::get_cached_date};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;

use crate::{
    exchange::{Flag, LoginFault, Relayed, Stop, UpstreamFault},
    units::seconds_up,
};

mod form;

pub use form::{Form, is_grpc};

/// What is told of a stop.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    pub status: StatusCode,
    /// The gRPC status code, by the gRPC core's list.
    pub grpc: u8,
    /// A stable word for programs: the problem's `code` and the last part of its `type`.
    pub code: &'static str,
    pub title: &'static str,
    pub detail: &'static str,
    pub flag: Flag,
}

/// Longest request body that we read to its end to keep the connection alive after our own answer, in bytes.
/// A client that still sends more is told to close.
const DRAIN_MAX: u64 = 64 << 10;

/// Longest wait for such a body.
const DRAIN_WAIT: std::time::Duration = std::time::Duration::from_secs(1);

/// Statuses and texts of every kind of stop.
pub fn told(stop: &Stop) -> Told {
    use Flag as F;
    use StatusCode as S;
    let told = |status, grpc, code, title, detail, flag| Told { status, grpc, code, title, detail, flag };
    match stop {
        Stop::Malformed(rule) => told(S::BAD_REQUEST, 3, "malformed_request", "Malformed request", rule, F::ClientProtocol),
        Stop::Framing(rule) => told(S::BAD_REQUEST, 3, "ambiguous_framing", "Ambiguous request", rule, F::ClientProtocol),
        Stop::UriTooLong => told(
            S::URI_TOO_LONG,
            3,
            "uri_too_long",
            "Request line too long",
            "The request line is longer than this gateway accepts.",
            F::ClientProtocol,
        ),
        Stop::Version => told(
            S::HTTP_VERSION_NOT_SUPPORTED,
            3,
            "version_not_supported",
            "HTTP version not supported",
            "The request line names a version of HTTP that is not spoken here.",
            F::ClientProtocol,
        ),
        Stop::TransferCoding => told(
            S::NOT_IMPLEMENTED,
            12,
            "transfer_coding",
            "Transfer coding not implemented",
            "The only transfer coding understood here is chunked.",
            F::ClientProtocol,
        ),
        Stop::HeadTimeout => told(
            S::REQUEST_TIMEOUT,
            4,
            "header_timeout",
            "Client timed out",
            "The request head did not come in time.",
            F::ClientProtocol,
        ),
        Stop::Misdirected => told(
            S::MISDIRECTED_REQUEST,
            14,
            "misdirected_request",
            "Misdirected request",
            "The certificate of this connection does not cover the host; ask on a connection opened for it.",
            F::ClientProtocol,
        ),
        Stop::NoRoute => told(S::NOT_FOUND, 12, "no_route", "Not found", "Nothing is served at this address.", F::NoRoute),
        Stop::MethodNotAllowed(_) => told(
            S::METHOD_NOT_ALLOWED,
            12,
            "method_not_allowed",
            "Method not allowed",
            "This address is served for other methods; the Allow header names them.",
            F::NoRoute,
        ),
        Stop::Tunnel => {
            told(S::METHOD_NOT_ALLOWED, 12, "no_tunnel", "Method not allowed", "The gateway opens no tunnels.", F::ClientProtocol)
        }
        Stop::Preflight => told(S::NO_CONTENT, 0, "preflight", "Preflight", "", F::None),
        Stop::BodyTooLarge => told(
            S::PAYLOAD_TOO_LARGE,
            8,
            "body_too_large",
            "Request body too large",
            "The request body is larger than this address accepts.",
            F::PolicyRefused,
        ),
        Stop::HeadersTooLarge => told(
            S::REQUEST_HEADER_FIELDS_TOO_LARGE,
            8,
            "headers_too_large",
            "Request headers too large",
            "The request's header fields are larger than this address accepts.",
            F::PolicyRefused,
        ),
        Stop::Unauthenticated(_) => told(
            S::UNAUTHORIZED,
            16,
            "unauthenticated",
            "Authentication required",
            "The request has no valid credentials for this address.",
            F::PolicyRefused,
        ),
        Stop::Undecided => told(
            S::SERVICE_UNAVAILABLE,
            14,
            "authentication_unavailable",
            "Service unavailable",
            "The credentials of the request could not be verified now.",
            F::PolicyRefused,
        ),
        Stop::Relayed(relayed) => relayed_told(relayed),
        Stop::Elsewhere(_) => told(S::FOUND, 16, "sign_in", "Found", "", F::PolicyRefused),
        Stop::SignedOut(_) => told(S::OK, 0, "signed_out", "Signed out", "The session has ended.", F::None),
        Stop::Login(fault) => login_told(*fault),
        Stop::Forbidden(_) => {
            told(S::FORBIDDEN, 7, "forbidden", "Forbidden", "The caller may not do this at this address.", F::PolicyRefused)
        }
        Stop::Mishap(status) => told(
            *status,
            14,
            "fault_injected",
            "Failure on purpose",
            "This failure was made on purpose, to see what follows from it.",
            F::FaultInjected,
        ),
        Stop::Limited(limited) => limited_told(limited.by),
        Stop::Overloaded(_) => told(
            S::SERVICE_UNAVAILABLE,
            14,
            "overloaded",
            "Service unavailable",
            "More is asked of the gateway than it can carry now.",
            F::Overloaded,
        ),
        Stop::Uncounted => told(
            S::SERVICE_UNAVAILABLE,
            14,
            "limits_unavailable",
            "Service unavailable",
            "Whether the request is within its limits could not be told now.",
            F::Limited,
        ),
        Stop::RequestTimeout => told(
            S::GATEWAY_TIMEOUT,
            4,
            "request_timeout",
            "Request timed out",
            "The request was not answered within the time allowed for it.",
            F::RequestTimeout,
        ),
        Stop::ClientTimeout => told(
            S::REQUEST_TIMEOUT,
            4,
            "client_timeout",
            "Client timed out",
            "The request body did not move on in time.",
            F::StreamIdle,
        ),
        Stop::Upstream(fault) => upstream_told(*fault),
        Stop::Fault(_) => told(
            S::INTERNAL_SERVER_ERROR,
            13,
            "internal_error",
            "Internal error",
            "The gateway could not handle the request.",
            F::LocalFault,
        ),
    }
}

/// A refusal is the same whoever words it; a redirect leads to where people sign in.
fn relayed_told(relayed: &Relayed) -> Told {
    match relayed.status {
        StatusCode::UNAUTHORIZED => told(&Stop::Unauthenticated(Vec::new())),
        StatusCode::FORBIDDEN => told(&Stop::Forbidden(None)),
        status => Told { status, grpc: 16, code: "sign_in", title: "Found", detail: "", flag: Flag::PolicyRefused },
    }
}

fn login_told(fault: LoginFault) -> Told {
    use Flag as F;
    use StatusCode as S;
    let told = |status, grpc, code, title, detail| Told { status, grpc, code, title, detail, flag: F::PolicyRefused };
    match fault {
        LoginFault::Invalid => told(
            S::BAD_REQUEST,
            16,
            "login_invalid",
            "Login failed",
            "This is no answer to a login that this browser has begun. Begin again.",
        ),
        LoginFault::Denied => told(S::FORBIDDEN, 7, "login_denied", "Login denied", "The login was denied."),
        LoginFault::Unavailable => {
            told(S::SERVICE_UNAVAILABLE, 14, "login_unavailable", "Login unavailable", "Nobody can sign in at the moment.")
        }
    }
}

/// A limit on how much at once, or on how often.
fn limited_told(by: &str) -> Told {
    let (code, detail) = match by {
        "concurrency" => ("too_many_at_once", "Too many requests are being carried at the same time."),
        "quota" => ("quota_exceeded", "The caller has used all that its plan allows in this period."),
        _ => ("rate_limited", "More requests came than are allowed in this time."),
    };
    Told { status: StatusCode::TOO_MANY_REQUESTS, grpc: 8, code, title: "Too many requests", detail, flag: Flag::Limited }
}

fn upstream_told(fault: UpstreamFault) -> Told {
    use Flag as F;
    use StatusCode as S;
    let told = |status, grpc, code, title, detail, flag| Told { status, grpc, code, title, detail, flag };
    match fault {
        UpstreamFault::NoEndpoint => told(
            S::SERVICE_UNAVAILABLE,
            14,
            "no_endpoint",
            "Service unavailable",
            "The service has no healthy endpoint.",
            F::NoEndpoint,
        ),
        UpstreamFault::Connect | UpstreamFault::Tls => {
            told(S::BAD_GATEWAY, 14, "connect_failed", "Bad gateway", "The service could not be reached.", F::ConnectFailed)
        }
        UpstreamFault::ConnectTimeout => told(
            S::GATEWAY_TIMEOUT,
            14,
            "connect_timeout",
            "Gateway timeout",
            "The service could not be reached in time.",
            F::ConnectFailed,
        ),
        UpstreamFault::ResponseTimeout => told(
            S::GATEWAY_TIMEOUT,
            4,
            "response_timeout",
            "Gateway timeout",
            "The service did not answer in time.",
            F::UpstreamTimeout,
        ),
        UpstreamFault::IdleTimeout => {
            told(S::GATEWAY_TIMEOUT, 4, "idle_timeout", "Gateway timeout", "The service fell silent.", F::StreamIdle)
        }
        UpstreamFault::Reset => told(
            S::BAD_GATEWAY,
            14,
            "upstream_closed",
            "Bad gateway",
            "The service closed the connection before it answered.",
            F::UpstreamClosed,
        ),
        UpstreamFault::Protocol => told(
            S::BAD_GATEWAY,
            13,
            "upstream_protocol",
            "Bad gateway",
            "The service's answer was not understood.",
            F::UpstreamProtocol,
        ),
        UpstreamFault::Broken(_) => told(
            S::SERVICE_UNAVAILABLE,
            14,
            "circuit_open",
            "Service unavailable",
            "The service fails too often, so it is left alone for a while.",
            F::UpstreamOverflow,
        ),
        UpstreamFault::Full => told(
            S::SERVICE_UNAVAILABLE,
            14,
            "upstream_full",
            "Service unavailable",
            "The service has as much to do as it may have.",
            F::UpstreamOverflow,
        ),
    }
}

/// The answer to a head that goes no further than the edge, as it goes over an HTTP/1.1 connection that ends with it.
pub fn unread(stop: &Stop, request_id: &str) -> bytes::Bytes {
    let told = told(stop);
    let (status, body) = (told.status, form::problem(&told, request_id));
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/problem+json\r\nCache-Control: no-store\r\nX-Request-Id: {request_id}\r\n\
         Content-Length: {}\r\nConnection: close\r\nDate: ",
        body.len()
    );
    [head.as_bytes(), get_cached_date().as_bytes(), b"\r\n\r\n", &body].concat().into()
}

/// An answer made here, whole, without framing headers: those are the connection's.
#[derive(Clone, Debug)]
pub struct Reply {
    pub head: ResponseHeader,
    pub body: bytes::Bytes,
}

impl Reply {
    /// What is told of a stop, in the form that the client understands best.
    ///
    /// # Errors
    /// A header value that cannot be sent; none of ours is such.
    pub fn of(stop: &Stop, told: &Told, request: &RequestHeader, request_id: &HeaderValue) -> pingora_core::Result<Self> {
        let mut reply = match stop {
            Stop::Preflight | Stop::Elsewhere(_) => Self::bodiless(told.status)?,
            Stop::Relayed(_) if told.status.is_redirection() => Self::bodiless(told.status)?,
            _ => Form::wanted_by(request).write(told, request_id)?,
        };
        match stop {
            Stop::MethodNotAllowed(allow) => reply.head.insert_header(header::ALLOW, allow.clone())?,
            // A 405 has to have the field; there is nothing that the target allows (RFC 9110 §10.2.1).
            Stop::Tunnel => reply.head.insert_header(header::ALLOW, HeaderValue::from_static(""))?,
            Stop::Elsewhere(elsewhere) => {
                reply.head.insert_header(header::LOCATION, elsewhere.to.clone())?;
                reply.set_cookies(&elsewhere.cookies)?;
            }
            Stop::SignedOut(cookies) => reply.set_cookies(cookies)?,
            Stop::Limited(limited) => reply.head.insert_header(header::RETRY_AFTER, retry_after(limited.retry_after))?,
            Stop::Overloaded(pause) => reply.head.insert_header(header::RETRY_AFTER, retry_after(*pause))?,
            Stop::Uncounted => reply.head.insert_header(header::RETRY_AFTER, RETRY_UNCOUNTED)?,
            Stop::Unauthenticated(challenges) => reply.challenge(challenges)?,
            Stop::Forbidden(challenge) => reply.challenge(challenge.as_slice())?,
            Stop::Relayed(relayed) => reply.relay(relayed)?,
            Stop::Upstream(UpstreamFault::Broken(left)) => reply.head.insert_header(header::RETRY_AFTER, retry_after(*left))?,
            Stop::Upstream(UpstreamFault::Full) => reply.head.insert_header(header::RETRY_AFTER, 1_u64)?,
            _ => {}
        }
        Ok(reply)
    }

    fn bodiless(status: StatusCode) -> pingora_core::Result<Self> {
        Ok(Self { head: ResponseHeader::build(status, Some(8))?, body: bytes::Bytes::new() })
    }

    /// What is meant for one client goes into no cache.
    fn relay(&mut self, relayed: &Relayed) -> pingora_core::Result<()> {
        self.head.insert_header(header::CACHE_CONTROL, "no-store")?;
        relayed.fields.iter().try_for_each(|(name, value)| self.head.append_header(name.clone(), value.clone()).map(drop))
    }

    /// What is one browser's goes into no cache.
    fn set_cookies(&mut self, cookies: &[HeaderValue]) -> pingora_core::Result<()> {
        self.head.insert_header(header::CACHE_CONTROL, "no-store")?;
        cookies.iter().try_for_each(|cookie| self.head.append_header(header::SET_COOKIE, cookie.clone()).map(drop))
    }

    /// One field each: some clients take a list of challenges for one (RFC 9110 §11.6.1 warns of it).
    fn challenge(&mut self, challenges: &[HeaderValue]) -> pingora_core::Result<()> {
        challenges.iter().try_for_each(|challenge| self.head.append_header(header::WWW_AUTHENTICATE, challenge.clone()).map(drop))
    }

    /// Sends the answer. The connection stays alive where the protocol allows it.
    ///
    /// # Errors
    /// The client is gone.
    pub async fn send(mut self, session: &mut Session) -> pingora_core::Result<()> {
        settle_request_body(session).await;
        let bodiless = matches!(self.head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let trailers_only = session.is_http2() && form::is_trailers_only(&self.head);
        if !bodiless && !trailers_only {
            self.head.insert_header(header::CONTENT_LENGTH, self.body.len())?;
        }
        if self.body.is_empty() || session.req_header().method == Method::HEAD {
            return end_with(session, self.head).await;
        }
        session.write_response_header(Box::new(self.head), false).await?;
        session.write_response_body(Some(self.body), true).await
    }
}

/// When to come again who could not be counted, in seconds: the least that can be said.
const RETRY_UNCOUNTED: u64 = 1;

/// Whole seconds, and at least one: a client that is refused now is refused now again.
fn retry_after(time: std::time::Duration) -> u64 {
    seconds_up(time).max(1)
}

/// Sends a head that nothing follows. `write_response_header` would not mark the end of an HTTP/2 stream, which gRPC's
/// trailers-only form needs.
async fn end_with(session: &mut Session, head: ResponseHeader) -> pingora_core::Result<()> {
    session.write_response_tasks(vec![HttpTask::Header(Box::new(head), true)]).await.map(drop)
}

/// Reads a short request body to its end, so that the next request can be read; a long one ends the connection.
async fn settle_request_body(session: &mut Session) {
    if session.is_http2() || session.as_downstream_mut().is_body_done() {
        return;
    }
    let declared = session.req_header().headers.get(header::CONTENT_LENGTH);
    let length = declared.and_then(|value| value.to_str().ok()).and_then(|text| text.parse::<u64>().ok());
    let continues = session.req_header().headers.contains_key(header::EXPECT);
    let short = length.is_some_and(|length| length <= DRAIN_MAX) && !continues;
    let drained = short && matches!(tokio::time::timeout(DRAIN_WAIT, session.drain_request_body()).await, Ok(Ok(())));
    if !drained {
        session.set_keepalive(None);
    }
}
