//! `consumers`: who may call, and by what they are known.

use std::{collections::BTreeMap, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, Unexpected, Visitor},
};

use super::secret::{REDACTED, Secret};
use crate::{
    name::{GroupName, IdentityName, PlanName},
    units::from_text,
};

/// Someone who calls: a program, a partner, a person.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Consumer {
    /// What it may use: one of `plans`, for limits that say `limit: plan`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanName>,
    /// Groups that it belongs to, for `authz`; services are told them in `X-Consumer-Groups`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<GroupName>,
    /// By what it is known. None: it can only be an anonymous consumer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub credentials: Vec<Credential>,
}

/// Something that only this consumer has.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(try_from = "CredentialKeys", into = "CredentialKeys")]
#[schemars(with = "CredentialKeys")]
pub enum Credential {
    ApiKey(ApiKey),
    Jwt(TokenClaims),
    Basic(Basic),
    ClientCertificate(ClientCertificate),
    Signature(SigningKey),
}

impl Credential {
    /// The key by which the file names its kind, as the scheme that reads it.
    pub const fn key(&self) -> &'static str {
        match self {
            Self::ApiKey(_) => "api_key",
            Self::Jwt(_) => "jwt",
            Self::Basic(_) => "basic",
            Self::ClientCertificate(_) => "client_certificate",
            Self::Signature(_) => "signature",
        }
    }
}

#[derive(Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
struct CredentialKeys {
    /// An API key, as `banyan key new` makes them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    api_key: Option<ApiKey>,
    /// A token of an identity whose claims are these. It may be one that is introspected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    jwt: Option<TokenClaims>,
    /// A user and a password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    basic: Option<Basic>,
    /// A certificate that a client shows to a listener with `client_auth`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client_certificate: Option<ClientCertificate>,
    /// A key with which it signs requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signature: Option<SigningKey>,
}

impl TryFrom<CredentialKeys> for Credential {
    type Error = &'static str;

    fn try_from(keys: CredentialKeys) -> Result<Self, &'static str> {
        let CredentialKeys { api_key, jwt, basic, client_certificate, signature } = keys;
        let (api_key, jwt, basic) = (api_key.map(Self::ApiKey), jwt.map(Self::Jwt), basic.map(Self::Basic));
        let named = [api_key, jwt, basic, client_certificate.map(Self::ClientCertificate), signature.map(Self::Signature)];
        let [one] = <[Self; 1]>::try_from(named.into_iter().flatten().collect::<Vec<_>>())
            .map_err(|_| "expected exactly one of `api_key`, `jwt`, `basic`, `client_certificate`, `signature`")?;
        Ok(one)
    }
}

impl From<Credential> for CredentialKeys {
    fn from(credential: Credential) -> Self {
        let none = Self::default();
        match credential {
            Credential::ApiKey(key) => Self { api_key: Some(key), ..none },
            Credential::Jwt(claims) => Self { jwt: Some(claims), ..none },
            Credential::Basic(basic) => Self { basic: Some(basic), ..none },
            Credential::ClientCertificate(certificate) => Self { client_certificate: Some(certificate), ..none },
            Credential::Signature(key) => Self { signature: Some(key), ..none },
        }
    }
}

/// An API key, by its digest: who reads the file cannot use it.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApiKey {
    /// SHA-256 of the key, in hexadecimal. The key must be random, of 128 bits at least: it is not made slow to guess, as a password is.
    pub sha256: Sha256,
}

/// The claims by which the tokens of one consumer are known.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenClaims {
    /// Who vouches for it.
    pub identity: IdentityName,
    /// What the token must say: every claim that is named must have exactly this value. `realm.id` leads into a map. If tokens fit several
    /// consumers, the one with most claims counts.
    #[schemars(extend("minProperties" = 1))]
    pub claim: BTreeMap<String, ClaimValue>,
}

/// A text, a whole number, `true` or `false`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum ClaimValue {
    Bool(bool),
    Number(i64),
    Text(String),
}

impl<'de> Deserialize<'de> for ClaimValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Scalar;
        impl Visitor<'_> for Scalar {
            type Value = ClaimValue;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, a whole number, `true` or `false`")
            }
            fn visit_bool<E: Error>(self, value: bool) -> Result<ClaimValue, E> {
                Ok(ClaimValue::Bool(value))
            }
            fn visit_i64<E: Error>(self, value: i64) -> Result<ClaimValue, E> {
                Ok(ClaimValue::Number(value))
            }
            fn visit_u64<E: Error>(self, value: u64) -> Result<ClaimValue, E> {
                let number = i64::try_from(value).map_err(|_| E::invalid_value(Unexpected::Unsigned(value), &self))?;
                Ok(ClaimValue::Number(number))
            }
            fn visit_str<E: Error>(self, value: &str) -> Result<ClaimValue, E> {
                Ok(ClaimValue::Text(value.to_owned()))
            }
        }
        deserializer.deserialize_any(Scalar)
    }
}

