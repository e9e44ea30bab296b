//! `banyan reload`: what `systemctl reload` runs.

use std::{
    fs, io,
    os::unix::{fs::MetadataExt, net::UnixDatagram, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command as Process, ExitCode, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use clap::{Args, Parser};
use rustix::process::{Pid, Signal, geteuid, kill_process, test_kill_process};

use super::{Cli, Command};
use crate::{
    config::load::{self, Colour},
    live,
    server::{Asker, Wish, runtime_directory, runtime_directory_of, tell_asker},
};

/// Have a running gateway load its configuration anew, or take its place with a new binary.
///
/// If the process runs this very binary, it gets SIGHUP. If it runs another one, because the file was replaced, it gets SIGUSR2: it
/// starts this one, which checks the configuration and takes its place without a refused connection. Waits until that is done, and
/// says how it went; if it failed, the process serves on as before.
#[derive(Args, Debug)]
pub struct Reload {
    /// The running gateway.
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(i32).range(1..))]
    pid: i32,
    /// The gateway itself runs this at SIGUSR2: start a successor.
    #[arg(long, hide = true)]
    within: bool,
}

/// Longest wait for an upgrade: both processes give up before.
const UPGRADE_MAX: Duration = Duration::from_secs(85);

/// Longest wait for the outcome; systemd waits 90 s for a reload.
const OUTCOME_MAX: Duration = Duration::from_secs(88);

/// How often we look whether the other lives.
const LOOK: Duration = Duration::from_millis(50);

/// How long an outcome may be on its way when the process is gone: what it started may still tell.
const LATE: Duration = Duration::from_secs(2);

/// A process that runs.
struct Running {
    pid: Pid,
    user: u32,
    /// Where it has its sockets.
    runtime: PathBuf,
    /// Signals that it listens for, a bit for each.
    caught: u64,
    arguments: Vec<String>,
    directory: PathBuf,
    /// Device and number of the file that it runs.
    binary: (u64, u64),
}

