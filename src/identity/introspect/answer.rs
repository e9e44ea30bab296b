//! What an issuer says of a token (RFC 7662 §2.2).

use serde_json::{Map, Value};

use crate::{
    caller::{ClaimPath, Claims, Reason, words},
    identity::{
        strict,
        token::{Moment, moment, names_one_of},
    },
};

/// What is asked of a token beside being active.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Rules {
    /// If set, `iss` must be exactly this.
    pub issuer: Option<Box<str>>,
    /// If there are any, `aud` must name one of them.
    pub audience: Box<[Box<str>]>,
}

/// What came is no answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("what came is no answer of RFC 7662: an object with `active`")]
pub struct NoAnswer;

/// The claims of a token that is active. `Ok(None)`: it is not.
///
/// # Errors
/// What came does not say.
pub fn claims(answer: &[u8]) -> Result<Option<Map<String, Value>>, NoAnswer> {
    let claims = strict::object(answer).map_err(|_| NoAnswer)?;
    match claims.get("active") {
        Some(Value::Bool(true)) => Ok(Some(claims)),
        Some(Value::Bool(false)) => Ok(None),
        _ => Err(NoAnswer),
    }
}

pub fn read(claims: Map<String, Value>, roles: &ClaimPath) -> Claims {
    let mut claims = Claims::new(claims);
    claims.roles = roles.find(&claims.all).map(words).unwrap_or_default();
    claims
}

impl Rules {
    /// Judges an active token. `Ok`: the moment from which on it is good no longer.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn judge(&self, claims: &Map<String, Value>, now: Moment) -> Result<Moment, Reason> {
        if self.issuer.as_deref().is_some_and(|issuer| claims.get("iss").and_then(Value::as_str) != Some(issuer)) {
            return Err(Reason::Issuer);
        }
        if !self.audience.is_empty() && !names_one_of(claims.get("aud"), &self.audience) {
            return Err(Reason::Audience);
        }
        let until = moment(claims, "exp")?.unwrap_or(Moment::NEVER);
        if now >= until {
            return Err(Reason::Expired);
        }
        match moment(claims, "nbf")? {
            Some(from) if now < from => Err(Reason::NotYetValid),
            _ => Ok(until),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_says_active_is_active() {
        assert_eq!(claims(br#"{"active":false,"sub":"ada"}"#), Ok(None));
        assert_eq!(claims(br#"{"active":true,"sub":"ada"}"#).unwrap().unwrap()["sub"], "ada");
        for bad in ["{}", r#"{"active":"true"}"#, r#"{"active":1}"#, r#"{"active":true,"active":false}"#, "[]", "", "<html>"] {
            assert_eq!(claims(bad.as_bytes()), Err(NoAnswer), "{bad}");
        }
    }

    #[test]
    fn an_active_token_may_still_be_for_somebody_else_or_past() {
        let rules = Rules { issuer: Some("https://idp.example".into()), audience: ["api".into()].into() };
        let check = |rules: &Rules, answer: Value, expected: Result<Moment, Reason>| {
            assert_eq!(rules.judge(answer.as_object().unwrap(), Moment(1_000_000)), expected, "{answer}");
        };
        let (any, iss) = (Rules::default(), "https://idp.example");
        check(&any, json!({}), Ok(Moment::NEVER));
        check(&any, json!({ "exp": 1_001 }), Ok(Moment(1_001_000)));
        check(&any, json!({ "exp": 1_000 }), Err(Reason::Expired));
        check(&any, json!({ "exp": "soon" }), Err(Reason::Unreadable));
        check(&any, json!({ "nbf": 1_001 }), Err(Reason::NotYetValid));
        check(&rules, json!({ "iss": iss, "aud": ["api"] }), Ok(Moment::NEVER));
        check(&rules, json!({ "iss": "https://other.example", "aud": "api" }), Err(Reason::Issuer));
        check(&rules, json!({ "aud": "api" }), Err(Reason::Issuer));
        check(&rules, json!({ "iss": iss, "aud": "web" }), Err(Reason::Audience));
        check(&rules, json!({ "iss": iss }), Err(Reason::Audience));
    }
}
