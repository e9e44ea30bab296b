//! Certificates of clients: which are taken, and who one says that its holder is.

use std::{fmt::Write, net::IpAddr, path::Path, sync::Arc};

use rustls::{
    RootCertStore,
    pki_types::CertificateDer,
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use sha2::{Digest, Sha256};
use x509_parser::{
    asn1_rs::ToDer,
    oid_registry::{self as oids, Oid},
    prelude::{FromDer, GeneralName, X509Certificate},
    x509::{AttributeTypeAndValue, X509Name},
};

use super::{CertError, Span, authorities, names, provider};
use crate::config::listener::ClientAuthMode;

/// Which certificates of clients a listener takes.
#[derive(Clone, Debug)]
pub struct Clients {
    mode: ClientAuthMode,
    authorities: Vec<CertificateDer<'static>>,
    verifier: Arc<dyn ClientCertVerifier>,
}

impl Clients {
    /// Reads the authorities that vouch for clients.
    ///
    /// # Errors
    /// The file cannot be read, or has no certificate that verification can use.
    pub fn of(mode: ClientAuthMode, ca: &Path) -> Result<Self, CertError> {
        let authorities = authorities(ca)?;
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(authorities.iter().cloned());
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
        let builder = match mode {
            ClientAuthMode::Required => builder,
            ClientAuthMode::Optional => builder.allow_unauthenticated(),
        };
        let verifier = builder.build().map_err(|e| CertError::BadCertificate { path: ca.into(), reason: e.to_string() })?;
        Ok(Self { mode, authorities, verifier })
    }

    pub(super) fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        self.verifier.clone()
    }
}

/// The same clients pass: the mode and the authorities are the same.
impl PartialEq for Clients {
    fn eq(&self, other: &Self) -> bool {
        self.mode == other.mode && self.authorities == other.authorities
    }
}

/// The certificate by which a client is known; its handshake proved that it has the key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Client {
    /// As the client sent it, leaf first, in DER.
    pub chain: Vec<CertificateDer<'static>>,
    /// Distinguished name of the subject, as RFC 4514 writes it: `CN=alice,O=Shop`. Empty if there is none.
    pub subject: String,
    /// Subject alternative names of the kinds that name someone.
    pub names: Vec<AltName>,
    /// The subject's organization, its parts joined.
    pub organization: Option<String>,
    /// The serial number in hexadecimal, `:` between the bytes.
    pub serial: String,
    /// When the certificate is valid.
    pub span: Span,
    /// SHA-256 of the leaf.
    pub fingerprint: [u8; 32],
}

/// One name of a client.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum AltName {
    Dns(String),
    Email(String),
    Uri(String),
    Address(IpAddr),
}

/// A client's certificate was verified and still cannot be read: it is taken for none.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the client's certificate cannot be read")]
pub struct ClientError;

impl Client {
    /// # Errors
    /// The leaf is missing or not one of X.509.
    pub fn read(chain: &[CertificateDer<'_>]) -> Result<Self, ClientError> {
        let leaf = chain.first().ok_or(ClientError)?;
        let fingerprint = Sha256::digest(leaf).into();
        let (_, leaf) = X509Certificate::from_der(leaf).map_err(|_| ClientError)?;
        let organization = leaf.subject().iter_organization().filter_map(|part| part.as_str().ok());
        Ok(Self {
            subject: distinguished(leaf.subject()),
            names: names::alternatives(&leaf).iter().filter_map(AltName::of).collect(),
            organization: organization.map(str::to_owned).reduce(|before, part| before + &part),
            serial: leaf.raw_serial_as_string(),
            span: Span::of(&leaf),
            fingerprint,
            chain: chain.iter().map(|certificate| certificate.clone().into_owned()).collect(),
        })
    }
}

impl AltName {
    /// A name with its kind before it, as OpenSSL writes it: `DNS:…`, `URI:…`, `email:…`, `IP:…`.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, name) = text.split_once(':').filter(|(_, name)| !name.is_empty())?;
        match kind.to_ascii_lowercase().as_str() {
            "dns" => Some(Self::Dns(name.to_ascii_lowercase())),
            "uri" => Some(Self::Uri(name.to_owned())),
            "email" => Some(Self::Email(name.to_owned())),
            "ip" => name.parse().ok().map(Self::Address),
            _ => None,
        }
    }

    fn of(name: &GeneralName<'_>) -> Option<Self> {
        match name {
            GeneralName::DNSName(name) => Some(Self::Dns(name.to_ascii_lowercase())),
            GeneralName::RFC822Name(mailbox) => Some(Self::Email((*mailbox).to_owned())),
            GeneralName::URI(uri) => Some(Self::Uri((*uri).to_owned())),
            GeneralName::IPAddress(octets) => names::address(octets).map(Self::Address),
            _ => None,
        }
    }
}

/// A distinguished name in text: the last part first (RFC 4514 §2.1), `+` within a part (§2.2).
fn distinguished(name: &X509Name<'_>) -> String {
    let mut parts: Vec<String> = name.iter_rdn().map(|part| part.iter().map(attribute).collect::<Vec<_>>().join("+")).collect();
    parts.reverse();
    parts.join(",")
}

