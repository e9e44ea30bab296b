//! The gateway: the real binary, on free ports, with a configuration of the test's.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;

use super::{Connection, PATIENCE, Response, eventually, lines::Lines, port, within};

/// A running gateway. Killed when dropped.
pub struct Gateway {
    child: Child,
    /// Shared with a successor.
    dir: Arc<TempDir>,
    ports: Ports,
    pub stdout: Lines,
    pub stderr: Lines,
}

/// How a gateway is started.
#[derive(Default)]
pub struct Start {
    files: Vec<(String, String)>,
    env: Vec<(String, String)>,
    /// What `-c` names, below the folder.
    config: Option<&'static str>,
    dir: Option<Arc<TempDir>>,
    ports: Ports,
    inherited: Option<OwnedFd>,
    /// Take the place of another that runs in the folder.
    upgrade: bool,
    /// Another file than the one that was built.
    binary: Option<PathBuf>,
}

/// Ports by the names that stand for them in a configuration: `<web>`, `<admin>`, …
#[derive(Clone, Debug, Default)]
pub struct Ports(BTreeMap<String, u16>);

const WEB: &str = "web: { address: 127.0.0.1:<web> }";

/// Most tries to find ports that stay free until the gateway binds them.
const TRIES: usize = 3;

impl Gateway {
    /// Starts a gateway with this configuration and waits until it is ready. `<name>` stands for a free port, `<dir>` for the
    /// gateway's folder. Without `listeners` it has one, `web`; without `admin` it has one at `<admin>`.
    #[track_caller]
    pub fn start(yaml: &str) -> Self {
        Start::on(yaml).ready()
    }

    /// A gateway that carries everything to one service.
    #[track_caller]
    pub fn before(origin: impl std::fmt::Display) -> Self {
        Self::start(&format!(
            "upstreams: {{ one: {{ endpoints: [\"{origin}\"] }} }}\nroutes: {{ all: {{ to: {{ upstream: one }} }} }}"
        ))
    }

    pub fn address(&self, name: &str) -> SocketAddr {
        ([127, 0, 0, 1], self.ports.0[name]).into()
    }

    pub fn web(&self) -> SocketAddr {
        self.address("web")
    }

