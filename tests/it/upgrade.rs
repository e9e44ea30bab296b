//! A successor takes the place of a running process: nobody notices, and if it fails the old one carries on.

use std::{
    fs,
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::{
        fs::{FileTypeExt, PermissionsExt},
        net::{UnixListener, UnixStream},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crate::harness::{
    Connection, Gateway, Origin,
    barrier::Barrier,
    chat::{self, Chat},
    ear::Ear,
    eventually,
    gateway::{Start, run},
    origin::ok,
    wire::Wire,
};

const HERE: &str = "routes: { all: { to: { respond: { body: here } } } }";

/// Requests in a second that the load sends, over this many connections.
const RATE: u32 = 500;
const CLIENTS: u32 = 10;

/// A flood of requests, each of which must be answered.
struct Load {
    over: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    /// Every other client opens a connection for each request; the others keep theirs as long as the gateway does.
    fn on(address: SocketAddr) -> Self {
        let (over, answered) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let client = |number: u32| {
            let (over, answered) = (over.clone(), answered.clone());
            std::thread::spawn(move || ask_on(address, number.is_multiple_of(2), &over, &answered))
        };
        let clients = (0..CLIENTS).map(client).collect();
        Self { over, answered, clients }
    }

    /// Waits until so many more requests were answered.
    #[track_caller]
    fn flows(&self, more: usize) {
        let before = self.answered.load(SeqCst);
        eventually("answers", || (self.answered.load(SeqCst) >= before + more).then_some(()));
    }

    /// Ends it. What went wrong, and how many did not.
    fn end(self) -> (Vec<String>, usize) {
        self.over.store(true, SeqCst);
        let failures = self.clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
        (failures, self.answered.load(SeqCst))
    }
}

fn ask_on(address: SocketAddr, keeps: bool, over: &AtomicBool, answered: &AtomicUsize) -> Vec<String> {
    let (mut failures, mut kept, mut due) = (Vec::new(), None, Instant::now());
    while !over.load(SeqCst) && failures.len() < 10 {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        due += Duration::from_secs(1) * CLIENTS / RATE;
        let reused = kept.is_some();
        match one(address, kept.take()) {
            Ok(connection) => {
                answered.fetch_add(1, SeqCst);
                kept = connection.filter(|_| keeps);
            }
            Err(error) => failures.push(format!("{error} (on a kept connection: {reused})")),
        }
    }
    failures
}

/// A request, and the connection if it may be kept.
fn one(address: SocketAddr, kept: Option<Connection>) -> io::Result<Option<Connection>> {
    let mut connection = match kept {
        Some(connection) => connection,
        None => Connection(Wire::over(TcpStream::connect(address)?)),
    };
    connection.0.send("GET /quick HTTP/1.1\r\nHost: a\r\n\r\n")?;
    let response = connection.try_response("GET")?;
    match (response.status, response.text().as_str()) {
        (200, "quick") => Ok((response.field("connection") != Some("close")).then_some(connection)),
        (status, text) => Err(io::Error::other(format!("{status} {text}"))),
    }
}

/// What a download sends before the barrier, and behind it.
const HALF: usize = 300_000;

/// Answers at once, but for downloads, which stop half way until the barrier opens.
fn origin(barrier: &Barrier) -> Origin {
    let barrier = barrier.clone();
    Origin::script(move |visit| {
        while let Some(request) = visit.request()? {
            match request.target() {
                "/download" => {
                    visit.wire.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", 2 * HALF))?;
                    visit.wire.send(vec![b'a'; HALF])?;
                    barrier.pass();
                    visit.wire.send(vec![b'b'; HALF])?;
                }
                _ => visit.wire.send(ok("quick"))?,
            }
        }
        Ok(())
    })
}

fn before(origin: &Origin) -> String {
    let chat = chat::service();
    format!(
        "process: {{ drain: {{ deadline: 60s }} }}\n\
         upstreams: {{ one: {{ endpoints: [\"{origin}\"] }}, chat: {{ endpoints: [\"{chat}\"] }} }}\n\
         routes: {{ chat: {{ match: {{ path: /chat }}, to: {{ upstream: chat }} }}, all: {{ to: {{ upstream: one }} }} }}"
    )
}

/// A download of which the first half has come.
fn downloading(gateway: &Gateway) -> Connection {
    let mut connection = gateway.connect();
    connection.send_head("GET /download HTTP/1.1\nHost: a");
    assert_eq!(connection.head().status().unwrap(), 200);
    assert_eq!(connection.exactly(HALF), vec![b'a'; HALF]);
    connection
}

#[track_caller]
fn assert_serves(gateway: &Gateway, text: &str) {
    assert_eq!(gateway.get("/quick").text(), text);
}

fn upgrade_socket(gateway: &Gateway) -> PathBuf {
    gateway.dir().join("upgrade.sock")
}

#[test]
fn no_request_fails_in_three_upgrades_under_load_and_streams_end_on_the_old_process() {
    let barrier = Barrier::default();
    let origin = origin(&barrier);
    let mut gateways = vec![Start::on(&before(&origin)).ready()];
    let (load, begun) = (Load::on(gateways[0].web()), Instant::now());
    let mut streams = Vec::new();
    for _ in 0..3 {
        load.flows(200);
        let old = gateways.last().unwrap();
        streams.push((downloading(old), Chat::open(old.web(), "/chat").conversation()));
        let new = old.succeeded();
        load.flows(200);
        gateways.push(new);
    }
    load.flows(200);
    let time = begun.elapsed().as_secs_f64();
    let (failures, answered) = load.end();
    println!("{answered} requests in {time:.1} s");
    assert!(failures.is_empty(), "{} of {answered} requests failed: {failures:?}", failures.len());
    let (new, old) = gateways.split_last_mut().unwrap();
    assert!(old.iter_mut().all(Gateway::is_running), "each has a stream to end");
    barrier.open();
    for (mut download, chat) in streams {
        assert_eq!(download.exactly(HALF), vec![b'b'; HALF]);
        let exchanges = chat.end().expect("a WebSocket of the old process");
        assert!(exchanges > 0);
    }
    for old in old {
        assert!(old.exit().success(), "{}", old.stderr.text());
    }
    new.assert_sound();
    assert_serves(new, "quick");
}

#[test]
fn a_websocket_of_the_old_process_is_closed_only_shortly_before_the_deadline() {
    let gateway =
        format!("process: {{ drain: {{ deadline: 7s }} }}\nupstreams: {{ chat: {{ endpoints: [\"{}\"] }} }}\n", chat::service());
    let mut old = Start::on(&format!("{gateway}routes: {{ chat: {{ to: {{ upstream: chat }} }} }}")).ready();
    let mut chat = Chat::open(old.web(), "/chat");
    let _new = old.succeeded();
    let succeeded = Instant::now();
    chat.exchange("still here").expect("the successor has time");
    assert_eq!(chat.closed(), Some((1001, "going away".to_owned())));
    let closed = succeeded.elapsed();
    assert!((Duration::from_secs(1)..Duration::from_secs(6)).contains(&closed), "5 s before the deadline, not after {closed:?}");
    assert!(old.exit().success());
    assert!(succeeded.elapsed() < Duration::from_secs(7), "nothing was left to wait for");
}

#[test]
fn a_termination_closes_the_websockets_that_an_upgrade_left() {
    let gateway =
        format!("process: {{ drain: {{ deadline: 10m }} }}\nupstreams: {{ chat: {{ endpoints: [\"{}\"] }} }}\n", chat::service());
    let mut old = Start::on(&format!("{gateway}routes: {{ chat: {{ to: {{ upstream: chat }} }} }}")).ready();
    let mut chat = Chat::open(old.web(), "/chat");
    let _new = old.succeeded();
    chat.exchange("still here").unwrap();
    old.signal("TERM");
    assert_eq!(chat.closed(), Some((1001, "going away".to_owned())));
    assert!(old.exit().success());
}

#[test]
fn a_successor_with_a_bad_configuration_changes_nothing_and_a_better_one_may_still_come() {
    let mut old = Start::on(HERE).ready();
    old.signal("QUIT");
    old.said("a successor may come");
    let good = fs::read_to_string(old.dir().join("banyan.yaml")).unwrap();
    old.replace("banyan.yaml", "nonsense: true");
    let (status, said) = old.successor().fails();
    assert!(!status.success() && said.contains("nonsense"), "{said}");
    assert_serves(&old, "here");
    old.assert_sound();
    old.replace("banyan.yaml", &good);
    let new = old.successor().launched();
    old.said("a successor has taken over");
    assert!(old.exit().success());
    assert_serves(&new, "here");
}

#[test]
fn a_successor_that_cannot_open_a_new_listener_leaves_the_old_process_as_it_was() {
    let mut old = Start::on(HERE).ready();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let listeners = format!("web: {{ address: 127.0.0.1:<web> }}, more: {{ address: 127.0.0.1:{port} }}");
    old.replace("banyan.yaml", &format!("listeners: {{ {listeners} }}\nadmin: {{ address: \"127.0.0.1:<admin>\" }}\n{HERE}"));
    old.signal("QUIT");
    let (status, said) = old.successor().fails();
    assert!(!status.success() && said.contains(&format!("127.0.0.1:{port} (listeners.more.address)")), "{said}");
    old.said("no upgrade, this process carries on: the successor ended before it was ready");
    assert_serves(&old, "here");
    old.assert_sound();
    drop(taken);
    let new = old.succeeded();
    assert!(old.exit().success());
    assert_serves(&new, "here");
    TcpStream::connect(("127.0.0.1", port)).expect("a listener that the old process had not");
}

#[test]
fn a_successor_that_is_killed_before_it_is_ready_leaves_the_old_process_as_it_was() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut old = Start::on(&format!(
        "listeners: {{ file: {{ address: \"unix:<dir>/web.sock\" }}, web: {{ address: 127.0.0.1:<web> }} }}\n{HERE}"
    ))
    .ready();
    let text = fs::read_to_string(old.dir().join("banyan.yaml")).unwrap();
    let endpoint = silent.local_addr().unwrap();
    let health = "health: { http: { path: /, interval: 60s, timeout: 30s } }";
    let upstream = format!("upstreams: {{ slow: {{ endpoints: [\"{endpoint}\"], {health} }} }}");
    let route = "routes: { slow: { match: { path: /slow }, to: { upstream: slow } }, all: { to: { respond: { body: here } } } }";
    old.replace("banyan.yaml", &text.replace(HERE, &format!("{upstream}\n{route}")));
    let successor = old.successor().launched();
    old.signal("QUIT");
    successor.said("listening on an inherited socket at 127.0.0.1");
    drop(successor);
    old.said("no upgrade, this process carries on: the successor ended before it was ready");
    assert_serves(&old, "here");
    let mut unix = UnixStream::connect(old.dir().join("web.sock")).expect("its file is still there");
    unix.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    unix.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("here"), "{answer}");
    old.assert_sound();
}

