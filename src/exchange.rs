//! One request as routing, policies and origins see it.
//!
//! Nothing here knows a socket: what is tested against these types needs none.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode, Version};
use pingora_core::protocols::l4::socket::SocketAddr as End;
use pingora_http::RequestHeader;
use smallvec::SmallVec;

use crate::{caller::Caller, certs, config::route::Scheme};

/// What is known of a request, once its head was read and its path normalised. It never changes afterwards.
#[derive(Clone, Debug)]
pub struct Facts {
    pub method: Method,
    /// The scheme that the client used, by the listener or a trusted proxy.
    pub scheme: Scheme,
    /// Host without port, in lower case, without a trailing dot; empty if the client sent none (HTTP/1.0).
    pub host: String,
    /// Port that the client named, if any.
    pub port: Option<u16>,
    /// The normalised path: what is matched, authorised and forwarded. Starts with `/`, or is `*` for OPTIONS.
    pub path: String,
    /// The query as it came, without `?`.
    pub query: Option<String>,
    pub version: Version,
    /// The client: the rightmost address that is not a trusted proxy.
    pub client: IpAddr,
    /// Who opened the connection. See [`peer`].
    pub peer: SocketAddr,
    /// Printable and bounded: it came from a trusted proxy or was made here.
    pub request_id: HeaderValue,
    pub started: Instant,
}

/// Who opened a connection, by its two ends. An IPv4 client of a listener that serves both counts as IPv4; who comes by a Unix
/// socket, from this machine, counts as `127.0.0.1:0`. `None` if the connection is gone.
pub fn peer(theirs: Option<&End>, ours: Option<&End>) -> Option<SocketAddr> {
    match (theirs, ours) {
        (Some(End::Inet(peer)), _) => Some(SocketAddr::new(peer.ip().to_canonical(), peer.port())),
        (_, Some(End::Unix(_))) => Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
        _ => None,
    }
}

/// Parts of the path that a route's pattern named, in the order of the names in the pattern.
/// A name that took no part is empty.
pub type Captures = SmallVec<[std::ops::Range<u32>; 4]>;

/// A request on its way inward, as policies see it.
pub struct Inbound<'a> {
    pub head: &'a mut RequestHeader,
    pub facts: &'a Facts,
    /// The TLS session of its connection, if it has one.
    pub tls: Option<&'a certs::Session>,
    /// Who calls, once a policy found out.
    pub caller: &'a mut Caller,
}

/// As much of a request's body as is held for the policies.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Held {
    /// There is one, or there may be; nobody asked for it.
    #[default]
    Unread,
    /// There is none.
    Empty,
    Whole(Bytes),
    /// It is longer than what is held.
    TooLarge,
}

/// Why a request goes no further. Not an error: `?` on it is the flow of the policy chain.
///
/// What the client is told is decided in `reply` alone.
#[derive(Debug)]
pub enum Stop {
    /// The request is not one we can understand in one way only. The text names the rule, not the data.
    Malformed(&'static str),
    /// Where the request ends cannot be said in one way only: nothing after it on the connection can be trusted.
    Framing(&'static str),
    /// The request line is longer than the listener takes.
    UriTooLong,
    /// The request line names a version of HTTP that is not spoken this way.
    Version,
    /// The body has a transfer coding that we do not know.
    TransferCoding,
    /// The request head did not come in time.
    HeadTimeout,
    /// The certificate of its connection does not cover its host.
    Misdirected,
    /// No route takes it.
    NoRoute,
    /// Routes take it, with other methods: these.
    MethodNotAllowed(HeaderValue),
    /// CONNECT: the client asks for a tunnel.
    Tunnel,
    /// A CORS preflight, answered by the policy's own response headers.
    Preflight,
    BodyTooLarge,
    HeadersTooLarge,
    /// The request does not prove who calls; by these challenges it may (RFC 9110 §11.6.1).
    Unauthenticated(Vec<HeaderValue>),
    /// Whether the request proves who calls could not be found out.
    Undecided,
    /// Somebody who was asked about the request says what the client is told: to sign in elsewhere, or no.
    Relayed(Arc<Relayed>),
    /// The browser is sent elsewhere to sign in, or back.
    Elsewhere(Box<Elsewhere>),
    /// A session was ended; the browser forgets its cookies.
    SignedOut(Vec<HeaderValue>),
    /// A login came to nothing.
    Login(LoginFault),
    /// Who calls may not do this; the challenge says what would be needed, if that helps (RFC 6750 §3.1).
    Forbidden(Option<HeaderValue>),
    /// A limit says that it is too much.
    Limited(Limited),
    /// There is more to carry than can be; when it may be tried again.
    Overloaded(Duration),
    /// Who counts does not answer, and nobody is to pass uncounted.
    Uncounted,
    /// The service could not be used.
    Upstream(UpstreamFault),
    /// A failure made on purpose, with this status.
    Mishap(StatusCode),
    /// `timeouts.request` ran out.
    RequestTimeout,
    /// The request body did not move on in time.
    ClientTimeout,
    /// Our own fault: logged once, told to no one.
    Fault(anyhow::Error),
}

/// What somebody else says that a client is told: a redirect, or a 401 or 403 with cookies.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Relayed {
    pub status: StatusCode,
    pub fields: Vec<(HeaderName, HeaderValue)>,
}

/// A limit that is used up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limited {
    /// The policy that limits, as the file calls it.
    pub by: &'static str,
    /// When the same may be asked again.
    pub retry_after: Duration,
}

