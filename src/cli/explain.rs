//! `banyan explain`: which route takes a request, and why not another.

use std::process::ExitCode;

use clap::Args;
use http::{HeaderName, HeaderValue, Method, Uri};

use super::Place;

/// Say which route takes a request, and why the others do not.
///
/// Offline: nothing is sent. Also says which policies would run.
#[derive(Args, Debug)]
pub struct Explain {
    #[command(flatten)]
    place: Place,
    /// Method of the request.
    #[arg(value_name = "METHOD", value_parser = method)]
    method: Method,
    /// URL of the request: `https://shop.example/api/orders?page=2`.
    #[arg(value_name = "URL", value_parser = url)]
    url: Uri,
    /// A header of the request, as `Name: value`. May be given again.
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = header)]
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Explain {
    pub fn execute(self) -> anyhow::Result<ExitCode> {
        anyhow::bail!(
            "cannot explain {} {} {:?} by {}: not connected",
            self.method,
            self.url,
            self.headers,
            self.place.path().display()
        )
    }
}

fn method(text: &str) -> Result<Method, String> {
    Method::from_bytes(text.as_bytes()).map_err(|_| "expected a method such as `GET`".to_owned())
}

fn url(text: &str) -> Result<Uri, String> {
    let expected = || "expected a URL such as `https://shop.example/api/orders`".to_owned();
    let uri: Uri = text.parse().map_err(|_| expected())?;
    match uri.scheme_str() {
        Some("http" | "https") if uri.host().is_some_and(|host| !host.is_empty()) => Ok(uri),
        _ => Err(expected()),
    }
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let expected = || "expected `Name: value`".to_owned();
    let (name, value) = text.split_once(':').ok_or_else(expected)?;
    let name = name.trim().parse().map_err(|_| expected())?;
    let value = value.trim().parse().map_err(|_| expected())?;
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_scheme_and_host() {
        for good in ["http://a/", "https://shop.example:8443/api?x=1", "http://[::1]:80/"] {
            assert!(url(good).is_ok(), "{good}");
        }
        for bad in ["", "/api", "shop.example", "ftp://a/", "http://"] {
            assert!(url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_header_is_a_name_and_a_value() {
        let (name, value) = header("X-Report-Version: 2").unwrap();
        assert_eq!((name.as_str(), value.as_bytes()), ("x-report-version", &b"2"[..]));
        assert_eq!(header("Host: a:80").unwrap().1, "a:80");
        for bad in ["", "no colon", ": value", "a b: c", "a: \u{1}"] {
            assert!(header(bad).is_err(), "{bad:?}");
        }
    }
}
