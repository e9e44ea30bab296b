//! The deadlines of one request, driven in the request's own task.
//!
//! Pingora has one timeout a read and runs no hook while it waits for a response head. So the future that carries a request is
//! wrapped ([`Clock::drive`]): when a deadline passes, the connection to the service is shut down, the pending read ends, and
//! Pingora takes its ordinary way through `error_while_proxy` and `fail_to_proxy`, where [`Clock::expired`] says why.
//! The connection is known here only between `connected_to_upstream` and the response's end, and only this task uses it
//! meanwhile, so no other request's connection can be hit. `docs/decisions/0003-deadlines.md` tells more.

use std::{
    os::fd::RawFd,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use nix::sys::socket::{Shutdown, shutdown};
use tokio::time::Sleep;

use crate::exchange::{Stop, UpstreamFault};

tokio::task_local! {
    static CURRENT: Arc<Clock>;
}

/// What ran out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expired {
    /// `timeouts.request`.
    Request,
    /// `timeouts.response`.
    Response,
    /// `timeouts.idle`.
    Idle,
    /// The request body did not move on, because the client did not send it or the service did not take it.
    Upload,
}

/// The deadlines of one request.
#[derive(Debug, Default)]
pub struct Clock {
    /// Never contended: the request's hooks and its driver run in one task. A `Mutex` because that task moves between threads.
    state: Mutex<State>,
    /// Set with the state, so the driver takes the lock only when a deadline changed.
    changed: AtomicBool,
    /// The request's hooks have begun: its head could be read.
    begun: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    request: Option<Instant>,
    response: Option<Instant>,
    idle: Option<Instant>,
    upload: Option<Instant>,
    line: Option<RawFd>,
    expired: Option<Expired>,
}

impl Clock {
    /// The clock of the request that this task carries; a stopped one outside of [`Clock::drive`].
    pub fn current() -> Arc<Self> {
        CURRENT.try_with(Arc::clone).unwrap_or_default()
    }

    /// Notes that the request's hooks have begun.
    pub fn begin(&self) {
        self.begun.store(true, Relaxed);
    }

    /// Whether this task carries a request whose head was not read yet. An answer now is one that no hook made.
    pub fn is_unread() -> bool {
        CURRENT.try_with(|clock| !clock.begun.load(Relaxed)).unwrap_or(false)
    }

    /// Carries a request under a clock of its own.
    pub async fn drive<F: Future>(request: F) -> F::Output {
        let clock = Arc::new(Self::default());
        let mut request = Box::pin(CURRENT.scope(clock.clone(), request));
        let mut sleep = Box::pin(tokio::time::sleep(Duration::ZERO));
        std::future::poll_fn(|cx| clock.poll(request.as_mut(), sleep.as_mut(), cx)).await
    }

    /// Polls the request; while it waits, its next deadline is armed.
    fn poll<F: Future>(&self, mut request: Pin<&mut F>, mut sleep: Pin<&mut Sleep>, cx: &mut Context<'_>) -> Poll<F::Output> {
        loop {
            if let Poll::Ready(done) = request.as_mut().poll(cx) {
                return Poll::Ready(done);
            }
            let Some(next) = self.next() else { return Poll::Pending };
            if self.changed.swap(false, Relaxed) {
                sleep.as_mut().reset(next.into());
            }
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.expire();
        }
    }

    /// `timeouts.request` ends then; `None` while the client still sends its body.
    pub fn request_by(&self, deadline: Option<Instant>) {
        self.set(|state| state.request = deadline);
    }

    /// The request is sent: `timeouts.response` ends then.
    pub fn response_by(&self, deadline: Instant) {
        self.set(|state| (state.upload, state.response) = (None, Some(deadline)));
    }

    /// `timeouts.idle` ends then, unless something comes before.
    pub fn idle_by(&self, deadline: Instant) {
        self.set(|state| state.idle = Some(deadline));
    }

    /// The request body must have moved on by then.
    pub fn upload_by(&self, deadline: Instant) {
        self.set(|state| state.upload = Some(deadline));
    }

    /// The connection that carries the request now.
    pub fn line(&self, line: RawFd) {
        self.set(|state| state.line = Some(line));
    }

