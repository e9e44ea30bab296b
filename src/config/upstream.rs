//! `upstreams`: the services behind the gateway.

use std::{net::SocketAddr, path::PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de::Unexpected};

pub use self::{
    balance::{Balance, Hash, HashKey, Sticky},
    breaker::{Breaker, PROBES_MAX},
    condition::Condition,
    limits::Limits,
    outlier::{Outlier, SuccessRate},
    retries::{Backoff, Budget, Retries},
};
use super::address::{ADDRESS, socket};
use crate::units::{Duration, positive, some_positive, within};

mod balance;
mod breaker;
mod condition;
mod limits;
mod outlier;
mod retries;

/// A service: its endpoints and how they are reached.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// Where the service listens. At least one; the weights must not all be zero.
    pub endpoints: Vec<Endpoint>,
    /// How an endpoint is chosen for a request. `round_robin`: in turn, each as often as its weight says, spread smoothly. `least_requests`:
    /// the one of two, drawn by weight, that has fewer requests for its weight. `peak_ewma`: the one of two that is likely to answer sooner, by
    /// how fast it answered of late, how often it failed and what it has to do. `random`: at random, by weight.
    #[serde(default)]
    pub balance: Balance,
    /// Sessions that stay with an endpoint, by a cookie that the gateway sets. Absent: there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sticky: Option<Sticky>,
    /// How long a new or recovered endpoint takes from a tenth to its full share. Default `0s`: it has it at once.
    #[serde(default = "at_once")]
    pub slow_start: Duration,
    /// The protocol spoken to the service.
    #[serde(default)]
    pub protocol: Protocol,
    /// Speak TLS to the service. Certificate and name are always verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<UpstreamTls>,
    /// Begin each connection with a header of the PROXY protocol that names the client. A connection then carries one client's requests
    /// only. Health checks send it too, in the gateway's own name. Absent: none is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<ProxyProtocol>,
    /// How long to wait for the service.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// Active health checks: an endpoint that fails them gets no traffic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// Which requests are tried again, and how often.
    #[serde(default)]
    pub retries: Retries,
    /// Endpoints whose tries fail take no traffic for a while. Absent: they go on taking it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outlier: Option<Outlier>,
    /// A service that fails too much is left alone for a while. Absent: it is asked always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaker: Option<Breaker>,
    /// How much is asked of the service at once. Absent: there is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
}

/// One address of a service: `127.0.0.1:9001`, or with a weight `{ address: 127.0.0.1:9001, weight: 3 }`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, JsonSchema)]
#[schemars(with = "EndpointForm")]
pub struct Endpoint {
    pub address: SocketAddr,
    /// Share of the traffic relative to the others, 0 to 1000. Default 1; 0 takes none.
    pub weight: u32,
    /// Its tier, 0 to 9. Default 0, which is asked first.
    pub priority: u8,
}

/// The last tier of endpoints.
const PRIORITY_MAX: u64 = 9;

/// Largest weight of an endpoint or a split share.
pub const WEIGHT_MAX: u32 = 1000;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct EndpointBody {
    /// Address and port: `127.0.0.1:9001`.
    #[serde(deserialize_with = "socket")]
    #[schemars(with = "String")]
    address: SocketAddr,
    /// Share of the traffic relative to the others, 0 to 1000; 0 takes none.
    #[serde(default = "one", deserialize_with = "weight")]
    #[schemars(range(min = 0, max = 1000))]
    weight: u32,
    /// Its tier, 0 to 9: the next one takes over as much as less than 72% of those before it take traffic.
    #[serde(default, deserialize_with = "priority")]
    #[schemars(range(min = 0, max = 9))]
    priority: u8,
}

fn priority<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u8, D::Error> {
    within(deserializer, "a tier from 0 to 9", 0..=PRIORITY_MAX).map(|priority| priority as u8)
}

#[derive(JsonSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "the schema of the two ways to write an endpoint")]
enum EndpointForm {
    /// Address and port: `127.0.0.1:9001`.
    Address(String),
    /// With a weight.
    Body(EndpointBody),
}

/// Reads a weight.
pub(super) fn weight<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    within(deserializer, "a weight from 0 to 1000", 0..=u64::from(WEIGHT_MAX)).map(|weight| weight as u32)
}

const fn at_once() -> Duration {
    Duration::from_secs(0)
}

const fn one() -> u32 {
    1
}

impl<'de> Deserialize<'de> for Endpoint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Form;
        impl<'de> serde::de::Visitor<'de> for Form {
            type Value = Endpoint;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an address such as `127.0.0.1:9001` or `{ address: …, weight: … }`")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Endpoint, E> {
                let address = text.parse().map_err(|_| E::invalid_value(Unexpected::Str(text), &ADDRESS))?;
                Ok(Endpoint { address, weight: 1, priority: 0 })
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<Endpoint, A::Error> {
                let body = EndpointBody::deserialize(serde::de::value::MapAccessDeserializer::new(map))?;
                Ok(Endpoint { address: body.address, weight: body.weight, priority: body.priority })
            }
        }
        deserializer.deserialize_any(Form)
    }
}

/// The protocol spoken to a service.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2 over TLS. Needs `tls`.
    H2,
    /// HTTP/2 over plain text, by prior knowledge. Excludes `tls`.
    H2c,
}

