//! Certificates and keys from PEM files: those that listeners show to clients and upstreams to services, those that clients are known
//! by, and those that services are trusted by.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use rustls::{
    RootCertStore,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
    sign::CertifiedKey,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::config::problem::{self, Problem};

mod showcase;
mod names;
mod staple;
mod tickets;
mod client;
pub mod subject;
mod session;

pub use self::{
    client::{AltName, Client, ClientError, Clients},
    names::Names,
    session::Session,
    showcase::{Offer, Showcase, Shown, noting},
    staple::{Staple, Verdict},
};

/// Largest PEM file we read: a bundle of every public authority is about 220 KiB.
const FILE_MAX: u64 = 4 << 20;

/// What stands before a key that needs a pass phrase.
const ENCRYPTED: &[u8] = b"BEGIN ENCRYPTED PRIVATE KEY";

/// A certificate chain with its key, ready to be shown to clients.
#[derive(Clone, Debug)]
pub struct Certified {
    pub key: Arc<CertifiedKey>,
    /// What the certificate is for.
    pub names: Arc<Names>,
    /// Serial number, as the bytes of its integer.
    pub serial: Vec<u8>,
    /// When the certificate ends, in seconds since 1970.
    pub not_after: i64,
    /// Set if the certificate cannot be valid now. It is served all the same: clients see the reason.
    pub stale: Option<Stale>,
    /// The same with an OCSP response, to be shown while that is valid.
    pub stapled: Option<(Arc<CertifiedKey>, Span)>,
}

/// A span of time, in seconds since 1970, both ends in it. Without an end it lasts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    pub from: i64,
    pub until: Option<i64>,
}

/// Why a certificate is not valid at this moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stale {
    Expired,
    NotYetValid,
}

impl Stale {
    /// Said of the certificate.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Expired => "has expired",
            Self::NotYetValid => "is not valid yet",
        }
    }

    /// The warning about the certificate of a file.
    pub fn warning(self, cert: &Path, at: problem::Path) -> Problem {
        Problem::warning(at, format!("the certificate in `{}` {}", cert.display(), self.words()))
    }
}

/// What is wrong with a PEM file.
#[derive(Debug, thiserror::Error)]
pub enum CertError {
    #[error("cannot read `{}`: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("`{}` is larger than 4 MiB", .0.display())]
    TooLarge(PathBuf),
    #[error("`{}` is not valid PEM: {reason}", path.display())]
    NotPem { path: PathBuf, reason: String },
    #[error("`{}` holds no certificate", .0.display())]
    NoCertificate(PathBuf),
    #[error("`{}` holds no private key", .0.display())]
    NoKey(PathBuf),
    #[error("`{}` holds a certificate that cannot be used: {reason}", path.display())]
    BadCertificate { path: PathBuf, reason: String },
    #[error("`{}` holds a private key that cannot be used: {reason}", path.display())]
    BadKey { path: PathBuf, reason: String },
    #[error("the key in `{}` does not belong to the certificate in `{}`", key.display(), cert.display())]
    Mismatch { cert: PathBuf, key: PathBuf },
    #[error("`{}` holds no OCSP response that can be used: {reason}", path.display())]
    BadResponse { path: PathBuf, reason: &'static str },
}

impl CertError {
    /// The problem of the key that names the file.
    pub fn problem(&self, at: problem::Path) -> Problem {
        let problem = Problem::error(at, self.to_string());
        match self {
            Self::Unreadable { .. } => problem.help("a relative path starts at the directory of the file that names it"),
            _ => problem,
        }
    }

    /// Whether the key's file is at fault, rather than the certificate's.
    pub fn is_of_key(&self, key: &Path) -> bool {
        match self {
            Self::NoKey(_) | Self::BadKey { .. } | Self::Mismatch { .. } => true,
            Self::Unreadable { path, .. } | Self::TooLarge(path) | Self::NotPem { path, .. } => path == key,
            Self::NoCertificate(_) | Self::BadCertificate { .. } | Self::BadResponse { .. } => false,
        }
    }
}

impl Certified {
    /// The same, with an OCSP response stapled to it.
    #[must_use]
    pub fn with(mut self, staple: Staple) -> Self {
        let stapled = CertifiedKey { ocsp: Some(staple.response), ..CertifiedKey::clone(&self.key) };
        self.stapled = Some((Arc::new(stapled), staple.span));
        self
    }

    /// What is shown now: the staple falls off once its time has passed.
    fn shown(&self) -> &Arc<CertifiedKey> {
        match &self.stapled {
            Some((stapled, span)) if span.is_now() => stapled,
            _ => &self.key,
        }
    }
}

impl Span {
    fn of(certificate: &X509Certificate<'_>) -> Self {
        let validity = certificate.validity();
        Self { from: validity.not_before.timestamp(), until: Some(validity.not_after.timestamp()) }
    }

    /// Why what holds for this span does not hold at this time, in seconds since 1970.
    pub fn stale(self, now: i64) -> Option<Stale> {
        match (now < self.from, self.until.is_some_and(|until| now > until)) {
            (true, _) => Some(Stale::NotYetValid),
            (_, true) => Some(Stale::Expired),
            _ => None,
        }
    }

