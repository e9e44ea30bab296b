//! `identity.NAME.session_bridge`: from a session of a legacy application to a token for new services.

use std::{collections::BTreeMap, path::PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use super::timeout;
use crate::units::{Duration, from_text, positive};

/// Sessions of a legacy application. Its cookie is exchanged at the application for what it knows of the caller; of that the gateway signs a short-lived
/// JSON Web Token for new services. Its public keys are published by a route with `to: { jwks: NAME }`.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SessionBridge {
    /// Name of the session's cookie.
    pub cookie: String,
    /// Where the application says whose a session is: a GET with the cookie, answered by 200 and a JSON object; 401, 403 or 404: there is no such
    /// session. Any other answer, or none in time, refuses the request.
    pub url: String,
    /// Longest wait for an answer, connection included.
    #[serde(default = "timeout", deserialize_with = "positive")]
    pub timeout: Duration,
    /// Longest that an answer and its token are remembered: so long a session that has ended may still be taken for one. `0s`: each request is a
    /// question.
    #[serde(default = "cache")]
    pub cache: Duration,
    /// `iss` of the tokens.
    pub issuer: String,
    /// `aud` of the tokens: the services that they are for.
    pub audience: Vec<String>,
    /// From `iat` to `exp`, 10s to 1h. A token is minted anew when a fifth of it is left.
    #[serde(default = "lifetime", deserialize_with = "short")]
    pub lifetime: Duration,
    /// How tokens are signed.
    pub algorithm: SigningAlgorithm,
    /// PEM file of the private key. Read again when it changes. Its `kid` is its thumbprint (RFC 7638).
    pub key: PathBuf,
    /// PEM files of other keys that are published: of the one before, until its last token has expired, and of the next, before it signs. Public keys,
    /// certificates or private keys.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub other_keys: Vec<PathBuf>,
    /// Where in the answer the `sub` of tokens is: a text or a number. `user.id` leads into a map.
    #[serde(default = "subject")]
    pub subject: String,
    /// Other claims of tokens, each by where it is in the answer: `{ email: user.email }`. What is not there is left out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub claims: BTreeMap<String, String>,
    /// Header field in which services get the token. `Authorization` has `Bearer` before it.
    #[serde(default = "header")]
    pub header: String,
    /// Claims that services are told, each in the header field that is named. What clients send in these fields is dropped.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub forward: BTreeMap<String, String>,
    /// Whether the service gets the cookie too. Default false: it is taken out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keep: bool,
    /// Whether the application may be asked over plain HTTP on another machine, which shows sessions to all on the way. Default false: on this
    /// machine only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_http: bool,
    /// PEM file of the authorities that may vouch for the application. Absent: those of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
}

/// An algorithm that the gateway signs with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
pub enum SigningAlgorithm {
    /// ECDSA on P-256.
    ES256,
    /// RSA, PKCS #1 v1.5, of 2048 bits at least.
    RS256,
    /// Ed25519.
    EdDSA,
}

impl SigningAlgorithm {
    /// As `alg` names it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ES256 => "ES256",
            Self::RS256 => "RS256",
            Self::EdDSA => "EdDSA",
        }
    }
}

const SHORTEST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(3_600);

fn short<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    from_text(deserializer, "a duration from 10s to 1h with its unit such as `5m`", |text| {
        text.parse().ok().filter(|lifetime| (SHORTEST..=LONGEST).contains(lifetime))
    })
}

const fn lifetime() -> Duration {
    Duration::from_secs(300)
}

const fn cache() -> Duration {
    Duration::from_secs(60)
}

fn subject() -> String {
    "sub".to_owned()
}

fn header() -> String {
    "Authorization".to_owned()
}
