//! What the service manager is told: sd_notify(3). Without `NOTIFY_SOCKET` nobody is, and nothing else changes.
//!
//! systemd believes the main process alone (`NotifyAccess=main`, its default). So an old process says nothing more once it has named
//! its successor: its `STOPPING=1` would be taken for the end of the service.

use std::{
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};

use crate::live::Live;

/// The variable that names the service manager's socket: a path, or `@` and an abstract name.
const SOCKET: &str = "NOTIFY_SOCKET";

/// Longest wait for a service manager that does not read.
const PATIENCE: Duration = Duration::from_secs(1);

/// Longest status, in characters: it is one line of `systemctl status`.
const STATUS_MAX: usize = 300;

/// The service manager, as far as it listens.
pub struct Supervisor {
    state: Mutex<State>,
}

struct State {
    phase: Phase,
    socket: Option<UnixDatagram>,
    /// Who is told; the address by which they are known is told to a successor.
    told: Vec<(String, SocketAddr)>,
}

/// How far the process has come, as the service manager knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Starting,
    Ready,
    Stopping,
    /// A successor speaks now.
    Succeeded,
}

impl Supervisor {
    /// The one that the environment names.
    pub fn of_environment() -> Self {
        let named = std::env::var(SOCKET).ok();
        Self::at(named.as_deref())
    }

    fn at(name: Option<&str>) -> Self {
        let socket = named_socket().inspect_err(|error| tracing::warn!(%error, "the service manager cannot be told")).ok();
        let supervisor = Self { state: Mutex::new(State { phase: Phase::Starting, socket, told: Vec::new() }) };
        name.into_iter().for_each(|name| supervisor.add(name));
        supervisor
    }

    fn add(&self, name: &str) {
        match address(name) {
            Ok(address) => self.state().told.push((name.to_owned(), address)),
            Err(error) => tracing::warn!(%error, "{SOCKET} names no socket: `{name}`"),
        }
    }

    /// Who is told, for a successor.
    pub fn name(&self) -> Option<String> {
        self.state().told.first().map(|(name, _)| name.clone())
    }

    /// The gateway serves. Who started us is told, and whom the predecessor told; from then on only the latter.
    pub fn ready(&self, inherited: Option<&str>, status: &str) {
        let known = inherited.is_some_and(|name| self.state().told.iter().any(|(told, _)| told == name));
        inherited.filter(|_| !known).into_iter().for_each(|name| self.add(name));
        let mut state = self.state();
        state.phase = Phase::Ready;
        state.tell(&format!("READY=1\nSTATUS={}", line(status)));
        if let Some(name) = inherited {
            state.told.retain(|(told, _)| told == name);
        }
    }

    /// Does a reload between the words that say so. Before the gateway is ready, and after it began to stop, they would be untrue.
    pub fn during_reload<T>(&self, live: &Live, reload: impl FnOnce() -> T) -> T {
        let told = self.tell_if_ready(|| format!("RELOADING=1\nMONOTONIC_USEC={}\nSTATUS=reloading", monotonic().as_micros()));
        let outcome = reload();
        if told {
            self.tell_if_ready(|| format!("READY=1\nSTATUS={}", serving(live)));
        }
        outcome
    }

    /// A word on what goes on.
    pub fn status(&self, status: &str) {
        self.tell_if_ready(|| format!("STATUS={}", line(status)));
    }

    /// The process is about to end, and may take so long until it says more.
    pub fn draining(&self, in_flight: usize, more: Duration) {
        let mut state = self.state();
        let first = match state.phase {
            Phase::Succeeded => return,
            Phase::Stopping => "",
            Phase::Starting | Phase::Ready => "STOPPING=1\n",
        };
        state.phase = Phase::Stopping;
        let plural = if in_flight == 1 { "" } else { "s" };
        state.tell(&format!("{first}EXTEND_TIMEOUT_USEC={}\nSTATUS=draining {in_flight} request{plural}", more.as_micros()));
    }

    /// The data path lives.
    pub fn pulse(&self) {
        let state = self.state();
        if state.phase != Phase::Succeeded {
            state.tell("WATCHDOG=1");
        }
    }

