//! Messages whose end could be seen in two ways are refused, so that nothing can be smuggled behind them.
//!
//! Pingora refuses the worst of them before any hook. It accepts Transfer-Encoding beside Content-Length, which RFC 9112 §6.1 allows
//! a server to refuse, and lists of equal lengths, which it would pass on as they came.

use http::{HeaderMap, StatusCode, Version, header};
use pingora_core::protocols::http::ServerSession;
use pingora_http::ResponseHeader;

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

/// Whether a service's answer is not HTTP as we know it: a status of no class, more than one length, a transfer coding that nobody
/// asked for, one that is named twice, or one in HTTP/1.0, which has none (RFC 9112 §6.1). We read `chunked` alone, and offer no other (TE goes no further than us).
pub fn is_strange(response: &ResponseHeader) -> bool {
    let mut codings = response.headers.get_all(header::TRANSFER_ENCODING).iter();
    let strangely_coded = match (codings.next(), codings.next()) {
        (None, _) => false,
        (Some(only), None) => response.version < Version::HTTP_11 || !only.as_bytes().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => true,
    };
    strangely_coded || response.status.as_u16() >= 600 || one_length(&response.headers).is_err()
}

/// Takes out what a response that never has a body says of one (RFC 9112 §6.1, RFC 9110 §8.6): another reader might wait for it, or take the
/// next response for it. A 304 may say how long the body would be.
pub fn settle_bodiless(response: &mut ResponseHeader) {
    let none = response.status.is_informational() || response.status == StatusCode::NO_CONTENT;
    if none {
        response.remove_header(&header::CONTENT_LENGTH);
    }
    if none || response.status == StatusCode::NOT_MODIFIED {
        response.remove_header(&header::TRANSFER_ENCODING);
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

    fn response(status: u16, version: Version, fields: &[(&'static str, &'static str)]) -> ResponseHeader {
        let mut head = ResponseHeader::build(status, None).unwrap();
        head.set_version(version);
        for (name, value) in fields {
            head.append_header(*name, *value).unwrap();
        }
        head
    }

    #[test]
    fn a_response_that_is_no_http_is_strange() {
        let chunked = ("transfer-encoding", "chunked");
        assert!(!is_strange(&response(200, Version::HTTP_11, &[])));
        assert!(!is_strange(&response(599, Version::HTTP_11, &[chunked])));
        assert!(!is_strange(&response(200, Version::HTTP_10, &[("content-length", "1")])));
        assert!(is_strange(&response(200, Version::HTTP_11, &[("content-length", "1, 1")])));
        assert!(is_strange(&response(200, Version::HTTP_11, &[("content-length", "1"), ("content-length", "1")])));
        assert!(is_strange(&response(600, Version::HTTP_11, &[])));
        assert!(is_strange(&response(999, Version::HTTP_2, &[])));
        assert!(is_strange(&response(200, Version::HTTP_10, &[chunked])));
        assert!(is_strange(&response(200, Version::HTTP_11, &[chunked, chunked])));
        assert!(is_strange(&response(200, Version::HTTP_11, &[("transfer-encoding", "gzip, chunked")])));
    }

    #[test]
    fn a_response_that_has_no_body_says_nothing_of_one() {
        let settled = |status| {
            let mut head = response(status, Version::HTTP_11, &[("content-length", "5"), ("transfer-encoding", "chunked")]);
            settle_bodiless(&mut head);
            (head.headers.contains_key("content-length"), head.headers.contains_key("transfer-encoding"))
        };
        assert_eq!([103, 101, 204].map(settled), [(false, false); 3]);
        assert_eq!(settled(304), (true, false));
        assert_eq!(settled(200), (true, true));
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
