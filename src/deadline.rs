//! The deadlines of one request, driven in the request's own task.
//!
//! Pingora has one timeout a read and runs no hook while it waits for a response head. So the future that carries a request is
//! wrapped ([`Clock::drive`]): when a deadline passes, the connection to the service is shut down, the pending read ends, and
//! Pingora takes its ordinary way through `error_while_proxy` and `fail_to_proxy`, where [`Clock::expired`] says why.
//! The connection is known here only between `connected_to_upstream` and the response's end, and only this task uses it
//! meanwhile, so no other request's connection can be hit. `docs/decisions/0003-deadlines.md` tells more.

use std::{
    num::NonZeroU64,
    os::fd::{AsFd, RawFd},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use nix::sys::socket::{Shutdown, shutdown};
use pingora_core::protocols::SocketDigest;

use crate::{
    config::listener::ListenerLimits,
    exchange::{Stop, UpstreamFault},
};

mod cork;
mod timer;
mod upload;

pub use cork::Cork;
pub use timer::Timer;
use upload::Upload;

tokio::task_local! {
    static CURRENT: Arc<Clock>;
}

/// What ran out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expired {
    /// The time that a gRPC client gave its whole call.
    Call,
    /// `timeouts.request`.
    Request,
    /// `timeouts.response`.
    Response,
    /// `timeouts.idle`.
    Idle,
    /// The request body did not move on, because the client did not send it or the service did not take it.
    Upload,
}

/// What a connection says of time to the requests that come over it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Terms {
    /// Fewest bytes a second in which a request body has to come.
    pub min_body_rate: Option<NonZeroU64>,
}

/// The deadlines of one request.
#[derive(Debug, Default)]
pub struct Clock {
    terms: Terms,
    /// Never contended: the request's hooks and its driver run in one task. A `Mutex` because that task moves between threads.
    state: Mutex<State>,
    /// The client does not take what is written to it.
    held: AtomicBool,
    /// The request's hooks have begun: its head could be read.
    begun: AtomicBool,
    /// The answer was cut off.
    cut: AtomicBool,
    holds_back: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    /// Outlives the tries and the response head.
    call: Option<Instant>,
    request: Option<Instant>,
    response: Option<Instant>,
    idle: Option<Silence>,
    upload: Option<Upload>,
    line: Option<RawFd>,
    socket: Option<Arc<SocketDigest>>,
    cork: Option<Cork>,
    expired: Option<Expired>,
    refused: Option<&'static str>,
}

/// How long a silence may last, and when this one will have.
#[derive(Clone, Copy, Debug)]
struct Silence {
    longest: Duration,
    ends: Instant,
}

impl State {
    /// Something was heard: the silence begins anew.
    fn idle_anew(&mut self) {
        if let Some(idle) = &mut self.idle {
            idle.ends = Instant::now() + idle.longest;
        }
    }

    /// Whether the service takes no more at the moment: its socket still has to send what it was given.
    fn is_full(&self) -> bool {
        self.socket.as_ref().and_then(|socket| socket.tcp_info()).is_some_and(|info| info.tcpi_notsent_bytes > 0)
    }

    fn deadlines(&self) -> [Option<Instant>; 5] {
        [self.call, self.request, self.response, self.idle.map(|idle| idle.ends), self.upload.map(|upload| upload.ends())]
    }
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

    /// Notes that the answer was cut off.
    pub fn cut(&self) {
        self.cut.store(true, Relaxed);
    }

    /// Whether this task's answer was cut off: the end of its connection must not look like the end of the answer.
    pub fn is_cut() -> bool {
        CURRENT.try_with(|clock| clock.cut.load(Relaxed)).unwrap_or(false)
    }

    /// Notes that this task's client does, or does not, take what is written to it. Its slowness is not the service's silence.
    pub fn hold(held: bool) {
        // Outside of a request there is nothing to hold.
        let _ = CURRENT.try_with(|clock| {
            if clock.held.swap(held, Relaxed) && !held {
                clock.set(State::idle_anew);
            }
        });
    }

    /// Carries a request under a clock of its own. The timer may be another's, who needs it no more.
    pub async fn drive<F: Future>(terms: Terms, timer: &mut Timer, request: F) -> F::Output {
        let clock = Arc::new(Self { terms, ..Self::default() });
        let mut request = std::pin::pin!(CURRENT.scope(clock.clone(), request));
        std::future::poll_fn(|cx| clock.poll(request.as_mut(), timer, cx)).await
    }

    /// Polls the request; while it waits, a timer is armed.
    fn poll<F: Future>(&self, mut request: Pin<&mut F>, timer: &mut Timer, cx: &mut Context<'_>) -> Poll<F::Output> {
        loop {
            if let Poll::Ready(done) = request.as_mut().poll(cx) {
                return Poll::Ready(done);
            }
            let Some(next) = self.next() else { return Poll::Pending };
            ready!(timer.poll(next, cx));
            self.expire();
        }
    }

    /// The whole call ends then, streams included (`grpc-timeout`).
    pub fn call_by(&self, deadline: Instant) {
        self.set(|state| state.call = Some(deadline));
    }

