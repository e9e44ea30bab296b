//! TLS clients that tell how they were met.

use std::{
    io,
    net::{SocketAddr, TcpStream},
    sync::{Arc, Mutex},
};

use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, HandshakeKind, NamedGroup, ProtocolVersion, RootCertStore,
    SignatureScheme, StreamOwned, SupportedProtocolVersion,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use super::{
    Connection, PATIENCE,
    cert::{Authority, Leaf, provider},
    wire::Wire,
};

/// How a handshake went, and the answer to a request after it.
#[derive(Debug)]
pub struct Met {
    pub kind: HandshakeKind,
    pub version: ProtocolVersion,
    pub group: Option<NamedGroup>,
    pub alpn: Option<Vec<u8>>,
    pub status: u16,
}

impl Met {
    pub fn resumed(&self) -> bool {
        self.kind == HandshakeKind::Resumed
    }
}

/// Connects, asks for `/` of the host named, and reads the answer: with TLS 1.3 a refusal comes after the client's handshake.
pub fn meet(address: SocketAddr, name: &str, config: &Arc<ClientConfig>) -> io::Result<Met> {
    let server = ServerName::try_from(name.to_owned()).expect("a name");
    let client = ClientConnection::new(config.clone(), server).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(client, TcpStream::connect(address)?);
    stream.sock.set_read_timeout(Some(PATIENCE))?;
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    let kind = stream.conn.handshake_kind().expect("it is done");
    let version = stream.conn.protocol_version().expect("it is done");
    let group = stream.conn.negotiated_key_exchange_group().map(|group| group.name());
    let alpn = stream.conn.alpn_protocol().map(<[u8]>::to_vec);
    let mut connection = Connection(Wire::over(stream));
    connection.0.send(format!("GET / HTTP/1.1\r\nHost: {name}\r\n\r\n"))?;
    let status = connection.try_response("GET")?.status;
    Ok(Met { kind, version, group, alpn, status })
}

/// Clients that trust `authority` and verify with these schemes alone; what they were shown is kept.
#[derive(Debug)]
pub struct Witness {
    inner: Arc<WebPkiServerVerifier>,
    schemes: Vec<SignatureScheme>,
    seen: Mutex<Vec<(Vec<u8>, Vec<u8>)>>,
}

impl Witness {
    pub fn of(authority: &Authority, schemes: &[SignatureScheme]) -> Arc<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(authority.der().clone()).unwrap();
        let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build().unwrap();
        Arc::new(Self { inner, schemes: schemes.to_vec(), seen: Mutex::default() })
    }

    pub fn client(self: &Arc<Self>, versions: &[&'static SupportedProtocolVersion]) -> Arc<ClientConfig> {
        let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(versions).unwrap();
        Arc::new(builder.dangerous().with_custom_certificate_verifier(self.clone()).with_no_client_auth())
    }

    /// The leaf and the OCSP response that were shown last.
    pub fn last(&self) -> (Vec<u8>, Vec<u8>) {
        self.seen.lock().unwrap().last().cloned().expect("a certificate was shown")
    }
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.seen.lock().unwrap().push((leaf.to_vec(), ocsp.to_vec()));
        self.inner.verify_server_cert(leaf, chain, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}

/// The leaf, in DER.
pub fn der(leaf: &Leaf) -> Vec<u8> {
    leaf.identity().0[0].to_vec()
}

/// A client that trusts `authority`, with this certificate of its own.
pub fn client_as(authority: &Authority, leaf: &Leaf, versions: &[&'static SupportedProtocolVersion]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone()).unwrap();
    let (chain, key) = leaf.identity();
    let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(versions).unwrap();
    Arc::new(builder.with_root_certificates(roots).with_client_auth_cert(chain, key).unwrap())
}
