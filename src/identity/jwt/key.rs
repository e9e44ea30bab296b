//! One key that tokens are verified with.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
    RsaPublicKeyComponents, VerificationAlgorithm,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

/// A key, checked and ready when it is read. What it is decides which algorithms it serves, never what a token says.
pub struct Key {
    id: Option<Box<str>>,
    kind: Kind,
    /// The one algorithm that its owner means it for.
    only: Option<Algorithm>,
    decoding: DecodingKey,
    print: [u8; 32],
    withdrawn: AtomicBool,
}

/// What a key is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A secret of so many bytes.
    Secret(usize),
    Rsa,
    P256,
    P384,
    Ed25519,
}

/// Why a key cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KeyError {
    #[error("it is no key as RFC 7517 has them")]
    Malformed,
    #[error("it is not for verifying signatures")]
    Use,
    #[error("its type, curve or algorithm is not supported")]
    Unsupported,
    #[error("it is a private key: whoever verifies needs the public one")]
    Private,
    #[error("it is an RSA key of less than 2048 or more than 8192 bits, or no RSA key")]
    Rsa,
    #[error("it is not a point on its curve")]
    Point,
    #[error("it is a secret of less than 256 bits")]
    WeakSecret,
}

/// Shortest secret, in bytes (RFC 7518 §3.2 asks for the length of the hash at least).
pub const SECRET_MIN: usize = 32;

/// Numbers of a public key or the bytes of a secret.
#[derive(Clone, Copy)]
pub enum Material<'m> {
    Secret(&'m [u8]),
    Rsa {
        n: &'m [u8],
        e: &'m [u8],
    },
    /// Uncompressed, as in SEC 1.
    P256(&'m [u8]),
    P384(&'m [u8]),
    Ed25519(&'m [u8]),
}

impl Key {
    /// # Errors
    /// It is weak or no key.
    pub fn new(id: Option<&str>, only: Option<Algorithm>, material: Material<'_>) -> Result<Self, KeyError> {
        let (kind, decoding) = material.checked()?;
        if only.is_some_and(|alg| !kind.serves(alg)) {
            return Err(KeyError::Unsupported);
        }
        let print = material.print(id, only);
        Ok(Self { id: id.map(Box::from), kind, only, decoding, print, withdrawn: AtomicBool::new(false) })
    }

    /// Reads a key of RFC 7517, RFC 7518 §6 and RFC 8037.
    ///
    /// # Errors
    /// It is weak, for another use, of a kind that we do not do, or no key.
    pub fn from_jwk(jwk: &Map<String, Value>) -> Result<Self, KeyError> {
        let text = |name| text(jwk, name);
        if text("use")?.is_some_and(|for_what| for_what != "sig") || !may_verify(jwk)? {
            return Err(KeyError::Use);
        }
        if jwk.contains_key("d") {
            return Err(KeyError::Private);
        }
        let only = text("alg")?.map(|alg| alg.parse().map_err(|_| KeyError::Unsupported)).transpose()?;
        let make = |material: Material<'_>| Self::new(text("kid")?, only, material);
        match (text("kty")?.ok_or(KeyError::Malformed)?, text("crv")?) {
            ("RSA", _) => make(Material::Rsa { n: &number(jwk, "n")?, e: &number(jwk, "e")? }),
            ("EC", Some("P-256")) => make(Material::P256(&point(jwk, 32)?)),
            ("EC", Some("P-384")) => make(Material::P384(&point(jwk, 48)?)),
            ("OKP", Some("Ed25519")) => make(Material::Ed25519(&number(jwk, "x")?)),
            ("oct", _) => make(Material::Secret(&number(jwk, "k")?)),
            _ => Err(KeyError::Unsupported),
        }
    }

    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether it is the key for tokens of the algorithm.
    pub fn serves(&self, alg: Algorithm) -> bool {
        self.kind.serves(alg) && self.only.is_none_or(|only| only == alg)
    }

    /// Whether the message was signed with it. `signature` is in base64url.
    pub fn verifies(&self, alg: Algorithm, message: &[u8], signature: &str) -> bool {
        self.serves(alg) && jsonwebtoken::crypto::verify(signature, message, &self.decoding, alg).unwrap_or(false)
    }

    /// Whether it is the same key, under the same name, for the same use.
    pub fn is_same(&self, other: &Self) -> bool {
        self.print == other.print
    }

    /// Its owner does not stand by it any longer: neither do tokens that were verified with it.
    pub fn withdraw(&self) {
        self.withdrawn.store(true, Relaxed);
    }

    pub fn is_withdrawn(&self) -> bool {
        self.withdrawn.load(Relaxed)
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("id", &self.id).field("kind", &self.kind).field("only", &self.only).finish_non_exhaustive()
    }
}

impl Kind {
    /// Whether a key of this kind can be one for the algorithm. A secret must be as long as the hash (RFC 7518 §3.2).
    pub fn serves(self, alg: Algorithm) -> bool {
        use Algorithm::{ES256, ES384, EdDSA, HS256, HS384, HS512, PS256, PS384, PS512, RS256, RS384, RS512};
        match self {
            Self::Secret(bytes) => matches!((alg, bytes), (HS256, 32..) | (HS384, 48..) | (HS512, 64..)),
            Self::Rsa => matches!(alg, RS256 | RS384 | RS512 | PS256 | PS384 | PS512),
            Self::P256 => alg == ES256,
            Self::P384 => alg == ES384,
            Self::Ed25519 => alg == EdDSA,
        }
    }
}

impl Material<'_> {
    /// Checks the key as a whole, so that one that can never verify is found when it is read.
    fn checked(self) -> Result<(Kind, DecodingKey), KeyError> {
        match self {
            Self::Secret(bytes) if bytes.len() < SECRET_MIN => Err(KeyError::WeakSecret),
            Self::Secret(bytes) => Ok((Kind::Secret(bytes.len()), DecodingKey::from_secret(bytes))),
            Self::Rsa { n, e } if is_rsa(n, e) => Ok((Kind::Rsa, DecodingKey::from_rsa_raw_components(n, e))),
            Self::Rsa { .. } => Err(KeyError::Rsa),
            Self::P256(point) => {
                on_curve(&ECDSA_P256_SHA256_FIXED, point).map(|()| (Kind::P256, DecodingKey::from_ec_der(point)))
            }
            Self::P384(point) => {
                on_curve(&ECDSA_P384_SHA384_FIXED, point).map(|()| (Kind::P384, DecodingKey::from_ec_der(point)))
            }
            Self::Ed25519(point) => on_curve(&ED25519, point).map(|()| (Kind::Ed25519, DecodingKey::from_ed_der(point))),
        }
    }

    fn print(self, id: Option<&str>, only: Option<Algorithm>) -> [u8; 32] {
        let (kind, parts) = match self {
            Self::Secret(bytes) => ("oct", [bytes, &[]]),
            Self::Rsa { n, e } => ("RSA", [n, e]),
            Self::P256(point) => ("P-256", [point, &[]]),
            Self::P384(point) => ("P-384", [point, &[]]),
            Self::Ed25519(point) => ("Ed25519", [point, &[]]),
        };
        let mut digest = Sha256::new();
        let mut part = |bytes: &[u8]| {
            digest.update((bytes.len() as u64).to_be_bytes());
            digest.update(bytes);
        };
        part(format!("{kind} {only:?} {id:?}").as_bytes());
        parts.into_iter().for_each(&mut part);
        digest.finalize().into()
    }
}

/// Sizes as the library takes them, which checks them at each signature only; no product of odd primes is even, and with an exponent of 1
/// everything is its own signature.
fn is_rsa(n: &[u8], e: &[u8]) -> bool {
    let bits = (n.len() * 8).saturating_sub(n.first().map_or(0, |byte| byte.leading_zeros() as usize));
    let is_odd = |number: &[u8]| number.last().is_some_and(|byte| byte & 1 == 1);
    let parses = || RsaPublicKeyComponents { n, e }.to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256).is_ok();
    (2048..=8192).contains(&bits) && is_odd(n) && is_odd(e) && e != [1] && parses()
}

fn on_curve(curve: &'static dyn VerificationAlgorithm, point: &[u8]) -> Result<(), KeyError> {
    ParsedPublicKey::new(curve, point).map(drop).map_err(|_| KeyError::Point)
}

fn text<'j>(jwk: &'j Map<String, Value>, name: &str) -> Result<Option<&'j str>, KeyError> {
    match jwk.get(name) {
        None => Ok(None),
        Some(value) => value.as_str().map(Some).ok_or(KeyError::Malformed),
    }
}

