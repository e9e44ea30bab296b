//! The gateway's certificate, and who trusts it.

use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use rustls::{ClientConfig, ClientConnection, RootCertStore, crypto::aws_lc_rs, pki_types::ServerName};

pub struct Identity {
    pub cert: String,
    pub key: String,
    client: Arc<ClientConfig>,
}

impl Identity {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let cert = CertificateParams::new(["a.example".to_owned()]).unwrap().self_signed(&key).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let mut client =
            builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots).with_no_client_auth();
        client.alpn_protocols = vec![b"h2".to_vec()];
        Self { cert: cert.pem(), key: key.serialize_pem(), client: Arc::new(client) }
    }

    /// Speaks HTTP/2.
    pub fn client(&self) -> Arc<ClientConfig> {
        self.client.clone()
    }

    /// Speaks HTTP/1.1.
    pub fn plain_client(&self) -> Arc<ClientConfig> {
        let mut client = ClientConfig::clone(&self.client);
        client.alpn_protocols.clear();
        Arc::new(client)
    }

    /// A ClientHello as an honest client sends it. It costs an attacker nothing to send it again.
    pub fn hello(&self) -> Arc<[u8]> {
        let mut connection = ClientConnection::new(self.client(), ServerName::try_from("a.example").unwrap()).unwrap();
        let mut hello = Vec::new();
        connection.write_tls(&mut hello).unwrap();
        hello.into()
    }
}
