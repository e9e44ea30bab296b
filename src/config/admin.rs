//! `admin`: the operator's side door.

use std::net::{Ipv4Addr, SocketAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{address::ListenAddress, secret::Secret};

/// The admin listener: `/healthz`, `/readyz`, `/metrics`, `/config`, `POST /reload`. A change waits for a restart.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// Address and port of the admin listener, or a Unix socket, which the owner and its group may use. Default `127.0.0.1:9901`.
    #[serde(default = "default_address")]
    #[schemars(with = "String")]
    pub address: ListenAddress,
    /// Bearer token that every call that changes something needs. Absent: such calls are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret>,
    /// Further host names under which the admin listener may be called. Its own address and `localhost` always may;
    /// any other Host is refused, against DNS rebinding.
    #[serde(default)]
    pub hosts: Vec<String>,
}

fn default_address() -> ListenAddress {
    ListenAddress::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 9901)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_admin_listener_is_on_the_loopback_unless_told() {
        let admin: Admin = serde_yaml::from_str("{}").unwrap();
        assert_eq!(admin.address.to_string(), "127.0.0.1:9901");
    }
}
