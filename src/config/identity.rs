//! `identity`: who vouches for callers.

use std::{collections::BTreeMap, path::PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::{forward::Forward, oidc::Oidc, session_bridge::SessionBridge};
use super::secret::Secret;
use crate::units::{Duration, positive};

pub mod forward;
pub mod oidc;
pub mod session_bridge;

/// Someone who vouches for callers. One key says how.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(try_from = "IdentityKeys", into = "IdentityKeys")]
#[schemars(with = "IdentityKeys")]
// One a name in the file: their size is no matter.
#[allow(clippy::large_enum_variant)]
pub enum Identity {
    Jwt(Jwt),
    Introspection(Introspection),
    Forward(Forward),
    SessionBridge(SessionBridge),
    Oidc(Oidc),
}

impl Identity {
    /// The key by which the file chooses it.
    pub const fn key(&self) -> &'static str {
        match self {
            Self::Jwt(_) => "jwt",
            Self::Introspection(_) => "introspection",
            Self::Forward(_) => "forward",
            Self::SessionBridge(_) => "session_bridge",
            Self::Oidc(_) => "oidc",
        }
    }

    /// Header fields in which services believe what it says.
    pub fn told(&self) -> Vec<&str> {
        match self {
            Self::Jwt(jwt) => jwt.forward.values().map(String::as_str).collect(),
            Self::Introspection(introspection) => introspection.forward.values().map(String::as_str).collect(),
            Self::Forward(forward) => forward.copy.iter().map(String::as_str).collect(),
            Self::SessionBridge(bridge) => bridge.forward.values().map(String::as_str).chain([bridge.header.as_str()]).collect(),
            Self::Oidc(oidc) => oidc.forward.values().map(String::as_str).collect(),
        }
    }

    /// Whether the service gets what proved who calls.
    pub const fn keep(&self) -> bool {
        match self {
            Self::Jwt(jwt) => jwt.keep,
            Self::Introspection(introspection) => introspection.keep,
            Self::Forward(forward) => forward.keep,
            Self::SessionBridge(bridge) => bridge.keep,
            Self::Oidc(_) => false,
        }
    }

    /// Every file that it names.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let (key, others, ca) = match self {
            Self::Jwt(jwt) => (jwt.keys.file.as_ref(), [].as_slice(), jwt.keys.ca.as_ref()),
            Self::Introspection(introspection) => (None, [].as_slice(), introspection.ca.as_ref()),
            Self::Forward(forward) => (None, [].as_slice(), forward.ca.as_ref()),
            Self::SessionBridge(bridge) => (Some(&bridge.key), bridge.other_keys.as_slice(), bridge.ca.as_ref()),
            Self::Oidc(oidc) => (None, [].as_slice(), oidc.ca.as_ref()),
        };
        key.into_iter().chain(others).chain(ca)
    }
}

#[derive(Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
struct IdentityKeys {
    /// By signed tokens that are verified here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    jwt: Option<Jwt>,
    /// By tokens that their issuer is asked about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    introspection: Option<Introspection>,
    /// By a service that is asked about each request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    forward: Option<Forward>,
    /// By sessions of a legacy application.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    session_bridge: Option<SessionBridge>,
    /// By people who sign in with a browser.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    oidc: Option<Oidc>,
}

impl TryFrom<IdentityKeys> for Identity {
    type Error = &'static str;

    fn try_from(keys: IdentityKeys) -> Result<Self, &'static str> {
        let IdentityKeys { jwt, introspection, forward, session_bridge, oidc } = keys;
        let listed = [
            jwt.map(Self::Jwt),
            introspection.map(Self::Introspection),
            forward.map(Self::Forward),
            session_bridge.map(Self::SessionBridge),
            oidc.map(Self::Oidc),
        ];
        let mut listed = listed.into_iter().flatten();
        match (listed.next(), listed.next()) {
            (Some(one), None) => Ok(one),
            _ => Err("expected exactly one of `jwt`, `introspection`, `forward`, `session_bridge`, `oidc`"),
        }
    }
}

