//! Where access log lines go: a bounded queue, and behind it a thread that writes them to standard output or a file.
//!
//! Requests never wait. What finds the queue full is dropped and counted; what could not be written is tried again.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::{fd::AsFd, unix::fs::OpenOptionsExt},
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel},
    },
    thread::{self, Thread},
    time::Duration,
};

use prometheus::IntCounter;

/// Bytes of lines that may wait, beside the configured number of lines.
const QUEUED_BYTES_MAX: usize = 64 << 20;

/// Bytes that are gathered before they are written while more lines wait, and most that are kept while writing fails.
const BATCH: usize = 64 << 10;

/// How long until what could not be written is tried again, if no new line comes before.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How long lines are gathered while they come one after the other, and no longer than this for each line that may wait: so a short
/// queue is not filled meanwhile. Written one by one, each line would wake the writer, which costs the request more than all else
/// of its line.
const GATHER: Duration = Duration::from_millis(10);
const GATHER_EACH: Duration = Duration::from_micros(1);

/// Rights of a new log file: it has addresses of people, so it is not for everyone.
const FILE_MODE: u32 = 0o640;

/// Where lines are written to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    Stdout,
    /// Appended to, created if it is not there.
    File(PathBuf),
}

/// What goes wrong with the log is counted here.
#[derive(Clone, Debug)]
pub struct Losses {
    pub dropped: IntCounter,
    pub write_errors: IntCounter,
}

/// The access log could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot open access log {target}")]
pub struct OpenError {
    target: Target,
    source: io::Error,
}

impl OpenError {
    /// What the system said.
    pub const fn reason(&self) -> &io::Error {
        &self.source
    }
}

/// Takes lines and writes them off the hot path. A clone is another handle to the same log.
#[derive(Clone, Debug)]
pub struct Sink {
    queue: SyncSender<Message>,
    writer: Thread,
    shared: Arc<Shared>,
}

#[derive(Debug)]
enum Message {
    Line(Vec<u8>),
    /// Look at the flags in [`Shared`].
    Wake,
}

/// What both ends of the queue see.
#[derive(Debug)]
struct Shared {
    queued_bytes: AtomicUsize,
    reopen: AtomicBool,
    closing: AtomicBool,
    closed: Mutex<bool>,
    on_closed: Condvar,
    losses: Losses,
}

impl Target {
    /// The configured path: `-` is standard output, `off` nothing at all.
    pub fn of(path: &str) -> Option<Self> {
        match path {
            "off" => None,
            "-" => Some(Self::Stdout),
            file => Some(Self::File(file.into())),
        }
    }

    fn open(&self) -> io::Result<File> {
        match self {
            // A file of our own, because `Stdout` buffers lines once more.
            Self::Stdout => io::stdout().as_fd().try_clone_to_owned().map(File::from),
            Self::File(path) => OpenOptions::new().append(true).create(true).mode(FILE_MODE).open(path),
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stdout => f.write_str("standard output"),
            Self::File(path) => write!(f, "`{}`", path.display()),
        }
    }
}

impl Sink {
    /// Opens the target and starts the writer. `queue` is how many lines may wait.
    ///
    /// # Errors
    /// When the target or the thread cannot be had.
    pub fn open(target: Target, queue: usize, losses: Losses) -> Result<Self, OpenError> {
        match target.open() {
            Ok(file) => Self::start(target, Box::new(file), queue, losses),
            Err(source) => Err(OpenError { target, source }),
        }
    }

    fn start(target: Target, out: Out, queue: usize, losses: Losses) -> Result<Self, OpenError> {
        let (sender, lines) = sync_channel(queue);
        let shared = Arc::new(Shared {
            queued_bytes: AtomicUsize::new(0),
            reopen: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            closed: Mutex::new(false),
            on_closed: Condvar::new(),
            losses,
        });
        let writer = Writer {
            lines,
            gather: GATHER_EACH.saturating_mul(u32::try_from(queue).unwrap_or(u32::MAX)).min(GATHER),
            shared: shared.clone(),
            target: target.clone(),
            out,
            batch: Vec::new(),
            torn: false,
            failing: false,
        };
        let writing = thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || writer.run())
            .map_err(|source| OpenError { target, source })?;
        Ok(Self { queue: sender, writer: writing.thread().clone(), shared })
    }

    /// Hands over a whole line with its end. Never waits: a full queue drops it.
    pub fn submit(&self, line: Vec<u8>) {
        let length = line.len();
        let before = self.shared.queued_bytes.fetch_add(length, Ordering::Relaxed);
        if before.saturating_add(length) > QUEUED_BYTES_MAX || self.queue.try_send(Message::Line(line)).is_err() {
            self.shared.queued_bytes.fetch_sub(length, Ordering::Relaxed);
            self.shared.losses.dropped.inc();
        }
    }

    /// Opens the file anew, after a rotation moved it away. Lines submitted from now on go to the new file. If it cannot be
    /// opened the old one stays in use.
    pub fn reopen(&self) {
        self.shared.reopen.store(true, Ordering::Release);
        self.wake();
    }

    /// Writes what is queued and ends the log; later lines are dropped. `false`: it was not done within `patience`.
    pub fn close(&self, patience: Duration) -> bool {
        self.shared.closing.store(true, Ordering::Release);
        self.wake();
        let closed = self.shared.closed.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.shared.on_closed.wait_timeout_while(closed, patience, |closed| !*closed);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// A full queue needs no wake-up: the writer looks at the flags at every line.
    fn wake(&self) {
        let _ = self.queue.try_send(Message::Wake);
        self.writer.unpark();
    }
}

