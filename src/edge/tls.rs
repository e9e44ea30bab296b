//! The handshake with a client, and its connection afterwards, as Pingora sees it.
//!
//! Not Pingora's own `TlsStream`: that keeps the session to itself, so neither could be known whether it was resumed nor why a
//! handshake failed.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Instant, SystemTime},
};

use async_trait::async_trait;
use pingora_core::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream, TimingDigest, UniqueID,
    UniqueIDType, raw_connect::ProxyDigest, tls::SslDigest,
};
use rustls::{HandshakeKind, ProtocolVersion, ServerConnection};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::certs::{Client, Names, Session, Showcase, Shown, noting};

/// A client's connection behind its TLS handshake.
#[derive(Debug)]
pub struct Secured {
    stream: Box<TlsStream<Stream>>,
    digest: Arc<SslDigest>,
    /// Holds the [`Session`].
    session: Arc<ProxyDigest>,
    alpn: Option<ALPN>,
    timing: TimingDigest,
}

/// A handshake did not come to its end.
#[derive(Debug, thiserror::Error)]
#[error("TLS handshake failed ({label}): {source}")]
pub struct TlsFailure {
    label: &'static str,
    source: io::Error,
}

impl TlsFailure {
    /// The kind of failure, for a metric: `no_shared_protocol`, `client_certificate`, `alert` (the client gave up), `closed`,
    /// `not_tls`, or `other`.
    pub fn label(&self) -> &'static str {
        self.label
    }

    fn certificate(reason: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { label: "client_certificate", source: io::Error::other(reason) }
    }

    fn other(reason: &'static str) -> Self {
        Self { label: "other", source: io::Error::other(reason) }
    }
}

impl From<io::Error> for TlsFailure {
    fn from(source: io::Error) -> Self {
        let label = match source.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(error) => kind(error),
            None => match source.kind() {
                io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => "closed",
                _ => "other",
            },
        };
        Self { label, source }
    }
}

fn kind(error: &rustls::Error) -> &'static str {
    use rustls::Error as E;
    match error {
        E::PeerIncompatible(_) | E::NoApplicationProtocol => "no_shared_protocol",
        E::NoCertificatesPresented | E::InvalidCertificate(_) => "client_certificate",
        E::AlertReceived(_) => "alert",
        E::InvalidMessage(_) => "not_tls",
        _ => "other",
    }
}

/// Takes a client's handshake. Without a deadline: the caller has one. A client that is refused is told by an alert.
///
/// # Errors
/// There is no session.
pub async fn accept(showcase: &Showcase, stream: Stream) -> Result<Secured, TlsFailure> {
    let began = Instant::now();
    let accepted = handshake(showcase, stream, began).await;
    if let Err(failure) = &accepted {
        tracing::debug!(error = %failure, "no TLS session");
    }
    accepted
}

async fn handshake(showcase: &Showcase, stream: Stream, began: Instant) -> Result<Secured, TlsFailure> {
    let shown = showcase.shown().ok_or(TlsFailure::other("there is no certificate to show yet"))?;
    let (stream, names) = noting(TlsAcceptor::from(shown.config.clone()).accept(stream)).await;
    let stream = stream?;
    let connection = stream.get_ref().1;
    let session = session(connection, &shown, names.ok_or(TlsFailure::other("no certificate was shown"))?)?;
    let digest = Arc::new(digest(connection, session.client.as_ref()));
    let alpn = connection.alpn_protocol().map(|name| if name == b"h2" { ALPN::H2 } else { ALPN::H1 });
    let session = session.carried().map_err(|_| TlsFailure::other("the session cannot be carried"))?;
    let timing = TimingDigest {
        established_ts: SystemTime::now(),
        establishment_duration: Some(began.elapsed()),
        ..TimingDigest::default()
    };
    Ok(Secured { stream: Box::new(stream), digest, session, alpn, timing })
}

