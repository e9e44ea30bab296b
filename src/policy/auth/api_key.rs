//! `api_key`: a long random text that one consumer has, in a header field or in the query.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, header};
use pingora_http::RequestHeader;
use smallvec::SmallVec;

use super::{Scheme, Verdict, only};
use crate::{
    caller::{Caller, Reason},
    config::{
        policy::auth::{ApiKey as Config, Place},
        problem::{Path, Problem},
    },
    exchange::{Inbound, Stop},
    identity::Consumers,
    query,
};

/// Where a key stands, and whose it may be.
pub struct ApiKey {
    place: Stand,
    keep: bool,
    challenge: HeaderValue,
    consumers: Arc<Consumers>,
}

enum Stand {
    Header(HeaderName),
    Query(Box<str>),
}

/// What the log calls the scheme.
const NAME: &str = "api_key";

/// Header fields that mean something else to everyone.
const TAKEN: [HeaderName; 6] =
    [header::HOST, header::CONNECTION, header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::TE, header::UPGRADE];

impl ApiKey {
    /// # Errors
    /// The place is none where a key can stand.
    pub fn compile(config: &Config, path: &Path, consumers: &Arc<Consumers>) -> Result<Self, Problem> {
        let (place, challenge) = match &config.place {
            Place::Header(name) => (Stand::Header(header_name(name, path)?), format!("ApiKey header=\"{name}\"")),
            Place::Query(name) if is_parameter(name) => (Stand::Query(name.as_str().into()), format!("ApiKey query=\"{name}\"")),
            Place::Query(name) => {
                return Err(Problem::error(path.key("query"), format!("`{name}` is no name of a query parameter"))
                    .help("letters, digits, `_`, `-` and `.`, such as `api_key`"));
            }
        };
        let challenge = HeaderValue::from_str(&challenge).unwrap_or(HeaderValue::from_static("ApiKey"));
        Ok(Self { place, keep: config.keep, challenge, consumers: consumers.clone() })
    }

    fn of(&self, key: &[u8]) -> Verdict {
        match self.consumers.by_api_key(key) {
            _ if key.is_empty() => Verdict::Refused(Reason::Malformed),
            Some((consumer, digest)) => Verdict::Accepted(Caller::known_by(NAME, consumer.clone(), &digest)),
            None => Verdict::Refused(Reason::Unknown),
        }
    }
}

impl Scheme for ApiKey {
    async fn verify(&self, inbound: &Inbound<'_>) -> Verdict {
        match &self.place {
            Stand::Header(name) => match only(inbound.head.headers.get_all(name)) {
                Ok(key) => self.of(key.as_bytes()),
                Err(none) => none,
            },
            Stand::Query(name) => {
                let named = query::parameters(inbound.facts.query.as_deref().unwrap_or_default());
                let named = named.filter(|(other, _)| query::decoded(other).eq(name.bytes()));
                only(named.map(|(_, key)| key))
                    .map_or_else(|none| none, |key| self.of(&query::decoded(key).collect::<SmallVec<[u8; 128]>>()))
            }
        }
    }

    fn challenge(&self, _: Option<Reason>) -> Option<HeaderValue> {
        Some(self.challenge.clone())
    }

    fn strip(&self, head: &mut RequestHeader) -> Result<(), Stop> {
        match &self.place {
            _ if self.keep => {}
            Stand::Header(name) => drop(head.remove_header(name)),
            Stand::Query(name) => {
                let target = std::str::from_utf8(head.raw_path()).unwrap_or_default();
                let Some((path, parameters)) = target.split_once('?') else { return Ok(()) };
                let Some(rest) = query::without(parameters, name) else { return Ok(()) };
                let target = if rest.is_empty() { path.to_owned() } else { format!("{path}?{rest}") };
                head.set_raw_path(target.as_bytes()).map_err(|_| Stop::Malformed("The request target is not a URI."))?;
            }
        }
        Ok(())
    }
}

fn header_name(name: &str, path: &Path) -> Result<HeaderName, Problem> {
    match HeaderName::from_bytes(name.as_bytes()) {
        Ok(name) if !TAKEN.contains(&name) => Ok(name),
        _ => Err(Problem::error(path.key("header"), format!("no API key can stand in a header field `{name}`"))
            .help("name one of its own, such as `X-Api-Key`")),
    }
}

fn is_parameter(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
}
