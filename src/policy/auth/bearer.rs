//! `jwt` and `introspection`: a token in `Authorization: Bearer` (RFC 6750 §2.1), of which an identity says whose it is.
//!
//! Tokens in the query or in a form (RFC 6750 §2.2, §2.3) are not looked for: they end up in logs, and nobody should send them.

use std::{sync::Arc, time::SystemTime};

use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};
use pingora_http::RequestHeader;

use super::{Scheme, Verdict};
use crate::{
    caller::{Caller, Reason},
    config::{
        self,
        problem::{Path, Problem},
        suggest::suggest,
    },
    exchange::{Inbound, Stop},
    identity::{ByClaims, Verified, identities::Identity},
    name::IdentityName,
    policy::chain::Ground,
};

/// Tokens of one identity.
pub struct Bearer {
    /// What the log calls the scheme.
    scheme: &'static str,
    identity: Identity,
    /// Whether the service gets the token too.
    keep: bool,
    consumers: Arc<ByClaims>,
}

/// What a client without a token is told. An error code would tell it that there was one (RFC 6750 §3.1).
const BARE: &str = "Bearer";
const INVALID_REQUEST: &str = "Bearer error=\"invalid_request\"";
const INVALID_TOKEN: &str = "Bearer error=\"invalid_token\"";

impl Bearer {
    /// # Errors
    /// There is no identity of this name, or it is of another kind.
    pub fn compile(scheme: &'static str, name: &IdentityName, path: &Path, ground: &Ground<'_>) -> Result<Self, Vec<Problem>> {
        let (config, identity) = identity_of_kind(scheme, name, path, ground)?;
        let consumers = ground.consumers.of_identity(name);
        Ok(Self { scheme, identity: identity.clone(), keep: config.keep(), consumers })
    }

    async fn judge(&self, token: &[u8]) -> Result<Arc<Verified>, Reason> {
        match &self.identity {
            Identity::Jwt(jwt) => jwt.authenticate(token, SystemTime::now).await,
            Identity::Introspection(introspection) => introspection.authenticate(token, SystemTime::now).await,
            // `compile` takes none such.
            Identity::Oidc(_) => Err(Reason::Unknown),
        }
    }

    fn caller(&self, verified: &Verified) -> Caller {
        Caller {
            consumer: self.consumers.find(&verified.claims.all).cloned(),
            scheme: Some(self.scheme),
            claims: Some(verified.claims.clone()),
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

    fn challenge(&self, refused: Option<Reason>) -> HeaderValue {
        HeaderValue::from_static(match refused {
            None | Some(Reason::Missing | Reason::Unavailable) => BARE,
            Some(Reason::Malformed | Reason::Repeated) => INVALID_REQUEST,
            Some(_) => INVALID_TOKEN,
        })
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

/// The identity of this name, with its settings.
///
/// # Errors
/// There is none, or it is of another kind.
pub(super) fn identity_of_kind<'g>(
    scheme: &'static str,
    name: &IdentityName,
    path: &Path,
    ground: &Ground<'g>,
) -> Result<(&'g config::Identity, &'g Identity), Vec<Problem>> {
    let config = ground.loaded.config.identity.get(name);
    match (config, ground.identities.named(name)) {
        (Some(config), _) if config.key() != scheme => {
            let help = format!("write `{}: {name}`", config.key());
            Err(vec![Problem::error(path.clone(), format!("`{name}` is an identity of another kind")).help(help)])
        }
        (Some(config), Some(identity)) => Ok((config, identity)),
        // What is wrong with it is told where it stands.
        _ if ground.loaded.may_declare("identity", name.as_str()) => Err(Vec::new()),
        _ => Err(vec![unknown(name, path, ground)]),
    }
}

fn unknown(name: &IdentityName, path: &Path, ground: &Ground<'_>) -> Problem {
    let problem = Problem::error(path.clone(), format!("there is no identity `{name}`"));
    match suggest(name.as_str(), ground.loaded.declared("identity")) {
        Some(near) => problem.help(format!("did you mean `{near}`?")),
        None => problem.help("declare it under `identity`"),
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
