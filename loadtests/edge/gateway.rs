//! The gateway under test, and what the system tells of its process.

use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// A gateway with a plain listener and one with TLS. Killed when dropped.
pub struct Gateway {
    child: Child,
    _dir: tempfile::TempDir,
    pub plain: SocketAddr,
    pub tls: SocketAddr,
}

/// What a process uses.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Resident memory, in bytes.
    pub memory: u64,
    /// Processor time so far.
    pub cpu: Duration,
}

/// A tick of the clock in which the system counts processor time.
const TICK: Duration = Duration::from_millis(10);

const PATIENCE: Duration = Duration::from_secs(20);

impl Gateway {
    /// Starts it before this service. `limits` stands in its listeners.
    pub fn start(banyan: &Path, origin: SocketAddr, limits: &str, cert: &str, key: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let [plain, tls, admin] = free();
        fs::write(dir.path().join("a.pem"), cert).unwrap();
        fs::write(dir.path().join("a.key"), key).unwrap();
        let config = format!(
            "listeners:\n  plain: {{ address: \"{plain}\", limits: {{ {limits} }} }}\n  \
             tls: {{ address: \"{tls}\", limits: {{ {limits} }}, tls: {{ certificates: [{{ cert: a.pem, key: a.key }}] }} }}\n\
             admin: {{ address: \"{admin}\" }}\n\
             upstreams: {{ one: {{ endpoints: [\"{origin}\"] }} }}\n\
             routes: {{ all: {{ to: {{ upstream: one }} }} }}\n"
        );
        let file = dir.path().join("banyan.yaml");
        fs::write(&file, config).unwrap();
        let child = Command::new(banyan)
            .args(["run", "-c"])
            .arg(file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create("/tmp/banyan-edge.stderr").unwrap())
            .spawn()
            .expect("the gateway starts");
        let begun = Instant::now();
        while [plain, tls].iter().any(|address| TcpStream::connect(address).is_err()) {
            assert!(begun.elapsed() < PATIENCE, "the gateway did not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { child, _dir: dir, plain, tls }
    }

    pub fn usage(&self) -> Usage {
        let of = |file: &str| fs::read_to_string(format!("/proc/{}/{file}", self.child.id())).unwrap_or_default();
        let status = of("status");
        let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok());
        let stat = of("stat");
        let ticks = stat.rsplit(") ").next().unwrap_or_default().split(' ').skip(11).take(2);
        let ticks: u32 = ticks.filter_map(|number| number.parse::<u32>().ok()).sum();
        Usage { memory: kilobytes.unwrap_or(0_u64) << 10, cpu: TICK * ticks }
    }

    /// How many files and sockets it has open.
    pub fn open(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).map_or(0, Iterator::count)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Ports of loopback that nobody has.
fn free<const N: usize>() -> [SocketAddr; N] {
    let held: [TcpListener; N] = std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    held.map(|listener| listener.local_addr().unwrap())
}