    pub fn ports(&self) -> &Ports {
        &self.ports
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// One that takes this one's place, which must be told to let it.
    pub fn successor(&self) -> Start {
        Start { dir: Some(self.dir.clone()), ports: self.ports.clone(), upgrade: true, ..Start::default() }
    }

    /// Has a successor take this one's place. This one may still have something to finish.
    #[track_caller]
    pub fn succeeded(&self) -> Gateway {
        let successor = self.successor().launched();
        self.signal("QUIT");
        successor.said("took over");
        self.said("a successor has taken over");
        successor
    }

    /// Starts it once more where it was, after its end.
    #[track_caller]
    pub fn again(mut self) -> Gateway {
        self.exit();
        Start { dir: Some(self.dir.clone()), ports: self.ports.clone(), ..Start::default() }.ready()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A connection to the listener `web`.
    pub fn connect(&self) -> Connection {
        Connection::open(self.web())
    }

    /// A request on a connection of its own. The head is written with bare line feeds, without the empty line.
    #[track_caller]
    pub fn ask(&self, head: &str) -> Response {
        self.connect().ask(head)
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> Response {
        self.ask(&format!("GET {path} HTTP/1.1\nHost: test.example"))
    }

    /// A connection that a service upgraded which says in capitals what it hears; it has said `HI`.
    #[track_caller]
    pub fn upgraded(&self, path: &str) -> Connection {
        let mut connection = self.connect();
        connection.send_head(&format!("GET {path} HTTP/1.1\nHost: a\nConnection: Upgrade\nUpgrade: websocket"));
        let head = connection.0.head().unwrap().unwrap();
        assert_eq!((head.status().unwrap(), head.field("upgrade")), (101, Some("websocket")));
        connection.send("hi");
        assert_eq!(connection.exactly(2), b"HI", "an upgraded connection that lives");
        connection
    }

    /// A GET to the admin listener.
    #[track_caller]
    pub fn admin(&self, path: &str) -> Response {
        self.admin_ask(&format!("GET {path} HTTP/1.1\nHost: localhost"))
    }

    #[track_caller]
    pub fn admin_ask(&self, head: &str) -> Response {
        Connection::open(self.address("admin")).ask(head)
    }

    /// The value of a sample on `/metrics`: its name with labels as written there, or the start of it.
    pub fn metric(&self, sample: &str) -> Option<f64> {
        let text = self.admin("/metrics").text();
        let line = text.lines().find(|line| line.strip_prefix(sample).is_some_and(|rest| rest.starts_with(' ')))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    /// The first access log entry for which this holds, present or to come.
    #[track_caller]
    pub fn logged(&self, holds: impl Fn(&Value) -> bool) -> Value {
        let entry = |line: &str| serde_json::from_str(line).ok().filter(|entry| holds(entry));
        self.stdout.wait(PATIENCE, entry).unwrap_or_else(|| panic!("not logged:\n{}\n{}", self.stdout.text(), self.stderr.text()))
    }

    /// The access log entry of the request to this path.
    #[track_caller]
    pub fn logged_path(&self, path: &str) -> Value {
        self.logged(|entry| entry["path"] == path)
    }

    /// A line of standard error with this in it, present or to come.
    #[track_caller]
    pub fn said(&self, words: &str) -> String {
        let line = |line: &str| line.contains(words).then(|| line.to_owned());
        self.stderr.wait(PATIENCE, line).unwrap_or_else(|| panic!("never said `{words}`:\n{}", self.stderr.text()))
    }

    /// Puts a file in the place of another in one step.
    pub fn replace(&self, file: &str, text: &str) {
        let next = self.dir().join(format!(".{file}.next"));
        fs::write(&next, self.ports.fill(text, self.dir())).unwrap();
        fs::rename(next, self.dir().join(file)).unwrap();
    }

    /// Puts a new configuration in place and waits until it is in force.
    #[track_caller]
    pub fn reload(&mut self, yaml: &str) {
        let before = self.generation();
        self.ports.add(yaml);
        self.replace("banyan.yaml", &with_listeners(yaml));
        self.wait_past(before);
    }

    /// Waits until a generation after this one is in force.
    #[track_caller]
    pub fn wait_past(&self, before: u64) {
        let passed = within(PATIENCE, || (self.generation() > before).then_some(()));
        passed.unwrap_or_else(|| panic!("no reload after generation {before}:\n{}", self.stderr.text()));
    }

    /// The number of the configuration in force.
    #[track_caller]
    pub fn generation(&self) -> u64 {
        let config = self.admin("/config").json();
        config["generation"].as_u64().unwrap_or_else(|| panic!("no generation in {config}"))
    }

    pub fn signal(&self, signal: &str) {
        let done = Command::new("kill").args([&format!("-{signal}"), &self.pid().to_string()]).status();
        assert!(done.expect("kill runs").success());
    }

    /// Resident memory in KiB: now (`VmRSS`) or at its highest (`VmHWM`).
    pub fn memory(&self, which: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(which)).expect("a figure of memory");
        line.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap()
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// How the process ended.
    #[track_caller]
    pub fn exit(&mut self) -> ExitStatus {
        eventually("the gateway's end", || self.child.try_wait().unwrap())
    }

    /// Fails if the gateway died or panicked.
    #[track_caller]
    pub fn assert_sound(&mut self) {
        assert!(self.is_running(), "the gateway died:\n{}", self.stderr.text());
        assert!(!self.stderr.text().contains("panicked"), "{}", self.stderr.text());
    }

    fn is_ready(&self) -> bool {
        let Ok(stream) = std::net::TcpStream::connect(self.address("admin")) else { return false };
        let mut admin = Connection(super::wire::Wire::over(stream));
        let head = super::client::wire_head("GET /readyz HTTP/1.1\nHost: localhost");
        admin.0.send(head).is_ok() && admin.try_response("GET").is_ok_and(|ready| ready.status == 200)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- gateway said ---\n{}\n--- and logged ---\n{}", self.stderr.last(30), self.stdout.last(10));
        }
    }
}

impl Start {
    /// On this configuration, in `banyan.yaml`, with the listeners that it leaves out.
    pub fn on(yaml: &str) -> Self {
        Self::default().file("banyan.yaml", &with_listeners(yaml))
    }

    /// A file in the gateway's folder.
    pub fn file(mut self, name: &str, text: &str) -> Self {
        self.files.push((name.to_owned(), text.to_owned()));
        self
    }

    /// What `-c` names instead of `banyan.yaml`.
    pub fn config(mut self, path: &'static str) -> Self {
        self.config = Some(path);
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A folder that was prepared before.
    pub fn dir(mut self, dir: TempDir) -> Self {
        self.dir = Some(Arc::new(dir));
        self
    }

    /// Ports that were chosen before.
    pub fn ports(mut self, ports: Ports) -> Self {
        self.ports = ports;
        self
    }

    /// A socket that it is started with, as systemd passes them: descriptor 3, and beside it one that is no socket.
    pub fn inherits(mut self, socket: impl Into<OwnedFd>) -> Self {
        self.inherited = Some(socket.into());
        self
    }

    /// Another file than the one that was built.
    pub fn binary(mut self, path: PathBuf) -> Self {
        self.binary = Some(path);
        self
    }

    /// Starts it, and waits for nothing.
    pub fn launched(mut self) -> Gateway {
        let dir = self.dir.take().unwrap_or_else(folder);
        self.launch(dir)
    }

    /// Starts it and waits until it is ready.
    #[track_caller]
    pub fn ready(mut self) -> Gateway {
        let mut said = String::new();
        let dir = self.dir.take().unwrap_or_else(folder);
        let mut dir = Some(dir);
        for _ in 0..TRIES {
            let mut gateway = self.launch(dir.take().expect("put back below"));
            let ready = || (gateway.is_ready() || !gateway.is_running()).then_some(());
            if within(PATIENCE, ready).is_some() && gateway.is_running() {
                return gateway;
            }
            said = if gateway.is_running() { gateway.stderr.text() } else { gateway.stderr.ended() };
            if !said.to_lowercase().contains("in use") {
                break;
            }
            dir = Some(gateway.into_dir());
        }
        panic!("the gateway did not start:\n{said}");
    }

    /// Starts it and waits for its end.
    #[track_caller]
    pub fn fails(mut self) -> (ExitStatus, String) {
        let dir = self.dir.take().unwrap_or_else(folder);
        let mut gateway = self.launch(dir);
        (gateway.exit(), gateway.stderr.ended())
    }

    fn launch(&self, dir: Arc<TempDir>) -> Gateway {
        let mut ports = self.ports.clone();
        self.files.iter().for_each(|(_, text)| ports.add(text));
        for (name, text) in &self.files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, ports.fill(text, dir.path())).unwrap();
        }
        let config: PathBuf = dir.path().join(self.config.unwrap_or("banyan.yaml"));
        let binary = self.binary.as_deref().unwrap_or(Path::new(BINARY));
        let (mut command, stdin) = match &self.inherited {
            None if self.upgrade => (of(binary, ["run", "--upgrade", "-c"]), Stdio::null()),
            None => (of(binary, ["run", "-c"]), Stdio::null()),
            Some(socket) => (activated(), Stdio::from(socket.try_clone().unwrap())),
        };
        let mut child = command
            .arg(config)
            .env("RUNTIME_DIRECTORY", dir.path())
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let stdout = Lines::of(child.stdout.take().expect("piped"));
        let stderr = Lines::of(child.stderr.take().expect("piped"));
        Gateway { child, dir, ports, stdout, stderr }
    }
}

impl Gateway {
    fn into_dir(self) -> Arc<TempDir> {
        self.dir.clone()
    }
}

fn folder() -> Arc<TempDir> {
    Arc::new(tempfile::tempdir().unwrap())
}

impl Ports {
    /// Chooses a port for each name in this text that has none.
    pub fn add(&mut self, text: &str) {
        for name in names(text).filter(|name| *name != "dir") {
            self.0.entry(name.to_owned()).or_insert_with(port::free);
        }
    }

    /// Makes a name stand for a port that is known.
    pub fn set(&mut self, name: &str, port: u16) {
        self.0.insert(name.to_owned(), port);
    }

    /// The text with ports and folder in the places of their names.
    pub fn fill(&self, text: &str, dir: &Path) -> String {
        let text = text.replace("<dir>", &dir.display().to_string());
        self.0.iter().fold(text, |text, (name, port)| text.replace(&format!("<{name}>"), &port.to_string()))
    }

    /// The text with names in the places of ports.
    pub fn mask(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, (name, port)| text.replace(&format!(":{port}"), &format!(":<{name}>")))
    }
}

/// The names in angle brackets.
pub fn names(text: &str) -> impl Iterator<Item = &str> {
    let of_a_regex = |before: &str| before.ends_with("(?P") || before.ends_with("(?");
    let parts = text.split('<').zip(text.split('<').skip(1)).filter(move |(before, _)| !of_a_regex(before));
    parts
        .filter_map(|(_, part)| Some(part.split_once('>')?.0))
        .filter(|name| !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()))
}

