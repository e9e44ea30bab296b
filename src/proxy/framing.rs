//! Messages whose end could be seen in two ways are refused, so that nothing can be smuggled behind them.
//!
//! Pingora refuses the worst of them before any hook. It accepts Transfer-Encoding beside Content-Length, which RFC 9112 §6.1 allows
//! a server to refuse, and lists of equal lengths, which it would pass on as they came.

use http::{HeaderMap, header};
use pingora_core::protocols::http::ServerSession;

use crate::exchange::Stop;

const BOTH: Stop = Stop::Framing("The request has both Transfer-Encoding and Content-Length.");
const LENGTHS: Stop = Stop::Framing("The request has more than one Content-Length.");

/// Looks at how a request says where it ends. The frames of HTTP/2 cannot be doubted, but its fields go on to HTTP/1 services.
///
/// # Errors
/// It says it twice.
pub fn check(session: &ServerSession) -> Result<(), Stop> {
    let headers = &session.req_header().headers;
    // Pingora has dropped Content-Length from the parsed head by now: only the head as it came still has it.
    if !session.is_http2() && headers.contains_key(header::TRANSFER_ENCODING) && has_length(&session.to_h1_raw()) {
        return Err(BOTH);
    }
    one_length(headers)
}

/// Whether a service's answer names a transfer coding that nobody asked for, or names one twice. We read `chunked` alone, and offer
/// no other (TE goes no further than us).
pub fn is_strangely_coded(response: &HeaderMap) -> bool {
    let mut codings = response.get_all(header::TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => false,
        (Some(only), None) => !only.as_bytes().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => true,
    }
}

fn one_length(headers: &HeaderMap) -> Result<(), Stop> {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    match (lengths.next(), lengths.next()) {
        (Some(one), None) if one.as_bytes().iter().all(u8::is_ascii_digit) => Ok(()),
        (None, _) => Ok(()),
        _ => Err(LENGTHS),
    }
}

fn has_length(head: &[u8]) -> bool {
    const NAME: &[u8] = b"content-length:";
    head.split(|b| *b == b'\n').any(|line| line.get(..NAME.len()).is_some_and(|start| start.eq_ignore_ascii_case(NAME)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::testing;

    #[test]
    fn a_length_in_the_head_as_it_came_is_seen() {
        assert!(has_length(b"GET / HTTP/1.1\r\nContent-LENGTH: 3\r\nTransfer-Encoding: chunked\r\n\r\n"));
        assert!(!has_length(b"GET /content-length: HTTP/1.1\r\nX-Content-Length: 3\r\n\r\n"));
    }

    #[test]
    fn only_one_plain_length_passes() {
        let check = |lengths: &[(&'static str, &str)]| one_length(&testing::head("POST", "/", lengths).headers).is_ok();
        assert!(check(&[]));
        assert!(check(&[("content-length", "3")]));
        for odd in ["3, 3", "+3", "-1", "3 ", "0x3"] {
            assert!(!check(&[("content-length", odd)]), "{odd}");
        }
        assert!(!check(&[("content-length", "3"), ("content-length", "3")]));
    }
}
