//! Requests that ask for another protocol on their connection (RFC 9110 §7.8): WebSocket (RFC 6455), and no other.

use std::sync::Arc;

use pingora_core::{Error, ErrorType::SocketError, OrErr, upstreams::peer::HttpPeer};

use crate::deadline::{Clock, Cork};

/// Makes a connection of its own for a request that asks for an upgrade, on which the request can be held back.
pub fn prepare(peer: &mut HttpPeer, clock: &Arc<Clock>) {
    /// Keeps pooled connections, which cannot be held back, from such requests.
    const OF_UPGRADES: u64 = 0x5550_4752_4144_4500;
    let clock = clock.clone();
    peer.group_key ^= OF_UPGRADES;
    peer.options.upstream_tcp_sock_tweak_hook = Some(Arc::new(move |socket| {
        let cork = Cork::on(socket).or_err(SocketError, "while taking a handle on it")?;
        clock.hold_back(cork);
        Ok::<(), Box<Error>>(())
    }));
}