/// `key_ops` (RFC 7517 §4.3).
fn may_verify(jwk: &Map<String, Value>) -> Result<bool, KeyError> {
    match jwk.get("key_ops") {
        None => Ok(true),
        Some(Value::Array(uses)) => Ok(uses.iter().any(|one| one == "verify")),
        Some(_) => Err(KeyError::Malformed),
    }
}

/// A number without zeros before it, as some write them (RFC 7518 §2 has none). Empty is none.
fn number(jwk: &Map<String, Value>, name: &str) -> Result<Vec<u8>, KeyError> {
    let bytes = URL_SAFE_NO_PAD.decode(text(jwk, name)?.ok_or(KeyError::Malformed)?).map_err(|_| KeyError::Malformed)?;
    let is_integer = ["n", "e"].contains(&name);
    let zeros = if is_integer { bytes.iter().take_while(|byte| **byte == 0).count() } else { 0 };
    let bytes: Vec<u8> = bytes.into_iter().skip(zeros).collect();
    if bytes.is_empty() { Err(KeyError::Malformed) } else { Ok(bytes) }
}

/// An uncompressed point of two coordinates, each of exactly so many bytes (RFC 7518 §6.2.1.2).
fn point(jwk: &Map<String, Value>, size: usize) -> Result<Vec<u8>, KeyError> {
    let (x, y) = (number(jwk, "x")?, number(jwk, "y")?);
    if x.len() != size || y.len() != size {
        return Err(KeyError::Point);
    }
    Ok([&[4], x.as_slice(), y.as_slice()].concat())
}

#[cfg(test)]
mod tests;
