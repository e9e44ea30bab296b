//! `basic`: user and password in `Authorization` (RFC 7617), for what cannot do better. Over plain HTTP anyone on the way reads them.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderValue, header::AUTHORIZATION};
use pingora_http::RequestHeader;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::{Scheme, Verdict, only};
use crate::{
    caller::{Caller, Reason},
    config::{
        policy::auth::Basic as Config,
        problem::{Path, Problem},
    },
    exchange::{Inbound, Stop},
    identity::{Consumers, consumers::Failure},
};

/// What is asked for, and whose passwords there are.
pub struct Basic {
    challenge: HeaderValue,
    keep: bool,
    consumers: Arc<Consumers>,
}

/// What the log calls the scheme.
const NAME: &str = "basic";

/// Longest credentials, in bytes as they are sent: nobody's password is longer, and each byte is hashed.
const CREDENTIALS_MAX: usize = 1024;

impl Basic {
    /// # Errors
    /// The realm cannot be sent.
    pub fn compile(config: &Config, path: &Path, consumers: &Arc<Consumers>) -> Result<Self, Problem> {
        let is_plain = |realm: &str| realm.bytes().all(|b| matches!(b, b' '..=b'~') && b != b'"' && b != b'\\');
        let realm = &config.realm;
        let challenge = HeaderValue::from_str(&format!("Basic realm=\"{realm}\", charset=\"UTF-8\"")).ok();
        match challenge.filter(|_| is_plain(realm)) {
            Some(challenge) => Ok(Self { challenge, keep: config.keep, consumers: consumers.clone() }),
            None => Err(Problem::error(path.key("realm"), "a realm is printable ASCII without quotes and backslashes")),
        }
    }
}

impl Scheme for Basic {
    async fn verify(&self, inbound: &Inbound<'_>) -> Verdict {
        let value = match only(inbound.head.headers.get_all(AUTHORIZATION)) {
            Ok(value) => value,
            Err(none) => return none,
        };
        let Some(encoded) = encoded(value) else { return Verdict::Absent };
        let Some((user, password)) = decoded(encoded) else { return Verdict::Refused(Reason::Malformed) };
        match self.consumers.by_password(&user, password).await {
            Ok(consumer) => Verdict::Accepted(Caller::known_by(NAME, consumer.clone(), &Sha256::digest(&*user).into())),
            Err(Failure::Unknown) => Verdict::Refused(Reason::Unknown),
            Err(Failure::Wrong) => Verdict::Refused(Reason::Wrong),
            Err(Failure::Busy) => Verdict::Refused(Reason::Busy),
        }
    }

    fn challenge(&self, _: Option<Reason>) -> Option<HeaderValue> {
        Some(self.challenge.clone())
    }

    /// A credential of another scheme in the field is none of ours.
    fn strip(&self, head: &mut RequestHeader) -> Result<(), Stop> {
        if !self.keep && head.headers.get_all(AUTHORIZATION).iter().any(|value| encoded(value).is_some()) {
            head.remove_header(&AUTHORIZATION);
        }
        Ok(())
    }
}

/// What follows `Basic`, which may be written in any case (RFC 9110 §11.1). Where nothing does, it is still meant for this scheme.
fn encoded(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, rest) = value.as_bytes().split_at_checked(5)?;
    let is_basic = scheme.eq_ignore_ascii_case(b"basic") && rest.first().is_none_or(u8::is_ascii_whitespace);
    is_basic.then(|| rest.trim_ascii())
}

/// User and password. A colon ends the user (RFC 7617 §2).
fn decoded(encoded: &[u8]) -> Option<(String, Zeroizing<Vec<u8>>)> {
    if encoded.len() > CREDENTIALS_MAX {
        return None;
    }
    let both = Zeroizing::new(STANDARD.decode(encoded).ok()?);
    let colon = both.iter().position(|byte| *byte == b':')?;
    let (user, password) = both.split_at_checked(colon)?;
    let user = std::str::from_utf8(user).ok()?.to_owned();
    Some((user, Zeroizing::new(password.get(1..)?.to_vec())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_read_as_rfc_7617_writes_them() {
        let check = |value: &str, expected: Option<(&str, &str)>| {
            let value = HeaderValue::from_str(value).unwrap();
            let read =
                encoded(&value).and_then(decoded).map(|(user, password)| (user, String::from_utf8_lossy(&password).into_owned()));
            assert_eq!(read.as_ref().map(|(user, password)| (user.as_str(), password.as_str())), expected, "{value:?}");
        };
        check("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==", Some(("Aladdin", "open sesame")));
        check("bAsIc  dGVzdDoxMjPCow==", Some(("test", "123£")));
        check("Basic YTpiOmM=", Some(("a", "b:c")));
        check("Basic Og==", Some(("", "")));
        for wrong in ["Basic YQ==", "Basic !", "Basic", "Bearer YTpi", "BasicYTpi", "Basic YTpi YTpi", "Basic _zph"] {
            check(wrong, None);
        }
    }
}