/// A key with which a consumer signs requests (RFC 9421).
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SigningKey {
    /// What signatures name it by, their `keyid`. Of one consumer only.
    #[schemars(length(min = 1, max = 512))]
    pub key_id: String,
    /// The one algorithm that it is for.
    pub algorithm: SigningAlgorithm,
    /// For `hmac-sha256` a secret of 32 bytes at least, in base64; else the public key in PEM (`-----BEGIN PUBLIC KEY-----`).
    pub key: Secret,
}

/// How requests are signed, by the names of RFC 9421 §6.2.2.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
pub enum SigningAlgorithm {
    #[serde(rename = "hmac-sha256")]
    HmacSha256,
    #[serde(rename = "ecdsa-p256-sha256")]
    EcdsaP256Sha256,
    #[serde(rename = "ed25519")]
    Ed25519,
}

/// A user and a password, for HTTP Basic.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Basic {
    /// The user. Not empty, and without a colon, which ends it in a request.
    #[serde(deserialize_with = "username")]
    #[schemars(regex(pattern = "^[^:]+$"))]
    pub username: String,
    /// The password's hash, of argon2id (`$argon2id$v=19$m=19456,t=2,p=1$…`) or bcrypt (`$2b$12$…`; passwords of up to 71 bytes).
    pub password_hash: Secret,
}

fn username<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    from_text(deserializer, "a user's name without a colon", |text| {
        (!text.is_empty() && !text.contains(':')).then(|| text.to_owned())
    })
}

/// What a client's certificate says of its holder. The listener has verified it already, by the authorities that it trusts.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(try_from = "ClientCertificateKeys", into = "ClientCertificateKeys")]
#[schemars(with = "ClientCertificateKeys")]
pub enum ClientCertificate {
    Subject(String),
    San(String),
    Fingerprint(Sha256),
}

#[derive(Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
struct ClientCertificateKeys {
    /// The whole distinguished name of its subject, as RFC 4514 writes it, the most specific part first: `CN=acme,O=Acme Ltd`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    /// One of its subject alternative names, with its kind: `DNS:orders.shop.example`, `URI:spiffe://shop.example/orders`, `email:…`, `IP:…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    san: Option<String>,
    /// SHA-256 of the certificate in DER, in hexadecimal; colons between the bytes are allowed. A renewed certificate has another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fingerprint: Option<Sha256>,
}

impl TryFrom<ClientCertificateKeys> for ClientCertificate {
    type Error = &'static str;

    fn try_from(keys: ClientCertificateKeys) -> Result<Self, &'static str> {
        match (keys.subject, keys.san, keys.fingerprint) {
            (Some(subject), None, None) => Ok(Self::Subject(subject)),
            (None, Some(san), None) => Ok(Self::San(san)),
            (None, None, Some(fingerprint)) => Ok(Self::Fingerprint(fingerprint)),
            _ => Err("expected exactly one of `subject`, `san`, `fingerprint`"),
        }
    }
}

impl From<ClientCertificate> for ClientCertificateKeys {
    fn from(certificate: ClientCertificate) -> Self {
        let none = Self::default();
        match certificate {
            ClientCertificate::Subject(subject) => Self { subject: Some(subject), ..none },
            ClientCertificate::San(san) => Self { san: Some(san), ..none },
            ClientCertificate::Fingerprint(fingerprint) => Self { fingerprint: Some(fingerprint), ..none },
        }
    }
}

/// A SHA-256 digest. Not shown: it may be one of a secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sha256(pub [u8; 32]);

const DIGEST: &str = "a SHA-256 digest of 64 hexadecimal digits";

impl<'de> Deserialize<'de> for Sha256 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_text(deserializer, DIGEST, |text| digest(text).map(Self))
    }
}

impl Serialize for Sha256 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(REDACTED)
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl JsonSchema for Sha256 {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Sha256".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^([0-9A-Fa-f]{2}:?){31}[0-9A-Fa-f]{2}$", "description": "A SHA-256 digest in hexadecimal." })
    }
}

/// With or without colons between the bytes: certificates' digests are often shown with them.
fn digest(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    let plain = text.split(':').collect::<String>();
    let text = if text.len() == 95 && text.split(':').all(|byte| byte.len() == 2) { plain.as_str() } else { text };
    if text.len() != 64 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = pair.iter().try_fold(0, |byte, digit| Some(byte << 4 | char::from(*digit).to_digit(16)? as u8))?;
    }
    Some(bytes)
}