    pub fn stale_now(self) -> Option<Stale> {
        self.stale(now())
    }

    pub fn is_now(self) -> bool {
        self.stale_now().is_none()
    }
}

/// Reads a certificate chain (leaf first) and its private key.
///
/// # Errors
/// If a file cannot be read or holds nothing usable, or the two do not belong together.
pub fn certified_key(cert: &Path, key: &Path) -> Result<Certified, CertError> {
    pair(cert, key).map(|(certified, _)| certified)
}

/// The same with the key itself, for those who load it on their own. Every certificate of the chain can be parsed, and the key's kind
/// told from its bytes.
///
/// # Errors
/// As [`certified_key`].
pub fn presentable(cert: &Path, key: &Path) -> Result<(Certified, PrivateKeyDer<'static>), CertError> {
    let (certified, der) = pair(cert, key)?;
    certified.key.cert.iter().try_for_each(|certificate| parse(cert, certificate).map(drop))?;
    match PrivateKeyDer::try_from(der.secret_der()) {
        Ok(_) => Ok((certified, der)),
        Err(e) => Err(CertError::BadKey { path: key.into(), reason: e.to_owned() }),
    }
}

fn pair(cert: &Path, key: &Path) -> Result<(Certified, PrivateKeyDer<'static>), CertError> {
    let chain = certificates(cert)?;
    let leaf = chain.first().ok_or_else(|| CertError::NoCertificate(cert.into()))?;
    let leaf = parse(cert, leaf)?;
    let (names, serial) = (Arc::new(Names::of(&leaf)), leaf.tbs_certificate.raw_serial().to_vec());
    let span = Span::of(&leaf);
    let (not_after, stale) = (leaf.validity().not_after.timestamp(), span.stale_now());
    let key_der = private_key(key)?;
    let provider = provider();
    let signing = provider.key_provider.load_private_key(key_der.clone_key());
    let signing = signing.map_err(|e| CertError::BadKey { path: key.into(), reason: reason(e) })?;
    let certified = CertifiedKey::new(chain, signing);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {}
        Err(_) => return Err(CertError::Mismatch { cert: cert.into(), key: key.into() }),
    }
    Ok((Certified { key: Arc::new(certified), names, serial, not_after, stale, stapled: None }, key_der))
}

/// Reads the authorities of a PEM file, each checked to be one that verification can use.
///
/// # Errors
/// If the file cannot be read or holds no usable certificate.
pub fn authorities(ca: &Path) -> Result<Vec<CertificateDer<'static>>, CertError> {
    let certificates = certificates(ca)?;
    let mut store = RootCertStore::empty();
    for certificate in &certificates {
        parse(ca, certificate)?;
        let added = store.add(certificate.clone());
        added.map_err(|e| CertError::BadCertificate { path: ca.into(), reason: e.to_string() })?;
    }
    Ok(certificates)
}

/// Reads the authorities of a PEM file as a store to verify against.
///
/// # Errors
/// As [`authorities`].
pub fn roots(ca: &Path) -> Result<RootCertStore, CertError> {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(authorities(ca)?);
    Ok(store)
}

/// The authorities of the system, as Pingora reads them: `SSL_CERT_FILE`, `SSL_CERT_DIR`, else the usual places.
///
/// # Errors
/// They cannot be read. That there are none is none.
pub fn system_roots() -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    pingora_rustls::load_platform_certs_incl_env_into_store(&mut store)
        .map_err(|e| format!("the system's certificate authorities cannot be read: {}", e.root_cause()))?;
    Ok(store)
}

