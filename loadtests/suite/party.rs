//! The contestants: each started with its configuration from `loadtests/peers`, on ports of its own.

use std::{
    fs,
    io::{Read, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, atomic::AtomicUsize},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};

use super::{
    filling::Filling,
    identity::{HOST, Identity},
    machine,
    process::Process,
};

/// Who takes part.
#[derive(Clone, Debug)]
pub struct Contestant {
    /// As it stands in the results.
    pub name: String,
    pub kind: Kind,
    pub program: PathBuf,
    /// Worker threads.
    pub threads: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Banyan,
    /// Banyan without what the scenario asks of callers: what its plain hop costs.
    Open,
    Floor,
    Nginx {
        is_logging: bool,
    },
    Haproxy,
    /// No proxy at all: the service itself.
    Direct,
}

/// What a scenario wants of everyone.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// How many routes there are, `/r0/**` and so on, all others being answered with 404. With none, one takes everything.
    pub routes: usize,
    /// Consumers who each have an API key, which is then asked for. Of HAProxy: a map of the keys' digests.
    pub consumers: usize,
    /// The services are looked after: who does not answer gets nothing.
    pub is_watching: bool,
    /// Public key, in PEM, of the issuer of the tokens without which nothing is to be had. Absent: everybody may ask.
    pub issuer: Option<String>,
    /// How often each caller, named by a header field, may ask.
    pub limit: Limit,
    /// The service is asked about each token, at `/introspect` (RFC 7662). Of Banyan alone.
    pub is_introspecting: bool,
}

/// How often a caller may ask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Limit {
    /// As often as it likes.
    #[default]
    None,
    /// More often than it can.
    Ample,
    /// The same, of a budget that nodes share: leased from a Redis that is started beside. Of Banyan alone.
    Leased,
    /// The same, of one that Redis is asked about each time.
    Exact,
    /// Nearly never.
    Spent,
}

/// A contestant that runs.
pub struct Party {
    pub name: String,
    pub kind: Kind,
    pub plain: SocketAddr,
    pub tls: SocketAddr,
    /// Which request of the load is next.
    pub next: Arc<AtomicUsize>,
    process: Option<Process>,
    /// Redis, where the contestant has one.
    _store: Option<Process>,
    folder: PathBuf,
    config: String,
}

const PATIENCE: Duration = Duration::from_secs(20);

impl Contestant {
    /// The same build of Banyan, asking nobody who calls.
    pub fn open(&self) -> Self {
        Self { name: format!("{}-open", self.name), kind: Kind::Open, ..self.clone() }
    }
}

impl Setup {
    /// The same with everybody let in.
    fn open(&self) -> Self {
        Self { consumers: 0, issuer: None, is_introspecting: false, limit: Limit::None, ..self.clone() }
    }
}

impl Party {
    /// No proxy: the service as it is. TLS it has none.
    pub fn direct(origin: SocketAddr) -> Self {
        let (name, kind) = ("direct".to_owned(), Kind::Direct);
        let next = Arc::default();
        Self {
            name,
            kind,
            plain: origin,
            tls: origin,
            next,
            process: None,
            _store: None,
            folder: PathBuf::new(),
            config: String::new(),
        }
    }

    /// Starts it before these services, with its files in a folder below this one.
    ///
    /// # Errors
    /// It does not start, or does not listen within 20 s.
    pub fn start(
        who: &Contestant,
        setup: &Setup,
        origins: &[SocketAddr],
        identity: &Identity,
        below: &Path,
        is_pinned: bool,
    ) -> anyhow::Result<Self> {
        let [plain, tls, admin, store] = free()?;
        let folder = below.join(format!("{}-{}", who.name, plain.port()));
        fs::create_dir_all(&folder)?;
        identity.write(&folder)?;
        if let Some(key) = &setup.issuer {
            fs::write(folder.join("issuer.pem"), key)?;
        }
        let setup = if who.kind == Kind::Open { &setup.open() } else { setup };
        let config = Filling { who, setup, origins, plain, tls, admin, store, folder: &folder }.config();
        let has_store = who.kind == Kind::Banyan && matches!(setup.limit, Limit::Leased | Limit::Exact);
        let _store = has_store.then(|| redis(store, &folder)).transpose()?;
        let words = launch(who, origins, plain, tls, &folder, &config)?;
        let place = is_pinned.then(|| machine::place(who.threads)).flatten();
        let process = Process::start(&who.program, &words, &folder, place.as_deref())?;
        let (name, next) = (who.name.clone(), Arc::default());
        let mut party = Self { name, kind: who.kind, plain, tls, next, process: Some(process), _store, folder, config };
        party.wait_for(&[plain, tls])?;
        Ok(party)
    }

