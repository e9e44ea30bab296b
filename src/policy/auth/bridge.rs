//! `session_bridge`: the cookie of a legacy application's session.

use std::{sync::Arc, time::SystemTime};

use http::{
    HeaderMap, HeaderValue,
    header::{AUTHORIZATION, COOKIE},
};
use pingora_http::RequestHeader;

use super::{Scheme, Verdict, identity};
use crate::{
    caller::{Caller, Reason},
    config::{
        self,
        problem::{Path, Problem},
    },
    exchange::{Inbound, Stop},
    identity::{ByClaims, bridge, identities::Identity},
    name::IdentityName,
    policy::chain::Ground,
};

/// A legacy application, and the consumers that its people may be.
pub struct Bridge {
    bridge: Arc<bridge::Bridge>,
    /// Whether the service gets the cookie too.
    keep: bool,
    challenge: HeaderValue,
    consumers: Arc<ByClaims>,
}

/// What the log calls the scheme.
const NAME: &str = "session_bridge";

impl Bridge {
    /// # Errors
    /// There is no identity of this name, or it is of another kind.
    pub fn compile(name: &IdentityName, path: &Path, ground: &Ground<'_>) -> Result<Self, Vec<Problem>> {
        let Identity::Bridge(bridge) = identity(NAME, name, path, ground)? else { return Err(Vec::new()) };
        let challenge = HeaderValue::from_str(&format!("Cookie cookie-name=\"{}\"", bridge.settings().cookie));
        Ok(Self {
            bridge: bridge.clone(),
            keep: ground.loaded.config.identity.get(name).is_some_and(config::Identity::keep),
            challenge: challenge.unwrap_or(HeaderValue::from_static("Cookie")),
            consumers: ground.consumers.of_identity(name),
        })
    }
}

impl Scheme for Bridge {
    async fn verify(&self, inbound: &Inbound<'_>) -> Verdict {
        let session = match only(&inbound.head.headers, self.bridge.settings().cookie.as_bytes()) {
            Ok(None) => return Verdict::Absent,
            Ok(Some(session)) => session,
            Err(reason) => return Verdict::Refused(reason),
        };
        match self.bridge.authenticate(session, SystemTime::now).await {
            Ok(verified) => Verdict::Accepted(Caller {
                consumer: self.consumers.find(&verified.claims.all).cloned(),
                scheme: Some(NAME),
                claims: Some(verified.claims.clone()),
                credential: None,
                fields: verified.fields.clone(),
                refusal: None,
            }),
            Err(reason) => Verdict::Refused(reason),
        }
    }

    fn challenge(&self, _: Option<Reason>) -> Option<HeaderValue> {
        Some(self.challenge.clone())
    }

    /// In the token's own field nobody else says anything.
    fn strip(&self, head: &mut RequestHeader) -> Result<(), Stop> {
        let settings = self.bridge.settings();
        if settings.header == AUTHORIZATION {
            head.remove_header(&AUTHORIZATION);
        }
        if self.keep {
            return Ok(());
        }
        let Some(left) = without(&head.headers, settings.cookie.as_bytes()) else { return Ok(()) };
        head.remove_header(&COOKIE);
        if left.is_empty() {
            return Ok(());
        }
        head.insert_header(COOKIE, left).map_err(|error| Stop::Fault(anyhow::anyhow!("cookies: {error}")))
    }
}

/// All cookies of a request, in their order.
fn pairs(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let lines = headers.get_all(COOKIE).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    lines.map(<[u8]>::trim_ascii).filter(|pair| !pair.is_empty())
}

fn named<'p>(pair: &'p [u8], name: &[u8]) -> Option<&'p [u8]> {
    let (found, value) = pair.split_at_checked(pair.iter().position(|byte| *byte == b'=')?)?;
    (found.trim_ascii() == name).then(|| value.get(1..).unwrap_or_default().trim_ascii())
}

/// The session of a request. `Ok(None)`: there is none, or an empty one, as those have who signed out.
///
/// # Errors
/// There are several that differ: another reader might take another than we do.
fn only<'h>(headers: &'h HeaderMap, name: &[u8]) -> Result<Option<&'h [u8]>, Reason> {
    let mut sessions = pairs(headers).filter_map(|pair| named(pair, name)).filter(|session| !session.is_empty());
    let Some(first) = sessions.next() else { return Ok(None) };
    if sessions.all(|other| other == first) { Ok(Some(first)) } else { Err(Reason::Repeated) }
}

/// What is left of the cookies without those of this name. `None`: there is none of it.
fn without(headers: &HeaderMap, name: &[u8]) -> Option<Vec<u8>> {
    let is_named = |pair: &&[u8]| named(pair, name).is_some();
    let found = pairs(headers).any(|pair| is_named(&pair));
    found.then(|| pairs(headers).filter(|pair| !is_named(pair)).collect::<Vec<_>>().join(&b"; "[..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::testing;

    fn check(lines: &[&str], session: Result<Option<&str>, Reason>, left: Option<&str>) {
        let fields: Vec<_> = lines.iter().map(|line| ("cookie", *line)).collect();
        let head = testing::head("GET", "/", &fields);
        assert_eq!(only(&head.headers, b"sid"), session.map(|session| session.map(str::as_bytes)), "{lines:?}");
        assert_eq!(without(&head.headers, b"sid").as_deref(), left.map(str::as_bytes), "{lines:?}");
    }

    #[test]
    fn a_session_is_found_and_taken_out() {
        check(&[], Ok(None), None);
        check(&["a=1; b=2"], Ok(None), None);
        check(&["sid=x"], Ok(Some("x")), Some(""));
        check(&["a=1; sid=x=y ;b=2"], Ok(Some("x=y")), Some("a=1; b=2"));
        check(&["a=1", "sid=x", "b=2"], Ok(Some("x")), Some("a=1; b=2"));
        check(&["xsid=1; sid2=2; SID=3; sid"], Ok(None), None);
        check(&["sid=; a=1"], Ok(None), Some("a=1"));
        check(&["sid = x"], Ok(Some("x")), Some(""));
    }

    #[test]
    fn of_two_sessions_nobody_knows_which_counts() {
        check(&["sid=x; sid=x"], Ok(Some("x")), Some(""));
        check(&["sid=x; a=1; sid=y"], Err(Reason::Repeated), Some("a=1"));
        check(&["sid=x", "sid=y"], Err(Reason::Repeated), Some(""));
        check(&["sid=; sid=y"], Ok(Some("y")), Some(""));
    }
}