    /// `timeouts.request` ends then, if its end is not known yet: it is not while the client still sends its body.
    pub fn request_by(&self, deadline: Instant) {
        self.set(|state| state.request = state.request.or(Some(deadline)));
    }

    /// The request is sent: `timeouts.response` ends then.
    pub fn response_by(&self, deadline: Instant) {
        self.set(|state| (state.upload, state.response) = (None, Some(deadline)));
    }

    /// The response goes on: a silence from now on may last so long, `timeouts.idle`.
    pub fn idle_for(&self, longest: Duration) {
        self.set(|state| state.idle = Some(Silence { longest, ends: Instant::now() + longest }));
    }

    /// The client sends its body from now on, at the rate that its connection asks for, and is not silent for longer than this.
    pub fn upload(&self, silence: Duration) {
        self.set(|state| state.upload = Some(Upload::of(self.terms.min_body_rate, silence)));
    }

    /// The body is a stream of messages that come when there are any: only a silence longer than this ends it.
    pub fn upload_at_leisure(&self, silence: Duration) {
        self.set(|state| state.upload = Some(Upload::of(None, silence)));
    }

    /// So many bytes more of the body came.
    pub fn uploaded(&self, bytes: usize) {
        self.set(|state| {
            if let Some(upload) = &mut state.upload {
                upload.moved(bytes);
            }
        });
    }

    /// The connection that carries the request now.
    pub fn line(&self, line: RawFd, socket: Option<Arc<SocketDigest>>) {
        self.set(|state| (state.line, state.socket) = (Some(line), socket));
    }

    /// The tries' requests are to be held back on their connections.
    pub fn holds_back(&self) {
        self.holds_back.store(true, Relaxed);
    }

    /// Takes the handle by which the request is held back on this connection, if it is to be.
    ///
    /// # Errors
    /// No file descriptor is left.
    pub fn hold_back(&self, connection: &impl AsFd) -> std::io::Result<()> {
        if self.holds_back.load(Relaxed) {
            let cork = Cork::on(connection)?;
            self.set(|state| state.cork = Some(cork));
        }
        Ok(())
    }

    /// The request is written from now on.
    pub fn cork(&self) {
        self.set(|state| state.cork.iter_mut().for_each(Cork::close));
    }

    /// The request goes to the service when its task waits next.
    pub fn uncork(&self) {
        self.set(|state| state.cork.iter_mut().for_each(Cork::loosen));
    }

    /// A try is over: its connection and deadlines are forgotten; those of the request and the call stay.
    pub fn end_try(&self) {
        self.set(|state| {
            let State { call, request, expired, refused, .. } = *state;
            *state = State { call, request, expired, refused, ..State::default() };
        });
    }

    /// Another try follows one that took too long: its deadlines are to count again.
    pub fn next_try(&self) {
        self.set(|state| state.expired = state.expired.filter(|expired| *expired != Expired::Response));
    }

    /// The response head is there: only silence can end it now, or the end of the time for the whole call.
    pub fn head_came(&self) {
        self.set(|state| (state.request, state.response, state.upload) = (None, None, None));
    }

    /// The response is over: nothing can end it any more.
    pub fn stop(&self) {
        self.set(|state| *state = State { expired: state.expired, refused: state.refused, ..State::default() });
    }

    /// Time left for an answer to begin: of `timeouts.request` or of the call, whichever ends sooner.
    pub fn left(&self) -> Option<Duration> {
        let state = self.lock();
        let deadline = state.call.into_iter().chain(state.request).min()?;
        Some(deadline.saturating_duration_since(Instant::now()))
    }

    /// Time left for the whole call.
    pub fn call_left(&self) -> Option<Duration> {
        let deadline = self.lock().call?;
        Some(deadline.saturating_duration_since(Instant::now()))
    }

    /// The request's body breaks this rule, which was seen only after the request had gone on its way.
    pub fn refuse(&self, rule: &'static str) {
        self.set(|state| state.refused = Some(rule));
    }

