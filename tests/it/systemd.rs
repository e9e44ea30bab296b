//! What systemd is told: sd_notify(3) over a real socket.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    sync::{Mutex, mpsc},
    time::{Duration, Instant},
};

use crate::harness::{Connection, Gateway, Origin, ear::Ear, eventually, gateway::Start, origin::ok};

const HERE: &str = "routes: { all: { to: { respond: { body: here } } } }";

/// Started on this, with an ear in its folder.
fn heard(yaml: &str, env: &[(&str, &str)]) -> (Gateway, Ear) {
    let dir = tempfile::tempdir().unwrap();
    let ear = Ear::at(&dir.path().join("notify"));
    let start = Start::on(yaml).dir(dir).env("NOTIFY_SOCKET", ear.name());
    let start = env.iter().fold(start, |start, (name, value)| start.env(name, value));
    (start.launched(), ear)
}

/// The number in a line `KEY=number`.
fn number(said: &str, key: &str) -> u64 {
    said.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_else(|| panic!("no {key} in {said}")).parse().unwrap()
}

#[test]
fn the_service_is_ready_once_the_first_health_checks_are_done() {
    let (answer, answered) = mpsc::channel::<()>();
    let answered = Mutex::new(answered);
    let origin = Origin::answer(move |_| {
        answered.lock().unwrap().recv().unwrap();
        ok("healthy")
    });
    let health = "health: { http: { path: /, interval: 60s, timeout: 15s } }";
    let upstream = format!("upstreams: {{ one: {{ endpoints: [\"{origin}\"], {health} }} }}");
    let (gateway, ear) = heard(&format!("{upstream}\nroutes: {{ all: {{ to: {{ upstream: one }} }} }}"), &[]);
    origin.wait_for(1);
    gateway.said("listening on");
    assert_eq!(ear.rest(), [""; 0], "a reload at the start, or being ready, is told too early");
    answer.send(()).unwrap();
    let said = ear.until("READY=1");
    assert_eq!(said, ["READY=1\nSTATUS=serving generation 1 on 1 listener"]);
    assert_eq!(gateway.admin("/readyz").status, 200);
}

#[test]
fn a_reload_is_told_when_it_begins_and_when_it_is_done() {
    let (gateway, ear) = heard(HERE, &[]);
    ear.until("READY=1");
    gateway.signal("HUP");
    let begun = ear.until("STATUS=reloading").pop().unwrap();
    assert!(begun.starts_with("RELOADING=1\n"), "{begun}");
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
    let uptime: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
    let told = Duration::from_micros(number(&begun, "MONOTONIC_USEC=")).as_secs_f64();
    assert!((uptime - told).abs() < 20.0, "{told} of {uptime}");
    assert_eq!(ear.until("READY=1"), ["READY=1\nSTATUS=serving generation 1 on 1 listener"]);
}

#[test]
fn a_refused_reload_leaves_the_service_ready_and_its_status_says_so() {
    let (gateway, ear) = heard(HERE, &[]);
    ear.until("READY=1");
    gateway.replace("banyan.yaml", "nonsense: true");
    ear.until("STATUS=serving generation 1 on 1 listener; the last reload was refused");
}

#[test]
fn a_drain_is_told_with_what_it_waits_for() {
    let (go, gone) = mpsc::channel::<()>();
    let gone = Mutex::new(gone);
    let origin = Origin::answer(move |_| {
        gone.lock().unwrap().recv().unwrap();
        ok("late")
    });
    let upstream = format!("upstreams: {{ one: {{ endpoints: [\"{origin}\"] }} }}");
    let (mut gateway, ear) = heard(&format!("{upstream}\nroutes: {{ all: {{ to: {{ upstream: one }} }} }}"), &[]);
    ear.until("READY=1");
    let mut connection = gateway.connect();
    connection.send_head("GET / HTTP/1.1\nHost: a");
    origin.wait_for(1);
    gateway.signal("TERM");
    let first = ear.until("STATUS=draining 1 request").pop().unwrap();
    assert!(first.starts_with("STOPPING=1\n"), "{first}");
    assert!(number(&first, "EXTEND_TIMEOUT_USEC=") >= 5_000_000, "{first}");
    let next = ear.until("STATUS=draining 1 request").pop().unwrap();
    assert!(!next.contains("STOPPING"), "once is enough: {next}");
    go.send(()).unwrap();
    assert_eq!(connection.response("GET").text(), "late");
    assert!(gateway.exit().success());
}

#[test]
fn the_watchdog_is_fed_twice_a_period_until_the_process_hangs() {
    let (gateway, ear) = heard(HERE, &[("WATCHDOG_USEC", "400000")]);
    ear.until("READY=1");
    ear.until("WATCHDOG=1");
    let begun = Instant::now();
    (0..10).for_each(|_| drop(ear.until("WATCHDOG=1")));
    let period = begun.elapsed() / 10;
    assert!((150..390).contains(&period.as_millis()), "{period:?} between signs of life");
    gateway.signal("STOP");
    let stopped = || std::fs::read_to_string(format!("/proc/{}/stat", gateway.pid())).unwrap().contains(") T ");
    eventually("it stands still", || stopped().then_some(()));
    ear.rest();
    assert_eq!(ear.next(Duration::from_millis(900)), None, "a sign of life of a process that hangs");
    gateway.signal("CONT");
    ear.until("WATCHDOG=1");
}

#[test]
fn the_watchdog_of_another_process_is_not_fed() {
    let (gateway, ear) = heard(HERE, &[("WATCHDOG_USEC", "2000"), ("WATCHDOG_PID", "1")]);
    ear.until("READY=1");
    gateway.signal("HUP");
    let said = ear.until("READY=1");
    assert!(!said.iter().any(|said| said == "WATCHDOG=1"), "{said:?}");
}

#[test]
fn a_successor_is_named_and_then_speaks_while_the_old_process_is_silent() {
    let (mut old, ear) = heard(HERE, &[("WATCHDOG_USEC", "400000")]);
    ear.until("READY=1");
    let new = old.succeeded();
    ear.until(&format!("MAINPID={}", new.pid()));
    assert!(old.exit().success());
    let said = ear.until("STATUS=serving generation 1 on 1 listener");
    assert_eq!(said.last().unwrap(), "READY=1\nSTATUS=serving generation 1 on 1 listener");
    assert!(!said.iter().any(|said| said.contains("STOPPING")), "systemd would stop the service: {said:?}");
    ear.until("WATCHDOG=1");
    assert!(Connection::open(new.web()).ask("GET / HTTP/1.1\nHost: a").text() == "here");
}

#[test]
fn a_failed_upgrade_stands_in_the_status_and_the_service_stays_ready() {
    let (mut gateway, ear) = heard(HERE, &[]);
    ear.until("READY=1");
    gateway.signal("QUIT");
    gateway.said("a successor may come");
    let mut successor = UnixStream::connect(gateway.dir().join("upgrade.sock")).unwrap();
    successor.write_all(b"{\"word\":\"hello\",\"protocol\":1,\"version\":\"0.0.0\"}\n").unwrap();
    let mut offer = String::new();
    BufReader::new(&successor).read_line(&mut offer).unwrap();
    assert!(offer.contains(&gateway.web().to_string()), "{offer}");
    drop(successor);
    let reason = "the successor ended before it was ready";
    ear.until(&format!("STATUS=upgrade failed: {reason}; serving generation 1 on 1 listener"));
    gateway.signal("HUP");
    ear.until("READY=1");
    gateway.assert_sound();
}
