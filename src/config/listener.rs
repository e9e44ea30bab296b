//! `listeners`: where clients connect.

use std::{net::SocketAddr, path::PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::address::socket;

/// One address that clients connect to. HTTP/1.1 and HTTP/2 are served on each; a change waits for a restart.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// Address and port to listen on: `127.0.0.1:8080`, `[::]:8443`.
    #[serde(deserialize_with = "socket")]
    #[schemars(with = "String")]
    pub address: SocketAddr,
    /// Serve TLS here. Absent: plain text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ListenerTls>,
}

/// TLS of a listener. TLS 1.2 and 1.3, HTTP/2 offered by ALPN.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListenerTls {
    /// Certificates, chosen by the name the client asks for (SNI) among the names in each; the first is the default.
    pub certificates: Vec<Certificate>,
}

/// A certificate chain and its private key. Files that change are read again at reload.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// PEM file of the chain, leaf first. Relative to the file that names it.
    pub cert: PathBuf,
    /// PEM file of the private key. Relative to the file that names it.
    pub key: PathBuf,
}
