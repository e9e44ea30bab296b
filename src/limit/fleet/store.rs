//! One store: its connections, who is asked and who is not.

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{
            AtomicBool, AtomicUsize,
            Ordering::{AcqRel, Acquire, Relaxed},
        },
    },
};

use arc_swap::ArcSwapOption;
use redis::{ErrorKind, RedisError, RedisResult, ServerErrorKind};
use tokio::{runtime::Handle, sync::Notify, time::Instant};

use super::{
    breaker::{Breaker, Breakers},
    figures::{Figures, count},
    keeper,
    link::{Connection, Dialler, Place, Settings, SettingsError},
    script::{self, Deed, Question, Script, Told},
};

/// Questions of one connection that may be without an answer. More are not asked: a server so far behind is late anyway.
const IN_FLIGHT_MAX: usize = 1024;

/// A Redis or Valkey that counts for several nodes. Outlives reloads.
pub struct Store {
    pub(super) settings: Settings,
    pub(super) dialler: Dialler,
    pub(super) script: Script,
    connections: ArcSwapOption<Vec<Connection>>,
    turn: AtomicUsize,
    in_flight: AtomicUsize,
    pub(super) breakers: Breakers,
    /// Where requests are served: there its connections belong, or each question would wake another thread.
    pub(super) home: OnceLock<Handle>,
    /// A breaker opened, or connections are wanted.
    pub(super) trouble: Notify,
    pub figures: Figures,
    started: AtomicBool,
    pub(super) tried: AtomicBool,
    pub(super) outstanding: super::leased::Outstanding,
}

/// Why a question has no answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unanswered {
    #[error("it did not answer before, and was not asked")]
    NotAsked,
    #[error("it did not answer in time")]
    Slow,
    #[error("the connection broke")]
    Gone,
    #[error("too many questions are without an answer")]
    Busy,
    #[error("it answered with an error")]
    Refused,
}

impl Store {
    /// # Errors
    /// Certificates or keys that are none.
    pub fn new(settings: Settings) -> Result<Arc<Self>, SettingsError> {
        let breakers = match settings.place {
            Place::Cluster(_) => Breakers::of_a_cluster(),
            _ => Breakers::of_one(),
        };
        // Until the keeper has connected there is nobody to ask.
        for part in 0..breakers.len() {
            breakers.at(part).map(Breaker::trip);
        }
        Ok(Arc::new(Self {
            dialler: Dialler::new(&settings)?,
            script: Script::new(),
            connections: ArcSwapOption::empty(),
            turn: AtomicUsize::new(0),
            in_flight: AtomicUsize::new(0),
            breakers,
            home: OnceLock::new(),
            trouble: Notify::new(),
            figures: Figures::default(),
            started: AtomicBool::new(false),
            tried: AtomicBool::new(false),
            outstanding: super::leased::Outstanding::default(),
            settings,
        }))
    }

    /// Connects and watches, on the runtime that this is called on, until nobody has the store any more.
    pub fn start(self: &Arc<Self>) {
        if !self.started.swap(true, AcqRel) {
            tokio::spawn(keeper::keep(Arc::downgrade(self)));
        }
    }

