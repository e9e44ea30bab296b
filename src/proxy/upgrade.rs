//! Requests that ask for another protocol on their connection (RFC 9110 §7.8): WebSocket (RFC 6455), and no other.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, Method, Version, header};
use pingora_core::{ErrorType::SocketError, OrErr, upstreams::peer::HttpPeer};
use pingora_http::RequestHeader;

use crate::deadline::Clock;

/// How long a connection stays in the pool where nobody can find it.
const UNUSED: Duration = Duration::from_millis(1);

/// Takes out an Upgrade that cannot be followed, so that all that comes after sees a plain request: a server may pass an Upgrade
/// over (§7.8). Pingora itself would tunnel for the field alone.
pub fn settle(head: &mut RequestHeader) {
    if head.headers.contains_key(header::UPGRADE) && !is_websocket(head) {
        head.remove_header(&header::UPGRADE);
    }
}

/// Makes a connection of its own for a request that asks for an upgrade, on which the request can be held back.
pub fn prepare(peer: &mut HttpPeer, clock: &Arc<Clock>) {
    // A pooled connection cannot be held back: this one is taken from no pool, and found in none. A service that refuses the upgrade and keeps the
    // connection open has it closed.
    peer.group_key ^= fastrand::u64(..);
    peer.options.idle_timeout = Some(UNUSED);
    clock.holds_back();
    let clock = clock.clone();
    // Connections that begin with a PROXY header are not opened by Pingora: `upstream` does the same on them.
    peer.options.upstream_tcp_sock_tweak_hook =
        Some(Arc::new(move |socket| clock.hold_back(socket).or_err(SocketError, "while taking a handle on it")));
}

/// GET over HTTP/1.1, without a body, `Upgrade: websocket` alone, which `Connection` names (RFC 6455 §4.2.1).
fn is_websocket(head: &RequestHeader) -> bool {
    let mut protocols = head.headers.get_all(header::UPGRADE).iter();
    let only =
        matches!((protocols.next(), protocols.next()), (Some(one), None) if one.as_bytes().eq_ignore_ascii_case(b"websocket"));
    only && head.method == Method::GET
        && head.version == Version::HTTP_11
        && is_connected(&head.headers)
        && is_bodiless(&head.headers)
}

fn is_connected(headers: &HeaderMap) -> bool {
    let options = headers.get_all(header::CONNECTION).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    options.into_iter().any(|option| option.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
}

/// A body would end somewhere in the bytes of the other protocol.
fn is_bodiless(headers: &HeaderMap) -> bool {
    !headers.contains_key(header::TRANSFER_ENCODING) && headers.get(header::CONTENT_LENGTH).is_none_or(|length| length == "0")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::testing;

    fn check(method: &str, headers: &[(&'static str, &str)], passes: bool) {
        let mut head = testing::head(method, "/", headers);
        settle(&mut head);
        assert_eq!(head.headers.contains_key("upgrade"), passes, "{method} {headers:?}");
    }

    #[test]
    fn only_a_websocket_upgrade_that_connection_names_is_one() {
        let (upgrade, connection) = (("upgrade", "websocket"), ("connection", "Upgrade"));
        check("GET", &[upgrade, connection], true);
        check("GET", &[("upgrade", "WebSocket"), ("connection", "keep-alive, upgrade")], true);
        check("GET", &[upgrade, ("connection", "keep-alive"), connection], true);
        check("GET", &[upgrade, connection, ("content-length", "0")], true);
        check("GET", &[upgrade], false);
        check("GET", &[upgrade, ("connection", "keep-alive")], false);
        check("POST", &[upgrade, connection], false);
        check("GET", &[upgrade, connection, ("content-length", "5")], false);
        check("GET", &[upgrade, connection, ("transfer-encoding", "chunked")], false);
        check("GET", &[("upgrade", "h2c"), connection], false);
        check("GET", &[("upgrade", "websocket, h2c"), connection], false);
        check("GET", &[upgrade, ("upgrade", "h2c"), connection], false);
    }
}
