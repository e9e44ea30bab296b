//! Floods, while a client of good faith is served: the small version of `loadtests/edge`, whose attacks these are.
//!
//! The bounds are loose, since other tests run beside: they tell a gateway that stands from one that does not. How well it stands
//! is measured by the load test (docs/performance.md).

#[path = "../../loadtests/edge/attack.rs"]
#[allow(dead_code, reason = "handshakes are for the load test")]
mod attack;
#[path = "../../loadtests/edge/frames.rs"]
#[allow(dead_code, reason = "some of it is for the load test's own client")]
mod frames;

use std::{
    fs,
    process::Command,
    sync::{Arc, atomic::Ordering::SeqCst},
    time::{Duration, Instant},
};

use tokio::runtime::{Builder, Runtime};

use self::attack::{Attack, Count, Plan};
use crate::harness::{Gateway, Origin, eventually, origin::ok};

/// Longest time that an answer may take under attack.
const BOUND: Duration = Duration::from_secs(5);

/// Requests that are answered under attack.
const REQUESTS: usize = 100;

/// The most that the gateway's memory may grow under a flood, in bytes.
const GROWTH_MAX: u64 = 128 << 20;

/// The most that one connection without a request may hold, in bytes.
const EACH_MAX: u64 = 64 << 10;

fn origin() -> Origin {
    let large = ok(&"x".repeat(64 << 10));
    Origin::answer(move |request| if request.target() == "/large" { large.clone() } else { ok("served") })
}

/// Files that this process and the gateway may have open: what a shell gives may be too few.
const FILES: &str = "--nofile=8192:";

/// A gateway before a service, both warm, and its memory then.
#[track_caller]
fn warm(origin: &Origin) -> (Gateway, u64) {
    let gateway = Gateway::before(origin);
    for process in [std::process::id(), gateway.pid()] {
        let raised = Command::new("prlimit").args(["--pid", &process.to_string(), FILES]).status().unwrap();
        assert!(raised.success(), "no more files may be open");
    }
    assert_served(&gateway);
    let before = memory(&gateway);
    (gateway, before)
}

/// Attacks a gateway; dropped, it stops.
struct Siege {
    _attackers: Runtime,
    sent: Arc<Count>,
}

fn besiege(gateway: &Gateway, attack: Attack, connections: usize, rate: u32) -> Siege {
    let attackers = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let sent = Arc::new(Count::default());
    let plan = Plan { attack, target: gateway.web(), connections, rate, hello: Arc::default() };
    attackers.spawn(attack::run(plan, sent.clone()));
    Siege { _attackers: attackers, sent }
}

/// Resident memory of the gateway, in bytes.
fn memory(gateway: &Gateway) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
}

/// A client of good faith is served, each time in time, on one kept connection and on fresh ones.
#[track_caller]
fn assert_served(gateway: &Gateway) {
    let mut kept = gateway.connect();
    for n in 0..REQUESTS {
        let begun = Instant::now();
        let reply = match n % 2 {
            0 => kept.ask("GET / HTTP/1.1\nHost: a"),
            _ => gateway.get("/"),
        };
        assert_eq!((reply.status, reply.text().as_str()), (200, "served"));
        assert!(begun.elapsed() < BOUND, "request {n} took {:?}", begun.elapsed());
    }
}

#[track_caller]
fn assert_bounded(gateway: &Gateway, before: u64, most: u64) {
    let grown = memory(gateway).saturating_sub(before);
    assert!(grown < most, "memory grew by {} KiB", grown >> 10);
}

/// Holds so many connections, and no other is kept waiting by them.
#[track_caller]
fn check_held(attack: Attack, connections: usize) {
    let origin = origin();
    let (mut gateway, before) = warm(&origin);
    let siege = besiege(&gateway, attack, connections, 1);
    eventually("the connections stand", || {
        (gateway.metric("banyan_connections{listener=\"web\"}")? >= connections as f64).then_some(())
    });
    assert_served(&gateway);
    assert_bounded(&gateway, before, GROWTH_MAX / 8 + connections as u64 * EACH_MAX);
    drop(siege);
    gateway.assert_sound();
}

/// Floods on a few connections. Those that make no progress are ended, and counted under this name.
#[track_caller]
fn check_flood(attack: Attack, connections: usize, refused: Option<&str>) {
    let origin = origin();
    let (mut gateway, before) = warm(&origin);
    let siege = besiege(&gateway, attack, connections, 500);
    if let Some(kind) = refused {
        let sample = format!("banyan_http2_floods_total{{kind=\"{kind}\",listener=\"web\"}}");
        eventually("connections are ended", || (gateway.metric(&sample)? >= 3.0).then_some(()));
    } else {
        let begun = || siege.sent.frames.load(SeqCst) + siege.sent.opened.load(SeqCst) > 150;
        eventually("the flood is on", || begun().then_some(()));
    }
    assert_served(&gateway);
    assert_bounded(&gateway, before, GROWTH_MAX);
    drop(siege);
    eventually("nothing is left of it", || (gateway.metric("banyan_requests_in_flight{route=\"all\"}")? == 0.0).then_some(()));
    assert_served(&gateway);
    gateway.assert_sound();
}

#[test]
fn five_hundred_dripped_heads_keep_nobody_waiting() {
    check_held(Attack::Slowloris, 500);
}

#[test]
fn a_thousand_idle_connections_keep_nobody_waiting() {
    check_held(Attack::Idle, 1000);
}

#[test]
fn connections_that_close_at_once_keep_nobody_waiting() {
    check_flood(Attack::Connect, 20, None);
}

#[test]
fn cancelled_streams_keep_nobody_waiting() {
    check_flood(Attack::Reset, 5, None);
    check_flood(Attack::MadeYouReset, 5, None);
}

#[test]
fn frames_without_progress_end_their_connection_only() {
    for (attack, kind) in [
        (Attack::Continuation, "continuation"),
        (Attack::Settings, "settings"),
        (Attack::Ping, "ping"),
        (Attack::WindowUpdate, "window_update"),
        (Attack::Priority, "priority"),
        (Attack::EmptyData, "empty_data"),
    ] {
        check_flood(attack, 5, Some(kind));
    }
}

#[test]
fn bodies_of_single_bytes_keep_nobody_waiting() {
    check_flood(Attack::SmallData, 5, None);
}

#[test]
fn headers_that_unpack_to_megabytes_hold_no_memory() {
    check_flood(Attack::Hpack, 5, None);
}

#[test]
fn answers_that_nobody_takes_hold_little_memory() {
    check_flood(Attack::SlowRead, 2, None);
}
