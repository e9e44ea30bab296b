//! Requests of our own to those who vouch for callers: few, small, and never on the way of a request that is warm.

use std::{net::IpAddr, time::Duration};

use bytes::{Bytes, BytesMut};
use reqwest::{Client, RequestBuilder, StatusCode, Url, redirect::Policy};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};

/// Longest that an idle connection is kept.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// Most idle connections to one host.
const IDLE_CONNECTIONS: usize = 8;

/// A client that follows no redirects, uses no proxy, keeps no cookies, and believes only certificates that it verified.
#[derive(Clone, Debug)]
pub struct Outgoing(Client);

/// Why there is no answer. It names neither what was asked nor what was answered.
#[derive(Debug, thiserror::Error)]
pub enum OutgoingError {
    #[error("no client could be made: {0}")]
    Client(#[source] reqwest::Error),
    #[error("TLS could not be set up: {0}")]
    Tls(#[from] rustls::Error),
    #[error("{}", cause(.0))]
    Failed(#[source] reqwest::Error),
    #[error("it did not answer in time")]
    Late,
    #[error("it answered with status {0}")]
    Status(StatusCode),
    #[error("its answer is larger than {0} bytes")]
    TooLarge(usize),
}

impl Outgoing {
    /// `timeout` is for a request as a whole, its answer's body included.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn new(roots: RootCertStore, timeout: Duration) -> Result<Self, OutgoingError> {
        let tls = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let client = Client::builder()
            .tls_backend_preconfigured(tls)
            .timeout(timeout)
            .redirect(Policy::none())
            .no_proxy()
            .referer(false)
            .pool_idle_timeout(IDLE_MAX)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .user_agent(concat!("banyan/", env!("CARGO_PKG_VERSION")));
        client.build().map(Self).map_err(OutgoingError::Client)
    }

    pub fn get(&self, url: Url) -> RequestBuilder {
        self.0.get(url).header(http::header::ACCEPT, "application/json")
    }

    /// A form as browsers send it: `fields` are written so already.
    pub fn post(&self, url: Url, fields: String) -> RequestBuilder {
        let form = "application/x-www-form-urlencoded";
        self.0.post(url).header(http::header::ACCEPT, "application/json").header(http::header::CONTENT_TYPE, form).body(fields)
    }
}

/// The body of a 200 that has at most so many bytes.
///
/// # Errors
/// There is none.
pub async fn answer(request: RequestBuilder, most: usize) -> Result<Bytes, OutgoingError> {
    let mut response = request.send().await.map_err(failed)?;
    if response.status() != StatusCode::OK {
        return Err(OutgoingError::Status(response.status()));
    }
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        if body.len() + chunk.len() > most {
            return Err(OutgoingError::TooLarge(most));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

fn failed(error: reqwest::Error) -> OutgoingError {
    if error.is_timeout() { OutgoingError::Late } else { OutgoingError::Failed(error.without_url()) }
}

/// The deepest reason is what helps: `connection refused`.
fn cause(error: &reqwest::Error) -> String {
    let mut deepest: &dyn std::error::Error = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

/// Why an address cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum UrlError {
    #[error("`{0}` is not the URL of a web server")]
    Malformed(String),
    #[error("the URL must have no user name, password or fragment")]
    Extra,
    #[error("`{0}` is plain text, which anyone on the way can read and change")]
    PlainText(String),
}

/// Whether plain HTTP may leave this machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PlainText {
    OnLoopback,
    Anywhere,
}

/// The address of someone who vouches for callers: `https://`, or `http://` where that is taken.
///
/// # Errors
/// It is not one that may be used.
pub fn url(text: &str, plain: PlainText) -> Result<Url, UrlError> {
    // What is no URL may hold a password all the same, where it ends too early: `https://a:b/c@idp.example`.
    let malformed = || if text.contains('@') { UrlError::Extra } else { UrlError::Malformed(text.to_owned()) };
    let url = Url::parse(text).map_err(|_| malformed())?;
    let is_plain = match url.scheme() {
        "https" => false,
        "http" => true,
        _ => return Err(malformed()),
    };
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        return Err(UrlError::Extra);
    }
    match is_plain && plain == PlainText::OnLoopback && !is_loopback(&url) {
        true => Err(UrlError::PlainText(text.to_owned())),
        false => Ok(url),
    }
}

fn is_loopback(url: &Url) -> bool {
    let Some(host) = url.host_str() else { return false };
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    bare.parse::<IpAddr>().map_or(host == "localhost", |address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, plain: PlainText, expected: bool) {
        assert_eq!(url(text, plain).is_ok(), expected, "{text} {plain:?}");
    }

    #[test]
    fn plain_text_does_not_leave_the_machine_unasked() {
        let (here, anywhere) = (PlainText::OnLoopback, PlainText::Anywhere);
        for good in [
            "https://idp.example/jwks",
            "http://127.0.0.1:9010/a?b=c",
            "http://localhost/",
            "http://[::1]:80/",
            "http://127.9.9.9/",
        ] {
            check(good, here, true);
        }
        for plain in ["http://idp.example/", "http://10.0.0.1/", "http://localhost.example/", "http://127.0.0.1.example/"] {
            check(plain, here, false);
            check(plain, anywhere, true);
        }
    }

    #[test]
    fn an_address_has_nothing_in_it_that_would_be_lost_or_shown() {
        for bad in [
            "https://a:b@idp.example/",
            "https://a@idp.example/",
            "https://idp.example/#x",
            "ftp://idp.example/",
            "idp.example",
            "",
            "file:///etc/passwd",
            "https://",
        ] {
            check(bad, PlainText::Anywhere, false);
        }
    }
}
