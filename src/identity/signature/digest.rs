//! Content-Digest (RFC 9530): what a signed body must be.

use aws_lc_rs::{constant_time, digest as hash};
use http::{HeaderMap, HeaderName};

use super::{
    Refusal,
    component::{Component, Form},
    field,
    input::Input,
};

/// Longest body that is held to compare its digest, in bytes. Pingora keeps as much of a request body for a second try.
pub const BODY_MAX: usize = 64 << 10;

static CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");

/// The digests that a signature covers. At least one.
#[derive(Clone, Debug)]
pub struct Expected(Vec<(Algorithm, Vec<u8>)>);

#[derive(Clone, Copy, Debug)]
enum Algorithm {
    Sha256,
    Sha512,
}

impl Algorithm {
    /// Those of RFC 9530 that are neither deprecated nor unknown.
    fn named(name: &str) -> Option<Self> {
        match name {
            "sha-256" => Some(Self::Sha256),
            "sha-512" => Some(Self::Sha512),
            _ => None,
        }
    }

    fn of(self, body: &[u8]) -> hash::Digest {
        match self {
            Self::Sha256 => hash::digest(&hash::SHA256, body),
            Self::Sha512 => hash::digest(&hash::SHA512, body),
        }
    }
}

impl Expected {
    /// Whether all digests are those of `body`.
    pub fn is_of(&self, body: &[u8]) -> bool {
        self.0
            .iter()
            .all(|(algorithm, digest)| constant_time::verify_slices_are_equal(algorithm.of(body).as_ref(), digest).is_ok())
    }
}

/// What the signature says of the body. `None` if it covers no digest that we know: then it says nothing.
///
/// # Errors
/// A digest that is covered cannot be read.
pub(super) fn expected(input: &Input<'_>, headers: &HeaderMap) -> Result<Option<Expected>, Refusal> {
    let forms = input.components.iter().filter_map(|component| match component {
        Component::Field(name, form) if *name == CONTENT_DIGEST => Some(form),
        _ => None,
    });
    let mut digests = Vec::new();
    for form in forms {
        let Some(members) = field::dictionary(headers, "content-digest")? else {
            return Err(Refusal::Component("a field that the request does not have"));
        };
        // Of a digest whose one member is signed, the others can be anybody's.
        let signed = |name: &str| !matches!(form, Form::Member(key) if key != name);
        for (name, member) in members.iter().filter(|(name, _)| signed(name.as_str())) {
            if let Some(algorithm) = Algorithm::named(name.as_str()) {
                digests.push((algorithm, field::bytes(Some(member))?.to_vec()));
            }
        }
    }
    Ok((!digests.is_empty()).then_some(Expected(digests)))
}