/// The configuration with the listeners that a test did not care to write.
fn with_listeners(yaml: &str) -> String {
    let has = |section: &str| yaml.lines().any(|line| line.starts_with(section));
    let web = if has("listeners:") { String::new() } else { format!("listeners: {{ {WEB} }}\n") };
    let admin = if has("admin:") { "" } else { "admin: { address: \"127.0.0.1:<admin>\" }\n" };
    format!("{web}{admin}{yaml}\n")
}

/// The binary that was built.
const BINARY: &str = env!("CARGO_BIN_EXE_banyan");

/// A command of the binary.
pub fn banyan<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Command {
    of(Path::new(BINARY), arguments)
}

fn of<'a>(binary: &Path, arguments: impl IntoIterator<Item = &'a str>) -> Command {
    let mut command = Command::new(binary);
    command.args(arguments).env_remove("BANYAN_LOG").env("NO_COLOR", "1");
    command
}

/// `banyan run -c` with what comes as standard input as descriptor 3. Whom it is meant for is its own process unless `LISTEN_PID` says
/// otherwise.
fn activated() -> Command {
    const SCRIPT: &str =
        r#"exec 3<&0 4</dev/null </dev/null; export LISTEN_FDS=2 LISTEN_PID="${LISTEN_PID:-$$}"; exec "$0" run -c "$1""#;
    let mut command = Command::new("sh");
    command.args(["-c", SCRIPT, env!("CARGO_BIN_EXE_banyan")]).env_remove("BANYAN_LOG").env("NO_COLOR", "1");
    command
}

/// What a command gave: its exit code, standard output and standard error.
#[track_caller]
pub fn run(command: &mut Command) -> (i32, String, String) {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.expect("the binary starts");
    let stdout = Lines::of(child.stdout.take().expect("piped"));
    let stderr = Lines::of(child.stderr.take().expect("piped"));
    let Some(status) = within(PATIENCE + Duration::from_secs(10), || child.try_wait().unwrap()) else {
        let _ = child.kill();
        panic!("it does not end:\n{}\n{}", stdout.text(), stderr.text());
    };
    (status.code().unwrap_or(-1), stdout.ended(), stderr.ended())
}
