//! Who asked for a reload or an upgrade by a signal: `banyan reload`, which listens in the runtime directory to hear how it went.

use std::{
    fs,
    io::{self, Read, Write},
    os::unix::{
        fs::{MetadataExt, PermissionsExt, chown},
        net::{UnixListener, UnixStream},
    },
    path::PathBuf,
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::{net::sockopt::socket_peercred, process::Pid};

use super::upgrade::runtime_directory;

/// Where the command listens.
const NAME: &str = "reload.sock";

/// Our own user alone may speak.
const MODE: u32 = 0o600;

/// Longest word, in bytes; what is longer is cut.
const WORD_MAX: usize = 64 << 10;

/// What says that all went well.
const WELL: &str = "well";

/// Longest wait for a word that has begun.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often the command looks whether somebody speaks.
const LOOK: Duration = Duration::from_millis(10);

/// The command's end. Its file goes with it.
pub struct Asker {
    listener: UnixListener,
    path: PathBuf,
}

impl Asker {
    /// To hear from a process of this user.
    ///
    /// # Errors
    /// Somebody else asks just now, or we may not listen there.
    pub fn of(user: u32) -> io::Result<Self> {
        let path = runtime_directory().join(NAME);
        if UnixStream::connect(&path).is_ok() {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, format!("somebody else listens on {}", path.display())));
        }
        // One that was left behind.
        let _ = fs::remove_file(&path);
        let named = |error: io::Error| io::Error::new(error.kind(), format!("cannot listen on {}: {error}", path.display()));
        let listener = UnixListener::bind(&path).map_err(named)?;
        listener.set_nonblocking(true)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(MODE))?;
        if fs::metadata(&path)?.uid() != user {
            chown(&path, Some(user), None)?;
        }
        Ok(Self { listener, path })
    }

    /// How it went, if that is said in this time: if not well, why.
    pub fn hear(&self, within: Duration) -> Option<Result<(), String>> {
        let until = Instant::now() + within;
        while Instant::now() < until {
            // Who says nothing only wished to know who asks.
            match self.listener.accept().and_then(|(speaker, _)| word(&speaker)) {
                Ok(word) if word == WELL => return Some(Ok(())),
                Ok(word) if !word.is_empty() => return Some(Err(word)),
                _ => sleep(LOOK),
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
    speaker.set_nonblocking(false)?;
    speaker.set_read_timeout(Some(PATIENCE))?;
    let mut bytes = Vec::new();
    speaker.take(WORD_MAX as u64).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The process that asks just now, if one does.
pub fn who() -> Option<Pid> {
    let stream = UnixStream::connect(runtime_directory().join(NAME)).ok()?;
    Some(socket_peercred(stream).ok()?.pid)
}

/// Tells who asks, if somebody does, how it went: well, or why not.
pub fn tell(fault: Option<&str>) {
    let word = fault.unwrap_or(WELL).as_bytes();
    let told = UnixStream::connect(runtime_directory().join(NAME)).and_then(|mut stream| {
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.write_all(word.get(..WORD_MAX).unwrap_or(word))
    });
    if let Err(error) = told {
        tracing::debug!(%error, "nobody asks");
    }
}
