//! Keys in files: PEM or a JSON Web Key Set.

use rustls::pki_types::{
    CertificateDer, SubjectPublicKeyInfoDer,
    pem::{PemObject, SectionKind},
};
use x509_parser::{
    prelude::{FromDer, X509Certificate},
    public_key::PublicKey,
    x509::SubjectPublicKeyInfo,
};

use super::{
    key::{Key, KeyError, Material},
    key_set::{KeySet, KeySetError},
};

/// What is wrong with a file of keys.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KeyFileError {
    #[error("holds neither PEM nor a JSON Web Key Set")]
    Neither,
    #[error("is no JSON Web Key Set: an object with a list `keys`")]
    Set(#[from] KeySetError),
    #[error("holds a key that cannot be used: {0}")]
    Key(#[from] KeyError),
    #[error("holds no key")]
    Empty,
    #[error("holds `{0}`, which is none of `PUBLIC KEY` and `CERTIFICATE`")]
    Section(String),
}

/// Reads a file of keys. Of a file every key must be one that can be used: nobody else looks at it.
///
/// # Errors
/// It is none, or holds what is not to be used.
pub fn keys(text: &[u8]) -> Result<KeySet, KeyFileError> {
    let first = text.iter().find(|byte| !byte.is_ascii_whitespace());
    let set = match first {
        Some(b'{') => KeySet::from_jwks(text)?,
        _ => KeySet::new(sections(text)?),
    };
    match set.left_out().first() {
        Some((_, error)) => Err((*error).into()),
        None if set.is_empty() => Err(KeyFileError::Empty),
        None => Ok(set),
    }
}

fn sections(text: &[u8]) -> Result<Vec<Key>, KeyFileError> {
    let mut keys = Vec::new();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(text) {
        let (kind, der) = section.map_err(|_| KeyFileError::Neither)?;
        keys.push(match kind {
            SectionKind::PublicKey => public_key(&SubjectPublicKeyInfoDer::from(der))?,
            SectionKind::Certificate => certified_key(&CertificateDer::from(der))?,
            SectionKind::PrivateKey | SectionKind::EcPrivateKey | SectionKind::RsaPrivateKey => {
                return Err(KeyError::Private.into());
            }
            other => return Err(KeyFileError::Section(format!("{other:?}"))),
        });
    }
    if keys.is_empty() { Err(KeyFileError::Neither) } else { Ok(keys) }
}

fn public_key(der: &[u8]) -> Result<Key, KeyError> {
    match SubjectPublicKeyInfo::from_der(der) {
        Ok(([], info)) => key(&info),
        _ => Err(KeyError::Malformed),
    }
}

/// The key of a certificate. Nothing else of it counts: neither its names nor its time.
fn certified_key(der: &[u8]) -> Result<Key, KeyError> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => key(certificate.public_key()),
        _ => Err(KeyError::Malformed),
    }
}

/// id-Ed25519 (RFC 8410 §3).
const ED25519: &str = "1.3.101.112";

fn key(info: &SubjectPublicKeyInfo<'_>) -> Result<Key, KeyError> {
    let make = |material| Key::new(None, None, material);
    if info.algorithm.algorithm.to_id_string() == ED25519 {
        return make(Material::Ed25519(&info.subject_public_key.data));
    }
    match info.parsed().map_err(|_| KeyError::Malformed)? {
        PublicKey::RSA(rsa) => make(Material::Rsa { n: unpadded(rsa.modulus), e: unpadded(rsa.exponent) }),
        PublicKey::EC(point) if point.data().len() == 65 => make(Material::P256(point.data())),
        PublicKey::EC(point) if point.data().len() == 97 => make(Material::P384(point.data())),
        _ => Err(KeyError::Unsupported),
    }
}

/// DER has a zero before a number whose first bit is set.
fn unpadded(number: &[u8]) -> &[u8] {
    number.strip_prefix(&[0]).unwrap_or(number)
}

#[cfg(test)]
mod tests;
