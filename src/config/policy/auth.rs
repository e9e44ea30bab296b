//! `auth`: by what a caller proves who it is.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::signature::Signature;
use crate::name::{ConsumerName, IdentityName};

/// Who may pass: those who prove who they are. One scheme, or several under `any_of` or `all_of`.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(try_from = "AuthKeys", into = "AuthKeys")]
#[schemars(with = "AuthKeys")]
pub struct Auth {
    pub schemes: Schemes,
    pub anonymous: Option<ConsumerName>,
    pub mode: Mode,
}

/// Schemes, and how many of them must be satisfied.
#[derive(Clone, PartialEq, Debug)]
pub enum Schemes {
    One(Scheme),
    Any(Vec<Scheme>),
    All(Vec<Scheme>),
}

impl Schemes {
    pub fn iter(&self) -> std::slice::Iter<'_, Scheme> {
        match self {
            Self::One(one) => std::slice::from_ref(one).iter(),
            Self::Any(listed) | Self::All(listed) => listed.iter(),
        }
    }
}

/// Whether a policy refuses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// What does not pass is refused.
    #[default]
    Enforce,
    /// What would not pass is logged and counted, and passes.
    Shadow,
}

impl Mode {
    pub(super) fn is_enforce(&self) -> bool {
        *self == Self::Enforce
    }

    /// The word in the file and in metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Shadow => "shadow",
        }
    }
}

/// A way to say who calls.
// Each is a key of `AuthKeys` too, for a policy of one scheme.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(try_from = "SchemeKeys", into = "SchemeKeys")]
#[schemars(with = "SchemeKeys")]
pub enum Scheme {
    Jwt(IdentityName),
    Introspection(IdentityName),
    ApiKey(ApiKey),
    Basic(Basic),
    ClientCertificate(ClientCertificate),
    Forward(IdentityName),
    SessionBridge(IdentityName),
    Signature(Signature),
    Oidc(IdentityName),
}

impl Scheme {
    /// Whether it gives claims, which scopes and roles are read from.
    pub const fn gives_claims(&self) -> bool {
        match self {
            Self::Jwt(_) | Self::Introspection(_) | Self::Forward(_) | Self::SessionBridge(_) | Self::Oidc(_) => true,
            Self::ApiKey(_) | Self::Basic(_) | Self::ClientCertificate(_) | Self::Signature(_) => false,
        }
    }

    /// The key by which the file chooses it.
    pub const fn key(&self) -> &'static str {
        match self {
            Self::Jwt(_) => "jwt",
            Self::Introspection(_) => "introspection",
            Self::ApiKey(_) => "api_key",
            Self::Basic(_) => "basic",
            Self::ClientCertificate(_) => "client_certificate",
            Self::Forward(_) => "forward",
            Self::SessionBridge(_) => "session_bridge",
            Self::Signature(_) => "signature",
            Self::Oidc(_) => "oidc",
        }
    }
}

#[derive(Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct AuthKeys {
    /// One of these must be satisfied; they are tried in this order. A wrong credential is no obstacle to a right one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    any_of: Option<Vec<Scheme>>,
    /// All of these must be satisfied, by the same consumer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    all_of: Option<Vec<Scheme>>,
    /// A signed token of this identity, which must be one of kind `jwt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    jwt: Option<IdentityName>,
    /// A token that this identity is asked about, which must be one of kind `introspection`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    introspection: Option<IdentityName>,
    /// An API key of a consumer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    api_key: Option<ApiKey>,
    /// User and password of a consumer (RFC 7617).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    basic: Option<Basic>,
    /// The certificate of a consumer, shown when its connection was opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client_certificate: Option<ClientCertificate>,
    /// Whatever this identity lets pass, which must be one of kind `forward`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    forward: Option<IdentityName>,
    /// A session of this identity, which must be one of kind `session_bridge`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    session_bridge: Option<IdentityName>,
    /// A request signed with a key of a consumer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signature: Option<Signature>,
    /// A person who signed in with a browser at this identity, which must be one of kind `oidc`. Who did not is sent there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    oidc: Option<IdentityName>,
    /// The consumer that a request without any credential is taken for. A wrong credential is refused all the same. Absent: a
    /// credential is needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    anonymous: Option<ConsumerName>,
    /// Whether to refuse, or only to log and count what would be refused.
    #[serde(default, skip_serializing_if = "Mode::is_enforce")]
    mode: Mode,
}

