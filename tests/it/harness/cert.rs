//! Certificates made for a test.

use std::{fs, path::Path, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};

/// An authority that vouches for what tests need.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key, in PEM.
pub struct Leaf {
    pub cert: String,
    pub key: String,
}

/// Whether a server must be shown a certificate.
#[derive(Clone, Copy)]
pub enum Asking {
    Requires,
    Takes,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self { issuer: CertifiedIssuer::self_signed(params, key()).unwrap() }
    }

    /// Its own certificate, in PEM.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A certificate for these names.
    pub fn leaf(&self, names: &[&str]) -> Leaf {
        self.leaf_with(names, key(), |_| {})
    }

    /// The same, valid until this time, in seconds since 1970.
    pub fn leaf_until(&self, names: &[&str], seconds: u64) -> Leaf {
        let end = rcgen::date_time_ymd(1970, 1, 1) + std::time::Duration::from_secs(seconds);
        self.leaf_with(names, key(), |params| params.not_after = end)
    }

    /// The same with an RSA key.
    pub fn rsa_leaf(&self, names: &[&str]) -> Leaf {
        self.leaf_with(names, KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap(), |_| {})
    }

    fn leaf_with(&self, names: &[&str], key: KeyPair, change: impl FnOnce(&mut CertificateParams)) -> Leaf {
        let mut params = params(names);
        change(&mut params);
        self.sign(params, &key)
    }

    /// A certificate of these parameters.
    pub fn leaf_of(&self, params: CertificateParams) -> Leaf {
        self.sign(params, &key())
    }

    fn sign(&self, params: CertificateParams, key: &KeyPair) -> Leaf {
        let cert = params.signed_by(key, &self.issuer).unwrap();
        Leaf { cert: cert.pem(), key: key.serialize_pem() }
    }

    /// As those who verify against it hold it.
    pub fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        roots
    }

    /// A client that trusts this authority alone and offers these protocols.
    pub fn client(&self, alpn: &[&str]) -> Arc<ClientConfig> {
        let mut config = Arc::unwrap_or_clone(self.client_of(rustls::DEFAULT_VERSIONS));
        config.alpn_protocols = protocols(alpn);
        Arc::new(config)
    }

    /// Its own certificate, in DER.
    pub fn der(&self) -> &CertificateDer<'static> {
        self.issuer.der()
    }

    /// A client that trusts this authority alone and speaks these versions of TLS.
    pub fn client_of(&self, versions: &[&'static SupportedProtocolVersion]) -> Arc<ClientConfig> {
        client_of(self.issuer.der().clone(), versions)
    }
}

/// A client that trusts the authority of this PEM file alone.
pub fn trusting(file: &Path) -> Arc<ClientConfig> {
    client_of(CertificateDer::from_pem_file(file).unwrap(), rustls::DEFAULT_VERSIONS)
}

fn client_of(authority: CertificateDer<'static>, versions: &[&'static SupportedProtocolVersion]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(authority).unwrap();
    let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(versions).unwrap();
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

impl Leaf {
    /// A certificate that vouches for itself.
    pub fn self_signed(names: &[&str]) -> Self {
        let key = key();
        let cert = params(names).self_signed(&key).unwrap();
        Self { cert: cert.pem(), key: key.serialize_pem() }
    }

    /// The certificate as it goes over the wire.
    pub fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.cert.as_bytes()).unwrap()
    }

    /// A server that shows this certificate, takes these protocols, and asks clients for certificates of these authorities.
    pub fn server_asking(&self, alpn: &[&str], clients: RootCertStore, asking: Asking) -> Arc<ServerConfig> {
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(clients), provider());
        let verifier = match asking {
            Asking::Requires => verifier.build(),
            Asking::Takes => verifier.allow_unauthenticated().build(),
        };
        let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap();
        let mut config = builder.with_client_cert_verifier(verifier.unwrap()).with_single_cert(vec![self.der()], key).unwrap();
        config.alpn_protocols = protocols(alpn);
        Arc::new(config)
    }

    /// Writes `NAME.pem` and `NAME.key`.
    pub fn write(&self, dir: &Path, name: &str) {
        fs::write(dir.join(format!("{name}.pem")), &self.cert).unwrap();
        fs::write(dir.join(format!("{name}.key")), &self.key).unwrap();
    }

    /// As a client shows it.
    pub fn identity(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let chain = CertificateDer::pem_slice_iter(self.cert.as_bytes()).map(Result::unwrap).collect();
        (chain, PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap())
    }

    /// A server that shows this certificate and takes these protocols.
    pub fn server(&self, alpn: &[&str]) -> Arc<ServerConfig> {
        let (chain, key) = self.identity();
        let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
        let mut config = builder.with_no_client_auth().with_single_cert(chain, key).unwrap();
        config.alpn_protocols = protocols(alpn);
        Arc::new(config)
    }
}

/// Parameters of a certificate for these names.
pub fn params(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names.clone()).unwrap();
    params.distinguished_name.push(DnType::CommonName, names[0].clone());
    params
}

fn key() -> KeyPair {
    KeyPair::generate().unwrap()
}

pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn protocols(alpn: &[&str]) -> Vec<Vec<u8>> {
    alpn.iter().map(|name| name.as_bytes().to_vec()).collect()
}