/// `CN=alice`; of a type without a keyword, or a value that is no text, the number and the bytes (RFC 4514 §2.3, §2.4).
fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let keyword = keyword(attribute.attr_type());
    match (keyword, attribute.as_str()) {
        (Some(keyword), Ok(text)) => format!("{keyword}={}", escaped(text)),
        (keyword, _) => {
            let der = attribute.attr_value().to_der_vec_raw().unwrap_or_default();
            let kind = keyword.map_or_else(|| attribute.attr_type().to_id_string(), str::to_owned);
            der.iter().fold(format!("{kind}=#"), |mut text, byte| {
                // Writing to a string does not fail.
                _ = write!(text, "{byte:02x}");
                text
            })
        }
    }
}

fn keyword(kind: &Oid<'_>) -> Option<&'static str> {
    keywords().into_iter().find(|(oid, _)| oid == kind).map(|(_, keyword)| keyword)
}

/// The table of RFC 4514 §3.
pub(super) fn keywords() -> [(Oid<'static>, &'static str); 9] {
    [
        (oids::OID_X509_COMMON_NAME, "CN"),
        (oids::OID_X509_LOCALITY_NAME, "L"),
        (oids::OID_X509_STATE_OR_PROVINCE_NAME, "ST"),
        (oids::OID_X509_ORGANIZATION_NAME, "O"),
        (oids::OID_X509_ORGANIZATIONAL_UNIT, "OU"),
        (oids::OID_X509_COUNTRY_NAME, "C"),
        (oids::OID_X509_STREET_ADDRESS, "STREET"),
        (oids::OID_DOMAIN_COMPONENT, "DC"),
        (oids::OID_USERID, "UID"),
    ]
}

/// A value in which nothing can be taken for another part of the name (RFC 4514 §2.4). Control characters are written as numbers too.
pub(super) fn escaped(text: &str) -> String {
    let last = text.chars().count().saturating_sub(1);
    text.chars().enumerate().fold(String::with_capacity(text.len()), |mut written, (at, c)| {
        let is_edge = (c == ' ' && (at == 0 || at == last)) || (c == '#' && at == 0);
        match c {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => written.extend(['\\', c]),
            _ if is_edge => written.extend(['\\', c]),
            // Writing to a string does not fail.
            '\0'..='\x1f' | '\x7f' => _ = write!(written, "\\{:02x}", u32::from(c)),
            _ => written.push(c),
        }
        written
    })
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair, SanType};

    use super::*;

    fn client(name: DistinguishedName, alternatives: Vec<SanType>) -> Client {
        let mut params = CertificateParams::default();
        params.distinguished_name = name;
        params.subject_alt_names = alternatives;
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        Client::read(&[certificate.der().clone()]).unwrap()
    }

    fn check(parts: &[(DnType, &str)], expected: &str) {
        let mut name = DistinguishedName::new();
        for (kind, value) in parts {
            name.push(kind.clone(), DnValue::Utf8String((*value).to_owned()));
        }
        assert_eq!(client(name, Vec::new()).subject, expected);
    }

    #[test]
    fn a_subject_is_written_as_rfc_4514_has_it() {
        use DnType::{CommonName, CountryName, OrganizationName};
        check(&[(CountryName, "NL"), (OrganizationName, "Shop"), (CommonName, "alice")], "CN=alice,O=Shop,C=NL");
        check(&[(CommonName, "a,O=Shop")], "CN=a\\,O=Shop");
        check(&[(CommonName, " #a\"+\\;<> ")], r#"CN=\ #a\"\+\\\;\<\>\ "#);
        check(&[(CommonName, "#a\nb\0")], "CN=\\#a\\0ab\\00");
        check(&[(CommonName, " ")], "CN=\\ ");
        check(&[(DnType::CustomDnType(vec![1, 2, 3, 4]), "x")], "1.2.3.4=#0c0178");
        check(&[], "");
    }

    #[test]
    fn names_of_a_client_are_read_by_kind() {
        let uri = "spiffe://shop.example/orders";
        let alternatives = vec![
            SanType::DnsName("Orders.Shop.Example".try_into().unwrap()),
            SanType::URI(uri.try_into().unwrap()),
            SanType::Rfc822Name("a@shop.example".try_into().unwrap()),
            SanType::IpAddress([192, 0, 2, 7].into()),
        ];
        let mut name = DistinguishedName::new();
        name.push(DnType::OrganizationName, "Shop");
        let client = client(name, alternatives);
        let expected = [
            AltName::Dns("orders.shop.example".to_owned()),
            AltName::Uri(uri.to_owned()),
            AltName::Email("a@shop.example".to_owned()),
            AltName::Address([192, 0, 2, 7].into()),
        ];
        assert_eq!((client.names.as_slice(), client.organization.as_deref()), (&expected[..], Some("Shop")));
    }
}