/// The limit that refused a request, for the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ByLimit<'a> {
    pub policy: &'static str,
    /// Its name, where the policy has several.
    pub limit: Option<&'a str>,
    /// Only noted: the limit is in its trial.
    pub shadow: bool,
}

/// Where a browser is sent, and what it keeps.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Elsewhere {
    pub to: HeaderValue,
    pub cookies: Vec<HeaderValue>,
}

/// Why a login came to nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LoginFault {
    /// What came belongs to no login of this browser, or does not hold.
    Invalid,
    /// The provider, or the person there, said no.
    Denied,
    /// The provider cannot be asked.
    Unavailable,
}

/// How a service failed us.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UpstreamFault {
    /// No endpoint is healthy, or has weight.
    NoEndpoint,
    /// No connection: refused, unreachable.
    Connect,
    /// No connection in time.
    ConnectTimeout,
    /// TLS handshake or certificate.
    Tls,
    /// No response head within `timeouts.response`.
    ResponseTimeout,
    /// Silence for longer than `timeouts.idle`.
    IdleTimeout,
    /// Closed or reset before the response was whole.
    Reset,
    /// What came was not HTTP.
    Protocol,
    /// It fails too much, so it is left alone for this long.
    Broken(Duration),
    /// It has as much to do as it may, and as many wait as may.
    Full,
}

/// How a request ended, in one short code: the access log's `flag`. Named as Envoy's response flags are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Flag {
    /// `-`: as it should.
    #[default]
    None,
    /// `NR`: no route.
    NoRoute,
    /// `UH`: no healthy endpoint.
    NoEndpoint,
    /// `UF`: no connection to the upstream.
    ConnectFailed,
    /// `UT`: the upstream did not answer in time.
    UpstreamTimeout,
    /// `UC`: the upstream closed or reset the connection.
    UpstreamClosed,
    /// `UPE`: the upstream broke the protocol.
    UpstreamProtocol,
    /// `UO`: the upstream is asked no more for now: its breaker is open, or its limits are reached.
    UpstreamOverflow,
    /// `FI`: a failure was made on purpose.
    FaultInjected,
    /// `SI`: a stream was idle for too long.
    StreamIdle,
    /// `DT`: `timeouts.request` ran out.
    RequestTimeout,
    /// `DC`: the client went away.
    ClientGone,
    /// `DPE`: the client broke the protocol, or sent what we refuse as ambiguous.
    ClientProtocol,
    /// `PR`: a policy refused it.
    PolicyRefused,
    /// `RL`: a limit refused it.
    Limited,
    /// `OM`: shed by the guard against overload.
    Overloaded,
    /// `LF`: a fault of the gateway.
    LocalFault,
}

impl Flag {
    /// Every flag, in the order of declaration.
    pub const ALL: [Self; 17] = [
        Self::None,
        Self::NoRoute,
        Self::NoEndpoint,
        Self::ConnectFailed,
        Self::UpstreamTimeout,
        Self::UpstreamClosed,
        Self::UpstreamProtocol,
        Self::UpstreamOverflow,
        Self::FaultInjected,
        Self::StreamIdle,
        Self::RequestTimeout,
        Self::ClientGone,
        Self::ClientProtocol,
        Self::PolicyRefused,
        Self::Limited,
        Self::Overloaded,
        Self::LocalFault,
    ];

    pub const fn code(self) -> &'static str {
        match self {
            Self::None => "-",
            Self::NoRoute => "NR",
            Self::NoEndpoint => "UH",
            Self::ConnectFailed => "UF",
            Self::UpstreamTimeout => "UT",
            Self::UpstreamClosed => "UC",
            Self::UpstreamProtocol => "UPE",
            Self::UpstreamOverflow => "UO",
            Self::FaultInjected => "FI",
            Self::StreamIdle => "SI",
            Self::RequestTimeout => "DT",
            Self::ClientGone => "DC",
            Self::ClientProtocol => "DPE",
            Self::PolicyRefused => "PR",
            Self::Limited => "RL",
            Self::Overloaded => "OM",
            Self::LocalFault => "LF",
        }
    }
}

impl From<UpstreamFault> for Stop {
    fn from(fault: UpstreamFault) -> Self {
        Self::Upstream(fault)
    }
}

/// Requests made up for unit tests.
#[cfg(test)]
pub mod testing {
    use std::{
        net::Ipv4Addr,
        task::{Context, Poll, Waker},
    };

    use super::*;

    pub fn head(method: &str, path: &str, headers: &[(&'static str, &str)]) -> RequestHeader {
        let mut head = RequestHeader::build(method, path.as_bytes(), Some(headers.len())).unwrap();
        for (name, value) in headers {
            head.append_header(*name, *value).unwrap();
        }
        head
    }

    pub fn facts(method: &str, path: &str) -> Facts {
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query.to_owned())));
        Facts {
            method: Method::from_bytes(method.as_bytes()).unwrap(),
            scheme: Scheme::Http,
            host: "shop.example".to_owned(),
            port: None,
            path: path.to_owned(),
            query,
            version: Version::HTTP_11,
            client: IpAddr::from(Ipv4Addr::LOCALHOST),
            peer: SocketAddr::from((Ipv4Addr::LOCALHOST, 40_000)),
            request_id: HeaderValue::from_static("id"),
            started: Instant::now(),
        }
    }

    /// The result of a future that never waits.
    pub fn now<T>(future: impl Future<Output = T>) -> T {
        match Box::pin(future).as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => value,
            Poll::Pending => panic!("the future waits"),
        }
    }
}
