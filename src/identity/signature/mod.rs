//! HTTP Message Signatures (RFC 9421): who signed a request, and over what.
//!
//! Reading order: [`Rules`] say what a route demands, [`Rules::verify`] gives a [`Proof`]; a proof is worth nothing until
//! [`Proof::settle`] has seen the body and noted that the signature was used. [`component`] says what can be covered and what it is
//! worth, `base` writes what is signed.

use std::time::Duration;

use aws_lc_rs::digest as hash;
use http::HeaderMap;

use self::{component::Component, digest::Expected, input::Input, key::Keys, replay::Replays};

pub mod component;
pub mod digest;
pub mod key;
pub mod replay;
mod base;
mod field;
mod input;

/// Most signatures of one request that are looked at. A proxy may add its own; each costs a verification.
const SIGNATURES_MAX: usize = 4;

/// A request as its signer sees it: as it came, before anything was normalised or stripped.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    pub method: &'a str,
    /// `http` or `https`.
    pub scheme: &'a str,
    /// Host in lower case, with the port if that is not the scheme's own (RFC 9421 §2.2.3).
    pub authority: &'a str,
    /// The request target, byte for byte.
    pub target: &'a str,
    /// Its path. Empty counts as `/`.
    pub path: &'a str,
    /// Its query without `?`.
    pub query: Option<&'a str>,
    pub headers: &'a HeaderMap,
    pub has_body: bool,
}

/// What a signature has to be to count.
#[derive(Clone, Debug)]
pub struct Rules {
    /// What it must cover.
    pub covered: Vec<Component>,
    pub body: Body,
    /// Longest time from `created` to now.
    pub max_age: Duration,
    /// How far the signer's clock may be off, either way.
    pub leeway: Duration,
    pub nonce: Nonce,
    /// Only signatures with this tag count.
    pub tag: Option<Box<str>>,
}

/// Whether a body has to be signed, by its Content-Digest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Body {
    /// A request with a body must cover `content-digest`.
    Signed,
    /// A body that the signature does not cover passes; one that it covers is verified.
    AsCovered,
}

/// Whether a signature needs a nonce. Without one, a repeat is recognised by what was signed, so a second equal request within the
/// same second counts as a replay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Nonce {
    Required,
    Optional,
}

/// The safe choice: nothing that decides where a request goes and what it does can be changed, nothing can be repeated.
impl Default for Rules {
    fn default() -> Self {
        Self {
            covered: vec![Component::Method, Component::Authority, Component::Path, Component::Query],
            body: Body::Signed,
            max_age: Duration::from_secs(300),
            leeway: Duration::from_secs(30),
            nonce: Nonce::Required,
            tag: None,
        }
    }
}

/// Why a signature does not count. The client is told no more than that it does not.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    #[error("the request has no signature")]
    Missing,
    #[error("the signature fields cannot be read: {0}")]
    Malformed(&'static str),
    #[error("the signature covers what cannot be covered: {0}")]
    Component(&'static str),
    #[error("the signature does not cover enough")]
    Coverage,
    #[error("the signature has no `{0}`")]
    Parameter(&'static str),
    #[error("the signature is not of this time")]
    Window,
    /// The key is unknown, or the signature is not its.
    #[error("the signature is not valid")]
    Invalid,
    #[error("the body is not the one that was signed")]
    Digest,
    #[error("the signature was used before")]
    Replayed,
    #[error("too many signatures to remember")]
    Full,
}

impl Refusal {
    /// A short word for metrics and logs.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed(_) => "malformed",
            Self::Component(_) => "component",
            Self::Coverage => "coverage",
            Self::Parameter(_) => "parameter",
            Self::Window => "window",
            Self::Invalid => "invalid",
            Self::Digest => "digest",
            Self::Replayed => "replayed",
            Self::Full => "full",
        }
    }
}

/// A valid signature, whose body was not seen yet and which may be a replay.
#[derive(Debug)]
#[must_use = "a proof counts only once it is settled"]
pub struct Proof<H> {
    holder: H,
    body: Option<Expected>,
    once: [u8; 16],
    until: u64,
}