impl Reload {
    pub fn execute(self) -> anyhow::Result<ExitCode> {
        let gone = || format!("there is no process {} that may be looked at", self.pid);
        let running = Running::at(self.pid).with_context(gone)?;
        // Its paths are relative to this.
        std::env::set_current_dir(&running.directory).context("its working directory is gone")?;
        match self.within {
            false => running.ask()?,
            true => {
                let outcome = running.upgrade();
                tell_asker(Wish::Upgrade, outcome.as_ref().err().map(|fault| format!("{fault:#}")).as_deref());
                outcome?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Running {
    fn at(pid: i32) -> anyhow::Result<Self> {
        let known = |what: &str| PathBuf::from(format!("/proc/{pid}/{what}"));
        let line = fs::read(known("cmdline"))?;
        let line = line.strip_suffix(b"\0").unwrap_or(&line);
        let arguments = line.split(|byte| *byte == 0).map(|word| Ok(String::from_utf8(word.to_vec())?));
        Ok(Self {
            pid: Pid::from_raw(pid).context("0 is no process")?,
            user: fs::metadata(known(""))?.uid(),
            runtime: runtime(&known("environ")),
            caught: caught(&fs::read_to_string(known("status"))?),
            arguments: arguments.collect::<anyhow::Result<_>>()?,
            directory: fs::read_link(known("cwd"))?,
            binary: binary_at(&pid.to_string())?,
        })
    }

    /// Asks it by a signal, and waits for what it tells.
    fn ask(&self) -> anyhow::Result<()> {
        self.command()?;
        let is_ours = self.user == geteuid().as_raw();
        let upgrades = self.binary != binary_at("self")?;
        ensure!(is_ours || !upgrades, "process {} runs as user {}: run `banyan reload` as that user", self.pid, self.user);
        let asker = if is_ours { Asker::at(&self.runtime) } else { Err(io::ErrorKind::PermissionDenied.into()) };
        match (asker, upgrades) {
            (Ok(asker), false) => self.hear(&asker, Wish::Reload, Signal::HUP),
            (Ok(asker), true) => {
                ensure!(self.caught & 1 << (Signal::USR2.as_raw() - 1) != 0, "it is too old to be upgraded: restart it");
                self.hear(&asker, Wish::Upgrade, Signal::USR2)
            }
            (Err(deaf), true) => Err(deaf).context("what it tells could not be heard"),
            (Err(deaf), false) => {
                eprintln!("its log says how it goes; here that cannot be heard: {deaf}");
                self.signal(Signal::HUP)
            }
        }
    }

    fn hear(&self, asker: &Asker, wish: Wish, signal: Signal) -> anyhow::Result<()> {
        self.signal(signal)?;
        let (until, mut late) = (Instant::now() + OUTCOME_MAX, None);
        while Instant::now() < until {
            match asker.hear(wish, LOOK) {
                Some(outcome) => return outcome.map_err(anyhow::Error::msg),
                None if test_kill_process(self.pid).is_ok() => {}
                None => ensure!(Instant::now() < *late.get_or_insert(Instant::now() + LATE), "process {} ended", self.pid),
            }
        }
        bail!("process {} has not said within {OUTCOME_MAX:?} how it went", self.pid)
    }

    /// What it was told to do.
    fn command(&self) -> anyhow::Result<super::run::Run> {
        match Cli::try_parse_from(&self.arguments) {
            Ok(Cli { command: Command::Run(run) }) => Ok(run),
            _ => bail!("process {} is no `banyan run` that this binary could follow: {}", self.pid, self.arguments.join(" ")),
        }
    }

    /// Its configuration as this binary reads it, so that what is wrong with it is told at once.
    fn check(&self) -> anyhow::Result<()> {
        let loaded = Arc::new(load::load(self.command()?.path()));
        let problems = live::check(&loaded);
        let rendered = || loaded.sources.render(&problems, Colour::Never);
        ensure!(
            !problems.iter().any(|problem| problem.is_error()),
            "the configuration has errors, nothing was changed\n{}",
            rendered()
        );
        Ok(())
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        kill_process(self.pid, signal).with_context(|| format!("process {} takes no signal", self.pid))
    }

    fn upgrade(&self) -> anyhow::Result<()> {
        self.check()?;
        let ear = Ear::open()?;
        let mut successor = self.successor(&ear.path)?;
        let outcome = self.signal(Signal::QUIT).and_then(|()| taken_over(&mut successor, &ear));
        if outcome.is_err() {
            // It may have ended by itself.
            let _ = successor.kill();
        }
        outcome.with_context(|| format!("process {} was not upgraded and carries on, if it still runs", self.pid))
    }

    /// Starts this binary with the arguments of the other. It tells at `ear` that it is ready.
    fn successor(&self, ear: &Path) -> anyhow::Result<Child> {
        // Not by its path: there it may not be executable for the service.
        let mut process = Process::new("/proc/self/exe");
        if let Some(first) = self.arguments.first() {
            process.arg0(first);
        }
        process.args(self.arguments.iter().skip(1));
        if !self.arguments.iter().any(|argument| argument == "--upgrade") {
            process.arg("--upgrade");
        }
        // What the service manager said of sockets and watchdog, it said of another process.
        for theirs in ["LISTEN_PID", "LISTEN_FDS", "WATCHDOG_PID", "WATCHDOG_USEC"] {
            process.env_remove(theirs);
        }
        process.env("NOTIFY_SOCKET", ear).stdin(Stdio::null()).process_group(0);
        process.spawn().context("the successor cannot be started")
    }
}

/// The runtime directory that a process was told of, or else ours.
fn runtime(environ: &Path) -> PathBuf {
    let environ = fs::read(environ).unwrap_or_default();
    let named = environ.split(|byte| *byte == 0).find_map(|variable| variable.strip_prefix(b"RUNTIME_DIRECTORY="));
    named.map_or_else(runtime_directory, |list| runtime_directory_of(&String::from_utf8_lossy(list)))
}

/// `SigCgt` of a process's status (proc_pid_status(5)).
fn caught(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

fn binary_at(process: &str) -> io::Result<(u64, u64)> {
    fs::metadata(format!("/proc/{process}/exe")).map(|file| (file.dev(), file.ino()))
}

/// A socket at which a successor speaks as to a service manager. In the runtime directory nobody else can.
struct Ear {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Ear {
    fn open() -> anyhow::Result<Self> {
        let path = runtime_directory().join(format!("successor-{}.sock", std::process::id()));
        // One that was left behind by a process of the same number.
        let _ = fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).with_context(|| format!("cannot listen on {}", path.display()))?;
        socket.set_read_timeout(Some(LOOK))?;
        Ok(Self { socket, path })
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        // What stays is replaced by the next one.
        let _ = fs::remove_file(&self.path);
    }
}

fn taken_over(successor: &mut Child, ear: &Ear) -> anyhow::Result<()> {
    let until = Instant::now() + UPGRADE_MAX;
    let mut space = [0; 4096];
    while Instant::now() < until {
        if let Some(status) = successor.try_wait()? {
            bail!("the successor ended before it was ready ({status}); its log says why");
        }
        let heard = ear.socket.recv(&mut space).unwrap_or(0);
        let words = space.get(..heard).unwrap_or_default();
        if words.split(|byte| *byte == b'\n').any(|word| word == b"READY=1") {
            return Ok(());
        }
    }
    bail!("the successor was not ready within {UPGRADE_MAX:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_would_die_of_the_wish_is_known() {
        let upgrades = |status: &str| caught(status) & 1 << (Signal::USR2.as_raw() - 1) != 0;
        assert!(upgrades("Name:\tbanyan\nSigCgt:\t0000000000014e07\n"));
        assert!(!upgrades("SigCgt:\t0000000000014607\n"));
        assert!(!upgrades(""));
    }
}
