//! What the gateway tells of its traffic: trace context on the way in, access log and metrics on the way out.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, SystemTime},
};

use http::{Method, Version};

use crate::{
    caller::Refusal,
    config::route::Scheme,
    exchange::{ByLimit, Flag},
};

pub mod access_log;
pub mod digits;
pub mod line;
pub mod metrics;
pub mod process;
pub mod time;
pub mod trace;

/// One finished request, as the access log and the metrics need it.
#[derive(Clone, Debug)]
pub struct Record<'a> {
    /// When the request's head was read.
    pub time: SystemTime,
    pub request_id: &'a [u8],
    pub trace: Option<trace::TraceId>,
    /// The route that took the request, if one did.
    pub route: Option<&'a str>,
    pub upstream: Option<&'a str>,
    /// The endpoint of the last try.
    pub endpoint: Option<SocketAddr>,
    /// How often an endpoint was picked: 0 for answers of our own.
    pub tries: u8,
    pub method: &'a Method,
    pub scheme: Scheme,
    pub host: &'a str,
    /// The normalised path.
    pub path: &'a str,
    pub query: Option<&'a str>,
    pub version: Version,
    /// 0: no response head was sent.
    pub status: u16,
    /// Bytes of the request's body that were received.
    pub received: u64,
    /// Bytes of the response's body that were sent.
    pub sent: u64,
    pub duration: Duration,
    /// From the pick of the endpoint to its connection; absent for a pooled connection or when none came about.
    pub upstream_connect: Option<Duration>,
    /// From the request's head sent to the response's head received.
    pub upstream_first_byte: Option<Duration>,
    pub tls: Option<Tls<'a>>,
    pub client: IpAddr,
    pub peer: SocketAddr,
    /// The consumer that called, if one proved it.
    pub consumer: Option<&'a str>,
    /// The scheme that vouched for the caller.
    pub auth: Option<&'static str>,
    /// What was, or in a trial would have been, refused to the caller.
    pub refusal: Option<Refusal>,
    /// The limit that refused the request, or in a trial would have.
    pub limit: Option<ByLimit<'a>>,
    /// As it came: any bytes.
    pub user_agent: Option<&'a [u8]>,
    /// As it came: any bytes.
    pub referer: Option<&'a [u8]>,
    pub flag: Flag,
    /// Of the snapshot that served the request.
    pub generation: u64,
}

/// The TLS session of a client's connection.
#[derive(Clone, Copy, Debug)]
pub struct Tls<'a> {
    pub version: &'a str,
    pub cipher: &'a str,
}