impl From<Identity> for IdentityKeys {
    fn from(identity: Identity) -> Self {
        match identity {
            Identity::Jwt(jwt) => Self { jwt: Some(jwt), ..Self::default() },
            Identity::Introspection(introspection) => Self { introspection: Some(introspection), ..Self::default() },
            Identity::Forward(forward) => Self { forward: Some(forward), ..Self::default() },
            Identity::SessionBridge(bridge) => Self { session_bridge: Some(bridge), ..Self::default() },
            Identity::Oidc(oidc) => Self { oidc: Some(oidc), ..Self::default() },
        }
    }
}

/// JSON Web Tokens (RFC 7519), signed, that callers bring as `Authorization: Bearer …`. A token must have `exp`.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Jwt {
    /// What `iss` must be, to the letter.
    pub issuer: String,
    /// What `aud` must name at least one of. Absent: a token must have no `aud`, for it would be meant for somebody else.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub audience: Vec<String>,
    /// The algorithms that tokens may be signed with. The type of the keys must fit each of them.
    pub algorithms: Vec<Algorithm>,
    /// Where the issuer's keys are.
    pub keys: Keys,
    /// By how much the issuer's clock may differ from ours, at `exp` and `nbf`.
    #[serde(default = "leeway")]
    pub leeway: Duration,
    /// What `typ` must be, such as `at+jwt` for access tokens of RFC 9068. Absent: none, `JWT` or `at+jwt`; a token of another type, such as
    /// one that logs out, is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub typ: Option<String>,
    /// Claims that must be there, beside `iss` and `exp`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub required_claims: Vec<String>,
    /// The claim that has the roles of a caller, a list or a text with spaces. `realm_access.roles` leads into a map.
    #[serde(default = "roles")]
    pub roles: String,
    /// Claims that services are told, each in the header field that is named. What clients send in these fields is dropped.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub forward: BTreeMap<String, String>,
    /// Whether the service gets the token too. Default false: it is taken out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keep: bool,
}

/// An algorithm that tokens are signed with (RFC 7518 §3.1, RFC 8037).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
pub enum Algorithm {
    /// RSA, PKCS #1 v1.5.
    RS256,
    RS384,
    RS512,
    /// RSA, PSS.
    PS256,
    PS384,
    PS512,
    /// ECDSA on P-256.
    ES256,
    /// ECDSA on P-384.
    ES384,
    /// Ed25519.
    EdDSA,
    /// HMAC: whoever can verify a token can make one too.
    HS256,
    HS384,
    HS512,
}

impl Algorithm {
    /// Whether it needs a secret rather than a public key.
    pub const fn is_secret(self) -> bool {
        matches!(self, Self::HS256 | Self::HS384 | Self::HS512)
    }
}

/// The keys of an issuer: exactly one of `jwks_url`, `discovery`, `file` and `secret`.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(try_from = "KeysKeys", into = "KeysKeys")]
#[schemars(with = "KeysKeys")]
pub struct Keys {
    pub jwks_url: Option<String>,
    pub discovery: Option<String>,
    pub file: Option<PathBuf>,
    pub secret: Option<Secret>,
    pub refresh: Duration,
    pub allow_http: bool,
    pub ca: Option<PathBuf>,
}

#[derive(Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct KeysKeys {
    /// URL of a JSON Web Key Set, fetched in the background. A token whose `kid` is not in it has it fetched again, at most every 10s. While
    /// it cannot be had, what it said last is in force; a key that it leaves out counts no longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    jwks_url: Option<String>,
    /// URL of the issuer's OpenID Connect discovery document, which says where the key set is. Its `issuer` must be ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    discovery: Option<String>,
    /// File of public keys or certificates in PEM, or of a JSON Web Key Set. Read again when it changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    file: Option<PathBuf>,
    /// The secret of HMAC algorithms, of 256 bits at least and as long as the hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    secret: Option<Secret>,
    /// How often published keys are fetched. Default 10m; 1s at least.
    #[serde(default, deserialize_with = "refresh", skip_serializing_if = "Option::is_none")]
    refresh: Option<Duration>,
    /// Whether keys may be fetched over plain HTTP from other machines. Who can change what is on the way can then sign tokens. Default
    /// false: from this machine only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    allow_http: bool,
    /// PEM file of the authorities that may vouch for the server of published keys. Absent: those of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ca: Option<PathBuf>,
}

