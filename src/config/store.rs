//! `stores`: servers that nodes share.

use std::{fmt, path::PathBuf, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use super::{secret::Secret, upstream::ClientCertificate};
use crate::units::{Duration, from_text, within};

/// A server that several nodes count in.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Store {
    /// Redis 6.2 or later, or Valkey.
    pub redis: Redis,
}

/// Redis or Valkey. Exactly one of `url`, `sentinel` and `cluster` says where.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(try_from = "RedisKeys", into = "RedisKeys")]
#[schemars(with = "RedisKeys")]
pub struct Redis {
    pub place: Place,
    pub username: Option<String>,
    pub password: Option<Secret>,
    pub tls: Option<Tls>,
    pub timeout: Duration,
    pub prefix: String,
    pub connections: u16,
}

/// Where a store is.
#[derive(Clone, PartialEq, Debug)]
pub enum Place {
    Url(Url),
    Sentinel(Sentinel),
    Cluster(Vec<HostPort>),
}

/// How long a request waits for a store, unless the file says so.
const TIMEOUT: Duration = Duration::from_millis(20);

/// Longest that it may: what waits so long for a count serves nobody.
const TIMEOUT_MAX: Duration = Duration::from_secs(1);

/// How the keys in a store begin, unless the file says so.
const PREFIX: &str = "banyan";

/// Longest beginning, in characters: it stands in each key.
const PREFIX_MAX: usize = 32;

/// Connections, unless the file says so.
const CONNECTIONS: u16 = 2;

/// The port of Redis, where none is written.
const PORT: u16 = 6379;

#[derive(Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RedisKeys {
    /// One server: `redis://host:6379`, with TLS `rediss://host:6379`, another database than 0 behind it: `redis://host:6379/2`. `valkey` and
    /// `valkeys` are the same. Without user and password: these have their own keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    url: Option<Url>,
    /// The master that sentinels name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sentinel: Option<Sentinel>,
    /// Some servers of a cluster, each `host:port`. They tell of the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cluster: Option<Vec<HostPort>>,
    /// The user, of servers with access control lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    username: Option<String>,
    /// The password. Better kept out of the file: `${env:…}` or `${file:…}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    password: Option<Secret>,
    /// TLS to the servers, sentinels among them. With `rediss://` it need not be written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tls: Option<Tls>,
    /// Longest that a request waits for the store, 1ms to 1s. Default 20ms.
    #[serde(default, deserialize_with = "timeout", skip_serializing_if = "Option::is_none")]
    timeout: Option<Duration>,
    /// What each key in the store begins with: 1 to 32 letters, digits, `.`, `_` or `-`. Gateways that share limits have the same. Default
    /// `banyan`.
    #[serde(default, deserialize_with = "prefix", skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[A-Za-z0-9._-]{1,32}$"))]
    prefix: Option<String>,
    /// Connections that each node keeps to the store, 1 to 32; many requests share one. Default 2.
    #[serde(default, deserialize_with = "connections", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 32))]
    connections: Option<u16>,
}

/// A master, and who knows which server it is.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sentinel {
    /// The sentinels, each `host:port`. The first that answers is believed.
    #[schemars(length(min = 1))]
    pub addresses: Vec<HostPort>,
    /// The name by which they know the master.
    pub master: String,
    /// The user at the sentinels, where they ask for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// The password at the sentinels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
}

/// TLS towards a store. The name in its certificate is the host that the file, the sentinels or the cluster tell.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// PEM file of the authorities that may vouch for the servers. Absent: those of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// The certificate that the gateway shows. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<ClientCertificate>,
}

impl TryFrom<RedisKeys> for Redis {
    type Error = &'static str;

    fn try_from(keys: RedisKeys) -> Result<Self, &'static str> {
        let RedisKeys { url, sentinel, cluster, username, password, tls, timeout, prefix, connections } = keys;
        let implied = url.as_ref().is_some_and(|url| url.tls).then(Tls::default);
        let places = [url.map(Place::Url), sentinel.map(Place::Sentinel), cluster.map(Place::Cluster)];
        let mut places = places.into_iter().flatten();
        let (Some(place), None) = (places.next(), places.next()) else {
            return Err("expected exactly one of `url`, `sentinel`, `cluster`");
        };
        if username.is_some() && password.is_none() {
            return Err("`username` needs `password`");
        }
        Ok(Self {
            place,
            username,
            password,
            tls: tls.or(implied),
            timeout: timeout.unwrap_or(TIMEOUT),
            prefix: prefix.unwrap_or_else(|| PREFIX.to_owned()),
            connections: connections.unwrap_or(CONNECTIONS),
        })
    }
}

