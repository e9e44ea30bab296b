//! Signals that end the process, or tell it of a rotated log; when it is ready.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    sync::Mutex,
    sync::mpsc,
};

use crate::harness::{Connection, Gateway, Origin, eventually, gateway::Start, origin::ok};

#[test]
fn a_request_in_flight_is_answered_before_the_process_ends() {
    let (go, gone) = mpsc::channel::<()>();
    let gone = Mutex::new(gone);
    let origin = Origin::answer(move |_| {
        gone.lock().unwrap().recv().unwrap();
        ok("late but whole")
    });
    let mut gateway = Gateway::before(origin.address());
    let mut connection = gateway.connect();
    connection.send_head("GET / HTTP/1.1\nHost: a");
    origin.wait_for(1);
    gateway.signal("TERM");
    eventually("readiness fails", || (gateway.admin("/readyz").status == 503).then_some(()));
    go.send(()).unwrap();
    assert_eq!(connection.response("GET").text(), "late but whole");
    assert!(gateway.exit().success());
}

#[test]
fn a_rotated_log_is_opened_anew() {
    let yaml = "observe: { access_log: { path: access.log } }\nroutes: { all: { to: { respond: { body: here } } } }";
    let gateway = Start::on(yaml).ready();
    let (log, old) = (gateway.dir().join("access.log"), gateway.dir().join("access.log.1"));
    let has = |file: &std::path::Path, text: &str| fs::read_to_string(file).is_ok_and(|lines| lines.contains(text));
    gateway.get("/before");
    eventually("the first line", || has(&log, "/before").then_some(()));
    fs::rename(&log, &old).unwrap();
    gateway.signal("USR1");
    eventually("a new file", || log.exists().then_some(()));
    gateway.get("/after");
    eventually("the next line", || has(&log, "/after").then_some(()));
    assert!(!has(&old, "/after"));
}

const OF: &str = "routes: { all: { to: { respond: { body: here } } } }";

#[test]
fn a_check_that_hangs_keeps_readiness_waiting_only_so_long() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let health = "health: { http: { path: /, interval: 1m, timeout: 5m } }";
    let upstream = format!("upstreams: {{ one: {{ endpoints: [\"{}\"], {health} }} }}", silent.local_addr().unwrap());
    let gateway = Start::on(&format!("{upstream}\n{OF}")).launched();
    let admin = gateway.address("admin");
    eventually("the admin listener", || TcpStream::connect(admin).ok());
    let early = gateway.admin("/readyz");
    assert_eq!(early.json()["reasons"][0], "upstream `one` was not checked yet");
    eventually("readiness", || (gateway.admin("/readyz").status == 200).then_some(()));
    gateway.said("ready without waiting longer");
}

#[test]
fn a_full_listener_is_not_ready() {
    let gateway =
        Gateway::start(&format!("listeners: {{ web: {{ address: 127.0.0.1:<web>, limits: {{ connections: 2 }} }} }}\n{OF}"));
    let held = [gateway.connect(), gateway.connect()];
    let full = eventually("it is full", || Some(gateway.admin("/readyz")).filter(|ready| ready.status == 503));
    let reasons = full.json()["reasons"].to_string();
    assert!(reasons.contains("listener `web` is full"), "{reasons}");
    assert_eq!(gateway.admin("/healthz").status, 200);
    drop::<[Connection; 2]>(held);
    eventually("there is room again", || (gateway.admin("/readyz").status == 200).then_some(()));
}