#[test]
fn an_old_process_that_is_killed_while_it_drains_is_not_missed() {
    let barrier = Barrier::default();
    let origin = origin(&barrier);
    let mut old = Start::on(&before(&origin)).ready();
    let _download = downloading(&old);
    let mut new = old.succeeded();
    assert!(old.is_running());
    old.signal("KILL");
    old.exit();
    assert_serves(&new, "quick");
    assert_eq!(new.admin("/readyz").status, 200);
    new.assert_sound();
}

#[test]
fn a_unix_socket_outlives_the_old_process_and_goes_with_the_new_one() {
    let listeners = "file: { address: \"unix:<dir>/web.sock\" }, gone: { address: \"unix:<dir>/gone.sock\" }";
    let mut old = Start::on(&format!("listeners: {{ {listeners} }}\n{HERE}")).ready();
    let (kept, gone) = (old.dir().join("web.sock"), old.dir().join("gone.sock"));
    let next = "listeners: { file: { address: \"unix:<dir>/web.sock\" } }\nadmin: { address: \"127.0.0.1:<admin>\" }";
    old.replace("banyan.yaml", &format!("{next}\n{HERE}"));
    let mut new = old.succeeded();
    assert!(old.exit().success());
    assert!(!gone.exists(), "no listener of the new configuration");
    assert!(!upgrade_socket(&old).exists());
    let mut unix = UnixStream::connect(&kept).unwrap();
    unix.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    unix.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("here"), "{answer}");
    new.signal("TERM");
    assert!(new.exit().success());
    assert!(!kept.exists());
}

