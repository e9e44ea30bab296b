//! How the endpoints of an upstream are connected to: protocol, TLS, and which connections may be shared.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    net::SocketAddr,
    sync::Arc,
};

use http::HeaderValue;
use pingora_core::{
    Error, ErrorType,
    protocols::tls::CaType,
    upstreams::peer::{ALPN, HttpPeer},
    utils::tls::{WrappedX509, parse_x509},
};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, ServerName},
};

use crate::{
    certs,
    config::{
        self,
        problem::{Path, Problem},
        upstream::{Protocol, UpstreamTls},
    },
    exchange::UpstreamFault,
};

/// Most streams at once on one HTTP/2 connection to a service; more open another connection. One, because a deadline that passes
/// ends the connection (`deadline`), and must end no other request with it.
const H2_STREAMS_MAX: usize = 1;

/// How to connect to any endpoint of one upstream.
#[derive(Debug)]
pub(super) struct Client {
    protocol: Protocol,
    tls: Option<Tls>,
    /// Keeps connections of different identity, authorities or protocol apart: Pingora's own key knows only the name.
    group: u64,
}

#[derive(Debug)]
struct Tls {
    server_name: String,
    /// Own authorities, as they were read: a reload with another content makes another client.
    ca: Option<(Vec<CertificateDer<'static>>, Arc<CaType>)>,
}

impl Client {
    pub fn compile(config: &config::Upstream, at: &Path) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        problems.extend(contradiction(config, at));
        let tls = config.tls.as_ref().map(|tls| Tls::compile(tls, &at.key("tls"), &mut problems));
        if problems.is_empty() {
            let group = group(config.protocol, tls.as_ref());
            return Ok(Self { protocol: config.protocol, tls, group });
        }
        Err(problems)
    }

    /// Whether connections of the other may be taken for connections of this.
    pub fn is_same(&self, other: &Self) -> bool {
        self.group == other.group && self.authorities() == other.authorities()
    }

    fn authorities(&self) -> Option<&[CertificateDer<'static>]> {
        self.tls.as_ref()?.ca.as_ref().map(|(read, _)| read.as_slice())
    }

    /// The peer of one endpoint, but for its timeouts.
    pub fn peer(&self, address: SocketAddr) -> HttpPeer {
        let server_name = self.tls.as_ref().map(|tls| tls.server_name.clone());
        let mut peer = HttpPeer::new(address, self.tls.is_some(), server_name.unwrap_or_default());
        peer.group_key = self.group;
        peer.options.alpn = match self.protocol {
            Protocol::Http1 => ALPN::H1,
            Protocol::H2 | Protocol::H2c => ALPN::H2,
        };
        peer.options.ca = self.tls.as_ref().and_then(|tls| tls.ca.as_ref()).map(|(_, parsed)| parsed.clone());
        peer.options.max_h2_streams = H2_STREAMS_MAX;
        peer
    }

    /// The name that an endpoint goes by.
    pub fn host(&self, address: SocketAddr) -> HeaderValue {
        let name = self.tls.as_ref().map_or_else(|| address.to_string(), |tls| tls.server_name.clone());
        // A server name was found to be a DNS name or an address, so this is always a header value.
        HeaderValue::from_str(&name).unwrap_or_else(|_| HeaderValue::from_static(""))
    }
}

impl Tls {
    fn compile(config: &UpstreamTls, at: &Path, problems: &mut Vec<Problem>) -> Self {
        problems.extend(bad_server_name(&config.server_name, at));
        let ca = match &config.ca {
            Some(file) => certs::authorities(file).map(Some).map_err(|e| e.problem(at.key("ca"))),
            None => system_roots().map(|_| None).map_err(|reason| {
                Problem::error(at.clone(), reason).help("name a PEM file of the authorities to trust with `ca`")
            }),
        };
        let ca = ca.unwrap_or_else(|problem| {
            problems.push(problem);
            None
        });
        Self { server_name: config.server_name.clone(), ca: ca.map(with_parsed) }
    }
}

/// Pingora parses what it is given without looking at the result, so only what [`certs::authorities`] has parsed may come here.
fn with_parsed(read: Vec<CertificateDer<'static>>) -> (Vec<CertificateDer<'static>>, Arc<CaType>) {
    let parsed = read.iter().map(|der| WrappedX509::new(der.to_vec(), parse_x509)).collect();
    (read, parsed)
}

