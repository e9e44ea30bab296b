//! Signals that end the process, or tell it of a rotated log.

use std::{fs, sync::Mutex, sync::mpsc};

use crate::harness::{Gateway, Origin, eventually, gateway::Start, origin::ok};

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
