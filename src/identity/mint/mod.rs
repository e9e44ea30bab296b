//! Tokens that the gateway signs itself: JSON Web Tokens (RFC 7519) for the services behind it.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};

use super::token::Moment;

pub mod jwk;
pub mod signing_key;

pub use self::signing_key::SigningKey;

/// Claims that are the gateway's own to say.
pub const OWN: [&str; 7] = ["iss", "sub", "aud", "exp", "nbf", "iat", "jti"];

/// Who signs, and what every token says.
pub struct Minter {
    key: SigningKey,
    /// `base64url(header).`, the same for each token.
    header: Box<str>,
    issuer: Box<str>,
    audience: Value,
    lifetime: Duration,
}

/// A token, and what it says.
pub struct Minted {
    pub token: String,
    pub claims: Map<String, Value>,
}

/// The key does not sign, though it did when it was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the token could not be signed")]
pub struct Unsigned;

impl Minter {
    pub fn new(key: SigningKey, issuer: &str, audience: &[String], lifetime: Duration) -> Self {
        let header = json!({ "alg": key.algorithm().name(), "kid": key.id(), "typ": "JWT" });
        let audience = match audience {
            [one] => json!(one),
            several => json!(several),
        };
        Self { header: format!("{}.", encoded(&header)).into(), key, issuer: issuer.into(), audience, lifetime }
    }

    pub fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// A token for `subject` with these claims, none of which is one of [`OWN`].
    ///
    /// # Errors
    /// It could not be signed.
    pub fn mint(&self, subject: &str, mut claims: Map<String, Value>, now: Moment) -> Result<Minted, Unsigned> {
        let own = [
            ("iss", json!(self.issuer)),
            ("sub", json!(subject)),
            ("aud", self.audience.clone()),
            ("iat", json!(now.seconds())),
            ("exp", json!(now.seconds().saturating_add(self.lifetime.as_secs()))),
            ("jti", json!(format!("{:032x}", fastrand::u128(..)))),
        ];
        claims.extend(own.map(|(name, value)| (name.to_owned(), value)));
        let claims = Value::Object(claims);
        let mut token = String::from(&*self.header);
        URL_SAFE_NO_PAD.encode_string(claims.to_string(), &mut token);
        let signature = self.key.sign(token.as_bytes())?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        let Value::Object(claims) = claims else { return Err(Unsigned) };
        Ok(Minted { token, claims })
    }
}

fn encoded(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

#[cfg(test)]
mod tests;