    fn wait_for(&mut self, addresses: &[SocketAddr]) -> anyhow::Result<()> {
        let begun = Instant::now();
        while addresses.iter().any(|address| TcpStream::connect(address).is_err()) {
            let is_running = self.process.as_mut().is_some_and(Process::is_running);
            if !is_running || begun.elapsed() > PATIENCE {
                let said = self.process.as_ref().map(Process::said).unwrap_or_default();
                bail!("{} did not start:\n{said}", self.name);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Processor time of its process so far.
    pub fn cpu(&self) -> Duration {
        self.process.as_ref().map_or(Duration::ZERO, Process::cpu)
    }

    /// Resident memory in KiB, `VmRSS` or `VmHWM`.
    pub fn memory(&self, which: &str) -> f64 {
        self.process.as_ref().map_or(0.0, |process| process.memory(which))
    }

    /// What its process said.
    pub fn said(&self) -> String {
        self.process.as_ref().map(Process::said).unwrap_or_default()
    }

    /// The last line of Banyan's access log that says this, waited for.
    ///
    /// # Errors
    /// There was none in time.
    pub fn logged(&self, words: &str) -> anyhow::Result<String> {
        let begun = Instant::now();
        loop {
            let log = fs::read_to_string(self.folder.join("access.log")).unwrap_or_default();
            if let Some(line) = log.lines().rev().find(|line| line.contains(words)) {
                return Ok(line.to_owned());
            }
            anyhow::ensure!(begun.elapsed() < PATIENCE, "{} logged nothing with {words}", self.name);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Puts another configuration of Banyan in force: with a route more, whose name has this number.
    pub fn reload(&self, number: usize) -> std::io::Result<()> {
        let next = self.folder.join("next");
        let route = format!("  only-{number}: {{ match: {{ path: /only/{number} }}, to: {{ respond: {{ body: only }} }} }}\n");
        fs::write(&next, format!("{}\n{route}", self.config))?;
        fs::rename(next, self.folder.join("banyan.yaml"))
    }

    /// How many configurations Banyan has put in force, by what it says, since asking the admin listener costs it something.
    pub fn generation(&self) -> usize {
        self.said().matches("configuration in force").count()
    }

    /// One request, and the status of its answer.
    pub fn status(&self, path: &str) -> anyhow::Result<u16> {
        status(&self.answer(path, ("Accept", "*/*"))?)
    }

    /// The same with a token.
    pub fn status_bearing(&self, path: &str, token: &str) -> anyhow::Result<u16> {
        status(&self.answer(path, ("Authorization", &format!("Bearer {token}")))?)
    }

    /// One request with this field, and its answer as it came.
    pub fn answer(&self, path: &str, (name, value): (&str, &str)) -> anyhow::Result<String> {
        let mut stream = TcpStream::connect(self.plain)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {HOST}\r\n{name}: {value}\r\nConnection: close\r\n\r\n")?;
        let mut read = Vec::new();
        stream.read_to_end(&mut read)?;
        Ok(String::from_utf8_lossy(&read).into_owned())
    }
}

fn status(answer: &str) -> anyhow::Result<u16> {
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).context("no status")
}

/// A Redis that keeps nothing, waited for.
fn redis(at: SocketAddr, folder: &Path) -> anyhow::Result<Process> {
    let port = at.port().to_string();
    let words = ["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"].map(str::to_owned);
    let folder = folder.join("redis");
    fs::create_dir_all(&folder)?;
    let mut process = Process::start(Path::new("redis-server"), &words, &folder, None)?;
    let begun = Instant::now();
    while TcpStream::connect(at).is_err() {
        anyhow::ensure!(process.is_running() && begun.elapsed() < PATIENCE, "Redis did not start:\n{}", process.said());
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(process)
}

/// Writes what it is started with into its folder; gives its arguments.
fn launch(
    who: &Contestant,
    origins: &[SocketAddr],
    plain: SocketAddr,
    tls: SocketAddr,
    folder: &Path,
    config: &str,
) -> anyhow::Result<Vec<String>> {
    let file = |name: &str| folder.join(name).display().to_string();
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    Ok(match who.kind {
        Kind::Banyan | Kind::Open => {
            fs::write(folder.join("banyan.yaml"), config)?;
            words(&["run", "-c", "banyan.yaml"])
        }
        Kind::Nginx { .. } => {
            fs::write(folder.join("nginx.conf"), config)?;
            words(&["-p", &folder.display().to_string(), "-e", &file("error.log"), "-c", &file("nginx.conf")])
        }
        Kind::Haproxy => {
            fs::write(folder.join("haproxy.cfg"), config)?;
            words(&["-db", "-f", "haproxy.cfg"])
        }
        Kind::Floor | Kind::Direct => {
            let origin = origins.first().context("a service")?.to_string();
            words(&[&who.threads.to_string(), &origin, &plain.to_string(), &tls.to_string(), "a.pem", "a.key"])
        }
    })
}

/// The API key of a consumer of this number, as long as `banyan key new` makes them.
pub fn api_key(number: usize) -> String {
    format!("banyan_{number:049}")
}

/// Ports of loopback that nobody has.
fn free<const N: usize>() -> std::io::Result<[SocketAddr; N]> {
    let mut held = Vec::new();
    for _ in 0..N {
        held.push(TcpListener::bind("127.0.0.1:0")?);
    }
    let addresses: Vec<SocketAddr> = held.iter().map(TcpListener::local_addr).collect::<Result<_, _>>()?;
    addresses.try_into().map_err(|_| std::io::Error::other("as many as were asked for"))
}

/// What a program says of its version.
pub fn version(who: &Contestant) -> String {
    let flag = match who.kind {
        Kind::Banyan | Kind::Open => "version",
        _ => "-v",
    };
    if who.kind == Kind::Floor {
        return "of this build".to_owned();
    }
    let output = Command::new(&who.program).arg(flag).output();
    let text = output.map(|out| [out.stdout, out.stderr].concat()).unwrap_or_default();
    String::from_utf8_lossy(&text).lines().next().unwrap_or_default().trim().to_owned()
}
