//! `signature`: requests that their sender signed (RFC 9421).

use std::{
    borrow::Cow,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use http::HeaderValue;
use pingora_http::RequestHeader;

use super::Verdict;
use crate::{
    caller::{Caller, Consumer, Reason},
    config::{
        policy::signature::{Nonce as ConfiguredNonce, Signature as Config, SignedBody},
        problem::{Path, Problem},
        route::Scheme as UriScheme,
    },
    exchange::{Facts, Held, Inbound, Stop},
    identity::{
        Consumers,
        signature::{Body, Message, Nonce, Proof, Refusal, Rules, component::Component, replay::Replays},
    },
};

/// What a signature has to be, and whose keys count.
pub struct Signature {
    rules: Rules,
    keep: bool,
    challenge: HeaderValue,
    consumers: Arc<Consumers>,
    replays: Arc<Replays>,
}

/// What the log calls the scheme.
const NAME: &str = "signature";

impl Signature {
    /// # Errors
    /// Something that a signature cannot cover.
    pub fn compile(
        config: &Config,
        path: &Path,
        consumers: &Arc<Consumers>,
        replays: &Arc<Replays>,
    ) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut covered = Vec::with_capacity(config.covered.len());
        for (index, name) in config.covered.iter().enumerate() {
            match Component::parse(name) {
                Ok(component) => covered.push(component),
                Err(_) => problems.push(uncoverable(name, path.key("covered").index(index))),
            }
        }
        let rules = Rules {
            covered,
            body: if config.body == SignedBody::Required { Body::Signed } else { Body::AsCovered },
            max_age: config.max_age.as_std(),
            leeway: config.leeway.as_std(),
            nonce: if config.nonce == ConfiguredNonce::Required { Nonce::Required } else { Nonce::Optional },
            tag: config.tag.as_deref().map(Box::from),
        };
        let challenge = format!("Signature covered=\"{}\"", config.covered.join(" ").replace('"', "\\\""));
        let challenge = HeaderValue::from_str(&challenge).unwrap_or(HeaderValue::from_static("Signature"));
        let (consumers, replays) = (consumers.clone(), replays.clone());
        match problems.is_empty() {
            true => Ok(Self { rules, keep: config.keep, challenge, consumers, replays }),
            false => Err(problems),
        }
    }

    /// Whether the body is needed: a good signature covers it. For others no body is held.
    pub fn wants_body(&self, inbound: &Inbound<'_>, held: &Held) -> bool {
        self.prove(inbound, held, now()).is_ok_and(|proof| proof.needs_body())
    }

    pub(super) fn verify(&self, inbound: &Inbound<'_>, held: &Held) -> Verdict {
        let now = now();
        let proof = match self.prove(inbound, held, now) {
            Ok(proof) => proof,
            Err(Refusal::Missing) => return Verdict::Absent,
            Err(refusal) => return Verdict::Refused(reason(refusal)),
        };
        let body = match held {
            Held::TooLarge if proof.needs_body() => return Verdict::Stopped(Reason::TooLarge, Stop::BodyTooLarge),
            Held::Unread if proof.needs_body() => return Verdict::Refused(Reason::Digest),
            Held::Whole(body) => body,
            _ => &[][..],
        };
        match proof.settle(body, &self.replays, now) {
            Ok(consumer) => Verdict::Accepted(Caller::consumer(NAME, consumer)),
            Err(refusal) => Verdict::Refused(reason(refusal)),
        }
    }

    fn prove(&self, inbound: &Inbound<'_>, held: &Held, now: u64) -> Result<Proof<Arc<Consumer>>, Refusal> {
        let target =
            std::str::from_utf8(inbound.head.raw_path()).map_err(|_| Refusal::Malformed("a target that is not UTF-8"))?;
        let message = Message {
            method: inbound.head.method.as_str(),
            scheme: scheme(inbound.facts.scheme),
            authority: &authority(inbound.facts),
            target,
            path: path(target),
            query: inbound.facts.query.as_deref(),
            headers: &inbound.head.headers,
            has_body: !matches!(held, Held::Empty),
        };
        self.rules.verify(&message, self.consumers.signing(), now)
    }

    pub fn challenge(&self) -> HeaderValue {
        self.challenge.clone()
    }

    pub fn strip(&self, head: &mut RequestHeader) {
        if !self.keep {
            head.remove_header("signature");
            head.remove_header("signature-input");
        }
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

const fn scheme(scheme: UriScheme) -> &'static str {
    match scheme {
        UriScheme::Http => "http",
        UriScheme::Https => "https",
    }
}

/// Host and port, without the port that the scheme has anyhow (RFC 9421 §2.2.3).
fn authority(facts: &Facts) -> Cow<'_, str> {
    let usual = match facts.scheme {
        UriScheme::Http => 80,
        UriScheme::Https => 443,
    };
    match facts.port {
        Some(port) if port != usual => format!("{}:{port}", facts.host).into(),
        _ => facts.host.as_str().into(),
    }
}

/// The path of a target as it came, in whichever form.
fn path(target: &str) -> &str {
    let rest = match target.split_once("://") {
        Some((_, rest)) if !target.starts_with('/') => rest.find(['/', '?']).and_then(|at| rest.get(at..)).unwrap_or_default(),
        _ => target,
    };
    rest.split_once('?').map_or(rest, |(path, _)| path)
}

fn reason(refusal: Refusal) -> Reason {
    match refusal {
        Refusal::Missing => Reason::Missing,
        Refusal::Malformed(_) | Refusal::Component(_) | Refusal::Parameter(_) => Reason::Malformed,
        Refusal::Coverage => Reason::Coverage,
        Refusal::Window => Reason::Window,
        Refusal::Invalid => Reason::Signature,
        Refusal::Digest => Reason::Digest,
        Refusal::Replayed => Reason::Replayed,
        Refusal::Full => Reason::Full,
    }
}

fn uncoverable(name: &str, at: Path) -> Problem {
    Problem::error(at, format!("a signature cannot cover `{name}` of a request"))
        .help("name a field in lower case, such as `date`, or a part such as `@path`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_is_the_one_that_was_signed() {
        for (target, expected) in [
            ("/a%2Fb/../c?d=/e", "/a%2Fb/../c"),
            ("http://a.example/b?c", "/b"),
            ("http://a.example?c", ""),
            ("http://a.example", ""),
            ("*", "*"),
            ("/x?u=http://b/c", "/x"),
            ("/http://b/c", "/http://b/c"),
        ] {
            assert_eq!(path(target), expected, "{target}");
        }
    }
}