#[derive(Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
struct SchemeKeys {
    /// A signed token of this identity, which must be one of kind `jwt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    jwt: Option<IdentityName>,
    /// A token that this identity is asked about, which must be one of kind `introspection`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    introspection: Option<IdentityName>,
    /// An API key of a consumer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    api_key: Option<ApiKey>,
    /// User and password of a consumer (RFC 7617).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    basic: Option<Basic>,
    /// The certificate of a consumer, shown when its connection was opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client_certificate: Option<ClientCertificate>,
    /// Whatever this identity lets pass, which must be one of kind `forward`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    forward: Option<IdentityName>,
    /// A session of this identity, which must be one of kind `session_bridge`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    session_bridge: Option<IdentityName>,
    /// A request signed with a key of a consumer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signature: Option<Signature>,
    /// A person who signed in with a browser at this identity, which must be one of kind `oidc`. Who did not is sent there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    oidc: Option<IdentityName>,
}

impl TryFrom<AuthKeys> for Auth {
    type Error = &'static str;

    fn try_from(keys: AuthKeys) -> Result<Self, &'static str> {
        let AuthKeys {
            any_of,
            all_of,
            jwt,
            introspection,
            api_key,
            basic,
            client_certificate,
            forward,
            session_bridge,
            signature,
            oidc,
            anonymous,
            mode,
        } = keys;
        let bare =
            SchemeKeys { jwt, introspection, api_key, basic, client_certificate, forward, session_bridge, signature, oidc };
        let schemes = match (any_of, all_of, bare.listed().as_slice()) {
            (Some(any), None, []) => Schemes::Any(any),
            (None, Some(all), []) => Schemes::All(all),
            (None, None, [one]) => Schemes::One(one.clone()),
            _ => {
                return Err("expected exactly one of `any_of`, `all_of`, `jwt`, `introspection`, `api_key`, \
                     `basic`, `client_certificate`, `forward`, `session_bridge`, `signature`, `oidc`");
            }
        };
        Ok(Self { schemes, anonymous, mode })
    }
}

impl From<Auth> for AuthKeys {
    fn from(auth: Auth) -> Self {
        let Auth { schemes, anonymous, mode } = auth;
        let around = Self { anonymous, mode, ..Self::default() };
        match schemes {
            Schemes::Any(any) => Self { any_of: Some(any), ..around },
            Schemes::All(all) => Self { all_of: Some(all), ..around },
            Schemes::One(one) => {
                let SchemeKeys {
                    jwt,
                    introspection,
                    api_key,
                    basic,
                    client_certificate,
                    forward,
                    session_bridge,
                    signature,
                    oidc,
                } = one.into();
                Self {
                    jwt,
                    introspection,
                    api_key,
                    basic,
                    client_certificate,
                    forward,
                    session_bridge,
                    signature,
                    oidc,
                    ..around
                }
            }
        }
    }
}

impl SchemeKeys {
    /// Every scheme that is named.
    fn listed(self) -> Vec<Scheme> {
        let Self { jwt, introspection, api_key, basic, client_certificate, forward, session_bridge, signature, oidc } = self;
        let listed = [
            jwt.map(Scheme::Jwt),
            introspection.map(Scheme::Introspection),
            api_key.map(Scheme::ApiKey),
            basic.map(Scheme::Basic),
            client_certificate.map(Scheme::ClientCertificate),
            forward.map(Scheme::Forward),
            session_bridge.map(Scheme::SessionBridge),
            signature.map(Scheme::Signature),
            oidc.map(Scheme::Oidc),
        ];
        listed.into_iter().flatten().collect()
    }
}

