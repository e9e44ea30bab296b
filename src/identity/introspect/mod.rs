//! Tokens that their issuer is asked about (OAuth 2.0 Token Introspection, RFC 7662).
//!
//! Reading order: [`Introspection`] is the way of a token, `answer` reads what the issuer says of it. An answer is remembered for a while, and
//! never beyond the token's own end; a refusal for a shorter while, apart from the good ones, so that made-up tokens push nothing out.
//! However many requests bring the same token, one question is asked. Failure rule: a token that the issuer cannot be asked about is
//! refused, and no answer is kept of it.

use std::{
    collections::{HashMap, hash_map::Entry},
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use http::{HeaderValue, header::AUTHORIZATION};
use reqwest::Url;
use tokio::sync::watch;

use super::{
    Verified,
    fields::Forward,
    outgoing::{self, Outgoing},
    remembered::{Bounds, Remembered},
    token::{self, Moment, TokenHash, weight},
};
use crate::caller::{ClaimPath, Reason};

mod answer;
mod client;

pub use self::{answer::Rules, client::credentials};

/// The most good tokens that one identity remembers, and the most memory for them.
const GOOD: Bounds = Bounds { entries: 100_000, bytes: 64 << 20 };

/// The same for tokens that were refused.
const REFUSED: Bounds = Bounds { entries: 20_000, bytes: 8 << 20 };

/// Longest that a refusal is remembered: a token may be good a moment after it was made.
const REFUSED_FOR: Duration = Duration::from_secs(5);

/// Most questions under way at once. One more token is refused as if the issuer could not be asked.
const QUESTIONS_MAX: usize = 256;

/// Largest answer, in bytes.
const ANSWER_MAX: usize = 64 << 10;

/// An issuer that is asked about each token.
pub struct Introspection {
    name: Box<str>,
    settings: Settings,
    good: Remembered<Arc<Verified>>,
    refused: Remembered<Reason>,
    questions: Mutex<HashMap<TokenHash, Question>>,
}

/// How an issuer is asked, and what of its answer counts.
pub struct Settings {
    pub url: Url,
    /// Who asks: `Basic …`.
    pub credentials: HeaderValue,
    pub outgoing: Outgoing,
    /// Longest that an answer is remembered. Zero: not at all.
    pub cache: Duration,
    pub rules: Rules,
    /// Where the roles of a caller stand.
    pub roles: ClaimPath,
    pub forward: Forward,
}

type Judgement = Result<Arc<Verified>, Reason>;

/// `None` until it is answered.
type Question = watch::Receiver<Option<Judgement>>;

impl Introspection {
    pub fn new(name: &str, settings: Settings) -> Arc<Self> {
        Arc::new(Self {
            name: name.into(),
            settings,
            good: Remembered::new(GOOD),
            refused: Remembered::new(REFUSED),
            questions: Mutex::default(),
        })
    }

    pub fn forward(&self) -> &Forward {
        &self.settings.forward
    }

    /// Good tokens that are remembered.
    pub fn remembered(&self) -> &Remembered<Arc<Verified>> {
        &self.good
    }

    /// Judges a token as it came; asks the issuer unless it answered a moment ago.
    ///
    /// # Errors
    /// Why it is not good.
    pub async fn authenticate(self: &Arc<Self>, token: &[u8], clock: fn() -> SystemTime) -> Judgement {
        let (hash, now) = (TokenHash::of(token), Moment::from(clock()));
        if let Some(verified) = self.good.find(&hash, now) {
            return Ok(verified);
        }
        // On the heap, so that it takes no room in a request whose token is remembered.
        Box::pin(self.asked(hash, token, now, clock)).await
    }

    async fn asked(self: &Arc<Self>, hash: TokenHash, token: &[u8], now: Moment, clock: fn() -> SystemTime) -> Judgement {
        let text = token::text(token)?;
        if let Some(reason) = self.refused.find(&hash, now) {
            return Err(reason);
        }
        let mut question = self.question(hash, text, clock).ok_or(Reason::Unavailable)?;
        match question.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(judgement)) => judgement.clone(),
            _ => Err(Reason::Unavailable),
        }
    }

    /// The question about a token, which goes on though whoever asked first goes away. `None`: too many are under way.
    fn question(self: &Arc<Self>, hash: TokenHash, token: &str, clock: fn() -> SystemTime) -> Option<Question> {
        let mut questions = self.questions.lock().unwrap_or_else(PoisonError::into_inner);
        let under_way = questions.len();
        match questions.entry(hash) {
            Entry::Occupied(same) => Some(same.get().clone()),
            Entry::Vacant(_) if under_way >= QUESTIONS_MAX => None,
            Entry::Vacant(free) => {
                let (told, question) = watch::channel(None);
                free.insert(question.clone());
                let asked = Asked { of: self.clone(), hash, told };
                let fields = client::fields(token);
                tokio::spawn(async move { asked.answer(fields, clock).await });
                Some(question)
            }
        }
    }

    async fn ask(&self, fields: String, clock: fn() -> SystemTime) -> Result<(Verified, Moment), Reason> {
        let Settings { url, credentials, outgoing, .. } = &self.settings;
        let request = outgoing.post(url.clone(), fields).header(AUTHORIZATION, credentials.clone());
        let answer = outgoing::answer(request, ANSWER_MAX).await.map_err(|error| self.unavailable(&error))?;
        let claims = answer::claims(&answer).map_err(|error| self.unavailable(&error))?.ok_or(Reason::Inactive)?;
        let until = self.settings.rules.judge(&claims, clock().into())?;
        let fields = self.settings.forward.fields(&claims);
        let claims = answer::read(claims, &self.settings.roles);
        Ok((Verified { claims: Arc::new(claims), fields }, until))
    }

    fn unavailable(&self, error: &dyn fmt::Display) -> Reason {
        tracing::warn!(identity = %self.name, %error, "a token could not be introspected");
        Reason::Unavailable
    }

    /// What cannot be told apart from a failure is not remembered.
    fn remember(&self, hash: TokenHash, asked: Result<(Verified, Moment), Reason>, now: Moment) -> Judgement {
        let cache = self.settings.cache;
        match asked {
            Ok((verified, until)) => {
                let (verified, until) = (Arc::new(verified), until.min(now.after(cache)));
                let sent = verified.fields.iter().flat_map(|fields| fields.iter()).map(|(_, value)| 128 + value.len());
                let weight = weight(&verified.claims.all) + sent.sum::<usize>();
                self.good.remember(hash, verified.clone(), until, weight, now);
                Ok(verified)
            }
            Err(Reason::Unavailable) => Err(Reason::Unavailable),
            Err(refusal) => {
                self.refused.remember(hash, refusal, now.after(cache.min(REFUSED_FOR)), 0, now);
                Err(refusal)
            }
        }
    }
}

/// A question under way. However it ends, it is under way no longer.
struct Asked {
    of: Arc<Introspection>,
    hash: TokenHash,
    told: watch::Sender<Option<Judgement>>,
}

impl Asked {
    async fn answer(self, fields: String, clock: fn() -> SystemTime) {
        let asked = self.of.ask(fields, clock).await;
        let judgement = self.of.remember(self.hash, asked, clock().into());
        self.told.send_replace(Some(judgement));
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.of.questions.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.hash);
    }
}

#[cfg(test)]
mod tests;