impl From<Redis> for RedisKeys {
    fn from(redis: Redis) -> Self {
        let Redis { place, username, password, tls, timeout, prefix, connections } = redis;
        let rest = Self {
            username,
            password,
            tls,
            timeout: Some(timeout),
            prefix: Some(prefix),
            connections: Some(connections),
            ..Self::default()
        };
        match place {
            Place::Url(url) => Self { url: Some(url), ..rest },
            Place::Sentinel(sentinel) => Self { sentinel: Some(sentinel), ..rest },
            Place::Cluster(nodes) => Self { cluster: Some(nodes), ..rest },
        }
    }
}

impl Redis {
    /// Every file that it names.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let own = self.tls.iter().filter_map(|tls| tls.client_certificate.as_ref());
        let own = own.flat_map(|pair| [&pair.cert, &pair.key]);
        self.tls.iter().filter_map(|tls| tls.ca.as_ref()).chain(own)
    }
}

/// `redis://host:port/database`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Url {
    pub tls: bool,
    pub address: HostPort,
    pub database: u8,
}

/// A host, by name or address, and a port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostPort {
    pub host: String,
    pub port: u16,
}

impl FromStr for Url {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (scheme, rest) = text.split_once("://").ok_or(())?;
        let tls = match scheme {
            "redis" | "valkey" => false,
            "rediss" | "valkeys" => true,
            _ => return Err(()),
        };
        let (address, database) = rest.split_once('/').unwrap_or((rest, ""));
        let database = if database.is_empty() { 0 } else { database.parse().map_err(|_| ())? };
        let address = host_port(address, Some(PORT)).ok_or(())?;
        Ok(Self { tls, address, database })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "rediss" } else { "redis" }, self.address)?;
        if self.database == 0 { Ok(()) } else { write!(f, "/{}", self.database) }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

fn host_port(text: &str, default: Option<u16>) -> Option<HostPort> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, port)
        }
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let port = match port.strip_prefix(':') {
        Some(port) => port.parse().ok().filter(|port| *port != 0)?,
        None if port.is_empty() => default?,
        None => return None,
    };
    let letters = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':');
    let is_host = !host.is_empty() && host.len() <= 253 && host.bytes().all(letters);
    is_host.then(|| HostPort { host: host.to_owned(), port })
}

impl<'de> Deserialize<'de> for Url {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const EXPECTED: &str = "`redis://host:port` or `rediss://host:port`, with `/` and the number of a database or without";
        // What stands before an `@` is a password, which no message may show.
        let read = |text: &str| if text.contains('@') { Some(Err(())) } else { text.parse().ok().map(Ok) };
        let secret =
            |()| D::Error::custom("a URL of a store has no user and no password: write `username` and `password` beside it");
        from_text(deserializer, EXPECTED, read)?.map_err(secret)
    }
}

impl<'de> Deserialize<'de> for HostPort {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_text(deserializer, "a host and port such as `redis-1.internal:6379`", |text| host_port(text, None))
    }
}

impl Serialize for Url {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for HostPort {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for Url {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "StoreUrl".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^(redis|valkey)s?://" })
    }
}

impl JsonSchema for HostPort {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "HostPort".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^.+:[0-9]{1,5}$" })
    }
}

fn timeout<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    from_text(deserializer, "a duration from 1ms to 1s with its unit such as `20ms`", |text| {
        text.parse().ok().filter(|timeout| (Duration::from_millis(1)..=TIMEOUT_MAX).contains(timeout))
    })
    .map(Some)
}

fn prefix<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let letters = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    from_text(deserializer, "1 to 32 letters, digits, `.`, `_` or `-`", |text| {
        ((1..=PREFIX_MAX).contains(&text.len()) && text.bytes().all(letters)).then(|| text.to_owned())
    })
    .map(Some)
}

fn connections<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u16>, D::Error> {
    within(deserializer, "a whole number from 1 to 32", 1..=32).map(|connections| Some(connections as u16))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_a_host_and_maybe_a_port_and_a_database() {
        let read = |text: &str| text.parse::<Url>().ok().map(|url| url.to_string());
        for (text, expected) in [
            ("redis://a", Some("redis://a:6379")),
            ("redis://a:1/", Some("redis://a:1")),
            ("valkeys://[::1]:1/3", Some("rediss://[::1]:1/3")),
            ("redis://[::1]", Some("redis://[::1]:6379")),
            ("redis://user:secret@a", None),
            ("redis://a:0", None),
            ("redis://a:1/x", None),
            ("redis://", None),
            ("http://a", None),
            ("a:6379", None),
        ] {
            assert_eq!(read(text).as_deref(), expected, "{text}");
        }
    }
}
