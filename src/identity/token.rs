//! What bearer tokens of every kind have in common.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::caller::{Claims, Fields, Reason};

/// Longest token that is read, in bytes. Tokens with the groups of large directories have about 8 KiB.
pub const TOKEN_MAX: usize = 16 << 10;

/// A token that was found good.
#[derive(PartialEq, Debug)]
pub struct Verified {
    pub claims: Arc<Claims>,
    /// What the service is told of its claims, ready to be sent.
    pub fields: Option<Fields>,
}

/// The digest of a token: what it is remembered by.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenHash(pub(super) [u8; 32]);

impl TokenHash {
    pub fn of(token: &[u8]) -> Self {
        Self(Sha256::digest(token).into())
    }
}

/// The token as text.
///
/// # Errors
/// It is longer than [`TOKEN_MAX`], or has other characters than a bearer token may have (RFC 6750 §2.1: `b64token`).
pub fn text(token: &[u8]) -> Result<&str, Reason> {
    if token.len() > TOKEN_MAX {
        return Err(Reason::TooLarge);
    }
    let body = token.iter().rposition(|b| *b != b'=').map_or(0, |last| last + 1);
    let legal = |b: &u8| b.is_ascii_alphanumeric() || b"-._~+/".contains(b);
    match token.split_at_checked(body) {
        Some((body, _)) if !body.is_empty() && body.iter().all(legal) => {
            std::str::from_utf8(token).map_err(|_| Reason::Malformed)
        }
        _ => Err(Reason::Malformed),
    }
}

/// A moment, in milliseconds since 1970.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Moment(pub u64);

impl Moment {
    /// Later than any.
    pub const NEVER: Self = Self(u64::MAX);

    #[must_use]
    pub fn after(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(millis(wait)))
    }

    #[must_use]
    pub fn before(self, wait: Duration) -> Self {
        Self(self.0.saturating_sub(millis(wait)))
    }

    pub fn seconds(self) -> u64 {
        self.0 / 1_000
    }
}

/// A clock before 1970 counts as 1970: nothing has expired then, but nothing is valid that has a beginning.
impl From<SystemTime> for Moment {
    fn from(time: SystemTime) -> Self {
        Self(time.duration_since(UNIX_EPOCH).map_or(0, millis))
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The moment that a claim names: a `NumericDate` (RFC 7519 §2), whole or with a fraction. `Ok(None)`: it is not there.
///
/// # Errors
/// It is there, but is no such number.
pub fn moment(claims: &Map<String, Value>, name: &str) -> Result<Option<Moment>, Reason> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let whole = value.as_u64().map(|seconds| Moment(seconds.saturating_mul(1_000)));
    let fraction = || value.as_f64().filter(|seconds| *seconds >= 0.0).map(|seconds| Moment((seconds * 1e3) as u64));
    whole.or_else(fraction).map(Some).ok_or(Reason::Unreadable)
}

/// Whether the claim, a text or a list of texts, has one of these.
pub fn names_one_of(claim: Option<&Value>, wanted: &[Box<str>]) -> bool {
    let is_wanted = |value: &Value| value.as_str().is_some_and(|text| wanted.iter().any(|one| **one == *text));
    match claim {
        Some(Value::Array(items)) => items.iter().any(is_wanted),
        Some(one) => is_wanted(one),
        None => false,
    }
}

/// About what claims take in memory, in bytes.
pub fn weight(claims: &Map<String, Value>) -> usize {
    claims.iter().map(|(key, value)| ENTRY + key.len() + weight_of(value)).sum()
}

/// A key and a value in a map of JSON, with their share of its nodes.
const ENTRY: usize = 96;

fn weight_of(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(|item| size_of::<Value>() + weight_of(item)).sum(),
        Value::Object(map) => weight(map),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tokens_have_the_characters_of_rfc_6750() {
        for good in ["a", "a.b.c", "mF_9.B5f-4.1JqM", "a~+/==", "x="] {
            assert_eq!(text(good.as_bytes()), Ok(good));
        }
        for bad in [&b""[..], b"=", b"a b", b"a,b", b"a=b", b"a\"", b"\xff", b"a\n", "é".as_bytes()] {
            assert_eq!(text(bad), Err(Reason::Malformed), "{bad:?}");
        }
        assert_eq!(text(&vec![b'a'; TOKEN_MAX + 1]), Err(Reason::TooLarge));
        assert!(text(&vec![b'a'; TOKEN_MAX]).is_ok());
    }

    #[test]
    fn dates_are_numbers_of_seconds() {
        let check = |value: Value, expected: Result<Option<Moment>, Reason>| {
            let claims = json!({ "exp": value });
            assert_eq!(moment(claims.as_object().unwrap(), "exp"), expected, "{claims}");
        };
        check(json!(1_300_819_380), Ok(Some(Moment(1_300_819_380_000))));
        check(json!(1.5), Ok(Some(Moment(1_500))));
        check(json!(u64::MAX), Ok(Some(Moment::NEVER)));
        check(json!(1e300), Ok(Some(Moment::NEVER)));
        for bad in [json!("1300819380"), json!(-1), json!(null), json!([1]), json!(true)] {
            check(bad, Err(Reason::Unreadable));
        }
        assert_eq!(moment(&Map::new(), "exp"), Ok(None));
    }

    #[test]
    fn a_claim_may_be_a_text_or_a_list() {
        let wanted = ["a".into(), "b".into()];
        for good in [json!("a"), json!(["c", "b"])] {
            assert!(names_one_of(Some(&good), &wanted), "{good}");
        }
        for bad in [json!("c"), json!(["A"]), json!([["a"]]), json!({ "a": "a" }), json!("a b"), json!(null), json!([])] {
            assert!(!names_one_of(Some(&bad), &wanted), "{bad}");
        }
        assert!(!names_one_of(None, &wanted));
    }
}