fn contradiction(config: &config::Upstream, at: &Path) -> Option<Problem> {
    let (at, tls) = (at.key("protocol"), at.key("tls"));
    match (config.protocol, &config.tls) {
        (Protocol::H2, None) => Some(
            Problem::error(at, "`h2` is spoken over TLS, and the upstream has no `tls`")
                .help("add `tls`, or use `h2c` for HTTP/2 over plain text")
                .also(tls, "has no `tls`"),
        ),
        (Protocol::H2c, Some(_)) => {
            let problem = Problem::error(at, "`h2c` is plain text, and the upstream has `tls`");
            Some(problem.help("use `h2` for HTTP/2 over TLS").also(tls, "TLS here"))
        }
        _ => None,
    }
}

/// An empty name would switch verification off in Pingora.
fn bad_server_name(name: &str, at: &Path) -> Option<Problem> {
    let message = match ServerName::try_from(name) {
        Ok(_) => return None,
        Err(_) if name.is_empty() => "the server name is empty, so nothing could be verified".to_owned(),
        Err(_) => format!("`{name}` is not a DNS name"),
    };
    Some(
        Problem::error(at.key("server_name"), message)
            .help("write the name in the service's certificate, such as `orders.internal`"),
    )
}

/// The authorities of the system, as Pingora reads them: `SSL_CERT_FILE`, `SSL_CERT_DIR`, else the usual places.
///
/// Call it before a `HttpProxy` or any connector is made: they panic where this fails.
///
/// # Errors
/// If they cannot be read, or there is none, as in a container without a CA bundle.
pub fn system_roots() -> Result<usize, String> {
    match platform_store()?.len() {
        0 => Err("the system has no certificate authorities, so no service could be verified".to_owned()),
        count => Ok(count),
    }
}

/// Whether a connector can be made here: Pingora reads the system's authorities for each, and panics where it cannot. That there
/// are none matters only to upstreams that need them.
///
/// # Errors
/// They cannot be read.
pub fn system_roots_readable() -> Result<(), String> {
    platform_store().map(drop)
}

fn platform_store() -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    pingora_rustls::load_platform_certs_incl_env_into_store(&mut store)
        .map_err(|e| format!("the system's certificate authorities cannot be read: {}", e.root_cause()))?;
    Ok(store)
}

fn group(protocol: Protocol, tls: Option<&Tls>) -> u64 {
    let mut hasher = DefaultHasher::new();
    std::mem::discriminant(&protocol).hash(&mut hasher);
    if let Some(tls) = tls {
        tls.server_name.hash(&mut hasher);
        tls.ca.as_ref().map(|(read, _)| read.iter().map(|der| der.as_ref()).collect::<Vec<_>>()).hash(&mut hasher);
    }
    hasher.finish()
}

/// What an error of Pingora's says about the service. `None`: it is not the service's fault.
pub fn fault(error: &Error) -> Option<UpstreamFault> {
    match error.etype() {
        ErrorType::ConnectTimedout => Some(UpstreamFault::ConnectTimeout),
        ErrorType::ConnectRefused
        | ErrorType::ConnectNoRoute
        | ErrorType::ConnectError
        | ErrorType::BindError
        | ErrorType::SocketError
        | ErrorType::ConnectProxyFailure => Some(UpstreamFault::Connect),
        ErrorType::TLSWantX509Lookup
        | ErrorType::TLSHandshakeFailure
        | ErrorType::TLSHandshakeTimedout
        | ErrorType::InvalidCert
        | ErrorType::HandshakeError => Some(UpstreamFault::Tls),
        _ if *error.esource() != pingora_core::ErrorSource::Upstream => None,
        ErrorType::ReadTimedout | ErrorType::WriteTimedout => Some(UpstreamFault::ResponseTimeout),
        // An HTTP/2 error is a stream or connection that the service reset, far more often than a broken frame.
        ErrorType::ReadError | ErrorType::WriteError | ErrorType::ConnectionClosed | ErrorType::H2Error => {
            Some(UpstreamFault::Reset)
        }
        ErrorType::InvalidHTTPHeader | ErrorType::H1Error | ErrorType::H2Downgrade | ErrorType::InvalidH2 => {
            Some(UpstreamFault::Protocol)
        }
        _ => None,
    }
}
