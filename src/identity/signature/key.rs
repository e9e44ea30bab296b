//! Keys of those who sign, and the algorithms that we take (RFC 9421 §3.3).

use std::fmt;

use ahash::RandomState;
use aws_lc_rs::{
    hmac, rand,
    signature::{ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey, VerificationAlgorithm},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use std::collections::HashMap;

/// Fewest bytes of a secret: below, it is found sooner than a SHA-256.
const SECRET_MIN: usize = 32;

/// How a request is signed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Algorithm {
    HmacSha256,
    EcdsaP256Sha256,
    Ed25519,
}

impl Algorithm {
    /// Its name in the registry of RFC 9421 §6.2.2.
    pub const fn name(self) -> &'static str {
        match self {
            Self::HmacSha256 => "hmac-sha256",
            Self::EcdsaP256Sha256 => "ecdsa-p256-sha256",
            Self::Ed25519 => "ed25519",
        }
    }
}

/// A text is no key of the algorithm that is named beside it. It never shows the text.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KeyFault {
    #[error("a secret for hmac-sha256 is written in base64")]
    NotBase64,
    #[error("a secret for hmac-sha256 has at least 32 bytes")]
    Short,
    #[error("a public key is written as PEM, between `-----BEGIN PUBLIC KEY-----` and `-----END PUBLIC KEY-----`")]
    NotPem,
    #[error("the public key does not fit its algorithm")]
    Unfit,
}

/// A key that verifies with one algorithm only.
#[derive(Clone)]
pub struct Key(Kind);

#[derive(Clone)]
enum Kind {
    Secret(Box<hmac::Key>),
    Ecdsa(ParsedPublicKey),
    Ed25519(ParsedPublicKey),
}

impl Key {
    /// Reads a key: a secret in base64, or a public key in PEM (SubjectPublicKeyInfo).
    ///
    /// # Errors
    /// The text is none for that algorithm.
    pub fn read(algorithm: Algorithm, text: &str) -> Result<Self, KeyFault> {
        Ok(Self(match algorithm {
            Algorithm::HmacSha256 => Kind::Secret(Box::new(secret(text.trim())?)),
            Algorithm::EcdsaP256Sha256 => Kind::Ecdsa(public(&ECDSA_P256_SHA256_FIXED, text)?),
            Algorithm::Ed25519 => Kind::Ed25519(public(&ED25519, text)?),
        }))
    }

    pub const fn algorithm(&self) -> Algorithm {
        match self.0 {
            Kind::Secret(_) => Algorithm::HmacSha256,
            Kind::Ecdsa(_) => Algorithm::EcdsaP256Sha256,
            Kind::Ed25519(_) => Algorithm::Ed25519,
        }
    }

    fn verifies(&self, text: &[u8], signature: &[u8]) -> bool {
        match &self.0 {
            Kind::Secret(key) => hmac::verify(key, text, signature).is_ok(),
            Kind::Ecdsa(key) | Kind::Ed25519(key) => key.verify_sig(text, signature).is_ok(),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.algorithm().name())
    }
}

fn secret(text: &str) -> Result<hmac::Key, KeyFault> {
    let bytes = STANDARD.decode(text).map_err(|_| KeyFault::NotBase64)?;
    if bytes.len() < SECRET_MIN { Err(KeyFault::Short) } else { Ok(hmac::Key::new(hmac::HMAC_SHA256, &bytes)) }
}

fn public(algorithm: &'static dyn VerificationAlgorithm, text: &str) -> Result<ParsedPublicKey, KeyFault> {
    let inner =
        text.trim().strip_prefix("-----BEGIN PUBLIC KEY-----").and_then(|text| text.strip_suffix("-----END PUBLIC KEY-----"));
    let lines: String = inner.ok_or(KeyFault::NotPem)?.split_ascii_whitespace().collect();
    let der = STANDARD.decode(lines).map_err(|_| KeyFault::NotPem)?;
    ParsedPublicKey::new(algorithm, der).map_err(|_| KeyFault::Unfit)
}

/// The keys by their `keyid`, each with who holds it.
///
/// A `keyid` that nobody has is verified as long as one that somebody has, and never with success.
#[derive(Debug)]
pub struct Keys<H> {
    by_id: HashMap<Box<str>, (Key, H), RandomState>,
    /// One key of each algorithm that is in use.
    decoys: Vec<Key>,
    /// Which decoy stands for a `keyid` is the same each time, and not to be foreseen.
    lot: RandomState,
}

impl<H: Clone> Default for Keys<H> {
    fn default() -> Self {
        Self::new([])
    }
}