    /// The rule that the request's body breaks.
    pub fn refused(&self) -> Option<&'static str> {
        self.lock().refused
    }

    /// What ran out, if anything did.
    pub fn expired(&self) -> Option<Expired> {
        self.lock().expired
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
    }

    /// The request's task waits: when is it to be looked after?
    fn next(&self) -> Option<Instant> {
        let mut state = self.lock();
        // What was done before this wait is done on both sides of the request, so the service may have its request now.
        drop(state.cork.take_if(|cork| cork.is_loose()));
        if state.line.is_none() || state.expired.is_some() {
            return None;
        }
        state.deadlines().into_iter().flatten().min()
    }

    /// Notes what ran out, if anything did, and ends the connection, so that the request's pending read returns.
    fn expire(&self) {
        let mut state = self.lock();
        if self.held.load(Relaxed) {
            state.idle_anew();
        }
        let now = Instant::now();
        // The client is not slow when it is the service that takes nothing.
        if state.upload.is_some_and(|upload| upload.ends() <= now)
            && state.is_full()
            && let Some(upload) = &mut state.upload
        {
            upload.excuse();
        }
        let kinds = [Expired::Call, Expired::Request, Expired::Response, Expired::Idle, Expired::Upload];
        let mut past =
            state.deadlines().into_iter().zip(kinds).filter(|(deadline, _)| deadline.is_some_and(|deadline| deadline <= now));
        state.expired = past.next().map(|(_, kind)| kind);
        if let (Some(_), Some(line)) = (state.expired, state.line) {
            state.line = None;
            // A connection that is gone already needs no ending.
            let _ = shutdown(line, Shutdown::Both);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl From<&ListenerLimits> for Terms {
    fn from(limits: &ListenerLimits) -> Self {
        Self { min_body_rate: NonZeroU64::new(limits.min_body_rate.get()) }
    }
}

impl From<Expired> for Stop {
    fn from(expired: Expired) -> Self {
        match expired {
            Expired::Call | Expired::Request => Self::RequestTimeout,
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

    async fn drive<F: Future>(request: F) -> F::Output {
        Clock::drive(Terms::default(), &mut Timer::default(), request).await
    }

    async fn read_under(set: impl FnOnce(&Clock)) -> (usize, Option<Expired>) {
        drive(async {
            let (mut near, _far) = UnixStream::pair().unwrap();
            let clock = Clock::current();
            clock.line(near.as_raw_fd(), None);
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
        assert_eq!(read_under(|clock| clock.idle_for(Duration::from_millis(20))).await, ends(Expired::Idle));
        assert_eq!(read_under(|clock| clock.upload(Duration::from_millis(20))).await, ends(Expired::Upload));
        let both = |clock: &Clock| {
            clock.response_by(late());
            clock.request_by(soon());
        };
        assert_eq!(read_under(both).await, ends(Expired::Request));
    }

    #[tokio::test]
    async fn a_deadline_that_moves_is_kept_by_its_last_word() {
        let moved = |clock: &Clock| {
            clock.idle_for(Duration::from_millis(5));
            clock.idle_for(Duration::from_millis(60));
        };
        let begun = Instant::now();
        read_under(moved).await;
        assert!(begun.elapsed() >= Duration::from_millis(55));
    }

    #[tokio::test]
    async fn a_deadline_that_moves_to_sooner_is_kept_too() {
        let begun = Instant::now();
        let done = drive(async {
            let (mut near, _far) = UnixStream::pair().unwrap();
            let clock = Clock::current();
            clock.line(near.as_raw_fd(), None);
            clock.response_by(Instant::now() + Duration::from_secs(60));
            tokio::task::yield_now().await;
            clock.idle_for(Duration::from_millis(20));
            assert_eq!(near.read(&mut [0; 8]).await.unwrap(), 0);
            clock.expired()
        });
        assert_eq!(done.await, Some(Expired::Idle));
        assert!(begun.elapsed() < Duration::from_secs(30));
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_is_not_a_silent_service() {
        let done = drive(async {
            let clock = Clock::current();
            clock.line(-1, None);
            clock.idle_for(Duration::from_millis(10));
            Clock::hold(true);
            tokio::time::sleep(Duration::from_millis(40)).await;
            Clock::hold(false);
            let held = clock.expired();
            tokio::time::sleep(Duration::from_millis(40)).await;
            (held, clock.expired())
        });
        assert_eq!(done.await, (None, Some(Expired::Idle)));
    }

    #[tokio::test]
    async fn the_time_of_a_call_ends_it_after_its_head_came_and_in_a_second_try() {
        let streaming = |clock: &Clock| {
            clock.call_by(Instant::now() + Duration::from_millis(20));
            clock.end_try();
            clock.line(-1, None);
            clock.head_came();
        };
        let done = drive(async {
            let clock = Clock::current();
            streaming(&clock);
            tokio::time::sleep(Duration::from_millis(50)).await;
            clock.expired()
        });
        assert_eq!(done.await, Some(Expired::Call));
    }

    #[test]
    fn the_sooner_end_counts_and_the_first_word_on_the_request_stays() {
        let clock = Clock::default();
        let now = Instant::now();
        clock.request_by(now + Duration::from_secs(50));
        clock.request_by(now + Duration::from_secs(90));
        assert!(clock.left().unwrap() <= Duration::from_secs(50) && clock.call_left().is_none());
        clock.call_by(now + Duration::from_secs(5));
        assert!(clock.left().unwrap() <= Duration::from_secs(5));
        clock.call_by(now + Duration::from_secs(70));
        assert!((45..=50).contains(&clock.left().unwrap().as_secs()));
    }

    #[tokio::test]
    async fn a_request_whose_head_came_is_not_ended_by_its_old_deadlines() {
        let done = drive(async {
            let clock = Clock::current();
            clock.line(-1, None);
            clock.response_by(Instant::now() + Duration::from_millis(10));
            clock.head_came();
            tokio::time::sleep(Duration::from_millis(30)).await;
            clock.expired()
        });
        assert_eq!(done.await, None);
    }
}
