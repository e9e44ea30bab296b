//! The service manager's end of sd_notify(3).

use std::{
    os::unix::net::UnixDatagram,
    path::Path,
    time::{Duration, Instant},
};

use super::PATIENCE;

/// A socket to be told at.
pub struct Ear {
    socket: UnixDatagram,
    name: String,
}

impl Ear {
    /// At a path.
    pub fn at(path: &Path) -> Self {
        Self { socket: UnixDatagram::bind(path).unwrap(), name: path.display().to_string() }
    }

    /// What `NOTIFY_SOCKET` is.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What is said next, if something is said within this time.
    pub fn next(&self, within: Duration) -> Option<String> {
        self.socket.set_read_timeout(Some(within.max(Duration::from_millis(1)))).unwrap();
        let mut space = [0; 4096];
        let read = self.socket.recv(&mut space).ok()?;
        Some(String::from_utf8_lossy(&space[..read]).into_owned())
    }

    /// Waits for a message with this line, and gives what was said until then, it included.
    #[track_caller]
    pub fn until(&self, line: &str) -> Vec<String> {
        let deadline = Instant::now() + PATIENCE;
        let mut heard = Vec::new();
        while let Some(left) = deadline.checked_duration_since(Instant::now()) {
            heard.extend(self.next(left));
            if heard.last().is_some_and(|said| said.lines().any(|said| said == line)) {
                return heard;
            }
        }
        panic!("never heard `{line}`, but {heard:?}");
    }

    /// What was said and not heard yet.
    pub fn rest(&self) -> Vec<String> {
        std::iter::from_fn(|| self.next(Duration::ZERO)).collect()
    }
}
