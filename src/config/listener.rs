//! `listeners`: where clients connect.

use std::{fmt, ops::RangeInclusive, path::PathBuf};

use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, MapAccess, Visitor, value::MapAccessDeserializer},
};

use super::address::{FileMode, ListenAddress};
use crate::units::{Bytes, Duration, from_text, positive, within};

/// One address that clients connect to. HTTP/1.1 and HTTP/2 are served on each; a change waits for a restart.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// Address and port to listen on: `127.0.0.1:8080`, `[::]:8443`; or a Unix socket by its file: `unix:/run/banyan/web.sock`,
    /// relative to the file that names it. `[::]` serves IPv4 as well, whatever the system's default is.
    #[schemars(with = "String")]
    pub address: ListenAddress,
    /// Leave IPv4 to others. For `[::]` only. Default false.
    #[serde(default)]
    pub ipv6_only: bool,
    /// Let further processes of the same user listen here too, if they say so as well (SO_REUSEPORT): the system spreads
    /// connections over them. For TCP only. Default false.
    #[serde(default)]
    pub reuse_port: bool,
    /// Permissions of the file of a Unix socket, in octal digits and quotes; to connect takes the right to write. For Unix sockets
    /// only. Default `"0660"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub mode: Option<FileMode>,
    /// Serve TLS here. Absent: plain text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ListenerTls>,
    /// The PROXY protocol, by which a load balancer in front tells who the client is.
    #[serde(default)]
    pub proxy_protocol: ProxyProtocol,
    /// How many connections are taken, how long they may last, and how much a request head may hold.
    #[serde(default)]
    pub limits: ListenerLimits,
    /// HTTP/2 on this listener.
    #[serde(default)]
    pub http2: Http2,
}

/// Whether connections begin with a header of the PROXY protocol, version 1 or 2, before TLS.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProxyProtocol {
    /// They do not; the client is who connects.
    #[default]
    Off,
    /// They do: a connection without the header, or from a peer that is not one of `trusted_proxies`, is closed.
    Required,
}

/// Bounds of a listener's connections and of what a client may send before any route is known. A change waits for a restart.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ListenerLimits {
    /// Most connections at once. One more is closed as it comes. Default 32768.
    #[serde(deserialize_with = "connections")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub connections: usize,
    /// Most connections at once of one client address; of IPv6, of one /64 network. `trusted_proxies` are exempt. Default 16384:
    /// as many as one machine opens in a load test. On the open internet a few hundred are plenty.
    #[serde(deserialize_with = "connections")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub connections_per_ip: usize,
    /// Longest time from a connection's start, or from the first byte of a later request, to the end of the request's head; also
    /// of a TLS handshake, and of a PROXY protocol header. Default 10s.
    #[serde(deserialize_with = "positive")]
    pub header_timeout: Duration,
    /// How long a connection without a request is kept. Default 75s.
    #[serde(deserialize_with = "positive")]
    pub keepalive: Duration,
    /// How old a connection grows before the client is asked, after an answer, to open another; up to a tenth is taken off by
    /// chance, so that many are not renewed at once. What goes on is not cut. Default 1h.
    #[serde(deserialize_with = "positive")]
    pub connection_age: Duration,
    /// How many requests a connection carries before the client is asked to open another. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "requests")]
    #[schemars(range(min = 1, max = 4_294_967_295u32))]
    pub requests_per_connection: Option<u32>,
    /// Longest request line, 512B to 64KiB. A longer one is answered with 414. Default 16KiB; RFC 9112 §3 asks for 8000 bytes at least.
    #[serde(deserialize_with = "request_line")]
    pub request_line: Bytes,
    /// Most bytes of a request's header fields, 1KiB to 512KiB. More are answered with 431. Default 64KiB.
    #[serde(deserialize_with = "headers")]
    pub headers: Bytes,
    /// Fewest bytes a second, on average, in which a request body has to come, after 10 s without any such demand. A slower
    /// upload is ended with 408. `0B`: no demand. Default 240B.
    pub min_body_rate: Bytes,
}

/// Bounds of HTTP/2 connections. A change waits for a restart.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Http2 {
    /// Most requests at once on one connection (SETTINGS_MAX_CONCURRENT_STREAMS). Default 128; RFC 9113 §6.5.2 asks for 100 at least.
    #[serde(deserialize_with = "streams")]
    #[schemars(range(min = 1, max = 10_000))]
    pub streams: u32,
}

impl Default for ListenerLimits {
    fn default() -> Self {
        Self {
            connections: 32_768,
            connections_per_ip: 16_384,
            header_timeout: Duration::from_secs(10),
            keepalive: Duration::from_secs(75),
            connection_age: Duration::from_secs(3600),
            requests_per_connection: None,
            request_line: Bytes::new(16 << 10),
            headers: Bytes::new(64 << 10),
            min_body_rate: Bytes::new(240),
        }
    }
}

impl Default for Http2 {
    fn default() -> Self {
        Self { streams: 128 }
    }
}

fn connections<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    within(deserializer, "a number of connections from 1 to 1000000", 1..=1_000_000).map(|number| number as usize)
}

fn requests<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let most = u64::from(u32::MAX);
    within(deserializer, "a number of requests from 1 to 4294967295", 1..=most).map(|number| Some(number as u32))
}

fn streams<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    within(deserializer, "a number of streams from 1 to 10000", 1..=10_000).map(|number| number as u32)
}