/// How often published keys are fetched, unless the file says so.
const REFRESH: Duration = Duration::from_secs(600);

impl TryFrom<KeysKeys> for Keys {
    type Error = &'static str;

    fn try_from(keys: KeysKeys) -> Result<Self, &'static str> {
        let KeysKeys { jwks_url, discovery, file, secret, refresh, allow_http, ca } = keys;
        let published = jwks_url.is_some() || discovery.is_some();
        match [jwks_url.is_some(), discovery.is_some(), file.is_some(), secret.is_some()].iter().filter(|there| **there).count() {
            1 if !published && (refresh.is_some() || allow_http || ca.is_some()) => {
                Err("`refresh`, `allow_http` and `ca` are for keys that are fetched: `jwks_url`, `discovery`")
            }
            1 => Ok(Self { jwks_url, discovery, file, secret, refresh: refresh.unwrap_or(REFRESH), allow_http, ca }),
            _ => Err("expected exactly one of `jwks_url`, `discovery`, `file`, `secret`"),
        }
    }
}

impl From<Keys> for KeysKeys {
    fn from(keys: Keys) -> Self {
        let Keys { jwks_url, discovery, file, secret, refresh, allow_http, ca } = keys;
        let refresh = (jwks_url.is_some() || discovery.is_some()).then_some(refresh);
        Self { jwks_url, discovery, file, secret, refresh, allow_http, ca }
    }
}

fn refresh<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    crate::units::from_text(deserializer, "a duration of at least 1s with its unit such as `10m`", |text| {
        text.parse().ok().filter(|refresh| *refresh >= Duration::from_secs(1))
    })
    .map(Some)
}

/// Tokens that their issuer is asked about (OAuth 2.0 Token Introspection, RFC 7662), brought as `Authorization: Bearer …`. A token that the
/// issuer cannot be asked about is refused.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Introspection {
    /// The issuer's introspection endpoint.
    pub url: String,
    /// Who asks: the gateway's name at the issuer (`client_secret_basic`).
    pub client_id: String,
    /// The secret that goes with it. Better kept out of the file: `${env:…}` or `${file:…}`.
    pub client_secret: Secret,
    /// Longest that an answer is remembered, if the token lasts as long; a refusal is remembered for 5s at most. `0s`: each request is a
    /// question.
    #[serde(default = "cache")]
    pub cache: Duration,
    /// Longest wait for an answer, connection included.
    #[serde(default = "timeout", deserialize_with = "positive")]
    pub timeout: Duration,
    /// What `iss` must be, to the letter. Absent: it is not looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// What `aud` must name at least one of. Absent: it is not looked at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub audience: Vec<String>,
    /// The claim that has the roles of a caller, a list or a text with spaces. `realm_access.roles` leads into a map.
    #[serde(default = "roles")]
    pub roles: String,
    /// Claims that services are told, each in the header field that is named. What clients send in these fields is dropped.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub forward: BTreeMap<String, String>,
    /// Whether the service gets the token too. Default false: it is taken out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keep: bool,
    /// Whether the issuer may be asked over plain HTTP on another machine, which shows tokens and the secret to all on the way. Default
    /// false: on this machine only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_http: bool,
    /// PEM file of the authorities that may vouch for the issuer's server. Absent: those of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
}

const fn leeway() -> Duration {
    Duration::from_secs(30)
}

const fn cache() -> Duration {
    Duration::from_secs(30)
}

const fn timeout() -> Duration {
    Duration::from_secs(2)
}

fn roles() -> String {
    "roles".to_owned()
}
