//! The attackers in a process of their own, which yields to all others (nice 19): in earnest they have processors of their own, and what
//! the client is to feel is what the gateway does about them.

use std::{
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, atomic::Ordering::Relaxed},
    thread::sleep,
    time::{Duration, Instant},
};

use super::{
    attack::{self, Attack, Count, Plan},
    party,
    tls::Identity,
};

/// Its name, and how much of it: connections, and frames (or connections) a second on each.
pub type Kind = (&'static str, Attack, usize, u32);

/// Each attack with its name, and how much of it: connections, and frames (or connections) a second on each.
pub const ATTACKS: [Kind; 15] = [
    ("slowloris", Attack::Slowloris, 5_000, 1),
    ("idle", Attack::Idle, 10_000, 1),
    ("connect", Attack::Connect, 50, 20),
    ("handshake", Attack::Handshake, 50, 10),
    ("reset", Attack::Reset, 20, 50),
    ("made-you-reset", Attack::MadeYouReset, 20, 50),
    ("continuation", Attack::Continuation, 20, 500),
    ("settings", Attack::Settings, 20, 500),
    ("ping", Attack::Ping, 20, 500),
    ("window-update", Attack::WindowUpdate, 20, 500),
    ("priority", Attack::Priority, 20, 500),
    ("empty-data", Attack::EmptyData, 20, 500),
    ("small-data", Attack::SmallData, 20, 500),
    ("hpack", Attack::Hpack, 20, 20),
    ("slow-read", Attack::SlowRead, 20, 500),
];

/// How often the process tells what it sent.
const WORD: Duration = Duration::from_millis(50);

/// Attacks until its standard output is closed.
pub fn run(name: &str, target: SocketAddr) {
    let (_, attack, connections, rate) = *ATTACKS.iter().find(|kind| kind.0 == name).expect("an attack");
    let (runtime, count) = (party(), Arc::new(Count::default()));
    let plan = Plan { attack, target, connections, rate, hello: Identity::new().hello() };
    runtime.spawn(attack::run(plan, count.clone()));
    let mut out = std::io::stdout();
    let figures =
        || [&count.opened, &count.standing, &count.frames, &count.failed].map(|figure| figure.load(Relaxed).to_string());
    while writeln!(out, "{}", figures().join(" ")).is_ok() {
        sleep(WORD);
    }
    runtime.shutdown_background();
}

/// What was sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sent {
    pub opened: usize,
    /// Connections that stand: what they are for has begun.
    pub standing: usize,
    pub frames: usize,
    /// Connections that could not be made.
    pub failed: usize,
}

impl Sent {
    fn read(line: &str) -> Option<Self> {
        let mut figures = line.split(' ').map_while(|figure| figure.parse().ok());
        let mut next = || figures.next();
        Some(Self { opened: next()?, standing: next()?, frames: next()?, failed: next()? })
    }

    pub fn and(self, more: Self) -> Self {
        Self {
            opened: self.opened + more.opened,
            standing: more.standing,
            frames: self.frames + more.frames,
            failed: self.failed + more.failed,
        }
    }
}

/// A running attack. Ends when dropped.
pub struct Attackers {
    child: Child,
    sent: Arc<Mutex<Sent>>,
}

impl Attackers {
    pub fn start(name: &str, target: SocketAddr) -> Self {
        let mut command = Command::new("nice");
        command.args(["-n", "19"]).arg(std::env::current_exe().unwrap()).args(["attack", name, &target.to_string()]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("nice is there");
        let (told, sent) = (child.stdout.take().unwrap(), Arc::<Mutex<Sent>>::default());
        let heard = sent.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(told).lines().map_while(Result::ok) {
                if let Some(sent) = Sent::read(&line) {
                    *heard.lock().unwrap() = sent;
                }
            }
        });
        Self { child, sent }
    }

    /// Waits until nearly all connections stand, or have stood.
    pub fn stand(&self, connections: usize, patience: Duration) {
        let begun = Instant::now();
        let enough = connections - connections / 100;
        let stands = |sent: Sent| sent.standing >= enough || sent.opened > 2 * connections;
        while !stands(*self.sent.lock().unwrap()) && begun.elapsed() < patience {
            sleep(WORD);
        }
    }

    pub fn end(self) -> Sent {
        *self.sent.lock().unwrap()
    }
}

impl Drop for Attackers {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
