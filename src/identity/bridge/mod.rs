//! From sessions of a legacy application to tokens for new services.
//!
//! The application says whose a session is; of that a token is signed, and remembered by the digest of the cookie until the application is to be asked
//! again. A session that it does not know is remembered for a shorter while, apart from the good ones, so that made-up cookies push
//! nothing out. However many requests bring the same cookie, one question is asked. Failure rule: a session that the application cannot be asked
//! about is refused, and no answer is kept of it.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, StatusCode,
    header::{AUTHORIZATION, COOKIE},
};
use reqwest::Url;
use serde_json::{Map, Value};

use super::{
    Verified,
    fields::Forward,
    mint::{Minted, Minter},
    outgoing::{self, Outgoing, OutgoingError},
    questions::{Outcomes, Questions},
    remembered::{Bounds, Remembered},
    strict,
    token::{Moment, TokenHash, weight},
};
use crate::caller::{ClaimPath, Claims, Fields, Reason};

/// The most sessions that one identity remembers, and the most memory for them.
const GOOD: Bounds = Bounds { entries: 100_000, bytes: 64 << 20 };

/// The same for sessions that are not known.
const REFUSED: Bounds = Bounds { entries: 20_000, bytes: 8 << 20 };

/// Longest that a session which is not known is remembered as such: it may begin a moment later.
const REFUSED_FOR: Duration = Duration::from_secs(5);

/// Most questions under way at once. One more session is refused as if the application could not be asked.
const QUESTIONS_MAX: usize = 256;

/// Largest answer, in bytes.
const ANSWER_MAX: usize = 64 << 10;

/// Longest cookie that is exchanged, in bytes: what browsers keep.
const COOKIE_MAX: usize = 4 << 10;

/// A legacy application that knows its sessions, and what is made of them.
pub struct Bridge {
    name: Box<str>,
    settings: Settings,
    sessions: Remembered<Arc<Verified>>,
    refused: Remembered<Reason>,
    questions: Arc<Questions<Judgement>>,
    outcomes: Outcomes,
}

/// How the application is asked, and what a service is told.
pub struct Settings {
    pub url: Url,
    pub outgoing: Outgoing,
    /// Name of the session's cookie.
    pub cookie: Box<str>,
    /// Longest that a session is remembered. Zero: not at all.
    pub cache: Duration,
    pub minter: Minter,
    /// Where the subject is.
    pub subject: ClaimPath,
    /// Other claims of the token, each with where it is.
    pub claims: Box<[(Box<str>, ClaimPath)]>,
    /// The field that has the token.
    pub header: HeaderName,
    pub forward: Forward,
    /// The public keys, as they are published.
    pub published: Bytes,
}

type Judgement = Result<Arc<Verified>, Reason>;