impl<H: Clone> Keys<H> {
    /// Of two keys with one id the last counts: refuse that before.
    pub fn new(keys: impl IntoIterator<Item = (Box<str>, Key, H)>) -> Self {
        let by_id: HashMap<_, _, _> = keys.into_iter().map(|(id, key, holder)| (id, (key, holder))).collect();
        let decoys = decoys(by_id.values().map(|(key, _)| key.algorithm()).collect());
        Self { by_id, decoys, lot: RandomState::new() }
    }

    /// Whose signature it is. `named` is the algorithm that the client names, if it does.
    pub(super) fn verify(&self, id: &str, named: Option<&str>, text: &[u8], signature: &[u8]) -> Option<H> {
        let found = self.by_id.get(id);
        let key = found.map(|(key, _)| key).or_else(|| self.decoy(id))?;
        if named.is_some_and(|named| named != key.algorithm().name()) || !key.verifies(text, signature) {
            return None;
        }
        found.map(|(_, holder)| holder.clone())
    }

    fn decoy(&self, id: &str) -> Option<&Key> {
        let lot = self.lot.hash_one(id).checked_rem(self.decoys.len() as u64)?;
        self.decoys.get(usize::try_from(lot).ok()?)
    }
}

/// Public keys of nobody who signs here: those of RFC 9421 appendix B.1, whose private halves are public too.
const NOBODY_P256: &str = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEqIVYZVLCrPZHGHjP17CTW0/+D9Lf\n\
     w0EkjqF7xB4FivAxzic30tMM4GF+hR6Dxh71Z50VGGdldkkDXZCnTNnoXQ==\n-----END PUBLIC KEY-----";
const NOBODY_ED25519: &str =
    "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAJrQLj5P/89iXES9+vFgrIy29clF9CC/oPPsw3c5D0bs=\n-----END PUBLIC KEY-----";

fn decoys(in_use: Vec<Algorithm>) -> Vec<Key> {
    let key = |algorithm| match algorithm {
        Algorithm::HmacSha256 => {
            hmac::Key::generate(hmac::HMAC_SHA256, &rand::SystemRandom::new()).map(|key| Key(Kind::Secret(Box::new(key)))).ok()
        }
        Algorithm::EcdsaP256Sha256 => Key::read(algorithm, NOBODY_P256).ok(),
        Algorithm::Ed25519 => Key::read(algorithm, NOBODY_ED25519).ok(),
    };
    let all = [Algorithm::HmacSha256, Algorithm::EcdsaP256Sha256, Algorithm::Ed25519];
    all.into_iter().filter(|algorithm| in_use.contains(algorithm)).filter_map(key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(algorithm: Algorithm, text: &str, expected: Result<(), KeyFault>) {
        assert_eq!(Key::read(algorithm, text).map(drop), expected, "{text}");
    }

    #[test]
    fn keys_fit_their_algorithm() {
        use Algorithm::{EcdsaP256Sha256, Ed25519, HmacSha256};
        check(EcdsaP256Sha256, NOBODY_P256, Ok(()));
        check(Ed25519, NOBODY_ED25519, Ok(()));
        check(Ed25519, NOBODY_P256, Err(KeyFault::Unfit));
        check(EcdsaP256Sha256, NOBODY_ED25519, Err(KeyFault::Unfit));
        check(HmacSha256, NOBODY_ED25519, Err(KeyFault::NotBase64));
        check(HmacSha256, "c2hvcnQ=", Err(KeyFault::Short));
        check(HmacSha256, &STANDARD.encode([7; 32]), Ok(()));
        check(Ed25519, "-----BEGIN PUBLIC KEY-----", Err(KeyFault::NotPem));
        check(Ed25519, "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----", Err(KeyFault::NotPem));
    }

    #[test]
    fn a_decoy_lets_nobody_in() {
        let secret = Key::read(Algorithm::HmacSha256, &STANDARD.encode([7; 32])).unwrap();
        let keys = Keys::new([("ours".into(), secret, ())]);
        let Some(Key(Kind::Secret(decoy))) = keys.decoy("theirs") else { panic!("no decoy") };
        let tag = hmac::sign(decoy, b"text");
        assert!(keys.decoy("theirs").unwrap().verifies(b"text", tag.as_ref()));
        assert_eq!(keys.verify("theirs", None, b"text", tag.as_ref()), None);
    }

    #[test]
    fn a_key_shows_no_secret() {
        let secret = Key::read(Algorithm::HmacSha256, &STANDARD.encode([7; 32])).unwrap();
        assert_eq!(format!("{secret:?}"), "Key(hmac-sha256)");
    }
}
