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
const FIELDS_MAX: usize = 256;

/// Most streams that a client opened and cancelled before they were looked at. More than [`super::http2`] lets pass at once, so
/// that it is the one to end a flood of them, and to count it: `h2` takes in all that has come before any is looked at.
const RESETS_PENDING_MAX: usize = 512;

/// Most bytes of small DATA frames that wait to be read, each counted with what it costs to keep. h2's own bound would end a gRPC
/// stream of small messages before a slow service.
const SMALL_DATA_MAX: usize = 1 << 20;

/// One listener, ready to take connections.
pub struct Door {
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
    pub requests_per_connection: Option<u32>,
    connection_age: Duration,
    pub live: Arc<Live>,
}

impl Door {
    pub fn new(name: &ListenerName, listener: &config::Listener, live: &Arc<Live>) -> Self {
        let limits = &listener.limits;
        let stores: &Stores = live.stores();
        Self {
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

/// What HTTP/2 is bound by, beside what [`super::http2`] watches.
fn h2(listener: &config::Listener) -> H2Options {
    let mut h2 = default_h2_options();
    h2.max_concurrent_streams(listener.http2.streams);
    h2.max_header_list_size(header_list(listener));
    h2.max_pending_accept_reset_streams(RESETS_PENDING_MAX);
    h2.data_frame_budget(SMALL_DATA_MAX);
    h2
}