type Out = Box<dyn Write + Send>;

/// The thread's end of the queue.
struct Writer {
    lines: Receiver<Message>,
    /// How long lines are gathered.
    gather: Duration,
    shared: Arc<Shared>,
    target: Target,
    out: Out,
    /// Lines not yet written; its start may be the rest of a line that was written in part.
    batch: Vec<u8>,
    /// The batch begins inside a line.
    torn: bool,
    failing: bool,
}

impl Writer {
    fn run(mut self) {
        while let Some(message) = self.next() {
            self.follow_rotation();
            if let Message::Line(line) = message {
                self.take(&line);
            }
        }
        self.write();
        let shared = self.shared.clone();
        // The queue ends before the log is called closed: a line that comes later is counted as dropped, not kept for nobody.
        drop(self);
        *shared.closed.lock().unwrap_or_else(PoisonError::into_inner) = true;
        shared.on_closed.notify_all();
    }

    /// The next message, after writing what was gathered if none waits. None: closed and empty, or all handles are gone.
    fn next(&mut self) -> Option<Message> {
        loop {
            match self.lines.try_recv() {
                Ok(message) => return Some(message),
                Err(TryRecvError::Disconnected) => return None,
                Err(TryRecvError::Empty) if self.shared.closing.load(Ordering::Acquire) => return None,
                Err(TryRecvError::Empty) if self.batch.is_empty() => return self.lines.recv().ok(),
                Err(TryRecvError::Empty) => self.write(),
            }
            match self.batch.is_empty() {
                true => thread::park_timeout(self.gather),
                false => return self.after_failure(),
            }
        }
    }

    /// The next message, or a look at what waits once it is to be tried again.
    fn after_failure(&self) -> Option<Message> {
        match self.lines.recv_timeout(RETRY_AFTER) {
            Ok(message) => Some(message),
            Err(RecvTimeoutError::Timeout) => Some(Message::Wake),
            Err(RecvTimeoutError::Disconnected) => None,
        }
    }

    fn take(&mut self, line: &[u8]) {
        self.shared.queued_bytes.fetch_sub(line.len(), Ordering::Relaxed);
        if self.batch.len() + line.len() > BATCH {
            self.write();
        }
        if !self.batch.is_empty() && self.batch.len() + line.len() > BATCH {
            self.shared.losses.dropped.inc();
        } else {
            self.batch.extend_from_slice(line);
        }
    }

    /// Writes what was gathered. What remains after an error stays for the next time.
    fn write(&mut self) {
        while !self.batch.is_empty() {
            match self.out.write(&self.batch) {
                Ok(0) => return self.failed("cannot write the access log", &io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    let end = self.batch.get(written - 1);
                    self.torn = end.is_some_and(|last| *last != b'\n');
                    self.batch.drain(..written);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.failed("cannot write the access log", &error),
            }
        }
        self.recovered();
    }

    fn follow_rotation(&mut self) {
        if !self.shared.reopen.swap(false, Ordering::Acquire) {
            return;
        }
        self.write();
        match self.target.open() {
            Ok(file) => {
                self.drop_torn_line();
                self.out = Box::new(file);
            }
            Err(error) => self.failed("cannot open the access log anew", &error),
        }
    }

    /// A new file must not begin inside a line.
    fn drop_torn_line(&mut self) {
        if std::mem::take(&mut self.torn) {
            let end = self.batch.iter().position(|byte| *byte == b'\n').map_or(self.batch.len(), |at| at + 1);
            self.batch.drain(..end);
            self.shared.losses.dropped.inc();
        }
    }

    /// Only the first of a series is logged: a full disk fails at every line.
    fn failed(&mut self, what: &str, error: &io::Error) {
        self.shared.losses.write_errors.inc();
        if !self.failing {
            self.failing = true;
            tracing::error!(log = %self.target, %error, "{what}");
        }
    }

    fn recovered(&mut self) {
        if self.failing {
            self.failing = false;
            tracing::info!(log = %self.target, "the access log is written again");
        }
    }
}

#[cfg(test)]
mod tests;