    /// A try is over: its connection and deadlines are forgotten; the request's own stays.
    pub fn end_try(&self) {
        self.set(|state| *state = State { request: state.request, expired: state.expired, ..State::default() });
    }

    /// The response head is there: only silence can end it now.
    pub fn head_came(&self) {
        self.set(|state| (state.request, state.response, state.upload) = (None, None, None));
    }

    /// The response is over: nothing can end it any more.
    pub fn stop(&self) {
        self.set(|state| *state = State { expired: state.expired, ..State::default() });
    }

    /// Time left of `timeouts.request`.
    pub fn left(&self) -> Option<Duration> {
        let deadline = self.lock().request?;
        Some(deadline.saturating_duration_since(Instant::now()))
    }

    /// What ran out, if anything did.
    pub fn expired(&self) -> Option<Expired> {
        self.lock().expired
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.store(true, Relaxed);
    }

    fn next(&self) -> Option<Instant> {
        let state = self.lock();
        if state.line.is_none() || state.expired.is_some() {
            return None;
        }
        [state.request, state.response, state.idle, state.upload].into_iter().flatten().min()
    }

    /// Notes what ran out and ends the connection, so that the request's pending read returns.
    fn expire(&self) {
        let mut state = self.lock();
        let now = Instant::now();
        let past = |deadline: Option<Instant>| deadline.is_some_and(|deadline| deadline <= now);
        state.expired = match () {
            () if past(state.request) => Some(Expired::Request),
            () if past(state.response) => Some(Expired::Response),
            () if past(state.idle) => Some(Expired::Idle),
            () if past(state.upload) => Some(Expired::Upload),
            () => None,
        };
        match (state.expired, state.line.take()) {
            // A connection that is gone already needs no ending.
            (Some(_), Some(line)) => drop(shutdown(line, Shutdown::Both)),
            (_, line) => {
                state.line = line;
                self.changed.store(true, Relaxed);
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl From<Expired> for Stop {
    fn from(expired: Expired) -> Self {
        match expired {
            Expired::Request => Self::RequestTimeout,
            Expired::Response => UpstreamFault::ResponseTimeout.into(),
            Expired::Idle => UpstreamFault::IdleTimeout.into(),
            Expired::Upload => Self::ClientTimeout,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use tokio::{io::AsyncReadExt, net::UnixStream};

    use super::*;

    async fn read_under(set: impl FnOnce(&Clock)) -> (usize, Option<Expired>) {
        Clock::drive(async {
            let (mut near, _far) = UnixStream::pair().unwrap();
            let clock = Clock::current();
            clock.line(near.as_raw_fd());
            set(&clock);
            (near.read(&mut [0; 8]).await.unwrap(), clock.expired())
        })
        .await
    }

    #[tokio::test]
    async fn a_passed_deadline_ends_the_pending_read_and_says_which() {
        let soon = || Instant::now() + Duration::from_millis(20);
        let late = || Instant::now() + Duration::from_secs(60);
        let ends = |expired| (0, Some(expired));
        assert_eq!(read_under(|clock| clock.response_by(soon())).await, ends(Expired::Response));
        assert_eq!(read_under(|clock| clock.idle_by(soon())).await, ends(Expired::Idle));
        assert_eq!(read_under(|clock| clock.upload_by(soon())).await, ends(Expired::Upload));
        let both = |clock: &Clock| {
            clock.response_by(late());
            clock.request_by(Some(soon()));
        };
        assert_eq!(read_under(both).await, ends(Expired::Request));
    }

    #[tokio::test]
    async fn a_deadline_that_moves_is_kept_by_its_last_word() {
        let moved = |clock: &Clock| {
            clock.idle_by(Instant::now() + Duration::from_millis(5));
            clock.idle_by(Instant::now() + Duration::from_millis(60));
        };
        let begun = Instant::now();
        read_under(moved).await;
        assert!(begun.elapsed() >= Duration::from_millis(55));
    }

    #[tokio::test]
    async fn a_request_whose_head_came_is_not_ended_by_its_old_deadlines() {
        let done = Clock::drive(async {
            let clock = Clock::current();
            clock.line(-1);
            clock.response_by(Instant::now() + Duration::from_millis(10));
            clock.head_came();
            tokio::time::sleep(Duration::from_millis(30)).await;
            clock.expired()
        });
        assert_eq!(done.await, None);
    }
}
