//! The load: as much as so many connections carry (closed loop), or so many requests a second whatever comes of them (open loop). In the
//! open loop an answer's time counts from when its request was due, so a request that had to wait for a connection has waited.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
        mpsc,
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime};
use tokio::{
    io::unix::AsyncFd,
    runtime::{Builder, Runtime},
    sync::Semaphore,
    task::JoinSet,
};

use super::client::{Ask, Client, STREAMS, Speech};

/// What is asked, and over how many connections.
#[derive(Clone)]
pub struct Load {
    pub speech: Speech,
    /// Taken in turns.
    pub asks: Vec<Ask>,
    /// Requests at once: connections, or streams of HTTP/2.
    pub connections: usize,
}

impl Load {
    /// Whether a limit may refuse some, so that not all that is answered reaches the service.
    pub fn may_be_refused(&self) -> bool {
        self.asks.first().is_some_and(|ask| ask.may_be_refused)
    }
}

/// Who is asked.
#[derive(Clone)]
pub struct Target {
    pub address: SocketAddr,
    /// Which request is next. Kept from one load to the next, so that what was never asked of this one comes before what was.
    pub next: Arc<AtomicUsize>,
}

/// How fast it is asked.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// Again as soon as the answer is there.
    Closed,
    /// So many requests a second.
    Open(f64),
}

/// A load that is under way, on threads of its own. It ends when it is dropped.
pub struct Running {
    shared: Arc<Shared>,
    pace: Pace,
    threads: Vec<JoinHandle<()>>,
}

/// What came of a load, from `Running::begin` to `Running::end`.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub answered: u64,
    pub failed: u64,
    /// From `Running::start` on, and after `Running::end` what was still due.
    pub answered_in_all: u64,
    pub failed_in_all: u64,
    /// How the first failed, and when the last did, counted from the beginning.
    pub error: Option<String>,
    pub last_failure: Option<Duration>,
    pub time: Duration,
    /// In nanoseconds.
    pub latencies: Histogram<u64>,
}

struct Shared {
    load: Load,
    /// Which request is next.
    next: Arc<AtomicUsize>,
    answered: AtomicU64,
    answered_in_all: AtomicU64,
    failed_in_all: AtomicU64,
    /// When counting began, in nanoseconds from `epoch`; `u64::MAX` before.
    from: AtomicU64,
    epoch: Instant,
    stop: AtomicBool,
    failures: Mutex<Failures>,
    latencies: Mutex<Histogram<u64>>,
}

#[derive(Default)]
struct Failures {
    count: u64,
    first: Option<String>,
    last: Option<Instant>,
}

/// Longest wait for one answer, and after the end for those that are due.
const PATIENCE: Duration = Duration::from_secs(10);

/// Wait after a failure, so that a contestant that refuses is not asked as fast as it can refuse.
const BACKOFF: Duration = Duration::from_millis(5);

/// A runtime of one thread, the caller's, without what several would cost.
pub fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// How many threads ask. One is enough for many times what a contestant's one thread carries.
fn threads() -> usize {
    (super::machine::cores() / 3).clamp(1, 4)
}

impl Running {
    /// Starts it, and waits until the connections stand.
    ///
    /// # Errors
    /// A connection was not to be had.
    pub fn start(load: &Load, target: &Target, pace: Pace) -> io::Result<Self> {
        let shared = Arc::new(Shared::new(load.clone(), target.next.clone()));
        let (tell, told) = mpsc::channel();
        let count = threads().min(load.connections / STREAMS).max(1);
        let mut running = Self { shared, pace, threads: Vec::new() };
        for number in 0..count {
            let (shared, tell) = (running.shared.clone(), tell.clone());
            let share = Share { number, of: count, target: target.address, pace };
            running.threads.push(std::thread::spawn(move || runtime().block_on(share.run(shared, tell))));
        }
        drop(tell);
        for _ in 0..count {
            told.recv_timeout(PATIENCE).map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no connection"))??;
        }
        Ok(running)
    }

