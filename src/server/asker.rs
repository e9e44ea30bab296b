//! Who asked for a reload or an upgrade by a signal: `banyan reload`, which listens in the runtime directory to hear how it went.
//!
//! Both look at the other's user: the service starts a successor from the binary of who asks.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::{
    net::sockopt::socket_peercred,
    process::{Pid, geteuid},
};

use super::upgrade::runtime_directory;

/// Where the command listens, and the file that it locks: one asks at a time.
const NAME: &str = "reload.sock";
const LOCK: &str = "reload.lock";

/// Longest word, in bytes; what is longer is cut.
const WORD_MAX: usize = 64 << 10;

/// Longest wait for a word that has begun.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often the command looks whether somebody speaks.
const LOOK: Duration = Duration::from_millis(10);

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wish {
    Reload,
    Upgrade,
}

impl Wish {
    /// What a word on it begins with: that all went well, or why not.
    const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Reload => ("reloaded", "not reloaded: "),
            Self::Upgrade => ("upgraded", "not upgraded: "),
        }
    }
}

/// The command's end. Its file goes with it.
pub struct Asker {
    listener: UnixListener,
    path: PathBuf,
    _lock: File,
}

impl Asker {
    /// To hear from a process that has this runtime directory and runs as our user.
    ///
    /// # Errors
    /// Somebody else asks just now, or we may not listen there.
    pub fn at(directory: &Path) -> io::Result<Self> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", directory.display()));
        let lock = File::create(directory.join(LOCK)).map_err(named)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(io::Error::other("another `banyan reload` waits for its outcome")),
            Err(TryLockError::Error(error)) => return Err(named(error)),
        }
        let path = directory.join(NAME);
        // One that was left behind.
        let _ = fs::remove_file(&path);
        let listener = UnixListener::bind(&path).map_err(named)?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, path, _lock: lock })
    }

    /// How this went, if that is said in this time: if not well, why.
    pub fn hear(&self, wish: Wish, within: Duration) -> Option<Result<(), String>> {
        let (until, (well, not)) = (Instant::now() + within, wish.words());
        while Instant::now() < until {
            let word = self.listener.accept().and_then(|(speaker, _)| word(&speaker)).unwrap_or_default();
            match word.strip_prefix(not) {
                Some(why) => return Some(Err(why.to_owned())),
                None if word == well => return Some(Ok(())),
                // Who says nothing only wished to know who asks.
                None => sleep(LOOK),
            }
        }
        None
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        // What stays is replaced by the next one.
        let _ = fs::remove_file(&self.path);
    }
}

fn word(speaker: &UnixStream) -> io::Result<String> {
    if other(speaker)?.is_none() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    speaker.set_nonblocking(false)?;
    speaker.set_read_timeout(Some(PATIENCE))?;
    let mut bytes = Vec::new();
    speaker.take(WORD_MAX as u64).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The process at the other end, if it is of our own user.
fn other(stream: &UnixStream) -> io::Result<Option<Pid>> {
    let peer = socket_peercred(stream)?;
    Ok((peer.uid == geteuid()).then_some(peer.pid))
}

fn connect() -> io::Result<UnixStream> {
    UnixStream::connect(runtime_directory().join(NAME))
}

/// The process that asks just now, if one of our own user does.
pub fn who() -> Option<Pid> {
    other(&connect().ok()?).ok()?
}

/// Tells who asks, if somebody does, how it went: well, or why not.
pub fn tell(wish: Wish, fault: Option<&str>) {
    let (well, not) = wish.words();
    let word = fault.map_or_else(|| well.to_owned(), |fault| format!("{not}{fault}"));
    let told = connect().and_then(|mut stream| {
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.write_all(word.as_bytes().get(..WORD_MAX).unwrap_or(word.as_bytes()))
    });
    if let Err(error) = told {
        tracing::debug!(%error, "nobody asks");
    }
}
