//! What a client is told, and the access log, of a head that goes no further than the edge.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Method, StatusCode, Version};
use pingora_core::protocols::Stream;

use super::{door::Door, http1::Refused, peer};
use crate::{
    config::route::Scheme,
    exchange::Stop,
    observe::{Record, line},
    reply,
};

/// Answers a refused head, counts it and writes its line.
pub fn answer(refused: Refused, head: &[u8], stream: &Stream, door: &Door) -> Bytes {
    let stop = Stop::from(refused);
    let request_id = new_request_id();
    let told = reply::told(&stop);
    door.metrics.refused_head(refused.reason(), told.status.as_u16());
    log(&told, head, &request_id, stream, door);
    reply::unread(&stop, &request_id)
}

/// What Pingora refuses of itself: heads that only it cannot read, and tunnels.
pub fn of_pingora(status: StatusCode) -> Stop {
    match status {
        StatusCode::METHOD_NOT_ALLOWED => Stop::Tunnel,
        _ => Stop::Framing("The request could not be understood."),
    }
}

pub fn new_request_id() -> String {
    format!("{:032x}", fastrand::u128(..))
}

/// The line tells what can be said of the head without believing it.
fn log(told: &reply::Told, head: &[u8], request_id: &str, stream: &Stream, door: &Door) {
    let Some(sink) = &door.live.stores().access_log else { return };
    let snapshot = door.live.snapshot();
    let peer = peer(stream);
    let (method, target) = request_line(head);
    let target = String::from_utf8_lossy(target);
    let record = Record {
        time: SystemTime::now(),
        request_id: request_id.as_bytes(),
        trace: None,
        route: None,
        upstream: None,
        endpoint: None,
        tries: 0,
        method: &method,
        scheme: if stream.get_ssl_digest().is_some() { Scheme::Https } else { Scheme::Http },
        host: "",
        path: &snapshot.guarded.shown(&target),
        query: None,
        version: Version::HTTP_11,
        status: told.status.as_u16(),
        received: 0,
        sent: 0,
        duration: Duration::ZERO,
        upstream_connect: None,
        upstream_first_byte: None,
        tls: None,
        client: peer.ip(),
        peer,
        consumer: None,
        auth: None,
        refusal: None,
        limit: None,
        user_agent: None,
        referer: None,
        flag: told.flag,
        generation: snapshot.generation,
    };
    sink.submit(line::line(&record, snapshot.log_format));
}

/// Method and target, as far as the first line has them: of what is no request line nothing is said.
fn request_line(head: &[u8]) -> (Method, &[u8]) {
    let line = head.split(|b| matches!(b, b'\r' | b'\n')).next().unwrap_or_default();
    let mut words = line.split(|b| *b == b' ');
    let method = words.next().and_then(|word| Method::from_bytes(word).ok());
    let none = || (Method::from_bytes(b"-").unwrap_or_default(), &b""[..]);
    method.map_or_else(none, |method| (method, words.next().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_looks_like_a_request_line_is_told() {
        let check = |head: &[u8], method: &str, target: &str| {
            let (found, rest) = request_line(head);
            assert_eq!((found.as_str(), rest), (method, target.as_bytes()), "{}", head.escape_ascii());
        };
        check(b"GET /a?b HTTP/1.1\r\nHost", "GET", "/a?b");
        check(b"GET", "GET", "");
        check(b"\x16\x03\x01 /a", "-", "");
        check(b"", "-", "");
    }
}