    /// Begins to count.
    pub fn begin(&self) -> Instant {
        let now = Instant::now();
        self.shared.answered.store(0, Relaxed);
        self.shared.from.store(nanos(now - self.shared.epoch), Relaxed);
        now
    }

    /// Answers since the beginning.
    pub fn answered(&self) -> u64 {
        self.shared.answered.load(Relaxed)
    }

    /// Ends it, after the answers that are still due.
    pub fn end(mut self, begun: Instant) -> Outcome {
        let (mut answered, time) = (self.answered(), begun.elapsed());
        self.stop();
        if let Pace::Open(_) = self.pace {
            answered = self.answered();
        }
        let failures = std::mem::take(&mut *self.shared.failures.lock().unwrap());
        let latencies = self.shared.latencies.lock().unwrap().clone();
        let last_failure = failures.last.map(|at| at.saturating_duration_since(begun));
        Outcome {
            answered,
            failed: failures.count,
            answered_in_all: self.shared.answered_in_all.load(Relaxed),
            failed_in_all: self.shared.failed_in_all.load(Relaxed),
            error: failures.first,
            last_failure,
            time,
            latencies,
        }
    }

    fn stop(&mut self) {
        self.shared.stop.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn new(load: Load, next: Arc<AtomicUsize>) -> Self {
        Self {
            load,
            next,
            answered: AtomicU64::new(0),
            answered_in_all: AtomicU64::new(0),
            failed_in_all: AtomicU64::new(0),
            from: AtomicU64::new(u64::MAX),
            epoch: Instant::now(),
            stop: AtomicBool::new(false),
            failures: Mutex::default(),
            latencies: Mutex::new(histogram()),
        }
    }

    fn is_counted(&self, since: Instant) -> bool {
        nanos(since - self.epoch) >= self.from.load(Relaxed)
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Relaxed)
    }

    fn fail(&self, since: Instant, error: &dyn std::fmt::Display) {
        self.failed_in_all.fetch_add(1, Relaxed);
        if self.is_counted(since) {
            let mut failures = self.failures.lock().unwrap();
            failures.count += 1;
            failures.last = Some(Instant::now());
            failures.first.get_or_insert_with(|| error.to_string());
        }
    }
}

/// To a part in a thousand, up to what nobody waits for.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_max(nanos(Duration::from_secs(120)), 3).expect("bounds that the crate takes")
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// One thread's part of the load.
struct Share {
    number: usize,
    of: usize,
    target: SocketAddr,
    pace: Pace,
}

impl Share {
    async fn run(self, shared: Arc<Shared>, tell: mpsc::Sender<io::Result<()>>) {
        let clients = self.clients(&shared.load).await;
        let clients = match clients {
            Ok(clients) => clients,
            Err(error) => return drop(tell.send(Err(error))),
        };
        let _ = tell.send(Ok(()));
        let mut workers = JoinSet::new();
        let queue = Arc::new(Queue { due: Mutex::default(), ready: Semaphore::new(0) });
        for client in clients {
            let worker = Worker { client: Some(client), target: self.target, shared: shared.clone() };
            match self.pace {
                Pace::Closed => workers.spawn(worker.closed()),
                Pace::Open(_) => workers.spawn(worker.open(queue.clone())),
            };
        }
        if let Pace::Open(rate) = self.pace {
            queue.fill(rate / self.of as f64, &shared).await;
        }
        let ended = async { while workers.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(PATIENCE, ended).await;
        queue.left().into_iter().for_each(|due| shared.fail(due, &"never sent: no connection came free"));
    }

    async fn clients(&self, load: &Load) -> io::Result<Vec<Client>> {
        let own = (self.number..load.connections).step_by(self.of).count();
        let mut clients = Vec::new();
        while clients.len() < own {
            clients.extend(tokio::time::timeout(PATIENCE, Client::open(self.target, &load.speech)).await??);
        }
        clients.truncate(own);
        Ok(clients)
    }
}

/// Who asks over one connection.
struct Worker {
    client: Option<Client>,
    target: SocketAddr,
    shared: Arc<Shared>,
}

impl Worker {
    async fn closed(mut self) {
        while !self.shared.is_stopped() {
            let since = Instant::now();
            if let Err(error) = self.ask().await {
                self.failed(since, &error).await;
            } else {
                self.shared.answered.fetch_add(1, Relaxed);
            }
        }
    }

