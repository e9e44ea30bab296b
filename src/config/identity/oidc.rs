//! `identity.NAME.oidc`: people who sign in with a browser.

use std::{collections::BTreeMap, path::PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Algorithm;
use crate::{
    config::secret::Secret,
    units::{Duration, positive},
};

/// People who sign in with a browser at an OpenID provider (OpenID Connect Core 1.0: authorization code flow, with PKCE, `state` and `nonce`).
/// The session is kept in encrypted cookies.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Oidc {
    /// The provider's `issuer`, to the letter.
    pub issuer: String,
    /// URL of its discovery document. Absent: the issuer with `/.well-known/openid-configuration` behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discovery: Option<String>,
    /// The gateway's name at the provider.
    pub client_id: String,
    /// The secret that goes with it (`client_secret_basic`). Better kept out of the file: `${env:…}` or `${file:…}`.
    pub client_secret: Secret,
    /// What is asked for. `openid` is asked for always; `offline_access` gives many providers the wish to let sessions be renewed.
    #[serde(default = "scopes")]
    pub scopes: Vec<String>,
    /// The algorithms that ID tokens may be signed with.
    #[serde(default = "algorithms")]
    pub algorithms: Vec<Algorithm>,
    /// Where the provider sends the browser back to, as it is registered there: an address of the gateway, on the host that the pages are on.
    /// Its path, like the two below, must be one of a route with this identity.
    pub redirect_url: String,
    /// Path that signs a person out, here and at the provider. Absent: there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logout_path: Option<String>,
    /// Where the browser goes after that, as it is registered with the provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_logout: Option<String>,
    /// Path to which the provider posts that a session has ended (OpenID Connect Back-Channel Logout 1.0). Absent: it cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backchannel_logout_path: Option<String>,
    /// The cookie; over TLS with `__Host-` before its name.
    #[serde(default = "cookie")]
    pub cookie: String,
    /// Secrets of 32 bytes at least, by which cookies are sealed: the first seals, all open. To change one, put the new before it, and take the
    /// old away after `lifetime`.
    pub cookie_secrets: Vec<Secret>,
    /// Longest session.
    #[serde(default = "lifetime", deserialize_with = "positive")]
    pub lifetime: Duration,
    /// Longest time without a request; a session that is not used for so long has ended.
    #[serde(default = "idle", deserialize_with = "positive")]
    pub idle: Duration,
    /// By how much the provider's clock may differ from ours.
    #[serde(default = "leeway")]
    pub leeway: Duration,
    /// The claim that has the roles of a person, a list or a text with spaces. `realm_access.roles` leads into a map.
    #[serde(default = "roles")]
    pub roles: String,
    /// Claims that services are told, each in the header field that is named. What clients send in these fields is dropped.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub forward: BTreeMap<String, String>,
    /// Longest wait for the provider.
    #[serde(default = "timeout", deserialize_with = "positive")]
    pub timeout: Duration,
    /// Whether the provider may be asked, and the browser be sent back, over plain HTTP off this machine, which shows secrets and sessions to all on
    /// the way. Default false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_http: bool,
    /// PEM file of the authorities that may vouch for the provider's server. Absent: those of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
}

fn scopes() -> Vec<String> {
    vec!["openid".to_owned()]
}

fn algorithms() -> Vec<Algorithm> {
    vec![Algorithm::RS256]
}

fn cookie() -> String {
    "banyan_session".to_owned()
}

const fn lifetime() -> Duration {
    Duration::from_secs(12 * 3_600)
}

const fn idle() -> Duration {
    Duration::from_secs(3_600)
}

const fn leeway() -> Duration {
    Duration::from_secs(30)
}

const fn timeout() -> Duration {
    Duration::from_secs(5)
}

fn roles() -> String {
    "roles".to_owned()
}
