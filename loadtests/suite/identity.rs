//! The certificate of all contestants (ECDSA P-256), and a client that trusts it.

use std::{fs, path::Path, sync::Arc};

use rcgen::{CertificateParams, KeyPair};
use rustls::{
    ClientConfig, RootCertStore,
    client::Resumption,
    crypto::{CryptoProvider, aws_lc_rs},
};

/// The host that everyone serves.
pub const HOST: &str = "a.example";

pub struct Identity {
    cert: String,
    key: String,
    roots: Arc<RootCertStore>,
}

impl Identity {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let cert = CertificateParams::new([HOST.to_owned()]).unwrap().self_signed(&key).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone()).unwrap();
        Self { cert: cert.pem(), key: key.serialize_pem(), roots: roots.into() }
    }

    /// Certificate and key as files of their own, and in one (HAProxy).
    pub fn write(&self, folder: &Path) -> std::io::Result<()> {
        fs::write(folder.join("a.pem"), &self.cert)?;
        fs::write(folder.join("a.key"), &self.key)?;
        fs::write(folder.join("both.pem"), format!("{}{}", self.cert, self.key))
    }

    /// A client that offers this protocol by ALPN and resumes no session. All contestants can agree with it on X25519, and none on
    /// more: a post-quantum exchange costs more, and nginx and HAProxy of today's distributions do not have it.
    pub fn client(&self, protocol: &str) -> Arc<ClientConfig> {
        let provider = CryptoProvider { kx_groups: vec![aws_lc_rs::kx_group::X25519], ..aws_lc_rs::default_provider() };
        let builder = ClientConfig::builder_with_provider(provider.into()).with_protocol_versions(&[&rustls::version::TLS13]);
        let mut client = builder.unwrap().with_root_certificates(self.roots.clone()).with_no_client_auth();
        client.alpn_protocols = vec![protocol.into()];
        client.resumption = Resumption::disabled();
        client.into()
    }
}
