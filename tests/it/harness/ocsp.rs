//! OCSP responses written for a test. Their signature is none: who staples does not verify it.

use rustls::pki_types::{CertificateDer, pem::PemObject};
use x509_parser::prelude::{FromDer, X509Certificate};

/// What the authority says of a certificate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Says {
    Good,
    Revoked,
    Unknown,
}

/// id-pkix-ocsp-basic.
const BASIC: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x01, 0x01];

/// A response for the certificate of this PEM text. Times are seconds since 1970.
pub fn response(certificate: &str, says: Says, from: i64, until: Option<i64>) -> Vec<u8> {
    let der = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
    let (_, certificate) = X509Certificate::from_der(&der).unwrap();
    for_serial(certificate.tbs_certificate.raw_serial(), says, from, until)
}

pub fn for_serial(serial: &[u8], says: Says, from: i64, until: Option<i64>) -> Vec<u8> {
    let sha1 = sequence(&[&tlv(0x06, &[0x2b, 0x0e, 0x03, 0x02, 0x1a])]);
    let id = sequence(&[&sha1, &tlv(0x04, &[1; 20]), &tlv(0x04, &[2; 20]), &tlv(0x02, serial)]);
    let verdict = match says {
        Says::Good => tlv(0x80, &[]),
        Says::Revoked => tlv(0xa1, &time(from)),
        Says::Unknown => tlv(0x82, &[]),
    };
    let until = until.map(|until| tlv(0xa0, &time(until))).unwrap_or_default();
    let single = sequence(&[&id, &verdict, &time(from), &until]);
    let responder = tlv(0xa2, &tlv(0x04, &[3; 20]));
    let data = sequence(&[&responder, &time(from), &sequence(&[&single])]);
    let basic = sequence(&[&data, &sha1, &tlv(0x03, &[0, 1, 2, 3])]);
    let kind = tlv(0x06, BASIC);
    let bytes = tlv(0xa0, &sequence(&[&kind, &tlv(0x04, &basic)]));
    sequence(&[&tlv(0x0a, &[0]), &bytes])
}

/// What an authority answers that is busy.
pub fn try_later() -> Vec<u8> {
    sequence(&[&tlv(0x0a, &[3])])
}

/// The same of a kind that nobody knows.
pub fn odd(mut response: Vec<u8>) -> Vec<u8> {
    let at = response.windows(BASIC.len()).position(|part| part == BASIC).expect("the kind is written");
    response[at + BASIC.len() - 1] += 1;
    response
}

fn time(seconds: i64) -> Vec<u8> {
    let time = jiff::Timestamp::from_second(seconds).unwrap();
    tlv(0x18, time.strftime("%Y%m%d%H%M%SZ").to_string().as_bytes())
}

fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    tlv(0x30, &parts.concat())
}

fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let head = match length {
        0..0x80 => vec![tag, length as u8],
        0x80..0x100 => vec![tag, 0x81, length as u8],
        _ => vec![tag, 0x82, (length >> 8) as u8, length as u8],
    };
    [head.as_slice(), content].concat()
}
