//! `forward`: a service is asked about the request.

use std::{sync::Arc, time::SystemTime};

use http::{HeaderName, HeaderValue, header};
use pingora_http::RequestHeader;

use super::{Scheme, Verdict, identity};
use crate::{
    caller::{Caller, Reason},
    config::{
        self,
        problem::{Path, Problem},
    },
    exchange::{Inbound, Stop},
    identity::{
        ByClaims, Consumers,
        forward::{ForwardAuth, Passed, Question, Refusal},
        identities::Identity,
    },
    name::{ConsumerName, IdentityName},
    policy::chain::Ground,
};

/// A service that is asked, and the consumers that it may name.
pub struct Forward {
    service: Arc<ForwardAuth>,
    consumers: Arc<Consumers>,
    by_claims: Arc<ByClaims>,
    /// Fields that do not go further.
    stripped: Box<[HeaderName]>,
}

/// What the log calls the scheme.
const NAME: &str = "forward";

impl Forward {
    /// # Errors
    /// There is no identity of this name, or it is of another kind.
    pub fn compile(name: &IdentityName, path: &Path, ground: &Ground<'_>) -> Result<Self, Vec<Problem>> {
        let Identity::Forward(service) = identity(NAME, name, path, ground)? else { return Err(Vec::new()) };
        let keep = ground.loaded.config.identity.get(name).is_some_and(config::Identity::keep);
        // What the service is to say, nobody else says.
        let copied = service.settings().copy.iter().filter(|copied| **copied == header::AUTHORIZATION);
        let asked = service.settings().headers.iter().filter(|asked| !keep && **asked != header::COOKIE);
        Ok(Self {
            stripped: copied.chain(asked).cloned().collect(),
            service: service.clone(),
            consumers: ground.consumers.clone(),
            by_claims: ground.consumers.of_identity(name),
        })
    }

    /// A consumer that it names must be there: who is let pass as somebody else than meant would have nobody's limits.
    fn passed(&self, passed: &Passed) -> Verdict {
        let claims = &passed.verified.claims;
        let consumer = match &passed.consumer {
            None => self.by_claims.find(&claims.all),
            Some(name) => match self.consumers.named(&ConsumerName::new(name)) {
                None => return Verdict::Answered(Reason::Unknown, Stop::Forbidden(None)),
                consumer => consumer,
            },
        };
        Verdict::Accepted(Caller {
            consumer: consumer.cloned(),
            scheme: Some(NAME),
            claims: Some(claims.clone()),
            credential: None,
            fields: passed.verified.fields.clone(),
            refusal: None,
        })
    }
}

impl Scheme for Forward {
    /// The service is asked about requests without credentials too: some may pass, others are told where to sign in.
    async fn verify(&self, inbound: &Inbound<'_>) -> Verdict {
        let question = Question { headers: &inbound.head.headers, facts: inbound.facts };
        let (reason, stop) = match self.service.judge(question, SystemTime::now).await {
            Ok(passed) => return self.passed(&passed),
            Err(Refusal::Unavailable) => return Verdict::Refused(Reason::Unavailable),
            Err(Refusal::Unauthenticated(challenges)) => (Reason::Inactive, Stop::Unauthenticated(challenges.to_vec())),
            Err(Refusal::Forbidden(challenge)) => (Reason::Denied, Stop::Forbidden(challenge)),
            Err(Refusal::Relayed(relayed)) if relayed.status == http::StatusCode::FORBIDDEN => {
                (Reason::Denied, Stop::Relayed(relayed))
            }
            Err(Refusal::Relayed(relayed)) => (Reason::Inactive, Stop::Relayed(relayed)),
        };
        match reason {
            Reason::Inactive if question.is_bare(&self.service.settings().headers) => Verdict::Invited(stop),
            _ => Verdict::Answered(reason, stop),
        }
    }

    /// Only the service knows.
    fn challenge(&self, _: Option<Reason>) -> Option<HeaderValue> {
        None
    }

    fn strip(&self, head: &mut RequestHeader) -> Result<(), Stop> {
        self.stripped.iter().for_each(|name| drop(head.remove_header(name)));
        Ok(())
    }
}
