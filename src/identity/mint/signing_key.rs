//! Private keys in PEM files, and the public halves that are published.

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
        RsaPublicKeyComponents,
    },
};
use rustls::pki_types::{PrivateKeyDer, pem::PemObject};
use serde_json::{Map, Value, json};

use super::{Unsigned, jwk};
use crate::{
    config::identity::session_bridge::SigningAlgorithm,
    identity::jwt::{
        key::{KeyError, Material},
        pem,
    },
};

/// A key that signs, with the name that its public half has.
pub struct SigningKey {
    pair: Pair,
    id: Box<str>,
    public: Map<String, Value>,
}

enum Pair {
    P256(EcdsaKeyPair),
    Rsa(Box<RsaKeyPair>),
    Ed25519(Ed25519KeyPair),
}

/// What is wrong with a file of a key.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SigningKeyError {
    #[error("holds no private key in PEM")]
    NoKey,
    #[error("is no key for `{}`, or a weak one", .0.name())]
    Unfit(SigningAlgorithm),
    #[error("holds neither a key that the gateway could sign with, nor its public half")]
    NotPublic,
    #[error("holds a key that cannot be used: {0}")]
    Key(#[from] KeyError),
}

/// Shortest RSA key that signs, in bytes.
const RSA_MIN: usize = 2048 / 8;

impl SigningKey {
    /// Reads a private key: PKCS #8, PKCS #1 or SEC 1.
    ///
    /// # Errors
    /// There is none, it is weak, or for another algorithm.
    pub fn read(text: &[u8], algorithm: SigningAlgorithm) -> Result<Self, SigningKeyError> {
        let der = PrivateKeyDer::from_pem_slice(text).map_err(|_| SigningKeyError::NoKey)?;
        Pair::read(&der, algorithm).and_then(Self::of).ok_or(SigningKeyError::Unfit(algorithm))
    }

    fn of(pair: Pair) -> Option<Self> {
        let public = pair.published()?;
        let id = public.get("kid")?.as_str()?.into();
        Some(Self { pair, id, public })
    }

    /// The key's `kid`: its thumbprint.
    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn algorithm(&self) -> SigningAlgorithm {
        match self.pair {
            Pair::P256(_) => SigningAlgorithm::ES256,
            Pair::Rsa(_) => SigningAlgorithm::RS256,
            Pair::Ed25519(_) => SigningAlgorithm::EdDSA,
        }
    }

    /// Its public half, as it is published.
    pub fn public(&self) -> &Map<String, Value> {
        &self.public
    }

    /// # Errors
    /// It does not sign.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Unsigned> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::P256(pair) => pair.sign(&random, message).map(|signature| signature.as_ref().to_vec()).map_err(|_| Unsigned),
            Pair::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).map_err(|_| Unsigned)?;
                Ok(signature)
            }
        }
    }
}

impl Pair {
    fn read(der: &PrivateKeyDer<'_>, algorithm: SigningAlgorithm) -> Option<Self> {
        let bytes = der.secret_der();
        match algorithm {
            SigningAlgorithm::ES256 => match der {
                PrivateKeyDer::Sec1(_) => EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_FIXED_SIGNING, bytes),
                _ => EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, bytes),
            }
            .ok()
            .map(Self::P256),
            SigningAlgorithm::RS256 => match der {
                PrivateKeyDer::Pkcs1(_) => RsaKeyPair::from_der(bytes),
                _ => RsaKeyPair::from_pkcs8(bytes),
            }
            .ok()
            .filter(|pair| pair.public_modulus_len() >= RSA_MIN)
            .map(|pair| Self::Rsa(Box::new(pair))),
            SigningAlgorithm::EdDSA => Ed25519KeyPair::from_pkcs8(bytes).ok().map(Self::Ed25519),
        }
    }

    fn published(&self) -> Option<Map<String, Value>> {
        match self {
            Self::P256(pair) => jwk::published(Material::P256(pair.public_key().as_ref())),
            Self::Ed25519(pair) => jwk::published(Material::Ed25519(pair.public_key().as_ref())),
            Self::Rsa(pair) => {
                let public = RsaPublicKeyComponents::<Vec<u8>>::from(pair.public_key());
                jwk::published(Material::Rsa { n: &public.n, e: &public.e })
            }
        }
    }
}

/// What is published of a file: of a private key its public half, else public keys and those of certificates.
///
/// # Errors
/// There is nothing that could be published.
pub fn public(text: &[u8]) -> Result<Vec<Map<String, Value>>, SigningKeyError> {
    if let Ok(der) = PrivateKeyDer::from_pem_slice(text) {
        let all = [SigningAlgorithm::ES256, SigningAlgorithm::RS256, SigningAlgorithm::EdDSA];
        let pair = all.into_iter().find_map(|algorithm| Pair::read(&der, algorithm));
        return Ok(vec![pair.and_then(|pair| pair.published()).ok_or(SigningKeyError::NotPublic)?]);
    }
    let public = pem::each(text, |material| Ok(jwk::published(material))).map_err(|_| SigningKeyError::NotPublic)?;
    public.into_iter().collect::<Option<Vec<_>>>().ok_or(SigningKeyError::NotPublic)
}

/// A JSON Web Key Set (RFC 7517 §5) of these keys, each once.
pub fn set(keys: impl IntoIterator<Item = Map<String, Value>>) -> String {
    let mut each: Vec<Map<String, Value>> = Vec::new();
    for key in keys {
        if !each.contains(&key) {
            each.push(key);
        }
    }
    json!({ "keys": each }).to_string()
}