    async fn open(mut self, queue: Arc<Queue>) {
        while let Some(due) = queue.next().await {
            if let Err(error) = self.ask().await {
                self.failed(due, &error).await;
            } else if self.shared.is_counted(due) {
                self.shared.answered.fetch_add(1, Relaxed);
                self.shared.latencies.lock().unwrap().saturating_record(nanos(due.elapsed()));
            }
        }
    }

    async fn ask(&mut self) -> io::Result<()> {
        let asks = &self.shared.load.asks;
        let ask = &asks[self.shared.next.fetch_add(1, Relaxed) % asks.len()];
        let client = match &mut self.client {
            Some(client) => client,
            none => none.insert(Self::reopen(self.target, &self.shared.load.speech).await?),
        };
        tokio::time::timeout(PATIENCE, client.ask(ask)).await??;
        self.shared.answered_in_all.fetch_add(1, Relaxed);
        Ok(())
    }

    async fn reopen(target: SocketAddr, speech: &Speech) -> io::Result<Client> {
        let opened = tokio::time::timeout(PATIENCE, Client::open(target, speech)).await??;
        opened.into_iter().next().ok_or_else(|| io::Error::other("no connection"))
    }

    async fn failed(&mut self, since: Instant, error: &io::Error) {
        self.shared.fail(since, error);
        self.client = None;
        tokio::time::sleep(BACKOFF).await;
    }
}

/// Requests that are due and wait for a connection.
struct Queue {
    due: Mutex<VecDeque<Instant>>,
    /// As many permits as there are requests; closed at the end.
    ready: Semaphore,
}

impl Queue {
    /// Adds requests as they become due, at equal distances, until the load is stopped.
    async fn fill(&self, rate: f64, shared: &Shared) {
        let distance = Duration::from_secs_f64(1.0 / rate);
        let alarm = Alarm::new().expect("a timer of the system");
        let mut next = Instant::now();
        while !shared.is_stopped() {
            let now = Instant::now();
            let mut count = 0;
            while next <= now {
                self.due.lock().unwrap().push_back(next);
                next += distance;
                count += 1;
            }
            self.ready.add_permits(count);
            alarm.after(next - now).await.expect("a timer of the system");
        }
        // Whoever is free now finds that nothing more comes.
        self.ready.close();
    }

    /// The next that is due; none after the end.
    async fn next(&self) -> Option<Instant> {
        if let Ok(permit) = self.ready.acquire().await {
            permit.forget();
        }
        self.due.lock().unwrap().pop_front()
    }

    fn left(&self) -> Vec<Instant> {
        self.due.lock().unwrap().drain(..).collect()
    }
}

/// A timer finer than the runtime's, which counts in milliseconds.
struct Alarm(AsyncFd<OwnedFd>);

impl Alarm {
    #[allow(deprecated, reason = "its successor is unsafe, for descriptors that others may close; this one is owned")]
    fn new() -> io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        Ok(Self(AsyncFd::new(timer)?))
    }

    async fn after(&self, time: Duration) -> io::Result<()> {
        let spec = |time: Duration| Timespec::try_from(time).expect("a short time");
        // No time at all would disarm it.
        let time = Itimerspec { it_interval: spec(Duration::ZERO), it_value: spec(time.max(Duration::from_nanos(1))) };
        timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &time)?;
        loop {
            let mut ready = self.0.readable().await?;
            let mut count = [0; 8];
            if let Ok(Ok(_)) = ready.try_io(|fd| rustix::io::read(fd.get_ref(), &mut count).map_err(Into::into)) {
                return Ok(());
            }
        }
    }
}