#[test]
fn without_a_successor_the_upgrade_socket_is_there_for_the_owner_alone_until_it_is_closed() {
    let mut gateway = Start::on(HERE).ready();
    let path = upgrade_socket(&gateway);
    assert!(!path.exists(), "nobody was told to hand over");
    gateway.signal("QUIT");
    gateway.said("a successor may come");
    let found = fs::metadata(&path).unwrap();
    assert!(found.file_type().is_socket());
    assert_eq!(found.permissions().mode() & 0o777, 0o600);
    gateway.signal("TERM");
    assert!(gateway.exit().success());
    assert!(!path.exists());
}

/// A user who is not us: nobody.
const STRANGER: u32 = 65534;

#[test]
fn a_process_of_another_user_gets_no_sockets_even_if_it_can_connect() {
    let gateway = Start::on(HERE).ready();
    // Only root can become another user.
    if fs::metadata("/proc/self").map(|own| std::os::unix::fs::MetadataExt::uid(&own)).unwrap() != 0 {
        return;
    }
    let binary = copy_of_binary(gateway.dir());
    open_to_all(gateway.dir(), 0o755);
    open_to_all(&gateway.dir().join("banyan.yaml"), 0o644);
    let stranger = || {
        let mut command = Command::new(&binary);
        command.args(["run", "--upgrade", "-c"]).arg(gateway.dir().join("banyan.yaml"));
        run(command.env("RUNTIME_DIRECTORY", gateway.dir()).env("NO_COLOR", "1").uid(STRANGER).gid(STRANGER))
    };
    gateway.signal("QUIT");
    gateway.said("a successor may come");
    let (code, _, said) = stranger();
    assert!(code != 0 && said.contains("Permission denied"), "{said}");
    open_to_all(&upgrade_socket(&gateway), 0o666);
    let (code, _, said) = stranger();
    assert!(code != 0 && said.contains("the upgrade socket is that of process"), "it looks too: {said}");
    gateway.said(&format!("runs as user {STRANGER}, this one as 0"));
    assert_serves(&gateway, "here");
}

