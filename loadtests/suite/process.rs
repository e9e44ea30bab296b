//! A process that is measured, and what the system tells of it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};

/// A running process. It is killed when this is dropped, and when the thread that started it ends, however that comes.
pub struct Process {
    child: Child,
    said: PathBuf,
}

/// Processor time is counted in ticks of 10 ms (`getconf CLK_TCK` on every Linux of today). Exact to a percent from one busy second on.
const TICK: Duration = Duration::from_millis(10);

impl Process {
    /// Starts it in this folder, on these cores if they are given (as `taskset` takes them). What it says goes to a file there.
    pub fn start(program: &Path, words: &[String], folder: &Path, cores: Option<&str>) -> anyhow::Result<Self> {
        let said = folder.join("said");
        let out = fs::File::create(&said)?;
        // The kernel kills it when we are gone, which nothing that we could do ourselves ensures.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]);
        if let Some(cores) = cores {
            command.args(["taskset", "-c", cores]);
        }
        let child = command
            .arg(program)
            .args(words)
            .current_dir(folder)
            .env_remove("BANYAN_LOG")
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("{} does not start (setpriv is of util-linux)", program.display()))?;
        Ok(Self { child, said })
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// What it said so far, of standard output and error.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.said).unwrap_or_default()
    }

    /// Processor time so far, user and system, of all its threads.
    pub fn cpu(&self) -> Duration {
        let stat = self.tells("stat");
        let after_name = stat.rsplit(") ").next().unwrap_or_default();
        let ticks: u32 = after_name.split(' ').skip(11).take(2).filter_map(|number| number.parse::<u32>().ok()).sum();
        TICK * ticks
    }

    /// Resident memory in KiB: now (`VmRSS`) or at its highest (`VmHWM`).
    pub fn memory(&self, which: &str) -> f64 {
        let status = self.tells("status");
        let line = status.lines().find_map(|line| line.strip_prefix(which)).unwrap_or_default();
        line.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap_or_default()
    }

    fn tells(&self, file: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{file}", self.child.id())).unwrap_or_default()
    }
}

/// How long a build that counts what it does (`packaging/profile`) may take to write it down at its end.
const COUNTED_MAX: Duration = Duration::from_secs(5);

impl Process {
    fn end(&mut self) {
        let told = Instant::now();
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        while self.is_running() && told.elapsed() < COUNTED_MAX {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::env::var_os("LLVM_PROFILE_FILE").is_some() {
            self.end();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
