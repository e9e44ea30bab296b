//! Programs under callgrind.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// glibc copies long pieces by one instruction that works through many bytes, which callgrind counts once a byte.
const NO_REP: (&str, &str) = ("GLIBC_TUNABLES", "glibc.cpu.x86_rep_movsb_threshold=1000000000");

/// The command under callgrind, which writes here. Nothing is counted before [`Counted::start`] if `later`.
pub fn command(program: &Path, out: &Path, later: bool) -> Command {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", if later { "--instr-atstart=no" } else { "--instr-atstart=yes" }]);
    command.arg(format!("--callgrind-out-file={}", out.display())).arg(program);
    command.env(NO_REP.0, NO_REP.1).stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(fs::File::create(out.with_extension("log")).unwrap());
    command
}

/// A program that goes on while it is counted. Killed when dropped.
pub struct Counted {
    child: Child,
    out: PathBuf,
}

impl Counted {
    /// Starts it; what it does is not counted yet.
    pub fn start(program: &Path, args: &[&str], out: &Path) -> Self {
        let child = command(program, out, true).args(args).spawn().expect("valgrind is installed: .ci/setup benches");
        Self { child, out: out.to_owned() }
    }

    /// Instructions of the program while this is done.
    pub fn during(&self, work: impl FnOnce()) -> u64 {
        self.tell(&["-i", "on"]);
        work();
        self.tell(&["-i", "off"]);
        self.tell(&["-d"]);
        total(Path::new(&format!("{}.1", self.out.display())))
    }

    fn tell(&self, words: &[&str]) {
        let done = Command::new("callgrind_control").args(words).arg(self.child.id().to_string()).output().unwrap();
        assert!(done.status.success(), "callgrind_control: {}", String::from_utf8_lossy(&done.stderr));
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Instructions that an output file of callgrind tells of.
pub fn total(file: &Path) -> u64 {
    let text = fs::read_to_string(file).unwrap();
    let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
    total.and_then(|total| total.trim().parse().ok()).expect("callgrind wrote a total")
}