/// A version of the PROXY protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProxyProtocol {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// TLS towards a service.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UpstreamTls {
    /// Name sent as SNI and verified in the certificate.
    pub server_name: String,
    /// PEM file of the authorities that may vouch for the service. Absent: those of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// The certificate that the gateway shows to a service that asks for one. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<ClientCertificate>,
}

/// A certificate chain and its private key, shown to a service. Files that change are read again at reload.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientCertificate {
    /// PEM file of the chain, leaf first. Relative to the file that names it.
    pub cert: PathBuf,
    /// PEM file of the private key. Relative to the file that names it.
    pub key: PathBuf,
}

/// How long to wait for a service.
#[derive(Clone, Copy, PartialEq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// Longest wait for a connection, TLS included. Default 1s.
    #[serde(deserialize_with = "positive")]
    pub connect: Duration,
    /// Longest wait from the request sent to the response head. Default 30s.
    #[serde(deserialize_with = "positive")]
    pub response: Duration,
    /// Longest silence of the service after its response head. Default 60s; 1h on upgraded connections. A stream that keeps talking is
    /// never cut, nor one whose HTTP/1 client is slow to read it.
    #[serde(deserialize_with = "some_positive", skip_serializing_if = "Option::is_none")]
    pub idle: Option<Duration>,
    /// How long an idle pooled connection is kept. Keep it below the service's own. Default 50s.
    pub keepalive: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(1),
            response: Duration::from_secs(30),
            idle: None,
            keepalive: Duration::from_secs(50),
        }
    }
}

/// An active health check.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(try_from = "HealthKeys", into = "HealthKeys")]
#[schemars(with = "HealthKeys")]
pub enum Health {
    /// An HTTP request that must be answered with one of some statuses.
    Http(HttpHealth),
    /// A connection that must open.
    Tcp(TcpHealth),
}

#[derive(Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
struct HealthKeys {
    /// Send a GET and look at the status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    http: Option<HttpHealth>,
    /// Open a connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tcp: Option<TcpHealth>,
}

impl TryFrom<HealthKeys> for Health {
    type Error = String;

    fn try_from(keys: HealthKeys) -> Result<Self, String> {
        match (keys.http, keys.tcp) {
            (Some(http), None) => Ok(Self::Http(http)),
            (None, Some(tcp)) => Ok(Self::Tcp(tcp)),
            _ => Err("expected exactly one of `http`, `tcp`".to_owned()),
        }
    }
}

impl From<Health> for HealthKeys {
    fn from(health: Health) -> Self {
        match health {
            Health::Http(http) => Self { http: Some(http), ..Self::default() },
            Health::Tcp(tcp) => Self { tcp: Some(tcp), ..Self::default() },
        }
    }
}

/// An HTTP health check: `GET path` must be answered with one of `statuses`.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpHealth {
    /// Path to ask for, starting with `/`.
    pub path: String,
    /// Host header to send. Default: the TLS server name, else the endpoint's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Statuses that mean that it is healthy. Default `[200]`.
    #[serde(default = "only_ok", deserialize_with = "statuses")]
    #[schemars(inner(range(min = 200, max = 599)))]
    pub statuses: Vec<u16>,
    /// Time between checks. Default 5s.
    #[serde(default = "default_interval", deserialize_with = "positive")]
    pub interval: Duration,
    /// Longest wait for connection and answer. Default 1s.
    #[serde(default = "default_timeout", deserialize_with = "positive")]
    pub timeout: Duration,
    /// Successes in a row before an unhealthy endpoint gets traffic again. Default 2.
    #[serde(default = "default_flips")]
    pub healthy_after: std::num::NonZeroU16,
    /// Failures in a row before a healthy endpoint gets none. Default 2.
    #[serde(default = "default_flips")]
    pub unhealthy_after: std::num::NonZeroU16,
}

/// A TCP health check: a connection must open (with TLS where the upstream has it).
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TcpHealth {
    /// Time between checks. Default 5s.
    #[serde(default = "default_interval", deserialize_with = "positive")]
    pub interval: Duration,
    /// Longest wait for the connection. Default 1s.
    #[serde(default = "default_timeout", deserialize_with = "positive")]
    pub timeout: Duration,
    /// Successes in a row before an unhealthy endpoint gets traffic again. Default 2.
    #[serde(default = "default_flips")]
    pub healthy_after: std::num::NonZeroU16,
    /// Failures in a row before a healthy endpoint gets none. Default 2.
    #[serde(default = "default_flips")]
    pub unhealthy_after: std::num::NonZeroU16,
}

fn only_ok() -> Vec<u16> {
    vec![200]
}

fn statuses<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u16>, D::Error> {
    #[derive(Deserialize)]
    struct Status(#[serde(deserialize_with = "status")] u16);
    fn status<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
        within(deserializer, "a status from 200 to 599", 200..=599).map(|status| status as u16)
    }
    Ok(Vec::<Status>::deserialize(deserializer)?.into_iter().map(|Status(status)| status).collect())
}

const fn default_interval() -> Duration {
    Duration::from_secs(5)
}

const fn default_timeout() -> Duration {
    Duration::from_secs(1)
}

const fn default_flips() -> std::num::NonZeroU16 {
    std::num::NonZeroU16::new(2).expect("2 is not zero")
}