impl TryFrom<SchemeKeys> for Scheme {
    type Error = &'static str;

    fn try_from(keys: SchemeKeys) -> Result<Self, &'static str> {
        let [one] = <[Self; 1]>::try_from(keys.listed()).map_err(|_| {
            "expected exactly one of `jwt`, `introspection`, `api_key`, `basic`, `client_certificate`, `forward`, \
             `session_bridge`, `signature`, `oidc`"
        })?;
        Ok(one)
    }
}

impl From<Scheme> for SchemeKeys {
    fn from(scheme: Scheme) -> Self {
        let none = Self::default();
        match scheme {
            Scheme::Jwt(name) => Self { jwt: Some(name), ..none },
            Scheme::Introspection(name) => Self { introspection: Some(name), ..none },
            Scheme::ApiKey(key) => Self { api_key: Some(key), ..none },
            Scheme::Basic(basic) => Self { basic: Some(basic), ..none },
            Scheme::ClientCertificate(certificate) => Self { client_certificate: Some(certificate), ..none },
            Scheme::Forward(name) => Self { forward: Some(name), ..none },
            Scheme::SessionBridge(name) => Self { session_bridge: Some(name), ..none },
            Scheme::Signature(signature) => Self { signature: Some(signature), ..none },
            Scheme::Oidc(name) => Self { oidc: Some(name), ..none },
        }
    }
}

/// Where an API key stands in a request: in a header field or, if need be, in the query.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(try_from = "ApiKeyKeys", into = "ApiKeyKeys")]
#[schemars(with = "ApiKeyKeys")]
pub struct ApiKey {
    pub place: Place,
    pub keep: bool,
}

/// A place of a credential.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    Header(String),
    Query(String),
}

#[derive(Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ApiKeyKeys {
    /// Name of the header field. Excludes `query`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    header: Option<String>,
    /// Name of the query parameter. Addresses are kept in histories and logs of others: prefer `header`, which it excludes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    query: Option<String>,
    /// Whether the service gets the key too. Default false: it is taken out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    keep: bool,
}

impl TryFrom<ApiKeyKeys> for ApiKey {
    type Error = &'static str;

    fn try_from(keys: ApiKeyKeys) -> Result<Self, &'static str> {
        let place = match (keys.header, keys.query) {
            (Some(header), None) => Place::Header(header),
            (None, Some(query)) => Place::Query(query),
            _ => return Err("expected exactly one of `header`, `query`"),
        };
        Ok(Self { place, keep: keys.keep })
    }
}

impl From<ApiKey> for ApiKeyKeys {
    fn from(key: ApiKey) -> Self {
        match key.place {
            Place::Header(header) => Self { header: Some(header), query: None, keep: key.keep },
            Place::Query(query) => Self { header: None, query: Some(query), keep: key.keep },
        }
    }
}

/// User and password in `Authorization`. Over plain HTTP anyone on the way reads them.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Basic {
    /// What browsers show to those whom they ask.
    #[serde(default = "realm")]
    pub realm: String,
    /// Whether the service gets them too. Default false: they are taken out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keep: bool,
}

fn realm() -> String {
    "gateway".to_owned()
}

/// The certificate of a client. A listener with `client_auth` asks for it and verifies it.
#[derive(Clone, PartialEq, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientCertificate {
    /// What the service gets of it (RFC 9440). Absent: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forward: Option<ForwardCertificate>,
}

/// What a service gets of a client's certificate.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ForwardCertificate {
    /// The certificate, in `Client-Cert`.
    Certificate,
    /// In `Client-Cert-Chain` too the others that the client sent.
    Chain,
}