/// Why an answer says nothing.
#[derive(Debug, thiserror::Error)]
enum NoAnswer {
    #[error(transparent)]
    Unasked(#[from] OutgoingError),
    #[error("what came is no JSON object, or one in which a key stands twice")]
    Json,
    #[error("the answer has no subject, a text or a number, where it should be")]
    Subject,
    #[error(transparent)]
    Unsigned(#[from] super::mint::Unsigned),
    #[error("the token is none that a header field can carry")]
    Field,
}

impl Bridge {
    pub fn new(name: &str, settings: Settings) -> Arc<Self> {
        Arc::new(Self {
            name: name.into(),
            settings,
            sessions: Remembered::new(GOOD),
            refused: Remembered::new(REFUSED),
            questions: Questions::new(QUESTIONS_MAX),
            outcomes: Outcomes::default(),
        })
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Sessions that are remembered.
    pub fn remembered(&self) -> &Remembered<Arc<Verified>> {
        &self.sessions
    }

    pub fn outcomes(&self) -> &Outcomes {
        &self.outcomes
    }

    /// The identity of a session, with the token in what the service is told.
    ///
    /// # Errors
    /// There is no such session, or it cannot be said.
    pub async fn authenticate(self: &Arc<Self>, session: &[u8], clock: fn() -> SystemTime) -> Judgement {
        let (about, now) = (TokenHash::of(session), Moment::from(clock()));
        if let Some(verified) = self.sessions.find(&about, now) {
            return Ok(verified);
        }
        // On the heap, so that it takes no room in a request whose session is remembered.
        Box::pin(self.asked(about, session, now, clock)).await
    }

    async fn asked(self: &Arc<Self>, about: TokenHash, session: &[u8], now: Moment, clock: fn() -> SystemTime) -> Judgement {
        if session.len() > COOKIE_MAX {
            return Err(Reason::TooLarge);
        }
        if let Some(reason) = self.refused.find(&about, now) {
            return Err(reason);
        }
        let mut cookie =
            HeaderValue::from_bytes(&[self.settings.cookie.as_bytes(), b"=", session].concat()).map_err(|_| Reason::Malformed)?;
        cookie.set_sensitive(true);
        let this = self.clone();
        let ask = async move {
            let asked = this.ask(cookie, clock).await;
            this.remember(about, asked, clock().into())
        };
        self.questions.answer(about, || ask).await.unwrap_or(Err(Reason::Unavailable))
    }

    async fn ask(&self, cookie: HeaderValue, clock: fn() -> SystemTime) -> Result<Verified, Reason> {
        let Settings { url, outgoing, .. } = &self.settings;
        let answer = outgoing::answer(outgoing.get(url.clone()).header(COOKIE, cookie), ANSWER_MAX).await;
        let verified = match answer {
            Err(OutgoingError::Status(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND)) => {
                self.outcomes.answered();
                return Err(Reason::Inactive);
            }
            Err(error) => Err(error.into()),
            Ok(answer) => self.read(&answer, clock().into()),
        };
        match verified {
            Ok(verified) => {
                self.outcomes.answered();
                Ok(verified)
            }
            Err(error) => Err(self.unavailable(&error)),
        }
    }

    fn unavailable(&self, error: &dyn fmt::Display) -> Reason {
        self.outcomes.failed();
        tracing::warn!(identity = %self.name, %error, "a session could not be exchanged");
        Reason::Unavailable
    }

    fn read(&self, answer: &[u8], now: Moment) -> Result<Verified, NoAnswer> {
        let settings = &self.settings;
        let answer = strict::object(answer).map_err(|_| NoAnswer::Json)?;
        let subject = settings.subject.find(&answer).and_then(subject).ok_or(NoAnswer::Subject)?;
        let claim = |(name, path): &(Box<str>, ClaimPath)| {
            let value = path.find(&answer).filter(|value| !value.is_null())?;
            Some((name.to_string(), value.clone()))
        };
        let claims: Map<String, Value> = settings.claims.iter().filter_map(claim).collect();
        let Minted { token, claims } = settings.minter.mint(&subject, claims, now)?;
        let mut fields: Vec<_> = settings.forward.fields(&claims).iter().flat_map(|fields| fields.iter()).cloned().collect();
        fields.push((settings.header.clone(), self.field(&token)?));
        let fields: Fields = fields.into();
        Ok(Verified { claims: Arc::new(Claims::new(claims)), fields: Some(fields) })
    }

    /// The token as its field has it. Never shown.
    fn field(&self, token: &str) -> Result<HeaderValue, NoAnswer> {
        let text = if self.settings.header == AUTHORIZATION { format!("Bearer {token}") } else { token.to_owned() };
        let mut value = HeaderValue::try_from(text).map_err(|_| NoAnswer::Field)?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// What cannot be told apart from a failure is not remembered. Of a token that is remembered a fifth is left at least.
    fn remember(&self, about: TokenHash, asked: Result<Verified, Reason>, now: Moment) -> Judgement {
        let cache = self.settings.cache;
        match asked {
            Ok(verified) => {
                let verified = Arc::new(verified);
                let fields = verified.fields.iter().flat_map(|fields| fields.iter()).map(|(_, value)| 128 + value.len());
                let weight = weight(&verified.claims.all) + fields.sum::<usize>();
                let until = now.after(cache.min(self.settings.minter.lifetime() / 5 * 4));
                self.sessions.remember(about, verified.clone(), until, weight, now);
                Ok(verified)
            }
            Err(Reason::Unavailable) => Err(Reason::Unavailable),
            Err(refusal) => {
                self.refused.remember(about, refusal, now.after(cache.min(REFUSED_FOR)), 0, now);
                Err(refusal)
            }
        }
    }
}

/// A subject is a text (RFC 7519 §4.1.2); numbers, as databases have them, are written as such.
fn subject(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) if number.is_u64() || number.is_i64() => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
