//! `request_limits`: the largest header section and body that are carried.
//!
//! Edge ring, inward: the head is measured at once, and a declared Content-Length (RFC 9110 §8.6) is believed when it is
//! too large. A body of unknown length is counted as it streams.

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use pingora_http::RequestHeader;

use super::{BodyNeed, Policy};
use crate::{
    config::policy::RequestLimits as Config,
    exchange::{Facts, Inbound, Stop},
};

/// Bytes that a header field costs beside its name and value: `: ` and the line's end (RFC 9112 §5).
const FIELD_OVERHEAD: u64 = 4;

/// The limits of a route, in bytes.
pub struct RequestLimits {
    body: u64,
    headers: u64,
}

/// How much of the body has passed.
#[derive(Default)]
pub struct Memo {
    body: u64,
}

impl RequestLimits {
    pub fn compile(config: &Config) -> Self {
        let limit = |bytes: Option<crate::units::Bytes>| bytes.map_or(u64::MAX, crate::units::Bytes::get);
        Self { body: limit(config.body), headers: limit(config.headers) }
    }
}

impl Policy for RequestLimits {
    type Memo = Memo;

    async fn request(&self, inbound: &mut Inbound<'_>, _: &mut Memo) -> Result<(), Stop> {
        if self.headers != u64::MAX && header_section(inbound.head) > self.headers {
            return Err(Stop::HeadersTooLarge);
        }
        match declared_length(inbound.head) {
            Some(length) if length > self.body => Err(Stop::BodyTooLarge),
            _ => Ok(()),
        }
    }

    /// Another try sends the body from its beginning.
    fn upstream_request(&self, _: &mut RequestHeader, _: &Facts, memo: &mut Memo) -> Result<(), Stop> {
        memo.body = 0;
        Ok(())
    }

    fn body(&self) -> BodyNeed {
        if self.body == u64::MAX { BodyNeed::None } else { BodyNeed::Watch }
    }

    fn request_chunk(&self, chunk: &mut Option<Bytes>, _end: bool, memo: &mut Memo) -> Result<(), Stop> {
        memo.body += chunk.as_ref().map_or(0, |bytes| bytes.len() as u64);
        if memo.body > self.body { Err(Stop::BodyTooLarge) } else { Ok(()) }
    }
}

/// Size of the header section on the wire of HTTP/1.1.
fn header_section(head: &RequestHeader) -> u64 {
    head.headers.iter().map(|(name, value)| (name.as_str().len() + value.len()) as u64 + FIELD_OVERHEAD).sum()
}

fn declared_length(head: &RequestHeader) -> Option<u64> {
    head.headers.get(CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{caller::Caller, exchange::testing, units::Bytes as Size};

    fn limits(body: u64, headers: u64) -> RequestLimits {
        RequestLimits::compile(&Config { body: Some(Size::new(body)), headers: Some(Size::new(headers)) })
    }

    fn check(limits: &RequestLimits, headers: &[(&'static str, &str)], expected: &str) {
        let mut head = testing::head("POST", "/", headers);
        let facts = testing::facts("POST", "/");
        let passed = testing::now(limits.request(
            &mut Inbound { head: &mut head, facts: &facts, tls: None, caller: &mut Caller::default() },
            &mut Memo::default(),
        ));
        assert_eq!(passed.map_or_else(|stop| format!("{stop:?}"), |()| "passes".to_owned()), expected);
    }

    #[test]
    fn a_declared_body_over_the_limit_is_refused_at_once() {
        check(&limits(10, 1000), &[("content-length", "10")], "passes");
        check(&limits(10, 1000), &[("content-length", "11")], "BodyTooLarge");
    }

    #[test]
    fn the_header_section_counts_names_values_and_line_ends() {
        check(&limits(10, 10), &[("x-ab", "cd")], "passes");
        check(&limits(10, 9), &[("x-ab", "cd")], "HeadersTooLarge");
        check(&limits(10, 19), &[("x-ab", "cd"), ("x-ab", "cd")], "HeadersTooLarge");
    }

    #[test]
    fn a_streamed_body_is_counted() {
        let limits = limits(10, 1000);
        let mut memo = Memo::default();
        let mut chunk = |n: usize| limits.request_chunk(&mut Some(Bytes::from(vec![0; n])), false, &mut memo).is_ok();
        assert!(chunk(6));
        assert!(chunk(4));
        assert!(!chunk(1));
    }

    #[test]
    fn a_body_that_is_sent_again_is_counted_once() {
        let limits = limits(10, 1000);
        let mut memo = Memo::default();
        for _try in 0..3 {
            limits.upstream_request(&mut testing::head("PUT", "/", &[]), &testing::facts("PUT", "/"), &mut memo).unwrap();
            assert!(limits.request_chunk(&mut Some(Bytes::from(vec![0; 10])), true, &mut memo).is_ok());
        }
    }

    #[test]
    fn no_limit_watches_no_body() {
        let none = RequestLimits::compile(&Config { body: None, headers: None });
        assert_eq!(none.body(), BodyNeed::None);
    }
}
