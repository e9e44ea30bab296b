//! `client_certificate`: the certificate that a client showed in its TLS handshake. The listener verified it; here it is asked whose it is.
//!
//! On request the service gets it as RFC 9440 has it.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderName, HeaderValue};
use pingora_http::RequestHeader;

use super::{Scheme, Verdict};
use crate::{
    caller::{Caller, Reason},
    certs::Client,
    config::{
        policy::auth::{ClientCertificate as Config, ForwardCertificate},
        problem::{Path, Problem},
    },
    exchange::{Inbound, Stop},
    identity::Consumers,
    policy::{
        chain::Ground,
        introduction::{CLIENT_CERT, CLIENT_CERT_CHAIN},
    },
};

/// Whose certificates these may be, and what a service gets of them.
pub struct ClientCertificate {
    forward: Option<ForwardCertificate>,
    consumers: Arc<Consumers>,
}

/// What the log calls the scheme.
const NAME: &str = "client_certificate";

impl ClientCertificate {
    /// # Errors
    /// No listener asks clients for certificates.
    pub fn compile(config: &Config, path: &Path, ground: &Ground<'_>) -> Result<Self, Problem> {
        let asks = |listener: &crate::config::Listener| listener.tls.as_ref().is_some_and(|tls| tls.client_auth.is_some());
        if !ground.loaded.config.listeners.values().any(asks) {
            return Err(Problem::error(path.clone(), "no listener asks clients for a certificate, so none has one")
                .help("add `client_auth` to the `tls` of a listener"));
        }
        Ok(Self { forward: config.forward, consumers: ground.consumers.clone() })
    }

    fn fields(&self, client: &Client) -> Option<crate::caller::Fields> {
        let forward = self.forward?;
        let mut certificates = client.chain.iter().map(|certificate| bytes(certificate));
        let leaf = (HeaderName::from_static(CLIENT_CERT), HeaderValue::from_str(&certificates.next()?).ok()?);
        let chain = certificates.collect::<Vec<_>>().join(", ");
        match forward {
            ForwardCertificate::Chain if !chain.is_empty() => {
                Some([leaf, (HeaderName::from_static(CLIENT_CERT_CHAIN), HeaderValue::from_str(&chain).ok()?)].into())
            }
            _ => Some([leaf].into()),
        }
    }
}

impl Scheme for ClientCertificate {
    async fn verify(&self, inbound: &Inbound<'_>) -> Verdict {
        let Some(client) = inbound.tls.and_then(|tls| tls.client.as_ref()) else { return Verdict::Absent };
        match self.consumers.by_certificate(client) {
            Ok(Some(consumer)) => Verdict::Accepted(Caller {
                fields: self.fields(client),
                ..Caller::known_by(NAME, consumer.clone(), &client.fingerprint)
            }),
            Ok(None) => Verdict::Refused(Reason::Unknown),
            Err(_) => Verdict::Refused(Reason::Conflict),
        }
    }

    /// HTTP has no challenge for it; but one there must be.
    fn challenge(&self, _: Option<Reason>) -> Option<HeaderValue> {
        Some(HeaderValue::from_static("ClientCertificate"))
    }

    /// It is no part of the request.
    fn strip(&self, _: &mut RequestHeader) -> Result<(), Stop> {
        Ok(())
    }
}

/// A byte sequence of a structured field (RFC 8941 §3.3.5).
fn bytes(der: &[u8]) -> String {
    format!(":{}:", STANDARD.encode(der))
}
