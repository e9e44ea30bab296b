//! An issuer of tokens: its key, and the place where it publishes what may change.

use std::sync::{Arc, Mutex};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::Origin;

/// A key that signs tokens, with its name.
pub struct Signer {
    pair: Ed25519KeyPair,
    kid: &'static str,
}

impl Signer {
    pub fn new(kid: &'static str) -> Self {
        Self { pair: Ed25519KeyPair::generate().unwrap(), kid }
    }

    pub fn jwk(&self) -> Value {
        let x = URL_SAFE_NO_PAD.encode(self.pair.public_key().as_ref());
        json!({ "kty": "OKP", "crv": "Ed25519", "kid": self.kid, "x": x })
    }

    /// A token with these claims beside `iss: idp`, `aud: api` and a far end; those that are given go before.
    pub fn token(&self, claims: Value) -> String {
        let mut all = json!({ "iss": "idp", "aud": "api", "exp": 9_999_999_999_u64 });
        all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
        self.sign(&json!({ "alg": "EdDSA", "kid": self.kid }), &all)
    }

    pub fn sign(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(header), part(claims));
        let signature = URL_SAFE_NO_PAD.encode(self.pair.sign(message.as_bytes()));
        format!("{message}.{signature}")
    }
}

/// A web server that says what it was last told to say.
pub struct Published {
    pub origin: Origin,
    says: Arc<Mutex<(u16, String)>>,
}

impl Published {
    pub fn new(value: &Value) -> Self {
        let says = Arc::new(Mutex::new((200, value.to_string())));
        let shared = says.clone();
        let origin = Origin::answer(move |_| {
            let (status, text) = shared.lock().unwrap().clone();
            format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n\r\n{text}", text.len())
        });
        Self { origin, says }
    }

    pub fn keys(signers: &[&Signer]) -> Self {
        Self::new(&Self::set(signers))
    }

    pub fn set(signers: &[&Signer]) -> Value {
        json!({ "keys": signers.iter().map(|signer| signer.jwk()).collect::<Vec<_>>() })
    }

    pub fn says(&self, status: u16, value: &Value) {
        *self.says.lock().unwrap() = (status, value.to_string());
    }
}