fn session(connection: &ServerConnection, shown: &Shown, names: Arc<Names>) -> Result<Session, TlsFailure> {
    let client = connection.peer_certificates().map(Client::read).transpose().map_err(TlsFailure::certificate)?;
    let resumed = connection.handshake_kind() == Some(HandshakeKind::Resumed);
    // A whole handshake has verified this; a session must not live on by its tickets when the certificate does not.
    if resumed && client.as_ref().is_some_and(|client| !client.span.is_now()) {
        return Err(TlsFailure::certificate("the certificate of the resumed session has expired"));
    }
    Ok(Session {
        names,
        misdirected: shown.misdirected,
        sni: connection.server_name().map(Arc::from),
        client,
        version: match connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
            _ => "TLSv1.3",
        },
        resumed,
    })
}

/// What Pingora tells of a TLS connection, as its own streams fill it.
fn digest(connection: &ServerConnection, client: Option<&Client>) -> SslDigest {
    let cipher = connection.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str());
    let version = connection.protocol_version().and_then(|version| version.as_str());
    SslDigest::new(
        cipher.unwrap_or_default(),
        version.unwrap_or_default(),
        client.and_then(|client| client.organization.clone()),
        client.map(|client| client.serial.clone()),
        client.and_then(|client| client.chain.first()).map(|leaf| Sha256::digest(leaf).to_vec()).unwrap_or_default(),
    )
}

impl AsyncRead for Secured {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Secured {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[async_trait]
impl Shutdown for Secured {
    async fn shutdown(&mut self) {
        if let Err(error) = AsyncWriteExt::shutdown(self).await {
            tracing::debug!(%error, "TLS shutdown failed");
        }
    }
}

impl UniqueID for Secured {
    fn id(&self) -> UniqueIDType {
        self.stream.get_ref().0.id()
    }
}

impl Ssl for Secured {
    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        Some(self.digest.clone())
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.alpn.clone()
    }
}

impl GetTimingDigest for Secured {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        let mut layers = self.stream.get_ref().0.get_timing_digest();
        layers.push(Some(self.timing.clone()));
        layers
    }

    fn get_read_pending_time(&self) -> std::time::Duration {
        self.stream.get_ref().0.get_read_pending_time()
    }

    fn get_write_pending_time(&self) -> std::time::Duration {
        self.stream.get_ref().0.get_write_pending_time()
    }
}

impl GetProxyDigest for Secured {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        Some(self.session.clone())
    }
}

impl GetSocketDigest for Secured {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.stream.get_ref().0.get_socket_digest()
    }
}

