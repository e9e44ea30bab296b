//! `jwt` and `introspection`: a token in `Authorization: Bearer` (RFC 6750 §2.1), of which an identity says whose it is.
//!
//! Tokens in the query or in a form (RFC 6750 §2.2, §2.3) are not looked for: they end up in logs, and nobody should send them.

use std::{sync::Arc, time::SystemTime};

use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};
use pingora_http::RequestHeader;

use super::{Scheme, Verdict, identity};
use crate::{
    caller::{Caller, Reason},
    config::{
        self,
        problem::{Path, Problem},
    },
    exchange::{Inbound, Stop},
    identity::{ByClaims, Verified, identities::Identity, introspect::Introspection, jwt::Jwt},
    name::IdentityName,
    policy::chain::Ground,
};

/// Tokens of one identity.
pub struct Bearer {
    /// What the log calls the scheme.
    scheme: &'static str,
    issuer: Issuer,
    /// Whether the service gets the token too.
    keep: bool,
    consumers: Arc<ByClaims>,
}

/// Who says whose a token is.
enum Issuer {
    Jwt(Arc<Jwt>),
    Introspection(Arc<Introspection>),
}

/// What a client without a token is told. An error code would tell it that there was one (RFC 6750 §3.1).
const BARE: &str = "Bearer";
const INVALID_REQUEST: &str = "Bearer error=\"invalid_request\"";
const INVALID_TOKEN: &str = "Bearer error=\"invalid_token\"";

impl Bearer {
    /// # Errors
    /// There is no identity of this name, or it is of another kind.
    pub fn compile(scheme: &'static str, name: &IdentityName, path: &Path, ground: &Ground<'_>) -> Result<Self, Vec<Problem>> {
        let issuer = match identity(scheme, name, path, ground)? {
            Identity::Jwt(jwt) => Issuer::Jwt(jwt.clone()),
            Identity::Introspection(introspection) => Issuer::Introspection(introspection.clone()),
            Identity::Forward(_) | Identity::Bridge(_) | Identity::Oidc(_) => return Err(Vec::new()),
        };
        let keep = ground.loaded.config.identity.get(name).is_some_and(config::Identity::keep);
        Ok(Self { scheme, issuer, keep, consumers: ground.consumers.of_identity(name) })
    }

    async fn judge(&self, token: &[u8]) -> Result<Arc<Verified>, Reason> {
        match &self.issuer {
            Issuer::Jwt(jwt) => jwt.authenticate(token, SystemTime::now).await,
            Issuer::Introspection(introspection) => introspection.authenticate(token, SystemTime::now).await,
        }
    }

    fn caller(&self, verified: &Verified) -> Caller {
        Caller {
            consumer: self.consumers.find(&verified.claims.all).cloned(),
            scheme: Some(self.scheme),
            claims: Some(verified.claims.clone()),
            credential: None,
            fields: verified.fields.clone(),
            refusal: None,
        }
    }
}

impl Scheme for Bearer {
    async fn verify(&self, inbound: &Inbound<'_>) -> Verdict {
        match token(&inbound.head.headers) {
            Ok(None) => Verdict::Absent,
            Ok(Some(token)) => match self.judge(token).await {
                Ok(verified) => Verdict::Accepted(self.caller(&verified)),
                Err(reason) => Verdict::Refused(reason),
            },
            Err(reason) => Verdict::Refused(reason),
        }
    }

    fn challenge(&self, refused: Option<Reason>) -> Option<HeaderValue> {
        Some(HeaderValue::from_static(match refused {
            None | Some(Reason::Missing | Reason::Unavailable) => BARE,
            Some(Reason::Malformed | Reason::Repeated) => INVALID_REQUEST,
            Some(_) => INVALID_TOKEN,
        }))
    }

    /// Only a token of this kind: another credential may be for the service.
    fn strip(&self, head: &mut RequestHeader) -> Result<(), Stop> {
        if !self.keep && head.headers.get_all(AUTHORIZATION).iter().any(|value| bearer(value.as_bytes()).is_some()) {
            head.remove_header(&AUTHORIZATION);
        }
        Ok(())
    }
}

/// The token of a request. `Ok(None)`: there is none.
///
/// # Errors
/// There are several fields, so it cannot be said which counts; or what should be a token is not written as one.
fn token(headers: &HeaderMap<HeaderValue>) -> Result<Option<&[u8]>, Reason> {
    let mut fields = headers.get_all(AUTHORIZATION).iter();
    let (first, second) = (fields.next(), fields.next());
    match (first.map(|value| bearer(value.as_bytes())), second) {
        (None, _) | (Some(None), None) => Ok(None),
        (Some(_), Some(_)) => Err(Reason::Repeated),
        (Some(Some([])), None) => Err(Reason::Malformed),
        (Some(Some(token)), None) => Ok(Some(token)),
    }
}

/// What follows the scheme `Bearer`, in whatever case (RFC 9110 §11.1).
fn bearer(field: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = field.split_at_checked(BARE.len())?;
    match rest {
        [] => scheme.eq_ignore_ascii_case(BARE.as_bytes()).then_some(rest),
        [b' ' | b'\t', ..] => scheme.eq_ignore_ascii_case(BARE.as_bytes()).then(|| rest.trim_ascii()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::testing;

    fn check(fields: &[(&'static str, &str)], expected: Result<Option<&str>, Reason>) {
        let head = testing::head("GET", "/", fields);
        assert_eq!(token(&head.headers), expected.map(|token| token.map(str::as_bytes)), "{fields:?}");
    }

    #[test]
    fn a_token_stands_in_one_field() {
        check(&[], Ok(None));
        check(&[("Authorization", "Bearer abc")], Ok(Some("abc")));
        check(&[("authorization", "bEARER  abc ")], Ok(Some("abc")));
        check(&[("Authorization", "Basic YTpi")], Ok(None));
        check(&[("Authorization", "Bearerabc")], Ok(None));
        check(&[("Authorization", "Bear")], Ok(None));
        check(&[("Authorization", "")], Ok(None));
        check(&[("Authorization", "Bearer")], Err(Reason::Malformed));
        check(&[("Authorization", "Bearer ")], Err(Reason::Malformed));
        check(&[("Authorization", "Bearer a"), ("Authorization", "Bearer a")], Err(Reason::Repeated));
        check(&[("Authorization", "Basic YTpi"), ("Authorization", "Bearer a")], Err(Reason::Repeated));
    }
}
