//! The provider: where its endpoints are (OpenID Connect Discovery 1.0), and what its token endpoint says (RFC 6749 §3.2).

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{StatusCode, header::AUTHORIZATION};
use reqwest::Url;
use serde_json::{Map, Value};
use tokio::sync::Semaphore;

use super::{Fault, address};
use crate::identity::{
    outgoing::{Outgoing, OutgoingError, PlainText, answer, url},
    strict,
};

/// Largest document and token response, in bytes.
const BODY_MAX: usize = 256 << 10;

/// How long the endpoints are taken for known.
const REFRESH: Duration = Duration::from_secs(3_600);

/// Least time between two questions for them.
const PAUSE: Duration = Duration::from_secs(1);

/// The endpoints of a provider.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Endpoints {
    pub authorization: Url,
    pub token: Url,
    pub end_session: Option<Url>,
    /// It names itself in its answers (RFC 9207), so one that does not is not its.
    pub names_itself: bool,
    /// It takes the client's secret in the form only, not in a header field.
    pub secret_in_form: bool,
}

/// Who we are to the provider.
pub struct Client {
    pub id: Box<str>,
    pub secret: Box<str>,
}

pub struct Provider {
    pub issuer: Box<str>,
    document: Url,
    plain: PlainText,
    outgoing: Outgoing,
    known: ArcSwapOption<Known>,
    /// One question at a time.
    asking: Semaphore,
}

struct Known {
    endpoints: Option<Arc<Endpoints>>,
    asked: Instant,
}

/// What the token endpoint gave.
#[derive(Debug)]
pub struct Tokens {
    pub id_token: Option<String>,
    pub refresh: Option<String>,
    /// For how many seconds the access token is good.
    pub expires_in: Option<u64>,
}

impl Provider {
    pub fn new(issuer: &str, document: Url, plain: PlainText, outgoing: Outgoing) -> Self {
        let known = ArcSwapOption::empty();
        Self { issuer: issuer.into(), document, plain, outgoing, known, asking: Semaphore::new(1) }
    }

    /// The endpoints, asked for if they are not known, or not known any more. While the provider is away, what it last said counts.
    ///
    /// # Errors
    /// The provider was never reached.
    pub async fn endpoints(&self) -> Result<Arc<Endpoints>, Fault> {
        if let Some(known) = &*self.known.load() {
            let due = if known.endpoints.is_some() { REFRESH } else { PAUSE };
            if known.asked.elapsed() < due || (known.endpoints.is_some() && self.asking.available_permits() == 0) {
                return known.endpoints.clone().ok_or(Fault::Unavailable);
            }
        }
        let before = self.known.load_full();
        let _turn = self.asking.acquire().await.map_err(|_| Fault::Unavailable)?;
        let now = self.known.load_full();
        // Who waited for its turn takes what came meanwhile.
        let asked = |known: &Option<Arc<Known>>| known.as_ref().map(|known| known.asked);
        if asked(&now) != asked(&before) {
            return now.and_then(|known| known.endpoints.clone()).ok_or(Fault::Unavailable);
        }
        let found =
            self.ask().await.inspect_err(|error| tracing::warn!(issuer = %self.issuer, %error, "the provider's document"));
        let endpoints = found.ok().map(Arc::new).or_else(|| before.and_then(|known| known.endpoints.clone()));
        self.known.store(Some(Arc::new(Known { endpoints: endpoints.clone(), asked: Instant::now() })));
        endpoints.ok_or(Fault::Unavailable)
    }

    async fn ask(&self) -> Result<Endpoints, AskError> {
        let text = answer(self.outgoing.get(self.document.clone()), BODY_MAX).await?;
        Ok(read(&text, &self.issuer, self.plain)?)
    }

    /// Asks the token endpoint. `fields` are those of the grant.
    ///
    /// # Errors
    /// `Ended`: the provider says no. `Unavailable`: it does not say anything that we understand.
    pub async fn tokens(&self, endpoints: &Endpoints, client: &Client, fields: &[(&str, &str)]) -> Result<Tokens, Fault> {
        let mut fields = fields.to_vec();
        if endpoints.secret_in_form {
            fields.extend([("client_id", &*client.id), ("client_secret", &*client.secret)]);
        }
        let mut request = self.outgoing.post(endpoints.token.clone(), address::form(&fields));
        if !endpoints.secret_in_form {
            request = request.header(AUTHORIZATION, basic(client));
        }
        match answer(request, BODY_MAX).await {
            Ok(text) => strict::object(&text).map_err(|_| Fault::Unavailable).and_then(|said| granted(&said)),
            Err(OutgoingError::Status(status)) if status == StatusCode::BAD_REQUEST => Err(Fault::Ended),
            Err(error) => {
                tracing::warn!(issuer = %self.issuer, %error, "the provider's token endpoint");
                Err(Fault::Unavailable)
            }
        }
    }
}