/// ALPN has chosen the protocol: there is nothing to look for.
impl Peek for Secured {}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, Issuer, KeyPair};
    use rustls::{
        ClientConfig, RootCertStore,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName},
    };
    use tokio::io::{AsyncReadExt, DuplexStream};
    use tokio_rustls::TlsConnector;

    use super::*;
    use crate::{
        certs::{AltName, Clients, Offer, certified_key},
        config::listener::{ClientAuthMode, Misdirected, TlsVersion},
    };

    /// A listener's TLS, whose own certificate is its authority and that of its clients.
    struct Listener {
        showcase: Showcase,
        root: CertificateDer<'static>,
        params: CertificateParams,
        key: KeyPair,
    }

    impl Listener {
        fn new(mode: Option<ClientAuthMode>) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let (cert, pem) = (dir.path().join("a.pem"), dir.path().join("a.key"));
            let params = CertificateParams::new(vec!["shop.example".to_owned()]).unwrap();
            let key = KeyPair::generate().unwrap();
            let root = params.self_signed(&key).unwrap();
            std::fs::write(&cert, root.pem()).unwrap();
            std::fs::write(&pem, key.serialize_pem()).unwrap();
            let clients = mode.map(|mode| Clients::of(mode, &cert).unwrap());
            let rotate = Some(std::time::Duration::from_secs(60));
            let certified = vec![certified_key(&cert, &pem).unwrap()];
            let offer = Offer::new(certified, TlsVersion::Tls12, clients, rotate, Misdirected::Refuse).unwrap();
            let showcase = Showcase::default();
            showcase.show(&offer).unwrap();
            Self { showcase, root: root.der().clone(), params, key }
        }

        fn client(&self, as_who: Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>) -> Arc<ClientConfig> {
            let mut roots = RootCertStore::empty();
            roots.add(self.root.clone()).unwrap();
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
            let builder = builder.with_root_certificates(roots);
            Arc::new(match as_who {
                Some((leaf, key)) => builder.with_client_auth_cert(vec![leaf], key).unwrap(),
                None => builder.with_no_client_auth(),
            })
        }

        /// A certificate that the listener vouches for.
        fn identity(&self, name: &str) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
            let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.distinguished_name.push(DnType::OrganizationName, "Shop");
            params.distinguished_name.push(DnType::CommonName, name);
            let key = KeyPair::generate().unwrap();
            let leaf = params.signed_by(&key, &Issuer::from_params(&self.params, &self.key)).unwrap();
            (leaf.der().clone(), PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        }

        /// The session with a client that says a byte once it may.
        async fn meet(&self, client: Arc<ClientConfig>) -> Result<(Secured, Session), TlsFailure> {
            let (near, far) = tokio::io::duplex(16 << 10);
            tokio::spawn(speak(client, far));
            let mut secured = accept(&self.showcase, Box::new(near)).await?;
            secured.write_all(b"x").await.unwrap();
            Shutdown::shutdown(&mut secured).await;
            let digest = pingora_core::protocols::Digest { proxy_digest: secured.get_proxy_digest(), ..Default::default() };
            let session = Session::of(&digest).expect("it is carried").clone();
            Ok((secured, session))
        }

        /// Why these bytes are no handshake.
        async fn label(&self, bytes: &[u8]) -> &'static str {
            let (near, mut far) = tokio::io::duplex(16 << 10);
            far.write_all(bytes).await.unwrap();
            AsyncWriteExt::shutdown(&mut far).await.unwrap();
            accept(&self.showcase, Box::new(near)).await.unwrap_err().label()
        }
    }

    async fn speak(client: Arc<ClientConfig>, far: DuplexStream) {
        let name = ServerName::try_from("shop.example").unwrap();
        if let Ok(mut stream) = TlsConnector::from(client).connect(name, far).await {
            // Tickets are read with what follows them.
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    }

    #[tokio::test]
    async fn a_session_says_who_met_whom() {
        let listener = Listener::new(Some(ClientAuthMode::Required));
        let (leaf, key) = listener.identity("alice.example");
        let mut client = Arc::unwrap_or_clone(listener.client(Some((leaf.clone(), key))));
        client.alpn_protocols = vec![b"h2".to_vec()];
        let client = Arc::new(client);
        let (secured, session) = listener.meet(client.clone()).await.unwrap();
        let who = session.client.as_ref().unwrap();
        assert_eq!((who.subject.as_str(), who.chain.as_slice()), ("CN=alice.example,O=Shop", &[leaf.clone()][..]));
        assert_eq!(who.names, [AltName::Dns("alice.example".to_owned())]);
        assert_eq!((session.sni.as_deref(), session.version, session.resumed), (Some("shop.example"), "TLSv1.3", false));
        assert!(session.covers("shop.example") && session.misdirects("other.example") && !session.misdirects(""));
        let digest = secured.get_ssl_digest().unwrap();
        assert_eq!((&*digest.version, digest.organization.as_deref()), ("TLSv1_3", Some("Shop")));
        assert_eq!(digest.cert_digest, Sha256::digest(&leaf).to_vec());
        assert_eq!(secured.selected_alpn_proto(), Some(ALPN::H2));
    }

    #[tokio::test]
    async fn each_failure_has_its_label() {
        let listener = Listener::new(Some(ClientAuthMode::Required));
        assert_eq!(listener.label(b"GET / HTTP/1.1\r\n\r\n").await, "not_tls");
        assert_eq!(listener.label(b"").await, "closed");
        assert_eq!(listener.label(b"\x16\x03\x01").await, "closed");
        assert_eq!(listener.meet(listener.client(None)).await.unwrap_err().label(), "client_certificate");
        let strange = Listener::new(None);
        let mallory = listener.client(Some(strange.identity("mallory.example")));
        assert_eq!(listener.meet(mallory).await.unwrap_err().label(), "client_certificate");
        assert_eq!(strange.meet(listener.client(None)).await.unwrap_err().label(), "alert");
        let mut client = Arc::unwrap_or_clone(strange.client(None));
        client.alpn_protocols = vec![b"spdy/3".to_vec()];
        assert_eq!(strange.meet(Arc::new(client)).await.unwrap_err().label(), "no_shared_protocol");
        let nothing = Listener { showcase: Showcase::default(), ..strange };
        assert_eq!(nothing.label(b"").await, "other");
    }
}
