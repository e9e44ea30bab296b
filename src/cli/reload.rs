//! `banyan reload`: what `systemctl reload` runs.

use std::{
    fs, io,
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command as Process, ExitCode, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use clap::{Args, Parser};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use super::{Cli, Command};
use crate::{
    config::load::{self, Colour},
    live,
    server::{Ear, binary_in_place, tell_reload},
};

/// Have a running gateway load its configuration anew, or have the binary that was put in place take over.
///
/// If the file that the process was started from is still the one it runs, it gets SIGHUP. If it was replaced, the process gets SIGUSR2: it
/// starts the new one, which checks the configuration and takes its place without a refused connection. Waits until that is done, and
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
    arguments: Vec<String>,
    directory: PathBuf,
    /// The file that it runs.
    runs: PathBuf,
    /// Device and number of that file.
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
                tell_reload(outcome.as_ref().err().map(|fault| format!("{fault:#}")).as_deref());
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
            arguments: arguments.collect::<anyhow::Result<_>>()?,
            directory: fs::read_link(known("cwd"))?,
            runs: fs::read_link(known("exe"))?,
            binary: id(&known("exe"))?,
        })
    }

    /// Asks it by a signal, and waits for what it tells.
    fn ask(&self) -> anyhow::Result<()> {
        self.command()?;
        let ear = Ear::of_reload(self.user).context("what it tells could not be heard")?;
        self.signal(if self.is_replaced() { Signal::USR2 } else { Signal::HUP })?;
        let (until, mut late) = (Instant::now() + OUTCOME_MAX, None);
        while Instant::now() < until {
            match ear.outcome(LOOK)? {
                Some(outcome) => return outcome.map_err(anyhow::Error::msg),
                None if test_kill_process(self.pid).is_ok() => {}
                None => ensure!(Instant::now() < *late.get_or_insert(Instant::now() + LATE), "process {} ended", self.pid),
            }
        }
        bail!("process {} has not said within {OUTCOME_MAX:?} how it went", self.pid)
    }

    /// Whether another file is in the place of the one that it runs. If there is none, it goes on as it is.
    fn is_replaced(&self) -> bool {
        let first = self.arguments.first().map_or("", String::as_str);
        id(&binary_in_place(first.as_ref(), &self.runs)).is_ok_and(|in_place| in_place != self.binary)
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
        let ear = Ear::at(&format!("successor-{}.sock", std::process::id()))?;
        let mut successor = self.successor(ear.path())?;
        let outcome = self.signal(Signal::QUIT).and_then(|()| taken_over(&mut successor, &ear));
        if outcome.is_err() {
            // It may have ended by itself.
            let _ = successor.kill();
        }
        outcome.with_context(|| format!("process {} was not upgraded and carries on, if it still runs", self.pid))
    }

    /// Starts this binary with the arguments of the other. It tells at `ear` that it is ready.
    fn successor(&self, ear: &Path) -> anyhow::Result<Child> {
        let mut process = Process::new(std::env::current_exe()?);
        // By its first argument a later upgrade finds the file.
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

/// Device and number of a file.
fn id(file: &Path) -> io::Result<(u64, u64)> {
    fs::metadata(file).map(|file| (file.dev(), file.ino()))
}

fn taken_over(successor: &mut Child, ear: &Ear) -> anyhow::Result<()> {
    let until = Instant::now() + UPGRADE_MAX;
    while Instant::now() < until {
        if let Some(status) = successor.try_wait()? {
            bail!("the successor ended before it was ready ({status}); its log says why");
        }
        if ear.hear(LOOK)?.is_some_and(|said| said.lines().any(|word| word == "READY=1")) {
            return Ok(());
        }
    }
    bail!("the successor was not ready within {UPGRADE_MAX:?}")
}