    /// Whether it was asked, whatever it answered.
    pub fn was_tried(&self) -> bool {
        self.tried.load(Relaxed)
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether keys may lie on different servers, so that no script sees them together.
    pub fn is_cluster(&self) -> bool {
        matches!(self.settings.place, Place::Cluster(_))
    }

    /// The share of it that nobody asks, for it did not answer: 0 to 1.
    pub fn open_share(&self) -> f64 {
        self.breakers.open().count() as f64 / self.breakers.len() as f64
    }

    /// How often nobody asked any more.
    pub fn opened(&self) -> u64 {
        self.breakers.opened()
    }

    /// Whether the part that has the key is asked.
    pub fn answers(&self, key: &str) -> bool {
        self.breakers.of(key).is_some_and(|breaker| !breaker.is_open())
    }

    /// The script's answer about these keys, which lie in one slot. Within the timeout.
    ///
    /// # Errors
    /// There is none.
    pub async fn ask(&self, deed: Deed, questions: &[Question<'_>]) -> Result<Vec<Told>, Unanswered> {
        self.ask_until(Instant::now() + self.settings.timeout, deed, questions).await
    }

    /// As [`Self::ask`], of a request that has asked before.
    ///
    /// # Errors
    /// There is none.
    pub async fn ask_until(&self, deadline: Instant, deed: Deed, questions: &[Question<'_>]) -> Result<Vec<Told>, Unanswered> {
        self.home.get_or_init(Handle::current);
        let key = questions.first().map_or("", |question| question.key);
        let Some(breaker) = self.breakers.of(key).filter(|breaker| !breaker.is_open()) else {
            count(&self.figures.not_asked);
            return Err(Unanswered::NotAsked);
        };
        let (Some(connection), Some(_turn)) = (self.connection(), self.turn()) else {
            count(&self.figures.busy);
            return Err(Unanswered::Busy);
        };
        let answer = self.until(deadline, connection, deed, questions).await;
        match &answer {
            Ok(_) => breaker.answered(),
            Err(why) => self.failed(breaker, *why),
        }
        answer
    }

    fn failed(&self, breaker: &Breaker, why: Unanswered) {
        count(match why {
            Unanswered::Slow => &self.figures.slow,
            Unanswered::Gone => &self.figures.gone,
            Unanswered::Busy => &self.figures.busy,
            Unanswered::Refused => &self.figures.refused,
            Unanswered::NotAsked => &self.figures.not_asked,
        });
        // A connection that is gone will not be back by itself; of a cluster, others may still be there.
        let opened = if why == Unanswered::Gone && !self.is_cluster() { breaker.trip() } else { breaker.failed() };
        if opened {
            tracing::warn!(reason = %why, "a store of limits does not answer, it is not asked until it does");
            self.trouble.notify_one();
        }
    }

    /// As [`Self::ask`], of a part that nobody else asks.
    pub(super) async fn probe(&self, question: Question<'_>) -> Result<(), Unanswered> {
        let connection = self.connection().ok_or(Unanswered::Gone)?;
        let deadline = Instant::now() + self.settings.timeout;
        self.until(deadline, connection, Deed::Take, &[question]).await.map(drop)
    }

    async fn until(
        &self,
        deadline: Instant,
        connection: Connection,
        deed: Deed,
        questions: &[Question<'_>],
    ) -> Result<Vec<Told>, Unanswered> {
        let asked = Instant::now();
        let answer = tokio::time::timeout_at(deadline, self.exchange(connection, deed, questions)).await;
        let told = answer.map_err(|_| Unanswered::Slow)?.map_err(|error| why(&error))?;
        self.figures.latency.observe(asked.elapsed());
        Ok(told)
    }

    async fn exchange(&self, mut connection: Connection, deed: Deed, questions: &[Question<'_>]) -> RedisResult<Vec<Told>> {
        let answer = connection.send(&self.script.known(deed, questions)).await.and_then(redis::Value::extract_error);
        let answer = match answer {
            // A server that was started again, or took another's place.
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                connection.send(&self.script.whole(deed, questions)).await.and_then(redis::Value::extract_error)?
            }
            other => other?,
        };
        script::read(&answer, questions.len()).ok_or_else(|| (ErrorKind::UnexpectedReturnType, "no answer of our script").into())
    }

    /// One of the connections, in turn.
    fn connection(&self) -> Option<Connection> {
        let connections = self.connections.load();
        let connections = connections.as_ref()?;
        connections.get(self.turn.fetch_add(1, Relaxed) % connections.len().max(1)).cloned()
    }

    pub(super) fn put(&self, connections: Vec<Connection>) {
        self.connections.store(Some(Arc::new(connections)));
    }

    pub(super) fn is_connected(&self) -> bool {
        self.connections.load().is_some()
    }

    fn turn(&self) -> Option<Turn<'_>> {
        let turn = Turn(&self.in_flight);
        (self.in_flight.fetch_add(1, Acquire) < IN_FLIGHT_MAX * self.settings.connections).then_some(turn)
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("place", &self.settings.place).finish_non_exhaustive()
    }
}

/// A question without an answer so far.
struct Turn<'a>(&'a AtomicUsize);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

fn why(error: &RedisError) -> Unanswered {
    match error.kind() {
        _ if error.is_timeout() => Unanswered::Slow,
        ErrorKind::Io | ErrorKind::ClusterConnectionNotFound => Unanswered::Gone,
        // Another is the master now, or it has no data yet: as good as gone, and whoever connects anew finds the right one.
        ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::BusyLoading | ServerErrorKind::MasterDown) => {
            Unanswered::Gone
        }
        _ => {
            tracing::debug!(%error, "a store of limits answered with an error");
            Unanswered::Refused
        }
    }
}
