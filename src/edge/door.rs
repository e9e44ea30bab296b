//! One listener, ready to take connections.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use pingora_core::{
    apps::HttpServerOptions,
    protocols::http::v2::server::{H2Options, default_h2_options},
};

use super::{caps::Caps, http1};
use crate::{
    certs::Showcase,
    config::{self, address::ListenAddress, listener::ProxyProtocol},
    deadline::Terms,
    live::Live,
    name::ListenerName,
    observe::metrics::ListenerMetrics,
    stores::Stores,
};

/// Most header fields of a request. Pingora reads 256 at most.
pub const FIELDS_MAX: usize = 256;

/// Most streams that a client opened and cancelled before they were looked at. More than [`super::http2`] lets pass at once, so
/// that it is the one to end a flood of them, and to count it: `h2` takes in all that has come before any is looked at.
const RESETS_PENDING_MAX: usize = 512;

/// Most bytes of small DATA frames that wait to be read, each counted with what it costs to keep. h2's own bound would end a gRPC
/// stream of small messages before a slow service.
const SMALL_DATA_MAX: usize = 1 << 20;

/// Header lists of the longest length that a connection may hold at once.
const HEADS_MAX: usize = 16;

/// What every stream's header list may have, in bytes: twice what browsers send with a cookie, each field counted with 32 bytes more.
const HEAD_USUAL: usize = 4 << 10;

/// One listener, ready to take connections.
pub struct Door {
    pub name: ListenerName,
    pub address: ListenAddress,
    pub metrics: ListenerMetrics,
    pub caps: Arc<Caps>,
    pub proxy_protocol: ProxyProtocol,
    /// Absent: plain text.
    pub showcase: Option<Arc<Showcase>>,
    pub terms: Terms,
    pub http1: http1::Terms,
    pub options: HttpServerOptions,
    pub h2: H2Options,
    /// Longest header list of HTTP/2, in bytes.
    pub header_list: u32,
    /// Most bytes of header lists that the requests of one HTTP/2 connection hold at once.
    pub heads_max: usize,
    pub requests_per_connection: Option<u32>,
    connection_age: Duration,
    pub live: Arc<Live>,
}

impl Door {
    pub fn new(name: &ListenerName, listener: &config::Listener, live: &Arc<Live>) -> Self {
        let limits = &listener.limits;
        let stores: &Stores = live.stores();
        Self {
            name: name.clone(),
            address: listener.address.clone(),
            metrics: stores.metrics.listener(name),
            caps: Caps::new(limits.connections, limits.connections_per_ip),
            proxy_protocol: listener.proxy_protocol,
            showcase: stores.showcases.get(name).cloned(),
            terms: Terms::from(limits),
            http1: http1::Terms {
                head: http1::Limits {
                    request_line: limits.request_line.get() as usize,
                    fields: limits.headers.get() as usize,
                    count: FIELDS_MAX,
                },
                header_timeout: limits.header_timeout.as_std(),
                keepalive: limits.keepalive.as_std(),
            },
            options: options(limits.keepalive.as_std()),
            h2: h2(listener),
            header_list: header_list(listener),
            heads_max: heads_max(listener),
            requests_per_connection: limits.requests_per_connection,
            connection_age: limits.connection_age.as_std(),
            live: live.clone(),
        }
    }

    /// When a connection that begins now has grown old: a tenth of its time is left to chance.
    pub fn old_at(&self, now: Instant) -> Instant {
        now + self.connection_age.mul_f64(1.0 - 0.1 * fastrand::f64())
    }
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the listener at {}", self.address)
    }
}

fn options(keepalive: Duration) -> HttpServerOptions {
    let mut options = HttpServerOptions::default();
    options.h2_idle_timeout = Some(keepalive);
    options
}

fn header_list(listener: &config::Listener) -> u32 {
    u32::try_from(listener.limits.headers.get()).unwrap_or(u32::MAX)
}

/// HPACK makes a list of the longest length of a hundred bytes, and a client could have one on each stream. Sixteen of them, or what so many
/// requests of a browser need.
fn heads_max(listener: &config::Listener) -> usize {
    let (longest, streams) = (header_list(listener) as usize, listener.http2.streams as usize);
    longest.saturating_mul(HEADS_MAX).max(streams.saturating_mul(HEAD_USUAL))
}

/// What HTTP/2 is bound by, beside what [`super::http2`] watches.
fn h2(listener: &config::Listener) -> H2Options {
    let mut h2 = default_h2_options();
    h2.max_concurrent_streams(listener.http2.streams);
    h2.max_header_list_size(header_list(listener));
    h2.max_pending_accept_reset_streams(RESETS_PENDING_MAX);
    h2.data_frame_budget(SMALL_DATA_MAX);
    h2
}