fn open_to_all(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// The binary once more, in a file of its own.
fn copy_of_binary(dir: &Path) -> PathBuf {
    let copy = dir.join("banyan");
    fs::copy(env!("CARGO_BIN_EXE_banyan"), &copy).unwrap();
    copy
}

/// Puts another file in the place of a binary that runs, as an update does.
fn update(binary: &Path) {
    let next = binary.with_extension("next");
    fs::copy(env!("CARGO_BIN_EXE_banyan"), &next).unwrap();
    fs::rename(next, binary).unwrap();
}

/// A gateway whose binary may be updated.
fn updatable(yaml: &str, ear: Option<&Ear>, dir: tempfile::TempDir) -> (Gateway, PathBuf) {
    let binary = copy_of_binary(dir.path());
    let start = Start::on(yaml).binary(binary.clone()).dir(dir);
    let start = match ear {
        Some(ear) => start.env("NOTIFY_SOCKET", ear.name()),
        None => start,
    };
    (start.ready(), binary)
}

fn reload(binary: &Path, gateway: &Gateway) -> Command {
    let mut command = Command::new(binary);
    command.args(["reload", "--pid", &gateway.pid().to_string()]);
    command.env("RUNTIME_DIRECTORY", gateway.dir()).env("NO_COLOR", "1").env_remove("BANYAN_LOG");
    command
}

/// Ends a process that is not our child, when dropped.
struct Adopted(u32);

impl Drop for Adopted {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-TERM", &self.0.to_string()]).status();
    }
}

#[test]
fn reload_loads_the_configuration_if_the_binary_is_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let ear = Ear::at(&dir.path().join("notify"));
    let mut gateway = Start::on(HERE).dir(dir).env("NOTIFY_SOCKET", ear.name()).ready();
    ear.until("READY=1");
    let (code, _, said) = run(&mut reload(Path::new(env!("CARGO_BIN_EXE_banyan")), &gateway));
    assert_eq!(code, 0, "{said}");
    let said = ear.rest().concat();
    assert!(said.contains("STATUS=reloading") && said.contains("READY=1"), "it is done when the command ends: {said}");
    gateway.assert_sound();
}

#[test]
fn reload_of_a_bad_configuration_fails_and_says_why() {
    let mut gateway = Start::on(HERE).ready();
    gateway.replace("banyan.yaml", "nonsense: true");
    let (code, _, said) = run(&mut reload(Path::new(env!("CARGO_BIN_EXE_banyan")), &gateway));
    assert!(code != 0 && said.contains("nonsense") && said.contains("nothing was changed"), "{said}");
    assert_serves(&gateway, "here");
    gateway.assert_sound();
}

#[test]
fn two_commands_do_not_wait_at_the_same_ear() {
    let gateway = Start::on(HERE).ready();
    let other = fs::File::create(gateway.dir().join("reload.lock")).unwrap();
    other.lock().unwrap();
    let (code, _, said) = run(&mut reload(Path::new(env!("CARGO_BIN_EXE_banyan")), &gateway));
    assert_eq!(code, 0, "the reload is asked for all the same: {said}");
    assert!(said.contains("that cannot be heard: another `banyan reload` waits"), "{said}");
    let (code, _, said) = run(&mut reload(&copy_of_binary(gateway.dir()), &gateway));
    assert!(code != 0 && said.contains("another `banyan reload` waits"), "no upgrade without one who hears: {said}");
}

