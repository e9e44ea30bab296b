//! What a token must say to be taken.

use std::time::Duration;

use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};

use super::compact::Header;
use crate::{
    caller::Reason,
    identity::token::{Moment, moment, names_one_of},
};

/// The types that a token may say it is of when none is configured: a plain token, or an access token of RFC 9068. Tokens for other uses
/// have types of their own, so that they are not taken for these (RFC 8725 §3.11).
const TYPES: [&str; 2] = ["jwt", "at+jwt"];

/// What is asked of a token.
#[derive(Clone, PartialEq, Debug)]
pub struct Rules {
    /// `iss` must be exactly this.
    pub issuer: Box<str>,
    /// `aud` must name one of these. Empty: there must be no `aud`, for it would name somebody else (RFC 7519 §4.1.3).
    pub audience: Box<[Box<str>]>,
    pub algorithms: Box<[Algorithm]>,
    /// By how much our clock and the issuer's may differ.
    pub leeway: Duration,
    /// `typ` must be exactly this, but for case and `application/`. Absent: none, or one of the usual ones.
    pub typ: Option<Box<str>>,
    /// Claims that must be there, beside `iss` and `exp`.
    pub required: Box<[Box<str>]>,
}

impl Rules {
    /// Judges what costs nothing, before any signature is looked at.
    ///
    /// # Errors
    /// It is of another algorithm or type.
    pub fn admit(&self, header: &Header) -> Result<(), Reason> {
        if !self.algorithms.contains(&header.alg) {
            return Err(Reason::Algorithm);
        }
        if self.takes(header.typ.as_deref()) { Ok(()) } else { Err(Reason::Type) }
    }

    fn takes(&self, typ: Option<&str>) -> bool {
        let Some(typ) = typ.map(str::to_ascii_lowercase) else { return self.typ.is_none() };
        let typ = typ.strip_prefix("application/").unwrap_or(&typ);
        match &self.typ {
            Some(wanted) => typ.eq_ignore_ascii_case(wanted.strip_prefix("application/").unwrap_or(wanted)),
            None => TYPES.contains(&typ),
        }
    }

    /// Judges claims whose signature is good. `Ok`: the moment from which on they are good no longer.
    ///
    /// # Errors
    /// The first rule that they break.
    pub fn judge(&self, claims: &Map<String, Value>, now: Moment) -> Result<Moment, Reason> {
        if claims.get("iss").and_then(Value::as_str) != Some(&self.issuer) {
            return Err(Reason::Issuer);
        }
        if !self.is_for_us(claims.get("aud")) {
            return Err(Reason::Audience);
        }
        let until = moment(claims, "exp")?.ok_or(Reason::MissingClaim)?.after(self.leeway);
        if now >= until {
            return Err(Reason::Expired);
        }
        if moment(claims, "nbf")?.is_some_and(|from| now < from.before(self.leeway)) {
            return Err(Reason::NotYetValid);
        }
        match self.required.iter().all(|name| claims.get(&**name).is_some_and(|value| !value.is_null())) {
            true => Ok(until),
            false => Err(Reason::MissingClaim),
        }
    }

