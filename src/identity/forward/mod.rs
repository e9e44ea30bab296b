//! Services that are asked about each request over HTTP (forward auth).
//!
//! Reading order: [`ForwardAuth`] is the way of a question; `question` says what is asked, `answer` reads what the service says. Failure rule: what
//! it does not say clearly, or in time, refuses the request, and is not remembered.
//!
//! An answer may be meant for one browser (a redirect with the state of a login, a cookie). So only requests with credentials share answers, only
//! where a cache was asked for, and what is relayed to a client is not remembered.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, HeaderName};
use reqwest::Url;
use tokio::sync::Semaphore;

use super::{
    outgoing::{self, Outgoing},
    questions::{Outcomes, Questions},
    remembered::{Bounds, Remembered},
    token::{Moment, TokenHash},
};

mod answer;
mod question;

pub use self::{
    answer::{CHALLENGE, Passed, Refusal},
    question::Question,
};

/// The most requests that one identity remembers as good, and the most memory for them.
const PASSED: Bounds = Bounds { entries: 100_000, bytes: 64 << 20 };

/// The same for those that were refused.
const REFUSED: Bounds = Bounds { entries: 20_000, bytes: 8 << 20 };

/// Longest that a refusal is remembered: who was refused may sign in a moment later.
const REFUSED_FOR: Duration = Duration::from_secs(5);

/// Most questions under way at once. One more request is refused as if the service could not be asked.
const QUESTIONS_MAX: usize = 1_024;

/// Longest body of an answer that is read to its end, in bytes, so that its connection can be used again. Nobody looks at it.
const BODY_MAX: usize = 64 << 10;

/// A service that is asked about each request.
pub struct ForwardAuth {
    name: Box<str>,
    settings: Settings,
    passed: Remembered<Arc<Passed>>,
    refused: Remembered<Refusal>,
    questions: Arc<Questions<Judgement>>,
    room: Semaphore,
    outcomes: Outcomes,
}

/// How the service is asked, and what of its answer counts.
pub struct Settings {
    pub url: Url,
    pub outgoing: Outgoing,
    /// Fields of the request that it is sent: the credentials.
    pub headers: Box<[HeaderName]>,
    /// Fields of its answer that go to the service behind.
    pub copy: Box<[HeaderName]>,
    /// Field of its answer that names a consumer.
    pub consumer: Option<HeaderName>,
    /// Whether its redirects and cookies go to the client.
    pub relay: bool,
    pub cache: Option<Cache>,
}

/// What is remembered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cache {
    pub ttl: Duration,
    pub by: By,
}

/// What must be the same for an answer to hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum By {
    Request,
    Credentials,
}

pub type Judgement = Result<Arc<Passed>, Refusal>;

impl ForwardAuth {
    pub fn new(name: &str, settings: Settings) -> Arc<Self> {
        Arc::new(Self {
            name: name.into(),
            settings,
            passed: Remembered::new(PASSED),
            refused: Remembered::new(REFUSED),
            questions: Questions::new(QUESTIONS_MAX),
            room: Semaphore::new(QUESTIONS_MAX),
            outcomes: Outcomes::default(),
        })
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Good requests that are remembered.
    pub fn remembered(&self) -> &Remembered<Arc<Passed>> {
        &self.passed
    }

    pub fn outcomes(&self) -> &Outcomes {
        &self.outcomes
    }

    /// Asks about a request, unless the same was answered a moment ago.
    ///
    /// # Errors
    /// It is refused.
    pub async fn judge(self: &Arc<Self>, question: Question<'_>, clock: fn() -> SystemTime) -> Judgement {
        let cache = self.settings.cache;
        let known = cache.and_then(|cache| Some((question.hash(&self.settings.headers, cache.by)?, cache.ttl)));
        if let Some((about, _)) = &known
            && let Some(passed) = self.passed.find(about, clock().into())
        {
            return Ok(passed);
        }
        // On the heap, so that it takes no room in a request that is remembered.
        Box::pin(self.asked(question.fields(&self.settings.headers), known, clock)).await
    }

    async fn asked(
        self: &Arc<Self>,
        fields: HeaderMap,
        known: Option<(TokenHash, Duration)>,
        clock: fn() -> SystemTime,
    ) -> Judgement {
        let Some((about, ttl)) = known else { return self.ask(fields).await };
        if let Some(refusal) = self.refused.find(&about, clock().into()) {
            return Err(refusal);
        }
        let this = self.clone();
        let ask = async move {
            let judgement = this.ask(fields).await;
            this.remember(about, ttl, &judgement, clock().into());
            judgement
        };
        self.questions.answer(about, || ask).await.unwrap_or(Err(Refusal::Unavailable))
    }

    async fn ask(&self, fields: HeaderMap) -> Judgement {
        let Ok(_room) = self.room.try_acquire() else {
            return Err(self.unavailable(&format_args!("{QUESTIONS_MAX} questions are under way already")));
        };
        let request = self.settings.outgoing.bare(self.settings.url.clone()).headers(fields);
        let (status, headers) = outgoing::head(request, BODY_MAX).await.map_err(|error| self.unavailable(&error))?;
        let judgement = answer::read(status, &headers, &self.settings).map_err(|error| self.unavailable(&error))?;
        self.outcomes.answered();
        judgement.map(Arc::new)
    }

    fn unavailable(&self, error: &dyn fmt::Display) -> Refusal {
        self.outcomes.failed();
        tracing::warn!(identity = %self.name, %error, "nobody could be asked about a request");
        Refusal::Unavailable
    }

    fn remember(&self, about: TokenHash, ttl: Duration, judgement: &Judgement, now: Moment) {
        match judgement {
            Ok(passed) => self.passed.remember(about, passed.clone(), now.after(ttl), passed.weight(), now),
            Err(Refusal::Unavailable | Refusal::Relayed(_)) => {}
            Err(refusal) => {
                self.refused.remember(about, refusal.clone(), now.after(ttl.min(REFUSED_FOR)), refusal.weight(), now);
            }
        }
    }
}

#[cfg(test)]
mod tests;