/// The process's TLS provider, or the one that `main` installs.
fn provider() -> Arc<CryptoProvider> {
    CryptoProvider::get_default().cloned().unwrap_or_else(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertError> {
    let text = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Err(e) => Err(not_pem(path, &e)),
        Ok(found) if found.is_empty() => Err(CertError::NoCertificate(path.into())),
        Ok(found) => Ok(found),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, CertError> {
    let text = read(path)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|e| match e {
        pem::Error::NoItemsFound if text.windows(ENCRYPTED.len()).any(|part| part == ENCRYPTED) => CertError::BadKey {
            path: path.into(),
            reason: "it is encrypted, and there is no one to ask for the pass phrase".to_owned(),
        },
        pem::Error::NoItemsFound => CertError::NoKey(path.into()),
        e => not_pem(path, &e),
    })
}

/// Says what kind of mistake it is without quoting the file, which may hold a key.
fn not_pem(path: &Path, error: &pem::Error) -> CertError {
    let reason = match error {
        pem::Error::MissingSectionEnd { .. } => "a section has no END line",
        pem::Error::IllegalSectionStart { .. } => "a BEGIN line is malformed",
        pem::Error::Base64Decode(_) => "a section is not base64",
        _ => "a section is malformed",
    };
    CertError::NotPem { path: path.into(), reason: reason.to_owned() }
}

/// What rustls says, without "unexpected error" before it.
fn reason(error: rustls::Error) -> String {
    match error {
        rustls::Error::General(reason) => reason,
        error => error.to_string(),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, CertError> {
    let unreadable = |source| CertError::Unreadable { path: path.into(), source };
    if std::fs::metadata(path).map_err(unreadable)?.len() > FILE_MAX {
        return Err(CertError::TooLarge(path.into()));
    }
    std::fs::read(path).map_err(unreadable)
}

fn parse<'a>(path: &Path, der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, CertError> {
    X509Certificate::from_der(der)
        .map(|(_, certificate)| certificate)
        .map_err(|_| CertError::BadCertificate { path: path.into(), reason: "it is not one of X.509".to_owned() })
}

fn now() -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    struct Files {
        dir: tempfile::TempDir,
    }

    impl Files {
        fn new() -> Self {
            Self { dir: tempfile::tempdir().unwrap() }
        }

        fn write(&self, name: &str, text: &str) -> PathBuf {
            let path = self.dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        }

        fn pair(&self, name: &str, params: CertificateParams) -> (PathBuf, PathBuf) {
            let key = KeyPair::generate().unwrap();
            let cert = params.self_signed(&key).unwrap();
            (self.write(&format!("{name}.pem"), &cert.pem()), self.write(&format!("{name}.key"), &key.serialize_pem()))
        }
    }

    fn params(names: &[&str]) -> CertificateParams {
        CertificateParams::new(names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn names_are_read_in_lower_case_with_their_star() {
        let files = Files::new();
        let (cert, key) = files.pair("a", params(&["Shop.Example", "*.shop.example", "127.0.0.1"]));
        let certified = certified_key(&cert, &key).unwrap();
        assert_eq!(certified.names.dns().collect::<Vec<_>>(), ["shop.example", "*.shop.example"]);
        assert_eq!(certified.stale, None);
    }

    #[test]
    fn expired_certificate_is_read_and_marked() {
        let files = Files::new();
        let mut old = params(&["old.example"]);
        old.not_after = rcgen::date_time_ymd(2001, 1, 1);
        old.not_before = rcgen::date_time_ymd(2000, 1, 1);
        let (cert, key) = files.pair("old", old);
        assert_eq!(certified_key(&cert, &key).unwrap().stale, Some(Stale::Expired));
        let span = Span { from: 10, until: Some(20) };
        assert_eq!([5, 10, 20, 21].map(|now| span.stale(now)), [Some(Stale::NotYetValid), None, None, Some(Stale::Expired)]);
        assert_eq!(Span { until: None, ..span }.stale(i64::MAX), None);
    }

    #[test]
    fn key_of_another_certificate_is_refused() {
        let files = Files::new();
        let (cert, _) = files.pair("a", params(&["a.example"]));
        let (_, key) = files.pair("b", params(&["b.example"]));
        let error = certified_key(&cert, &key).unwrap_err();
        assert!(matches!(error, CertError::Mismatch { .. }), "{error}");
        assert!(error.is_of_key(&key));
    }

    #[test]
    fn each_mistake_names_its_file() {
        let files = Files::new();
        let (cert, key) = files.pair("a", params(&["a.example"]));
        let missing = files.dir.path().join("missing.pem");
        let empty = files.write("empty.pem", "");
        let broken = files.write("broken.pem", "-----BEGIN CERTIFICATE-----\n%%%\n-----END CERTIFICATE-----\n");
        let check = |cert: &Path, key: &Path, expected: &str| {
            let error = certified_key(cert, key).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(&missing, &key, "missing.pem`: No such file");
        check(&cert, &missing, "missing.pem`: No such file");
        check(&empty, &key, "empty.pem` holds no certificate");
        check(&cert, &cert, "a.pem` holds no private key");
        let locked =
            files.write("locked.key", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n");
        check(&cert, &locked, "locked.key` holds a private key that cannot be used: it is encrypted");
        check(&broken, &key, "broken.pem` is not valid PEM");
        assert!(authorities(&key).unwrap_err().to_string().contains("a.key` holds no certificate"));
    }

    #[test]
    fn every_certificate_that_others_load_can_be_parsed() {
        let files = Files::new();
        let (cert, key) = files.pair("a", params(&["a.example"]));
        let (certified, der) = presentable(&cert, &key).unwrap();
        assert_eq!((certified.key.cert.len(), der), (1, private_key(&key).unwrap()));
        let chain =
            std::fs::read_to_string(&cert).unwrap() + "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n";
        let chain = files.write("chain.pem", &chain);
        assert!(certified_key(&chain, &key).is_ok());
        assert!(matches!(presentable(&chain, &key), Err(CertError::BadCertificate { .. })));
    }

    #[test]
    fn authorities_are_checked_one_by_one() {
        let files = Files::new();
        let (cert, _) = files.pair("a", params(&["a.example"]));
        assert_eq!(authorities(&cert).unwrap().len(), 1);
        assert_eq!(roots(&cert).unwrap().len(), 1);
        let junk = files.write("junk.pem", "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n");
        assert!(matches!(authorities(&junk), Err(CertError::BadCertificate { .. })));
    }
}