    fn is_for_us(&self, aud: Option<&Value>) -> bool {
        if self.audience.is_empty() { aud.is_none() } else { names_one_of(aud, &self.audience) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: Moment = Moment(1_000_000_000);

    fn rules() -> Rules {
        Rules {
            issuer: "https://idp.example/".into(),
            audience: ["api".into(), "shop".into()].into(),
            algorithms: [Algorithm::RS256].into(),
            leeway: Duration::from_secs(30),
            typ: None,
            required: ["sub".into()].into(),
        }
    }

    fn check(change: Value, expected: Result<u64, Reason>) {
        let mut claims = json!({ "iss": "https://idp.example/", "aud": "api", "exp": 1_000_010, "sub": "ada" });
        let claims = claims.as_object_mut().unwrap();
        for (name, value) in change.as_object().unwrap() {
            match value {
                Value::Null => claims.remove(name),
                _ => claims.insert(name.clone(), value.clone()),
            };
        }
        assert_eq!(rules().judge(claims, NOW).map(Moment::seconds), expected, "{change}");
    }

    #[test]
    fn issuer_and_audience_are_exact() {
        check(json!({}), Ok(1_000_040));
        check(json!({ "aud": ["x", "shop"] }), Ok(1_000_040));
        for iss in [json!(null), json!("https://idp.example"), json!(["https://idp.example/"]), json!("HTTPS://idp.example/")] {
            check(json!({ "iss": iss }), Err(Reason::Issuer));
        }
        for aud in [json!(null), json!("API"), json!(["ap", "i"]), json!([]), json!("api shop"), json!({ "api": 1 }), json!(7)] {
            check(json!({ "aud": aud }), Err(Reason::Audience));
        }
    }

    #[test]
    fn without_an_audience_of_ours_a_token_for_someone_is_not_for_us() {
        let rules = Rules { audience: Box::default(), ..rules() };
        let mut claims = json!({ "iss": "https://idp.example/", "exp": 1_000_010, "sub": "ada" });
        assert!(rules.judge(claims.as_object().unwrap(), NOW).is_ok());
        for aud in [json!("api"), json!([]), json!(null)] {
            claims["aud"] = aud;
            assert_eq!(rules.judge(claims.as_object().unwrap(), NOW), Err(Reason::Audience));
        }
    }

    #[test]
    fn clocks_may_differ_by_the_leeway_and_no_more() {
        check(json!({ "exp": 999_971 }), Ok(1_000_001));
        check(json!({ "exp": 999_970 }), Err(Reason::Expired));
        check(json!({ "exp": 0 }), Err(Reason::Expired));
        check(json!({ "nbf": 1_000_030 }), Ok(1_000_040));
        check(json!({ "nbf": 1_000_030.001 }), Err(Reason::NotYetValid));
        check(json!({ "nbf": 1_000_031 }), Err(Reason::NotYetValid));
    }

    #[test]
    fn dates_that_are_none_are_refused() {
        check(json!({ "exp": null }), Err(Reason::MissingClaim));
        for bad in [json!("1000010"), json!(-1), json!([1_000_010]), json!(true), json!({})] {
            check(json!({ "exp": bad.clone() }), Err(Reason::Unreadable));
            check(json!({ "nbf": bad }), Err(Reason::Unreadable));
        }
    }

    #[test]
    fn what_must_be_there_is_there() {
        check(json!({ "sub": null }), Err(Reason::MissingClaim));
    }

    #[test]
    fn a_token_of_another_kind_is_not_taken() {
        let check = |wanted: Option<&str>, typ: Option<&str>, expected: bool| {
            let rules = Rules { typ: wanted.map(Box::from), ..rules() };
            let header = Header { alg: Algorithm::RS256, kid: None, typ: typ.map(str::to_owned) };
            assert_eq!(rules.admit(&header).is_ok(), expected, "{wanted:?} {typ:?}");
        };
        for good in [None, Some("JWT"), Some("jwt"), Some("at+jwt"), Some("application/at+jwt"), Some("application/jwt")] {
            check(None, good, true);
        }
        for bad in ["", "dpop+jwt", "logout+jwt", "secevent+jwt", "JOSE", "application/"] {
            check(None, Some(bad), false);
        }
        check(Some("at+jwt"), Some("application/AT+jwt"), true);
        check(Some("at+jwt"), Some("JWT"), false);
        check(Some("at+jwt"), None, false);
    }

    #[test]
    fn an_algorithm_that_is_not_configured_is_refused() {
        let header = Header { alg: Algorithm::RS384, kid: None, typ: None };
        assert_eq!(rules().admit(&header), Err(Reason::Algorithm));
    }
}