fn request_line<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    sized(deserializer, "a size from 512B to 64KiB", 512..=64 << 10)
}

fn headers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    sized(deserializer, "a size from 1KiB to 512KiB", 1 << 10..=512 << 10)
}

fn sized<'de, D: Deserializer<'de>>(
    deserializer: D,
    expected: &'static str,
    bounds: RangeInclusive<u64>,
) -> Result<Bytes, D::Error> {
    from_text(deserializer, expected, |text| text.parse().ok().filter(|size: &Bytes| bounds.contains(&size.get())))
}

/// TLS of a listener, with HTTP/2 offered by ALPN. All of it takes effect at reload, for new connections; whether there is TLS
/// waits for a restart.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListenerTls {
    /// Certificates, chosen by the name the client asks for (SNI) among the names in each; the first is the default. Where
    /// several have the name, the first that the client can verify is shown: RSA and ECDSA side by side.
    pub certificates: Vec<Certificate>,
    /// Oldest version of TLS that is spoken, in quotes: `"1.2"`.
    #[serde(default, deserialize_with = "tls_version")]
    pub min_version: TlsVersion,
    /// Ask clients for a certificate (mutual TLS). Absent: they are not asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_auth: Option<ClientAuth>,
    /// Session tickets, by which a client resumes a session without a whole handshake; `off`: there are none.
    #[serde(default)]
    pub tickets: Tickets,
    /// A request for a host that the certificate shown does not cover.
    #[serde(default)]
    pub misdirected: Misdirected,
}

/// A certificate chain and its private key. Files that change are read again at reload.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// PEM file of the chain, leaf first. Relative to the file that names it.
    pub cert: PathBuf,
    /// PEM file of the private key. Relative to the file that names it.
    pub key: PathBuf,
    /// DER file of an OCSP response for the certificate, which is stapled until its time has passed. Relative to the file that names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ocsp: Option<PathBuf>,
}

/// A version of TLS.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, Serialize, JsonSchema)]
pub enum TlsVersion {
    #[default]
    #[serde(rename = "1.2")]
    Tls12,
    #[serde(rename = "1.3")]
    Tls13,
}

/// Which certificates of clients are taken.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientAuth {
    /// Whether a client without a certificate is served.
    pub mode: ClientAuthMode,
    /// PEM file of the authorities that vouch for clients. Relative to the file that names it.
    pub ca: PathBuf,
}

/// Whether a client has to show a certificate. One that no authority vouches for ends the handshake in any mode.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuthMode {
    /// It has to.
    Required,
    /// It may.
    Optional,
}

/// Session tickets (RFC 5077, RFC 8446 §4.6.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, JsonSchema)]
#[schemars(with = "TicketsForm")]
pub enum Tickets {
    Off,
    On(TicketKeys),
}

/// The keys that tickets are sealed with. They are the process's own, and in no file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TicketKeys {
    /// How long a key seals tickets, 1s to 6h. For as long again it still opens them. Default 6h.
    #[serde(deserialize_with = "rotation")]
    pub rotate: Duration,
}

#[derive(JsonSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "the schema of the two ways to write it")]
enum TicketsForm {
    On(TicketKeys),
    Off(Off),
}

#[derive(JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(dead_code, reason = "the schema of the word")]
enum Off {
    /// No tickets: each connection takes a whole handshake.
    Off,
}

/// What becomes of a request whose host the certificate does not cover (RFC 9110 §15.5.20).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Misdirected {
    /// It is answered with 421: the client asks again on a connection of its own.
    #[default]
    Refuse,
    /// It is served as any other.
    Serve,
}

impl Default for TicketKeys {
    fn default() -> Self {
        Self { rotate: Duration::from_secs(6 * 3600) }
    }
}

impl Default for Tickets {
    fn default() -> Self {
        Self::On(TicketKeys::default())
    }
}

impl<'de> Deserialize<'de> for Tickets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Form;
        impl<'de> Visitor<'de> for Form {
            type Value = Tickets;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`{ rotate: … }` or `off`")
            }
            fn visit_str<E: de::Error>(self, word: &str) -> Result<Tickets, E> {
                match word {
                    "off" => Ok(Tickets::Off),
                    _ => Err(E::invalid_value(de::Unexpected::Str(word), &self)),
                }
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Tickets, A::Error> {
                TicketKeys::deserialize(MapAccessDeserializer::new(map)).map(Tickets::On)
            }
        }
        deserializer.deserialize_any(Form)
    }
}

impl Serialize for Tickets {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Off => serializer.serialize_str("off"),
            Self::On(keys) => keys.serialize(serializer),
        }
    }
}

/// Without quotes it is a number to YAML.
fn tls_version<'de, D: Deserializer<'de>>(deserializer: D) -> Result<TlsVersion, D::Error> {
    from_text(deserializer, "\"1.2\" or \"1.3\", in quotes", |text| match text {
        "1.2" => Some(TlsVersion::Tls12),
        "1.3" => Some(TlsVersion::Tls13),
        _ => None,
    })
}

/// The library's key rotates itself after 6 hours, so ours cannot last longer.
fn rotation<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let bounds = Duration::from_secs(1)..=Duration::from_secs(6 * 3600);
    from_text(deserializer, "a duration from 1s to 6h", |text| text.parse().ok().filter(|rotate| bounds.contains(rotate)))
}
