//! How the endpoints of an upstream are connected to: protocol, TLS, and which connections may be shared.

use std::{net::SocketAddr, sync::Arc};

use http::HeaderValue;
use pingora_core::{
    Error, ErrorType,
    protocols::tls::CaType,
    upstreams::peer::{ALPN, HttpPeer},
    utils::tls::{CertKey, WrappedX509, parse_x509},
};
use rustls::pki_types::{CertificateDer, ServerName};
use sha2::{Digest, Sha256};

use super::announce::Announcer;
use crate::{
    certs::{self, CertError},
    config::{
        self,
        problem::{Path, Problem},
        upstream::{ClientCertificate, Protocol, UpstreamTls},
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
    announcer: Option<Announcer>,
    identity: Identity,
    warnings: Vec<Problem>,
}

/// A digest of all that connections must have in common to be taken for each other: protocol, server name, the content of the files of
/// authorities and of our own certificate. Files count as they were read: a reload with another content makes another client.
type Identity = [u8; 32];

#[derive(Debug)]
struct Tls {
    server_name: String,
    /// Own authorities.
    ca: Option<Arc<CaType>>,
    /// What we show of ourselves.
    own: Option<Arc<CertKey>>,
}

impl Client {
    pub fn compile(config: &config::Upstream, at: &Path) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::from_iter(contradiction(config, at));
        let mut identity = Sha256::new();
        part(&mut identity, format!("{:?} {:?}", config.protocol, config.proxy_protocol).as_bytes());
        let tls = config.tls.as_ref().map(|tls| Tls::compile(tls, &at.key("tls"), &mut identity, &mut problems));
        if problems.iter().any(Problem::is_error) {
            return Err(problems);
        }
        let announcer = config.proxy_protocol.map(Announcer::new);
        Ok(Self { protocol: config.protocol, tls, announcer, identity: identity.finalize().into(), warnings: problems })
    }

    /// Whether connections of the other may be taken for connections of this.
    pub fn is_same(&self, other: &Self) -> bool {
        self.identity == other.identity
    }

    /// What should be mended, though it works.
    pub fn warnings(&self) -> &[Problem] {
        &self.warnings
    }

    /// Set if connections name their client.
    pub fn announcer(&self) -> Option<&Announcer> {
        self.announcer.as_ref()
    }

    /// The peer of one endpoint for connections in our own name, but for its timeouts.
    pub fn peer(&self, address: SocketAddr) -> HttpPeer {
        let server_name = self.tls.as_ref().map(|tls| tls.server_name.clone());
        let mut peer = HttpPeer::new(address, self.tls.is_some(), server_name.unwrap_or_default());
        // Pingora's own key knows the name, but neither authorities nor protocol, and of our certificate the serial number only.
        peer.group_key = self.identity.first_chunk().copied().map_or(0, u64::from_be_bytes);
        peer.options.alpn = match self.protocol {
            Protocol::Http1 => ALPN::H1,
            Protocol::H2 | Protocol::H2c => ALPN::H2,
        };
        peer.options.ca = self.tls.as_ref().and_then(|tls| tls.ca.clone());
        peer.client_cert_key = self.tls.as_ref().and_then(|tls| tls.own.clone());
        peer.options.max_h2_streams = H2_STREAMS_MAX;
        if let Some(announcer) = &self.announcer {
            announcer.for_ourselves(&mut peer);
        }
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
    fn compile(config: &UpstreamTls, at: &Path, identity: &mut Sha256, problems: &mut Vec<Problem>) -> Self {
        problems.extend(bad_server_name(&config.server_name, at));
        part(identity, config.server_name.as_bytes());
        let ca = authorities(config, at, identity).map_err(|problem| problems.push(problem)).ok().flatten();
        let own = config.client_certificate.as_ref();
        let own = own.and_then(|own| own_certificate(own, &at.key("client_certificate"), identity, problems));
        Self { server_name: config.server_name.clone(), ca, own }
    }
}

/// One part of an identity, with its length before it: no two lists of parts give the same.
fn part(identity: &mut Sha256, bytes: &[u8]) {
    identity.update((bytes.len() as u64).to_be_bytes());
    identity.update(bytes);
}

/// One list of parts.
fn list<'a>(identity: &mut Sha256, parts: impl ExactSizeIterator<Item = &'a [u8]>) {
    part(identity, &(parts.len() as u64).to_be_bytes());
    parts.for_each(|bytes| part(identity, bytes));
}

/// The authorities of a service, if it has its own. Without, those of the system must be there.
fn authorities(config: &UpstreamTls, at: &Path, identity: &mut Sha256) -> Result<Option<Arc<CaType>>, Problem> {
    let Some(file) = &config.ca else {
        let help = "name a PEM file of the authorities to trust with `ca`";
        system_roots().map_err(|reason| Problem::error(at.clone(), reason).help(help))?;
        list(identity, std::iter::empty());
        return Ok(None);
    };
    let read = certs::authorities(file).map_err(|e| e.problem(at.key("ca")))?;
    list(identity, read.iter().map(AsRef::as_ref));
    Ok(Some(parsed(&read)))
}

/// Pingora parses what it is given without looking at the result, so only what [`certs::authorities`] has parsed may come here.
fn parsed(read: &[CertificateDer<'static>]) -> Arc<CaType> {
    read.iter().map(|der| WrappedX509::new(der.to_vec(), parse_x509)).collect()
}

/// What we show of ourselves. Pingora panics at what [`certs::presentable`] refuses.
fn own_certificate(
    config: &ClientCertificate,
    at: &Path,
    identity: &mut Sha256,
    problems: &mut Vec<Problem>,
) -> Option<Arc<CertKey>> {
    let of = |error: &CertError| at.key(if error.is_of_key(&config.key) { "key" } else { "cert" });
    let read = certs::presentable(&config.cert, &config.key);
    let (certified, key) = read.map_err(|error| problems.push(error.problem(of(&error)))).ok()?;
    problems.extend(certified.stale.map(|stale| stale.warning(&config.cert, at.key("cert"))));
    let chain = &certified.key.cert;
    list(identity, chain.iter().map(AsRef::as_ref));
    part(identity, key.secret_der());
    let own = CertKey::new(chain.iter().map(|der| der.to_vec()).collect(), key.secret_der().to_vec());
    Some(Arc::new(own))
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
    match certs::system_roots()?.len() {
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
    certs::system_roots().map(drop)
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
