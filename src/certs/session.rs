//! What is known of a client's TLS session once its handshake is done.

use std::sync::Arc;

use pingora_core::protocols::{Digest, raw_connect::ProxyDigest};
use pingora_http::ResponseHeader;

use super::{Client, Names};
use crate::config::listener::Misdirected;

/// The TLS session of a client's connection.
#[derive(Clone, PartialEq, Debug)]
pub struct Session {
    /// What the certificate that was shown is for.
    pub names: Arc<Names>,
    /// As the listener had it when the session began.
    pub misdirected: Misdirected,
    /// The host that the client asked for, in lower case.
    pub sni: Option<Arc<str>>,
    /// The certificate that the client showed, if it was asked and had one.
    pub client: Option<Client>,
    /// `TLSv1.2`, `TLSv1.3`.
    pub version: &'static str,
    /// Whether it goes on from an earlier one, by a ticket.
    pub resumed: bool,
}

impl Session {
    /// Whether the certificate that was shown proves that we are this host. One without any name or address says nothing of hosts,
    /// so none is beyond it.
    pub fn covers(&self, host: &str) -> bool {
        self.names.is_empty() || self.names.covers(host)
    }

    /// Whether a request for this host is to be answered with 421 (RFC 9110 §15.5.20). A request that names none (HTTP/1.0) is not.
    pub fn misdirects(&self, host: &str) -> bool {
        self.misdirected == Misdirected::Refuse && !host.is_empty() && !self.covers(host)
    }

    /// The session of a connection, as [`Self::carried`] gave it to it.
    pub fn of(digest: &Digest) -> Option<&Self> {
        Self::within(digest.proxy_digest.as_ref()?)
    }

    /// The session in what [`Self::carried`] gave, for who holds that longer than the connection's digest.
    pub fn within(carried: &ProxyDigest) -> Option<&Self> {
        carried.user_data.as_ref()?.downcast_ref::<Self>()
    }

    /// For Pingora to carry with the connection to each of its requests. It has a place for this in `SslDigest`, which only its own
    /// handshake can fill; the other one is meant for CONNECT proxies, which no client's connection has.
    ///
    /// # Errors
    /// Never: an empty head can be made.
    pub fn carried(self) -> pingora_core::Result<Arc<ProxyDigest>> {
        let head = ResponseHeader::build(http::StatusCode::OK, Some(0))?;
        Ok(Arc::new(ProxyDigest::new(Box::new(head), Some(Box::new(self)))))
    }
}