    /// Names the process that is the service from now on. Nothing more is said by this one.
    pub fn succeeded_by(&self, pid: u32) {
        let mut state = self.state();
        state.tell(&format!("MAINPID={pid}"));
        state.phase = Phase::Succeeded;
    }

    fn tell_if_ready(&self, words: impl FnOnce() -> String) -> bool {
        let state = self.state();
        let ready = state.phase == Phase::Ready;
        if ready {
            state.tell(&words());
        }
        ready
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn tell(&self, words: &str) {
        let Some(socket) = &self.socket else { return };
        for (name, address) in &self.told {
            if let Err(error) = socket.send_to_addr(words.as_bytes(), address) {
                tracing::debug!(%error, name, "the service manager does not hear");
            }
        }
    }
}

/// What the gateway serves.
pub fn serving(live: &Live) -> String {
    let listeners = live.started_with().listeners.len();
    let plural = if listeners == 1 { "" } else { "s" };
    let failed = live.status().error.as_ref().map_or("", |_| "; the last reload was refused");
    format!("serving generation {} on {listeners} listener{plural}{failed}", live.snapshot().generation)
}

fn named_socket() -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket)
}

fn address(name: &str) -> io::Result<SocketAddr> {
    match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name.as_bytes()),
        None if name.starts_with('/') => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(name.as_bytes())),
        None => Err(io::Error::new(io::ErrorKind::InvalidInput, "neither a path nor an abstract name")),
    }
}

/// One line, not too long.
fn line(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().take(STATUS_MAX).collect()
}

fn monotonic() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is heard of what is done, at an abstract address.
    fn heard(acts: impl FnOnce(&Supervisor)) -> Vec<String> {
        let name = format!("banyan-notify-{}-{:x}", std::process::id(), fastrand::u64(..));
        let ear = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        ear.set_nonblocking(true).unwrap();
        acts(&Supervisor::at(Some(&format!("@{name}"))));
        let mut space = [0; 4096];
        std::iter::from_fn(|| ear.recv(&mut space).ok().map(|n| String::from_utf8_lossy(&space[..n]).into_owned())).collect()
    }

    #[test]
    fn nothing_is_said_of_what_happens_before_the_gateway_is_ready() {
        assert_eq!(heard(|supervisor| supervisor.status("loading")), [""; 0]);
    }

    #[test]
    fn a_status_is_one_line() {
        let said = heard(|supervisor| {
            supervisor.ready(None, "serving");
            supervisor.status("upgrade failed:\n no  successor");
        });
        assert_eq!(said, ["READY=1\nSTATUS=serving", "STATUS=upgrade failed: no successor"]);
        assert_eq!(line(&"ä".repeat(400)).chars().count(), STATUS_MAX);
    }

    #[test]
    fn stopping_is_said_once_and_then_how_it_goes() {
        let said = heard(|supervisor| {
            supervisor.draining(2, Duration::from_secs(5));
            supervisor.draining(1, Duration::from_secs(5));
        });
        let expected = [
            "STOPPING=1\nEXTEND_TIMEOUT_USEC=5000000\nSTATUS=draining 2 requests",
            "EXTEND_TIMEOUT_USEC=5000000\nSTATUS=draining 1 request",
        ];
        assert_eq!(said, expected);
    }

    #[test]
    fn who_has_a_successor_says_no_more() {
        let said = heard(|supervisor| {
            supervisor.succeeded_by(42);
            supervisor.draining(1, PATIENCE);
            supervisor.pulse();
            supervisor.status("still here");
        });
        assert_eq!(said, ["MAINPID=42"]);
    }

    #[test]
    fn who_started_us_is_told_that_we_are_ready_and_then_only_whom_the_predecessor_told() {
        let heard_by_parent = heard(|supervisor| {
            let inherited = heard(|of_predecessor| {
                let name = of_predecessor.name().unwrap();
                supervisor.ready(Some(&name), "serving");
                supervisor.pulse();
            });
            assert_eq!(inherited, ["READY=1\nSTATUS=serving", "WATCHDOG=1"]);
        });
        assert_eq!(heard_by_parent, ["READY=1\nSTATUS=serving"]);
    }

    #[test]
    fn what_is_no_socket_is_not_told() {
        assert!(address("relative").is_err());
        assert!(address("/run/systemd/notify").is_ok());
        assert!(address("@abstract").is_ok());
    }
}
