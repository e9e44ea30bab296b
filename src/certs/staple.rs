//! An OCSP response to staple to a certificate (RFC 6960, RFC 6066 §8).
//!
//! It is the client who verifies its signature; here only what an operator may get wrong is looked at: whether it is one, whether it
//! is for the certificate, and until when.

use std::path::Path;

use x509_parser::{
    asn1_rs::{Any, Class, FromDer, GeneralizedTime, Oid, Tag, oid},
    prelude::ASN1Time,
};

use super::{CertError, Span};

/// An OCSP response, for one certificate.
#[derive(Clone, Debug)]
pub struct Staple {
    /// As it is in the file, and goes to the client.
    pub response: Vec<u8>,
    pub verdict: Verdict,
    /// From thisUpdate to nextUpdate.
    pub span: Span,
}

/// What the authority says of the certificate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    Good,
    Revoked,
    Unknown,
}

/// id-pkix-ocsp-basic, the only kind of response there is.
const BASIC: Oid<'static> = oid!(1.3.6.1.5.5.7.48.1.1);

/// Largest response that is stapled, in bytes: each full handshake carries it. They have about 500, with the signer's certificate 2000.
const RESPONSE_MAX: usize = 16 << 10;

impl Staple {
    /// Reads the DER file of a response for the certificate with this serial number.
    ///
    /// # Errors
    /// It cannot be read, is no successful response, or is for other certificates.
    pub fn read(file: &Path, serial: &[u8]) -> Result<Self, CertError> {
        let response = super::read(file)?;
        match find(&response, serial) {
            Ok((verdict, span)) => Ok(Self { response, verdict, span }),
            Err(reason) => Err(CertError::BadResponse { path: file.into(), reason }),
        }
    }
}

/// What a response says of a serial number.
fn find(der: &[u8], serial: &[u8]) -> Result<(Verdict, Span), &'static str> {
    if der.len() > RESPONSE_MAX {
        return Err("it is larger than 16 KiB");
    }
    let responses = responses(der)?;
    for single in Items(responses) {
        let single = single.and_then(Single::read).ok_or(NOT_ONE)?;
        if single.serial == serial {
            return Ok((single.verdict, single.span));
        }
    }
    Err("it is for another certificate")
}

const NOT_ONE: &str = "it is no OCSP response in DER";

/// The content of `responses` in an OCSPResponse.
fn responses(der: &[u8]) -> Result<&[u8], &'static str> {
    let mut response = whole(der, Tag::Sequence).ok_or(NOT_ONE)?;
    let status = response.universal(Tag::Enumerated).ok_or(NOT_ONE)?;
    if status != [0] {
        return Err("the authority gave an error instead of an answer");
    }
    let mut bytes = response.tagged(0).map(Items).ok_or(NOT_ONE)?.sequence().ok_or(NOT_ONE)?;
    if bytes.universal(Tag::Oid) != Some(BASIC.as_bytes()) {
        return Err("it is not a basic response");
    }
    let basic = bytes.universal(Tag::OctetString).ok_or(NOT_ONE)?;
    answers(basic).ok_or(NOT_ONE)
}

/// The content of `responses` in a BasicOCSPResponse: behind the version, who answers, and when.
fn answers(basic: &[u8]) -> Option<&[u8]> {
    let mut data = whole(basic, Tag::Sequence)?.sequence()?;
    let mut next = data.next()??;
    if next.class() == Class::ContextSpecific && next.tag() == Tag(0) {
        next = data.next()??;
    }
    let is_responder = next.class() == Class::ContextSpecific && matches!(next.tag(), Tag(1 | 2));
    data.universal(Tag::GeneralizedTime).filter(|_| is_responder)?;
    data.universal(Tag::Sequence)
}

/// One answer: which certificate, what of it, from when until when.
struct Single<'a> {
    serial: &'a [u8],
    verdict: Verdict,
    span: Span,
}

impl<'a> Single<'a> {
    fn read(any: Any<'a>) -> Option<Self> {
        let mut fields = Items(content(&any, Tag::Sequence)?);
        let mut id = fields.sequence()?;
        id.universal(Tag::Sequence)?;
        id.universal(Tag::OctetString)?;
        id.universal(Tag::OctetString)?;
        let serial = id.universal(Tag::Integer)?;
        let verdict = verdict(&fields.next()??)?;
        let from = time(fields.universal(Tag::GeneralizedTime)?)?;
        let until = fields.tagged(0).map(|inner| time(Items(inner).universal(Tag::GeneralizedTime)?));
        let until = match until {
            Some(None) => return None,
            Some(until) => until,
            None => None,
        };
        Some(Self { serial, verdict, span: Span { from, until } })
    }
}

fn verdict(any: &Any<'_>) -> Option<Verdict> {
    match (any.class(), any.tag()) {
        (Class::ContextSpecific, Tag(0)) => Some(Verdict::Good),
        (Class::ContextSpecific, Tag(1)) => Some(Verdict::Revoked),
        (Class::ContextSpecific, Tag(2)) => Some(Verdict::Unknown),
        _ => None,
    }
}

fn time(digits: &[u8]) -> Option<i64> {
    let time = GeneralizedTime::from_bytes(digits).ok()?.utc_datetime().ok()?;
    Some(ASN1Time::new(time).timestamp())
}

/// The elements in a DER value, one after the other; `None` among them where it breaks.
#[derive(Clone, Copy)]
struct Items<'a>(&'a [u8]);

impl<'a> Items<'a> {
    /// The content of the next element, if it is of this kind.
    fn universal(&mut self, tag: Tag) -> Option<&'a [u8]> {
        content(&self.next()??, tag)
    }

    fn sequence(&mut self) -> Option<Self> {
        self.universal(Tag::Sequence).map(Items)
    }

    /// The content of the next element, if it has this tag of the context's.
    fn tagged(&mut self, tag: u32) -> Option<&'a [u8]> {
        let any = self.next()??;
        (any.class() == Class::ContextSpecific && any.tag() == Tag(tag)).then_some(any.data)
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = Option<Any<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let Ok((rest, any)) = Any::from_der(self.0) else {
            self.0 = &[];
            return Some(None);
        };
        self.0 = rest;
        Some(Some(any))
    }
}

/// The elements of a value that is all there is.
fn whole(der: &[u8], tag: Tag) -> Option<Items<'_>> {
    let (rest, any) = Any::from_der(der).ok()?;
    content(&any, tag).filter(|_| rest.is_empty()).map(Items)
}

fn content<'a>(any: &Any<'a>, tag: Tag) -> Option<&'a [u8]> {
    (any.class() == Class::Universal && any.tag() == tag).then_some(any.data)
}
