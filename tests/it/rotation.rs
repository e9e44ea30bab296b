//! Log rotation under load, by logrotate with the file that we install: each request has its line, whole, once.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use serde_json::Value;

use crate::harness::{
    Connection, Gateway, eventually,
    gateway::Start,
    tool::{said, tool},
};

const ROTATIONS: usize = 6;
const CLIENTS: usize = 4;

/// Requests that every client has answered between two rotations.
const BETWEEN: usize = 100;

#[test]
fn no_line_is_lost_or_torn_by_rotations_under_load() {
    let yaml = "observe: { access_log: { path: logs/access.log, queue: 65536 } }
routes: { all: { to: { respond: { body: here } } } }";
    let mut gateway = Start::on(yaml).file("logs/.keep", "").ready();
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..CLIENTS).map(|client| Client::start(client, gateway.web(), stop.clone())).collect();
    for n in 1..=ROTATIONS {
        let reached = |done: usize| clients.iter().all(|client| client.done.load(Ordering::SeqCst) >= done);
        eventually("requests between rotations", || reached(n * BETWEEN).then_some(()));
        rotate(&gateway);
    }
    stop.store(true, Ordering::SeqCst);
    let asked: Vec<usize> = clients.into_iter().map(|client| client.thread.join().expect("no request fails")).collect();
    assert_eq!(gateway.metric("banyan_access_log_dropped_total"), Some(0.0));
    gateway.signal("TERM");
    assert!(gateway.exit().success());
    let logged = logged(&gateway.dir().join("logs"));
    for (client, asked) in asked.into_iter().enumerate() {
        for n in 0..asked {
            assert_eq!(
                logged.get(&format!("/{client}/{n}")),
                Some(&1),
                "lines of request {n} of client {client}, which asked {asked}"
            );
        }
    }
}

struct Client {
    /// Requests answered.
    done: Arc<AtomicUsize>,
    thread: thread::JoinHandle<usize>,
}

impl Client {
    /// Asks for `/client/0`, `/client/1`, … until it is told to stop, and gives how often it asked.
    fn start(client: usize, address: SocketAddr, stop: Arc<AtomicBool>) -> Self {
        let done = Arc::new(AtomicUsize::new(0));
        let count = done.clone();
        let thread = thread::spawn(move || {
            let mut connection = Connection::open(address);
            while !stop.load(Ordering::SeqCst) {
                let n = count.load(Ordering::SeqCst);
                assert_eq!(connection.ask(&format!("GET /{client}/{n} HTTP/1.1\nHost: a")).status, 200);
                count.fetch_add(1, Ordering::SeqCst);
            }
            count.load(Ordering::SeqCst)
        });
        Self { done, thread }
    }
}

/// Rotates as logrotate does, or where there is none as its first step does, and waits for the new file.
fn rotate(gateway: &Gateway) {
    let log = gateway.dir().join("logs/access.log");
    match tool("logrotate") {
        Some(logrotate) => by_logrotate(gateway, logrotate),
        None => {
            let count = fs::read_dir(gateway.dir().join("logs")).unwrap().count();
            fs::rename(&log, log.with_extension(format!("log.old{count}"))).unwrap();
            gateway.signal("USR1");
        }
    }
    eventually("a new file", || log.exists().then_some(()));
}

/// With our own file: its folder, the user and whom it signals are the test's.
fn by_logrotate(gateway: &Gateway, mut logrotate: Command) {
    let ours = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/banyan.logrotate")).unwrap();
    let replaced = [
        ("/var/log/banyan/", format!("{}/", gateway.dir().join("logs").display())),
        ("\tsu banyan banyan\n", String::new()),
        ("systemctl kill --signal=USR1 banyan.service", format!("kill -USR1 {}", gateway.pid())),
    ];
    let file = replaced.iter().fold(ours, |text, (from, to)| {
        assert!(text.contains(from), "packaging/banyan.logrotate has no {from}");
        text.replace(from, to)
    });
    let path = gateway.dir().join("rotate.conf");
    fs::write(&path, file).unwrap();
    said(logrotate.arg("--force").arg("--state").arg(gateway.dir().join("state")).arg(path));
}

/// How often each path was logged, in all files together, those that were compressed too.
///
/// # Panics
/// At a line that is torn.
fn logged(folder: &Path) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        for line in text(&path).lines() {
            let entry: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in {}: {line}", path.display()));
            *counts.entry(entry["path"].as_str().expect("a path").to_owned()).or_default() += 1;
        }
    }
    counts
}

fn text(file: &Path) -> String {
    if file.extension().is_some_and(|extension| extension == "gz") {
        return said(Command::new("gzip").arg("-dc").arg(file));
    }
    fs::read_to_string(file).unwrap()
}