/// RFC 6749 §2.3.1: both are encoded as in a form, first.
fn basic(client: &Client) -> String {
    format!("Basic {}", STANDARD.encode(format!("{}:{}", address::encoded(&client.id), address::encoded(&client.secret))))
}

fn granted(said: &Map<String, Value>) -> Result<Tokens, Fault> {
    let text = |name: &str| said.get(name).and_then(Value::as_str).map(str::to_owned);
    match text("token_type") {
        Some(kind) if kind.eq_ignore_ascii_case("bearer") => {
            let expires_in = said.get("expires_in").and_then(Value::as_u64);
            Ok(Tokens { id_token: text("id_token"), refresh: text("refresh_token"), expires_in })
        }
        _ => Err(Fault::Unavailable),
    }
}

/// Why the endpoints are not known.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error("it cannot be had: {0}")]
    Unreachable(#[from] OutgoingError),
    #[error(transparent)]
    Document(#[from] NoDocument),
}

/// A document does not say what is needed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
enum NoDocument {
    #[error("what came is no discovery document")]
    Malformed,
    #[error("the discovery document is of another issuer")]
    Issuer,
    #[error("the discovery document has no `{0}` that can be used")]
    Endpoint(&'static str),
}

fn read(document: &[u8], issuer: &str, plain: PlainText) -> Result<Endpoints, NoDocument> {
    let document = strict::object(document).map_err(|_| NoDocument::Malformed)?;
    if document.get("issuer").and_then(Value::as_str) != Some(issuer) {
        return Err(NoDocument::Issuer);
    }
    let optional = |name| document.get(name).and_then(Value::as_str).and_then(|text| url(text, plain).ok());
    let endpoint = |name| optional(name).ok_or(NoDocument::Endpoint(name));
    let methods = document.get("token_endpoint_auth_methods_supported").and_then(Value::as_array);
    Ok(Endpoints {
        authorization: endpoint("authorization_endpoint")?,
        token: endpoint("token_endpoint")?,
        end_session: optional("end_session_endpoint"),
        names_itself: document.get("authorization_response_iss_parameter_supported").and_then(Value::as_bool).unwrap_or(false),
        secret_in_form: methods.is_some_and(|methods| !methods.iter().any(|method| method == "client_secret_basic")),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn document(change: Value) -> Result<Endpoints, NoDocument> {
        let mut document = json!({
            "issuer": "https://idp.example", "authorization_endpoint": "https://idp.example/auth",
            "token_endpoint": "https://idp.example/token", "authorization_response_iss_parameter_supported": true,
        });
        document.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        read(document.to_string().as_bytes(), "https://idp.example", PlainText::OnLoopback)
    }

    #[test]
    fn a_document_names_the_endpoints_of_its_own_issuer() {
        let found = document(json!({})).unwrap();
        assert!(found.names_itself && !found.secret_in_form && found.end_session.is_none());
        assert_eq!(document(json!({ "issuer": "https://idp.example/" })), Err(NoDocument::Issuer));
        assert_eq!(document(json!({ "token_endpoint": "http://idp.example/" })), Err(NoDocument::Endpoint("token_endpoint")));
        assert_eq!(document(json!({ "authorization_endpoint": null })), Err(NoDocument::Endpoint("authorization_endpoint")));
        let form = json!({ "token_endpoint_auth_methods_supported": ["client_secret_post"] });
        assert!(document(form).unwrap().secret_in_form);
    }

    #[test]
    fn what_the_token_endpoint_gives_is_for_bearers() {
        let granted = |value: Value| granted(value.as_object().unwrap());
        assert!(granted(json!({ "token_type": "Bearer", "id_token": "t", "expires_in": 60 })).is_ok());
        assert!(matches!(granted(json!({ "token_type": "DPoP", "id_token": "t" })), Err(Fault::Unavailable)));
        assert!(matches!(granted(json!({ "id_token": "t" })), Err(Fault::Unavailable)));
    }

    #[test]
    fn our_name_and_secret_are_encoded() {
        let client = Client { id: "a:b".into(), secret: "c d%".into() };
        assert_eq!(basic(&client), format!("Basic {}", STANDARD.encode("a%3Ab:c%20d%25")));
    }
}
