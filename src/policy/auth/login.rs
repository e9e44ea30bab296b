//! `oidc`: people who sign in with a browser.

use std::{sync::Arc, time::SystemTime};

use http::{HeaderValue, Method, header::COOKIE};
use pingora_http::RequestHeader;

use super::{Memo, Verdict, identity};
use crate::{
    caller::{Caller, Reason},
    config::{
        problem::{Path, Problem},
        route::Scheme as UriScheme,
    },
    exchange::{Elsewhere, Held, Inbound, LoginFault, Stop},
    identity::{
        ByClaims,
        identities::Identity,
        session::{self, Fault, Session, Step, Visit, cookie},
    },
    name::IdentityName,
    policy::chain::Ground,
};

/// A way to sign in, and the consumers that people may be.
pub struct Login {
    login: Arc<session::Login>,
    consumers: Arc<ByClaims>,
    challenge: HeaderValue,
}

/// What the log calls the scheme.
const NAME: &str = "oidc";

impl Login {
    /// # Errors
    /// There is no identity of this name, or it is of another kind.
    pub fn compile(name: &IdentityName, path: &Path, ground: &Ground<'_>) -> Result<Self, Vec<Problem>> {
        match identity(NAME, name, path, ground)? {
            Identity::Oidc(login) => Ok(Self::new(login.clone(), ground.consumers.of_identity(name))),
            // Another kind is told already.
            _ => Err(Vec::new()),
        }
    }

    fn new(login: Arc<session::Login>, consumers: Arc<ByClaims>) -> Self {
        let name = login.cookie().on(cookie::Channel::Tls);
        let challenge = HeaderValue::from_str(&format!("Cookie cookie-name=\"{name}\""));
        Self { login, consumers, challenge: challenge.unwrap_or(HeaderValue::from_static("Cookie")) }
    }

    /// Whether the provider tells of an ended session.
    pub fn wants_body(&self, inbound: &Inbound<'_>) -> bool {
        inbound.facts.method == Method::POST && self.login.is_backchannel(&inbound.facts.path)
    }

    pub(super) async fn verify(&self, inbound: &Inbound<'_>, memo: &mut Memo) -> Verdict {
        let facts = inbound.facts;
        let body = match &memo.held {
            Held::Whole(body) => Some(&body[..]),
            _ => None,
        };
        let channel = match facts.scheme {
            UriScheme::Http => cookie::Channel::Plain,
            UriScheme::Https => cookie::Channel::Tls,
        };
        let visit = Visit {
            method: &facts.method,
            channel,
            path: &facts.path,
            query: facts.query.as_deref(),
            target: std::str::from_utf8(inbound.head.raw_path()).unwrap_or("/"),
            headers: &inbound.head.headers,
            body,
            now: SystemTime::now(),
        };
        let ours = self.login.owns(&facts.path);
        let next = match self.login.step(&visit).await {
            Step::Session { session, cookies } => {
                memo.cookies = cookies;
                return Verdict::Accepted(self.caller(*session));
            }
            Step::Anonymous => return Verdict::Absent,
            Step::Redirect { to, cookies } => (Reason::Missing, Stop::Elsewhere(Box::new(Elsewhere { to, cookies }))),
            Step::Done { cookies } => (Reason::Missing, Stop::SignedOut(cookies)),
            Step::Failed(fault) => {
                tracing::debug!(%fault, "a login failed");
                (reason(fault), Stop::Login(told(fault)))
            }
        };
        match next {
            (reason, stop) if ours => Verdict::Stopped(reason, stop),
            (_, stop) => Verdict::Invited(stop),
        }
    }

    fn caller(&self, session: Session) -> Caller {
        Caller {
            consumer: self.consumers.find(&session.claims.all).cloned(),
            scheme: Some(NAME),
            claims: Some(session.claims),
            credential: None,
            fields: session.fields,
            refusal: None,
        }
    }

    pub fn challenge(&self) -> HeaderValue {
        self.challenge.clone()
    }

    /// # Errors
    /// What is left of the cookies cannot be sent.
    pub fn strip(&self, head: &mut RequestHeader) -> Result<(), Stop> {
        let Some(left) = cookie::without(&head.headers, |name| self.login.owns_cookie(name)) else { return Ok(()) };
        head.remove_header(&COOKIE);
        if left.is_empty() {
            return Ok(());
        }
        head.insert_header(COOKIE, left).map_err(|error| Stop::Fault(anyhow::anyhow!("cookies: {error}")))
    }
}

const fn told(fault: Fault) -> LoginFault {
    match fault {
        Fault::Denied => LoginFault::Denied,
        Fault::Unavailable => LoginFault::Unavailable,
        _ => LoginFault::Invalid,
    }
}

const fn reason(fault: Fault) -> Reason {
    match fault {
        Fault::Token(reason) => reason,
        Fault::Unavailable => Reason::Unavailable,
        Fault::TooLarge => Reason::TooLarge,
        Fault::Ended => Reason::Inactive,
        Fault::Denied => Reason::Denied,
        Fault::Unasked | Fault::MixedUp | Fault::OtherLogin | Fault::LogoutToken => Reason::Malformed,
    }
}
