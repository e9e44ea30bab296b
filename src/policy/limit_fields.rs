//! What a client is told of its limits, on every answer: `RateLimit-Policy` and `RateLimit` as of draft-ietf-httpapi-ratelimit-headers-10, which are
//! structured fields (RFC 9651), and the older `X-RateLimit-*` for those who know no other.
//!
//! Written digit by digit: what `fmt` does with these would cost more than the decision.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use pingora_http::ResponseHeader;

use crate::{
    config::policy::limit::Told,
    limit::{Algorithm, Terms, Verdict},
    observe::digits,
    units,
};

/// What never changes of what is told of a limit.
#[derive(Debug)]
pub struct Item {
    told: Told,
    /// `"per-plan"`: names need no escape.
    name: Box<[u8]>,
    /// `"per-plan";q=10;w=1`.
    policy: HeaderValue,
}

impl Item {
    /// A window that is no whole number of seconds cannot be told (§2.2.3 of the draft).
    pub fn new(name: &str, told: Told, terms: &Terms) -> Self {
        let rate = terms.rate;
        let mut policy = format!("\"{name}\";q={}", rate.count());
        if let Some(window) = whole_seconds(rate.per()) {
            policy.push_str(&format!(";w={window}"));
        }
        if terms.algorithm == Algorithm::TokenBucket && terms.burst != rate.count() {
            policy.push_str(&format!(";banyan-burst={}", terms.burst));
        }
        let policy = HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static(""));
        Self { told, name: format!("\"{name}\"").into_bytes().into(), policy }
    }

    pub const fn is_told(&self) -> bool {
        !matches!(self.told, Told::Off)
    }

    const fn is_standard(&self) -> bool {
        matches!(self.told, Told::Standard | Told::Both)
    }

    const fn is_legacy(&self) -> bool {
        matches!(self.told, Told::Legacy | Told::Both)
    }

    /// `"per-plan";r=9;t=1`.
    fn write(&self, verdict: &Verdict, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.name);
        out.extend_from_slice(b";r=");
        digits::number(verdict.remaining, out);
        out.extend_from_slice(b";t=");
        digits::number(seconds_up(if verdict.admitted { verdict.reset } else { verdict.retry_after }), out);
    }
}

/// Room for what is told of a usual number of limits.
const USUAL: usize = 64;

/// Writes what is told of these limits. Of the older fields there is one each: they tell of the limit that has least left.
///
/// # Errors
/// A value that cannot be sent; none of ours is such.
pub fn write<'a>(
    head: &mut ResponseHeader,
    told: impl Iterator<Item = (&'a Item, &'a Verdict)> + Clone,
) -> pingora_core::Result<()> {
    let standard = told.clone().filter(|(item, _)| item.is_standard());
    write_standard(head, standard)?;
    let tightest = told.filter(|(item, _)| item.is_legacy()).min_by_key(|(_, verdict)| (verdict.admitted, verdict.remaining));
    tightest.map_or(Ok(()), |(_, verdict)| write_legacy(head, verdict))
}

fn write_standard<'a>(
    head: &mut ResponseHeader,
    mut told: impl Iterator<Item = (&'a Item, &'a Verdict)>,
) -> pingora_core::Result<()> {
    let Some((first, verdict)) = told.next() else { return Ok(()) };
    let mut limits = Vec::with_capacity(USUAL);
    first.write(verdict, &mut limits);
    let mut policies: Option<Vec<u8>> = None;
    for (item, verdict) in told {
        let policies = policies.get_or_insert_with(|| first.policy.as_bytes().to_vec());
        for (out, more) in [(&mut *policies, Some(item.policy.as_bytes())), (&mut limits, None)] {
            out.extend_from_slice(b", ");
            match more {
                Some(policy) => out.extend_from_slice(policy),
                None => item.write(verdict, out),
            }
        }
    }
    match policies {
        Some(policies) => head.append_header("RateLimit-Policy", value(policies)?)?,
        None => head.append_header("RateLimit-Policy", first.policy.clone())?,
    };
    head.append_header("RateLimit", value(limits)?).map(drop)
}

fn write_legacy(head: &mut ResponseHeader, verdict: &Verdict) -> pingora_core::Result<()> {
    let number = |number: u64| {
        let mut text = Vec::with_capacity(20);
        digits::number(number, &mut text);
        value(text)
    };
    head.insert_header("X-RateLimit-Limit", number(verdict.limit)?)?;
    head.insert_header("X-RateLimit-Remaining", number(verdict.remaining)?)?;
    let reset = if verdict.admitted { verdict.reset } else { verdict.retry_after };
    head.insert_header("X-RateLimit-Reset", number(seconds_up(reset))?)
}

fn value(text: Vec<u8>) -> pingora_core::Result<HeaderValue> {
    use pingora_core::{ErrorType::InvalidHTTPHeader, OrErr};
    HeaderValue::from_maybe_shared(Bytes::from(text)).or_err(InvalidHTTPHeader, "what is told of limits")
}

/// Whole seconds, and no less than the time.
pub fn seconds_up(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

fn whole_seconds(time: units::Duration) -> Option<u64> {
    let time = time.as_std();
    Some(time.as_secs()).filter(|seconds| *seconds > 0 && time.subsec_nanos() == 0)
}
