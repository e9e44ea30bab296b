//! Ears in the runtime directory: datagram sockets at which a command hears how what it asked for went.

use std::{
    fs, io,
    os::unix::{
        fs::{MetadataExt, PermissionsExt, chown},
        net::UnixDatagram,
    },
    path::{Path, PathBuf},
    time::Duration,
};

use super::upgrade::runtime_directory;

/// The ear of `banyan reload`.
const RELOAD: &str = "reload.sock";

/// Our own user alone may speak.
const MODE: u32 = 0o600;

/// Longest word, in bytes; what is longer is cut.
const WORD_MAX: usize = 64 << 10;

/// What says that all went well.
const WELL: &str = "well";

/// An open ear. Its file goes with it.
pub struct Ear {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Ear {
    /// To hear from this user how a reload or an upgrade went.
    ///
    /// # Errors
    /// Somebody else listens there, or we may not.
    pub fn of_reload(speaker: u32) -> io::Result<Self> {
        let ear = Self::at(RELOAD)?;
        if fs::metadata(&ear.path)?.uid() != speaker {
            chown(&ear.path, Some(speaker), None)?;
        }
        Ok(ear)
    }

    /// Under a name in the runtime directory.
    ///
    /// # Errors
    /// Somebody else listens there, or we may not.
    pub fn at(name: &str) -> io::Result<Self> {
        let path = runtime_directory().join(name);
        if UnixDatagram::unbound()?.connect(&path).is_ok() {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, format!("somebody else listens on {}", path.display())));
        }
        // One that was left behind.
        let _ = fs::remove_file(&path);
        let named = |error: io::Error| io::Error::new(error.kind(), format!("cannot listen on {}: {error}", path.display()));
        let socket = UnixDatagram::bind(&path).map_err(named)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(MODE))?;
        Ok(Self { socket, path })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is said next, if something is said in this time.
    ///
    /// # Errors
    /// The time is zero.
    pub fn hear(&self, within: Duration) -> io::Result<Option<String>> {
        self.socket.set_read_timeout(Some(within))?;
        let mut space = vec![0; WORD_MAX];
        let heard = self.socket.recv(&mut space).ok();
        Ok(heard.map(|length| String::from_utf8_lossy(space.get(..length).unwrap_or_default()).into_owned()))
    }

    /// How it went, if that is said in this time: if not well, why.
    ///
    /// # Errors
    /// The time is zero.
    pub fn outcome(&self, within: Duration) -> io::Result<Option<Result<(), String>>> {
        Ok(self.hear(within)?.map(|word| if word == WELL { Ok(()) } else { Err(word) }))
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        // What stays is replaced by the next one.
        let _ = fs::remove_file(&self.path);
    }
}

/// Tells `banyan reload`, if it listens, how it went: well, or why not.
pub fn tell(fault: Option<&str>) {
    let word = fault.unwrap_or(WELL).as_bytes();
    let word = word.get(..WORD_MAX).unwrap_or(word);
    let path = runtime_directory().join(RELOAD);
    let told = UnixDatagram::unbound().and_then(|socket| {
        // Who does not listen is not waited for.
        socket.set_nonblocking(true)?;
        socket.send_to(word, &path)
    });
    if let Err(error) = told {
        tracing::debug!(%error, "nobody hears at {}", path.display());
    }
}
