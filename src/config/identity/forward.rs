//! `identity.NAME.forward`: a service that is asked about each request.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::timeout;
use crate::units::{Duration, positive};

/// A service that is asked about each request over HTTP, as `auth_request`, ForwardAuth and `ext_authz` of other proxies do: 2xx lets it pass, 401
/// and 403 refuse it. Whatever else it answers, or no answer in time, refuses it too.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Forward {
    /// Where it is asked, by a GET without a body, with `X-Forwarded-Method`, `X-Forwarded-Proto`, `X-Forwarded-Host`, `X-Forwarded-Uri`,
    /// `X-Forwarded-For` and `X-Request-Id` beside `headers`.
    pub url: String,
    /// Longest wait for an answer, connection included.
    #[serde(default = "timeout", deserialize_with = "positive")]
    pub timeout: Duration,
    /// Header fields of the request that it is sent: the credentials. Default `[Authorization, Cookie]`.
    #[serde(default = "headers")]
    pub headers: Vec<String>,
    /// Header fields of its answer that the service behind is sent. What clients send in these fields is dropped.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub copy: Vec<String>,
    /// Header field of its answer that names the consumer who calls. One that names nobody under `consumers` refuses the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consumer: Option<String>,
    /// Whether clients are told its redirects (301, 302, 303, 307, 308, with `Location`) and its `Set-Cookie`, so that people can sign in. Default
    /// false: a redirect refuses like any answer that says nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub relay: bool,
    /// Answers that are remembered. Absent: it is asked about each request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<Cache>,
    /// Whether the service behind gets the fields of `headers` too. Default false: they are taken out, but for `Cookie`, of which nobody here knows
    /// what it is for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keep: bool,
    /// Whether it may be asked over plain HTTP on another machine, which shows credentials to all on the way. Default false: on this machine
    /// only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_http: bool,
    /// PEM file of the authorities that may vouch for it. Absent: those of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
}

/// Which answers are remembered, and for how long. A request without credentials is always asked about.
#[derive(Clone, Copy, PartialEq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cache {
    /// How long; a refusal is remembered for 5s at most.
    #[serde(deserialize_with = "positive")]
    pub ttl: Duration,
    /// What must be the same.
    #[serde(default)]
    pub by: By,
}

/// What must be the same for an answer to hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// Everything that is asked: credentials, method, scheme, host, path, query and the client's address.
    #[default]
    Request,
    /// The fields of `headers`: for a service that looks at nothing else.
    Credentials,
}

fn headers() -> Vec<String> {
    ["Authorization", "Cookie"].map(str::to_owned).into()
}
