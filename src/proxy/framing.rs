//! Messages whose end could be seen in two ways are refused, so that nothing can be smuggled behind them.
//!
//! What a client says over HTTP/1 was held to this at the edge (`edge::http1`). The frames of HTTP/2 cannot be doubted, but its fields
//! go on to HTTP/1 services, and services are not believed more than clients.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version, header};
use pingora_http::{RequestHeader, ResponseHeader};

use crate::exchange::Stop;

const LENGTHS: Stop = Stop::Framing("The request has more than one Content-Length.");

/// Looks at how a request says where it ends, and at the fields of HTTP/2, which are as strict as the edge has those of HTTP/1.
///
/// # Errors
/// It says it twice, or has a field that HTTP/1 could not carry.
pub fn check(request: &RequestHeader) -> Result<(), Stop> {
    if request.version == Version::HTTP_2 && request.headers.iter().any(|(name, value)| !is_carriable(name, value)) {
        return Err(Stop::Malformed("A field has a name that is no token, or a value with space around it."));
    }
    one_length(&request.headers)
}

/// RFC 9113 §8.2.1; `http` itself takes a quotation mark in a name.
fn is_carriable(name: &HeaderName, value: &HeaderValue) -> bool {
    let is_space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let value = value.as_bytes();
    !name.as_str().contains('"') && !is_space(value.first()) && !is_space(value.last())
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
    let old_switch = response.status == StatusCode::SWITCHING_PROTOCOLS && response.version < Version::HTTP_11;
    strangely_coded || old_switch || response.status.as_u16() >= 600 || one_length(&response.headers).is_err()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::testing;

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