#[test]
fn the_runtime_directory_is_that_of_the_gateway() {
    let gateway = Start::on(HERE).ready();
    let (code, _, said) = run(reload(Path::new(env!("CARGO_BIN_EXE_banyan")), &gateway).env("RUNTIME_DIRECTORY", "/nowhere"));
    assert_eq!((code, said.as_str()), (0, ""));
}

#[test]
fn what_a_killed_command_left_behind_is_replaced() {
    let gateway = Start::on(HERE).ready();
    let ear = gateway.dir().join("reload.sock");
    drop(UnixListener::bind(&ear).unwrap());
    let (code, _, said) = run(&mut reload(Path::new(env!("CARGO_BIN_EXE_banyan")), &gateway));
    assert_eq!(code, 0, "{said}");
    assert!(!ear.exists());
}

#[test]
fn reload_of_what_is_no_gateway_fails_and_says_so() {
    let mut other = Command::new("sleep").arg("100").stdin(Stdio::null()).spawn().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_banyan"));
    let (code, _, said) = run(command.args(["reload", "--pid", &other.id().to_string()]));
    let lives = other.try_wait().unwrap().is_none();
    let _ = other.kill();
    let _ = other.wait();
    assert!(code != 0 && said.contains("no `banyan run`") && lives, "{said}");
}

#[test]
fn reload_upgrades_if_the_binary_was_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let ear = Ear::at(&dir.path().join("notify"));
    let (mut old, binary) = updatable(HERE, Some(&ear), dir);
    ear.until("READY=1");
    update(&binary);
    let (code, _, said) = run(&mut reload(&binary, &old));
    assert_eq!(code, 0, "{said}");
    let told = ear.rest();
    let successor =
        told.iter().flat_map(|said| said.lines()).find_map(|line| line.strip_prefix("MAINPID=")).expect("a new main process");
    let successor = Adopted(successor.parse().unwrap());
    assert!(old.exit().success());
    assert_eq!(fs::read_link(format!("/proc/{}/exe", successor.0)).unwrap(), binary);
    let arguments = fs::read_to_string(format!("/proc/{}/cmdline", successor.0)).unwrap();
    let (binary, config) = (binary.display().to_string(), old.dir().join("banyan.yaml").display().to_string());
    assert_eq!(arguments, [&binary, "run", "-c", &config, "--upgrade", ""].join("\0"));
    assert_serves(&old, "here");
    let parent = fs::read_to_string(format!("/proc/{}/stat", successor.0)).unwrap();
    assert_ne!(
        parent.rsplit(") ").next().unwrap().split(' ').nth(1),
        Some(old.pid().to_string().as_str()),
        "not a child of the old one"
    );
}

#[test]
fn reload_with_a_successor_that_fails_says_so_and_the_old_process_carries_on() {
    let (mut old, binary) = updatable(HERE, None, tempfile::tempdir().unwrap());
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listeners = format!("web: {{ address: 127.0.0.1:<web> }}, more: {{ address: {} }}", taken.local_addr().unwrap());
    old.replace("banyan.yaml", &format!("listeners: {{ {listeners} }}\nadmin: {{ address: \"127.0.0.1:<admin>\" }}\n{HERE}"));
    update(&binary);
    let (code, _, said) = run(&mut reload(&binary, &old));
    assert!(code != 0 && said.contains("the successor ended before it was ready"), "{said}");
    old.said("listeners.more");
    old.said("no upgrade, this process carries on: the successor ended");
    assert_serves(&old, "here");
    old.assert_sound();
}

#[test]
fn a_wish_for_a_successor_that_nobody_stands_behind_changes_nothing() {
    let mut gateway = Start::on(HERE).ready();
    gateway.signal("USR2");
    gateway.said("no upgrade, this process carries on: nobody asks");
    assert_serves(&gateway, "here");
    gateway.assert_sound();
}

#[test]
fn an_update_that_refuses_the_configuration_changes_nothing_and_says_why() {
    let (mut old, binary) = updatable(HERE, None, tempfile::tempdir().unwrap());
    old.replace("banyan.yaml", "nonsense: true");
    update(&binary);
    let (code, _, said) = run(&mut reload(&binary, &old));
    assert!(code != 0 && said.contains("nonsense") && said.contains("nothing was changed"), "{said}");
    assert_serves(&old, "here");
    old.assert_sound();
}
