//! What a request takes of a limit.

use http::{HeaderMap, HeaderName};

use crate::{
    config::{
        policy::limit::Cost as Config,
        problem::{Path, Problem},
    },
    policy::limit_key::header_name,
};

/// What a request takes.
pub enum Cost {
    Fixed(u32),
    /// What this field of the request says.
    Header(HeaderName),
    /// What this field of the response says: 1 until it comes.
    Response(HeaderName),
}

impl Cost {
    pub fn compile(config: &Config, at: &Path) -> Result<Self, Problem> {
        match config {
            Config::Fixed(cost) => Ok(Self::Fixed(*cost)),
            Config::Header(name) => header_name(name, &at.key("header")).map(Self::Header),
            Config::ResponseHeader(name) => header_name(name, &at.key("response_header")).map(Self::Response),
        }
    }

    /// What a request takes at first. No more than may come at once, or it could never pass; no less than 1, or who names its own cost would name
    /// none.
    pub fn of_request(&self, headers: &HeaderMap, most: u32) -> u32 {
        match self {
            Self::Fixed(cost) => *cost,
            Self::Header(name) => number(headers, name).unwrap_or(1).clamp(1, most),
            Self::Response(_) => 1,
        }
    }

    /// What the response says, if it is what says it.
    pub fn of_response(&self, headers: &HeaderMap) -> Option<u32> {
        match self {
            Self::Response(name) => number(headers, name),
            Self::Fixed(_) | Self::Header(_) => None,
        }
    }
}

/// The whole number that a field is; one that is too large is the largest. Nothing else is one: two fields, a sign, a unit.
fn number(headers: &HeaderMap, name: &HeaderName) -> Option<u32> {
    let mut values = headers.get_all(name).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let digits = value.as_bytes();
    let digit =
        |number: u32, byte: &u8| byte.is_ascii_digit().then(|| number.saturating_mul(10).saturating_add(u32::from(byte - b'0')));
    if digits.is_empty() { None } else { digits.iter().try_fold(0, digit) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::testing;

    fn check(values: &[&str], expected: u32) {
        let fields: Vec<_> = values.iter().map(|value| ("x-cost", *value)).collect();
        let head = testing::head("GET", "/", &fields);
        let cost = Cost::Header(HeaderName::from_static("x-cost"));
        assert_eq!(cost.of_request(&head.headers, 50), expected, "{values:?}");
    }

    #[test]
    fn a_request_may_name_its_cost_within_bounds() {
        check(&["7"], 7);
        check(&["007"], 7);
        check(&["50"], 50);
        check(&["51"], 50);
        check(&["99999999999999999999999"], 50);
        for one in [&["0"][..], &[], &[""], &["-3"], &["+3"], &["3.5"], &["3 tokens"], &["3", "4"], &["١"]] {
            check(one, 1);
        }
    }

    #[test]
    fn a_response_may_say_that_it_cost_nothing() {
        let cost = Cost::Response(HeaderName::from_static("x-tokens"));
        let said = |value| cost.of_response(&testing::head("GET", "/", &[("x-tokens", value)]).headers);
        assert_eq!([said("0"), said("1234"), said("many")], [Some(0), Some(1234), None]);
        assert_eq!(cost.of_request(&HeaderMap::new(), 50), 1);
    }
}
