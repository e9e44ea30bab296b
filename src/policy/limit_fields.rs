//! What a client is told of its limits, on every answer: `RateLimit-Policy` and `RateLimit` as of draft-ietf-httpapi-ratelimit-headers-10, which are
//! structured fields (RFC 9651), and the older `X-RateLimit-*` for those who know no other.
//!
//! Written digit by digit: what `fmt` does with these would cost more than the decision.

use bytes::Bytes;
use http::HeaderValue;
use pingora_http::ResponseHeader;

use crate::{
    config::{plan, policy::limit::Told},
    limit::{Algorithm, Terms, Verdict},
    observe::digits,
    units::{self, seconds_up},
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
        let (rate, bursts) = (terms.rate, terms.algorithm == Algorithm::TokenBucket);
        let burst = Some(terms.burst).filter(|burst| bursts && *burst != rate.count());
        Self::of(name, told, rate.count(), whole_seconds(rate.per()), burst)
    }

    /// Of a quota. Months have no length of their own that could be told.
    pub fn quota(name: &str, told: Told, quota: plan::Quota) -> Self {
        let window = match quota.unit {
            plan::Unit::Hour => Some(3_600),
            plan::Unit::Day => Some(86_400),
            plan::Unit::Month => None,
        };
        Self::of(name, told, quota.amount, window, None)
    }

    fn of(name: &str, told: Told, quota: u64, window: Option<u64>, burst: Option<u64>) -> Self {
        let mut policy = format!("\"{name}\";q={quota}");
        if let Some(window) = window {
            policy.push_str(&format!(";w={window}"));
        }
        if let Some(burst) = burst {
            policy.push_str(&format!(";banyan-burst={burst}"));
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

/// What another limit wrote, or the service, stays if it leaves less.
fn write_legacy(head: &mut ResponseHeader, verdict: &Verdict) -> pingora_core::Result<()> {
    let told = head.headers.get("x-ratelimit-remaining").and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if told.is_some_and(|remaining| remaining < verdict.remaining) {
        return Ok(());
    }
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

fn whole_seconds(time: units::Duration) -> Option<u64> {
    let time = time.as_std();
    Some(time.as_secs()).filter(|seconds| *seconds > 0 && time.subsec_nanos() == 0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn verdict(remaining: u64) -> Verdict {
        let (reset, none) = (Duration::from_millis(1), Duration::ZERO);
        Verdict { admitted: true, limit: 10, remaining, reset, retry_after: none, wait: none, until: 0 }
    }

    fn item() -> Item {
        let rate = units::Rate::new(10, Duration::from_secs(1)).unwrap();
        Item::new("a", Told::Both, &Terms { algorithm: Algorithm::TokenBucket, rate, burst: 10, keys: None })
    }

    #[test]
    fn seconds_are_never_fewer_than_the_time() {
        assert_eq!([0, 1, 999, 1000, 1001].map(|millis| seconds_up(Duration::from_millis(millis))), [0, 1, 1, 1, 2]);
    }

    #[test]
    fn fields_of_the_service_stay_beside_ours_and_the_older_ones_tell_what_leaves_least() {
        let (item, mut head) = (item(), ResponseHeader::build(200, None).unwrap());
        let told = |head: &ResponseHeader, name: &str| {
            head.headers.get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect::<Vec<_>>().join(" | ")
        };
        head.append_header("RateLimit", "\"of-service\";r=5").unwrap();
        head.append_header("X-RateLimit-Remaining", "5").unwrap();
        write(&mut head, [(&item, &verdict(7))].into_iter()).unwrap();
        assert_eq!(told(&head, "ratelimit"), "\"of-service\";r=5 | \"a\";r=7;t=1");
        assert_eq!(told(&head, "x-ratelimit-remaining"), "5");
        write(&mut head, [(&item, &verdict(2))].into_iter()).unwrap();
        assert_eq!((told(&head, "x-ratelimit-remaining"), told(&head, "x-ratelimit-limit")), ("2".to_owned(), "10".to_owned()));
    }

    #[test]
    fn nothing_is_told_where_there_is_nothing_to_tell() {
        let mut head = ResponseHeader::build(200, None).unwrap();
        write(&mut head, std::iter::empty()).unwrap();
        assert!(head.headers.is_empty());
    }
}
