//! What a service says of a request that it was asked about.

use std::sync::Arc;

use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{LOCATION, SET_COOKIE, WWW_AUTHENTICATE},
};
use serde_json::{Map, Value};

use super::Settings;
use crate::{
    caller::{Claims, Fields},
    exchange::Relayed,
    identity::{Verified, token::weight},
};

/// Longest field that is copied, in bytes. A longer one refuses the request: half of what a service is to know may be worse than nothing.
const FIELD_MAX: usize = 8 << 10;

/// Most fields of one name that are relayed or copied.
const FIELDS_MAX: usize = 16;

/// What a client is told to bring where the service does not say: a 401 has to say something (RFC 9110 §15.5.2).
pub const CHALLENGE: HeaderValue = HeaderValue::from_static("Forward");

/// A request that may pass.
#[derive(PartialEq, Debug)]
pub struct Passed {
    /// The copied fields, as claims and as they are sent.
    pub verified: Verified,
    /// The consumer that it names.
    pub consumer: Option<Box<str>>,
}

/// A request that may not.
#[derive(Clone, PartialEq, Debug)]
pub enum Refusal {
    /// It does not prove who calls; by these challenges it may.
    Unauthenticated(Arc<[HeaderValue]>),
    /// Who calls may not do this.
    Forbidden(Option<HeaderValue>),
    /// What the client is told instead, as it was said.
    Relayed(Arc<Relayed>),
    /// It did not say.
    Unavailable,
}

/// An answer that says nothing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NoAnswer {
    #[error("it answered with status {0}, which neither lets pass nor refuses")]
    Status(StatusCode),
    #[error("its field `{0}` is longer than {FIELD_MAX} bytes or comes more than {FIELDS_MAX} times")]
    TooLarge(HeaderName),
    #[error("its field `{0}` is no name")]
    Consumer(HeaderName),
}

/// # Errors
/// The answer says nothing.
pub fn read(status: StatusCode, headers: &HeaderMap, settings: &Settings) -> Result<Result<Passed, Refusal>, NoAnswer> {
    let challenges = || headers.get_all(WWW_AUTHENTICATE).iter().take(FIELDS_MAX).cloned();
    let relayed = || Err(Refusal::Relayed(Arc::new(relayed(status, headers))));
    match status {
        _ if status.is_success() => passed(headers, settings).map(Ok),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if settings.relay && headers.contains_key(SET_COOKIE) => Ok(relayed()),
        StatusCode::UNAUTHORIZED => Ok(Err(Refusal::Unauthenticated(challenges().collect()))),
        StatusCode::FORBIDDEN => Ok(Err(Refusal::Forbidden(challenges().next()))),
        _ if settings.relay && is_redirect(status) && headers.contains_key(LOCATION) => Ok(relayed()),
        _ => Err(NoAnswer::Status(status)),
    }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

fn relayed(status: StatusCode, headers: &HeaderMap) -> Relayed {
    let first = if is_redirect(status) { LOCATION } else { WWW_AUTHENTICATE };
    let all = |name: HeaderName| {
        let values = headers.get_all(&name).iter().take(FIELDS_MAX);
        values.map(|value| (name.clone(), sensitive(value.clone()))).collect::<Vec<_>>()
    };
    let mut fields = all(first);
    if status == StatusCode::UNAUTHORIZED && fields.is_empty() {
        fields.push((WWW_AUTHENTICATE, CHALLENGE));
    }
    fields.extend(all(SET_COOKIE));
    Relayed { status, fields }
}

fn passed(headers: &HeaderMap, settings: &Settings) -> Result<Passed, NoAnswer> {
    let mut fields = Vec::with_capacity(settings.copy.len());
    for name in &settings.copy {
        fields.extend(joined(headers, name)?.map(|value| (name.clone(), value)));
    }
    let claims = fields.iter().filter_map(|(name, value)| Some((name.as_str().to_owned(), value.to_str().ok()?.into())));
    let claims = Claims::new(claims.collect::<Map<String, Value>>());
    let fields: Option<Fields> = (!fields.is_empty()).then(|| fields.into());
    let consumer = settings.consumer.as_ref().and_then(|name| Some((name, joined(headers, name).transpose()?)));
    let consumer = consumer.map(|(name, value)| named(name, &value?)).transpose()?;
    Ok(Passed { verified: Verified { claims: Arc::new(claims), fields }, consumer })
}

fn named(name: &HeaderName, value: &HeaderValue) -> Result<Box<str>, NoAnswer> {
    value.to_str().map(Box::from).map_err(|_| NoAnswer::Consumer(name.clone()))
}

/// All fields of a name as one (RFC 9110 §5.3). `Ok(None)`: there is none, or nothing in it.
fn joined(headers: &HeaderMap, name: &HeaderName) -> Result<Option<HeaderValue>, NoAnswer> {
    let values: Vec<&[u8]> = headers.get_all(name).iter().map(HeaderValue::as_bytes).filter(|value| !value.is_empty()).collect();
    let length: usize = values.iter().map(|value| value.len() + 2).sum();
    if values.is_empty() {
        return Ok(None);
    }
    if values.len() > FIELDS_MAX || length > FIELD_MAX {
        return Err(NoAnswer::TooLarge(name.clone()));
    }
    let value = HeaderValue::from_bytes(&values.join(&b", "[..])).map_err(|_| NoAnswer::TooLarge(name.clone()))?;
    Ok(Some(sensitive(value)))
}

/// It is about a person: kept out of what libraries log.
fn sensitive(mut value: HeaderValue) -> HeaderValue {
    value.set_sensitive(true);
    value
}

impl Passed {
    /// About what it takes in memory, in bytes.
    pub fn weight(&self) -> usize {
        let sent = self.verified.fields.iter().flat_map(|fields| fields.iter()).map(|(_, value)| 128 + value.len());
        weight(&self.verified.claims.all) + sent.sum::<usize>() + self.consumer.as_ref().map_or(0, |name| name.len())
    }
}

impl Refusal {
    /// About what it takes in memory, in bytes.
    pub fn weight(&self) -> usize {
        match self {
            Self::Unauthenticated(challenges) => challenges.iter().map(|challenge| 64 + challenge.len()).sum(),
            Self::Forbidden(challenge) => challenge.as_ref().map_or(0, HeaderValue::len),
            Self::Relayed(_) | Self::Unavailable => 0,
        }
    }
}