impl Rules {
    /// Verifies the signature of a request. `now` is in seconds of Unix time.
    ///
    /// # Errors
    /// No signature counts; if there are several, what is wrong with the first.
    pub fn verify<H: Clone>(&self, message: &Message<'_>, keys: &Keys<H>, now: u64) -> Result<Proof<H>, Refusal> {
        let Some(inputs) = field::dictionary(message.headers, "signature-input")? else { return Err(Refusal::Missing) };
        let Some(signatures) = field::dictionary(message.headers, "signature")? else { return Err(Refusal::Missing) };
        if inputs.len() > SIGNATURES_MAX {
            return Err(Refusal::Malformed("too many signatures"));
        }
        let mut first = Refusal::Missing;
        for (label, entry) in &inputs {
            let proven = Input::read(entry).and_then(|input| match self.is_meant(&input) {
                true => self.prove(&input, field::bytes(signatures.get(label))?, message, keys, now),
                false => Err(Refusal::Missing),
            });
            match proven {
                Ok(proof) => return Ok(proof),
                Err(refusal) if first == Refusal::Missing => first = refusal,
                Err(_) => {}
            }
        }
        Err(first)
    }

    fn is_meant(&self, input: &Input<'_>) -> bool {
        self.tag.as_deref().is_none_or(|tag| input.tag == Some(tag))
    }

    /// The cheap questions first; the key last, so that what it costs is told by nothing that the client does not know.
    fn prove<H: Clone>(
        &self,
        input: &Input<'_>,
        signature: &[u8],
        message: &Message<'_>,
        keys: &Keys<H>,
        now: u64,
    ) -> Result<Proof<H>, Refusal> {
        let until = self.until(input, now)?;
        let key_id = input.key_id.ok_or(Refusal::Parameter("keyid"))?;
        if self.nonce == Nonce::Required && input.nonce.is_none() {
            return Err(Refusal::Parameter("nonce"));
        }
        let body = digest::expected(input, message.headers)?;
        self.judge_coverage(input, message.has_body && body.is_none())?;
        let base = base::of(input, message)?;
        let holder = keys.verify(key_id, input.algorithm, base.as_bytes(), signature).ok_or(Refusal::Invalid)?;
        Ok(Proof { holder, body, once: once(key_id, input.nonce, &base), until })
    }

    /// When the signature stops being good, which is how long its use has to be remembered.
    fn until(&self, input: &Input<'_>, now: u64) -> Result<u64, Refusal> {
        let created = input.created.ok_or(Refusal::Parameter("created"))?;
        let leeway = self.leeway.as_secs();
        let aged = created.saturating_add(self.max_age.as_secs());
        let until = input.expires.map_or(aged, |expires| expires.min(aged)).saturating_add(leeway);
        if created > now.saturating_add(leeway) || now > until { Err(Refusal::Window) } else { Ok(until) }
    }

    fn judge_coverage(&self, input: &Input<'_>, unsigned_body: bool) -> Result<(), Refusal> {
        let covered = |due: &Component| input.components.iter().any(|component| component.covers(due));
        let body = self.body == Body::AsCovered || !unsigned_body;
        if body && self.covered.iter().all(covered) { Ok(()) } else { Err(Refusal::Coverage) }
    }
}

/// What a second use is recognised by. Not the signature itself: who knows one of ECDSA can write another for the same text.
fn once(key_id: &str, nonce: Option<&str>, base: &str) -> [u8; 16] {
    let mut context = hash::Context::new(&hash::SHA256);
    context.update(&(key_id.len() as u64).to_be_bytes());
    context.update(key_id.as_bytes());
    context.update(&[u8::from(nonce.is_some())]);
    context.update(nonce.unwrap_or(base).as_bytes());
    let mut once = [0; 16];
    once.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
    once
}

impl<H> Proof<H> {
    /// Whether the signature covers the body, so that `settle` has to be given all of it.
    pub fn needs_body(&self) -> bool {
        self.body.is_some()
    }

    /// Compares the body, and notes that the signature was used; only then it counts. `body` is not looked at unless it is needed.
    ///
    /// # Errors
    /// Another body, a second use, or no room to note the first.
    pub fn settle(self, body: &[u8], replays: &Replays, now: u64) -> Result<H, Refusal> {
        if self.body.is_some_and(|expected| !expected.is_of(body)) {
            return Err(Refusal::Digest);
        }
        replays.note(self.once, self.until, now)?;
        Ok(self.holder)
    }
}

#[cfg(test)]
mod tests;
