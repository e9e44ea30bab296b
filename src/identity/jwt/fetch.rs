//! Where an issuer publishes its keys, and how they are asked for.

use reqwest::Url;
use serde_json::Value;

use super::key_set::{KeySet, KeySetError};
use crate::identity::{
    outgoing::{Outgoing, OutgoingError, PlainText, UrlError, answer, url},
    strict,
};

/// Largest key set or provider document, in bytes. A key of 4096 bits with its certificates has about 6 KiB.
const BODY_MAX: usize = 512 << 10;

/// Where keys are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    /// A JSON Web Key Set.
    Jwks(Url),
    /// A document of OpenID Connect Discovery, which names it.
    Discovery { document: Url, issuer: Box<str>, plain: PlainText },
}

/// Why there are no keys to be had.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("the key set cannot be had: {0}")]
    Keys(#[source] OutgoingError),
    #[error("the discovery document cannot be had: {0}")]
    Discovery(#[source] OutgoingError),
    #[error("what came is no key set: {0}")]
    NoSet(#[from] KeySetError),
    #[error("what came is no discovery document")]
    NoDocument,
    #[error("the discovery document is of another issuer")]
    Issuer,
    #[error("the discovery document names no place of keys that may be used: {0}")]
    Place(#[from] UrlError),
}

impl Place {
    /// Asks for the keys.
    ///
    /// # Errors
    /// There are none to be had, or not what was expected came.
    pub async fn keys(&self, outgoing: &Outgoing) -> Result<KeySet, FetchError> {
        let place = match self {
            Self::Jwks(url) => url.clone(),
            Self::Discovery { document, issuer, plain } => {
                let text = answer(outgoing.get(document.clone()), BODY_MAX).await.map_err(FetchError::Discovery)?;
                named(&text, issuer, *plain)?
            }
        };
        let text = answer(outgoing.get(place), BODY_MAX).await.map_err(FetchError::Keys)?;
        Ok(KeySet::from_jwks(&text)?.public())
    }
}

/// The place of keys that a document names, which must be its issuer's own (OpenID Connect Discovery 1.0 §4.3).
fn named(document: &[u8], issuer: &str, plain: PlainText) -> Result<Url, FetchError> {
    let document = strict::object(document).map_err(|_| FetchError::NoDocument)?;
    if document.get("issuer").and_then(Value::as_str) != Some(issuer) {
        return Err(FetchError::Issuer);
    }
    let place = document.get("jwks_uri").and_then(Value::as_str).ok_or(FetchError::NoDocument)?;
    Ok(url(place, plain)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(document: &str, expected: Result<&str, &str>) {
        let found = named(document.as_bytes(), "https://idp.example", PlainText::OnLoopback);
        let found = found.map(|url| url.to_string()).map_err(|error| error.to_string());
        match (&found, expected) {
            (Ok(url), Ok(expected)) => assert_eq!(url, expected, "{document}"),
            (Err(error), Err(part)) => assert!(error.contains(part), "{document}: {error}"),
            _ => panic!("{document}: {found:?}"),
        }
    }

    #[test]
    fn a_document_names_the_keys_of_its_own_issuer() {
        check(r#"{"issuer":"https://idp.example","jwks_uri":"https://keys.example/jwks"}"#, Ok("https://keys.example/jwks"));
        check(r#"{"issuer":"https://idp.example/","jwks_uri":"https://keys.example/"}"#, Err("another issuer"));
        check(r#"{"jwks_uri":"https://keys.example/"}"#, Err("another issuer"));
        check(r#"{"issuer":"https://idp.example"}"#, Err("no discovery document"));
        check(
            r#"{"issuer":"https://idp.example","issuer":"https://idp.example","jwks_uri":"https://keys.example/"}"#,
            Err("no discovery"),
        );
        check(r#"{"issuer":"https://idp.example","jwks_uri":"http://keys.example/"}"#, Err("plain text"));
        check("<html>", Err("no discovery document"));
    }
}
