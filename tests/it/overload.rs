//! The guard against overload, from outside: what matters least is shed first, at once and cheaply, and what matters most is answered.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crate::harness::{Connection, Gateway, Origin, PATIENCE, Response, barrier::Barrier, eventually, origin::ok};

/// Routes of each priority before this service.
fn yaml(origin: &Origin, more: &str) -> String {
    format!(
        r#"
{more}
upstreams: {{ one: {{ endpoints: ["{origin}"] }} }}
routes:
  low: {{ match: {{ path: "/low/**" }}, priority: low, to: {{ upstream: one }} }}
  normal: {{ to: {{ upstream: one }} }}
  high: {{ match: {{ path: "/high/**" }}, priority: high, to: {{ upstream: one }} }}
"#
    )
}

/// A service that answers when it is told to.
fn waiting() -> (Origin, Barrier) {
    let barrier = Barrier::default();
    let held = barrier.clone();
    let origin = Origin::answer(move |_| {
        held.pass();
        ok("done")
    });
    (origin, barrier)
}

fn shed(response: &Response) {
    assert_eq!((response.status, response.json()["code"].as_str()), (503, Some("overloaded")));
    let retry_after = response.field("retry-after").unwrap().parse::<u64>().unwrap();
    assert!((1..=4).contains(&retry_after), "{retry_after}");
    assert_eq!(response.field("connection"), Some("keep-alive"), "a new connection would cost more");
}

#[test]
fn what_matters_least_is_shed_first_when_too_many_are_in_flight() {
    let (origin, barrier) = waiting();
    let gateway = Gateway::start(&yaml(&origin, "overload: { in_flight: 5 }"));
    let begun = |path: &str, count: usize| {
        let mut connection = gateway.connect();
        connection.send_head(&format!("GET {path} HTTP/1.1\nHost: a"));
        origin.wait_for(count);
        connection
    };
    // Eight tenths of five are for low priority, nine for normal.
    let mut held: Vec<_> = (1..=4).map(|count| begun("/low/x", count)).collect();
    shed(&gateway.get("/low/x"));
    shed(&gateway.get("/x"));
    held.push(begun("/high/x", 5));
    shed(&gateway.get("/high/x"));
    assert_eq!((gateway.admin("/healthz").status, gateway.admin("/readyz").status), (200, 200));
    for (priority, count) in [("low", 1.0), ("normal", 1.0), ("high", 1.0)] {
        let sample = format!("banyan_overload_shed_total{{priority=\"{priority}\",reason=\"in_flight\"}}");
        assert_eq!(gateway.metric(&sample), Some(count), "{priority}");
    }
    assert_eq!(gateway.logged(|entry| entry["status"] == 503)["flag"], "OM");
    gateway.said("overload: requests of priority `low` are shed");
    barrier.open();
    for connection in &mut held {
        assert_eq!(connection.response("GET").status, 200);
    }
    eventually("room again", || (gateway.get("/low/x").status == 200).then_some(()));
    assert_eq!(origin.count(), 6, "what is shed never reaches a service");
    gateway.said("the overload is over");
}

#[test]
fn what_is_shed_costs_no_login_and_holds_no_body() {
    let (origin, barrier) = waiting();
    let routes =
        yaml(&origin, "overload: { in_flight: 1 }\npolicies: { auth: { api_key: { header: X-Api-Key } } }\nconsumers: { a: {} }")
            .replace("  normal: { to:", "  normal: { policies: { auth: off }, to:");
    let gateway = Gateway::start(&routes);
    let mut held = gateway.connect();
    held.send_head("GET /x HTTP/1.1\nHost: a");
    origin.wait_for(1);
    shed(&gateway.get("/high/x"));
    barrier.open();
    assert_eq!(held.response("GET").status, 200);
    eventually("room again", || (gateway.get("/high/x").status == 401).then_some(()));
}

#[test]
fn a_request_that_fails_gives_its_place_back() {
    let (origin, barrier) = waiting();
    let late = "  normal: { timeouts: { request: 50ms }, to:";
    let gateway = Gateway::start(&yaml(&origin, "overload: { in_flight: 1 }").replace("  normal: { to:", late));
    for count in 1..=5 {
        // The answer is on its way a moment before its request has ended.
        let response = eventually("its turn", || Some(gateway.get("/x")).filter(|answer| answer.status != 503));
        assert_eq!((response.status, origin.count()), (504, count));
    }
    barrier.open();
}

#[test]
fn nothing_is_shed_where_the_guard_is_off_or_nothing_is_wrong() {
    let origin = Origin::text("here");
    for more in ["overload: off", ""] {
        let gateway = Gateway::start(&yaml(&origin, more));
        for _ in 0..100 {
            assert_eq!(gateway.get("/low/x").status, 200);
        }
        assert_eq!(gateway.metric("banyan_overload_pressure{reason=\"lag\"}"), Some(0.0));
    }
}

#[test]
fn memory_over_its_limit_sheds_and_a_reload_that_allows_more_recovers() {
    let origin = Origin::text("here");
    let mut gateway = Gateway::start(&yaml(&origin, "overload: { memory: 1MiB }"));
    eventually("pressure", || gateway.metric("banyan_overload_pressure{reason=\"memory\"}").filter(|pressure| *pressure == 1.0));
    for path in ["/low/x", "/x", "/high/x"] {
        shed(&gateway.get(path));
    }
    gateway.reload(&yaml(&origin, "overload: { memory: 100GiB }"));
    eventually("requests of high priority first", || (gateway.get("/high/x").status == 200).then_some(()));
    eventually("then all", || (0..20).all(|_| gateway.get("/low/x").status == 200).then_some(()));
}

/// Threads that do nothing but take processors from the gateway.
struct Starved(Arc<AtomicBool>, Vec<JoinHandle<()>>);

impl Starved {
    fn begin() -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let spin = |over: Arc<AtomicBool>| move || while !over.load(Relaxed) {};
        let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        let hogs = (0..threads).map(|_| std::thread::spawn(spin(over.clone()))).collect();
        Self(over, hogs)
    }
}

impl Drop for Starved {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
        self.1.drain(..).for_each(|hog| drop(hog.join()));
    }
}

/// What clients of one path met: how long each answer took, and how many were shed.
#[derive(Default)]
struct Met {
    carried: Vec<Duration>,
    shed: usize,
}

impl Met {
    /// Of clients that ask again as soon as they have an answer, whatever it is, until it is over.
    fn by(address: SocketAddr, path: &'static str, clients: usize, over: &Arc<AtomicBool>) -> Vec<JoinHandle<Self>> {
        let client = |over: Arc<AtomicBool>| {
            move || {
                let (mut met, mut connection) = (Self::default(), Connection::open(address));
                while !over.load(Relaxed) {
                    let asked = Instant::now();
                    match connection.ask(&format!("GET {path} HTTP/1.1\nHost: a")).status {
                        503 => met.shed += 1,
                        _ => met.carried.push(asked.elapsed()),
                    }
                }
                met
            }
        };
        (0..clients).map(|_| std::thread::spawn(client(over.clone()))).collect()
    }

    fn all(clients: Vec<JoinHandle<Self>>) -> Self {
        clients.into_iter().fold(Self::default(), |mut all, client| {
            let met = client.join().unwrap();
            all.carried.extend(met.carried);
            all.shed += met.shed;
            all
        })
    }

    fn p99(&mut self) -> Duration {
        self.carried.sort();
        self.carried[self.carried.len() * 99 / 100]
    }

    fn shed_share(&self) -> f64 {
        self.shed as f64 / (self.shed + self.carried.len()) as f64
    }
}

/// Requests that must have been shed before the load ends.
const SHED: f64 = 500.0;

/// Longest that a request of high priority may take in a hundred, in a build that is not optimised, on processors that others have.
const BOUND: Duration = Duration::from_secs(2);

#[test]
fn starved_of_processors_low_priority_is_shed_and_high_is_answered_in_time() {
    let origin = Origin::text("here");
    let gateway = Gateway::start(&yaml(&origin, "process: { threads: 1 }\noverload: { lag: 5ms }"));
    let over = Arc::new(AtomicBool::new(false));
    let starved = Starved::begin();
    let low = Met::by(gateway.web(), "/low/x", 40, &over);
    let high = Met::by(gateway.web(), "/high/x", 2, &over);
    let began = Instant::now();
    let count = || gateway.metric("banyan_overload_shed_total{priority=\"low\",reason=\"lag\"}").unwrap_or_default();
    while count() < SHED && began.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(50));
    }
    over.store(true, Relaxed);
    let (low, mut high) = (Met::all(low), Met::all(high));
    drop(starved);
    assert!(low.shed as f64 >= SHED, "{} shed", low.shed);
    assert!(high.shed_share() < low.shed_share() / 4.0, "high: {}, low: {}", high.shed_share(), low.shed_share());
    assert!(high.carried.len() >= 10, "{}", high.carried.len());
    assert!(high.p99() < BOUND, "{:?}", high.p99());
    gateway.said("overload: requests of priority `low` are shed");
    eventually("an end of it", || (gateway.metric("banyan_overload_pressure{reason=\"lag\"}") == Some(0.0)).then_some(()));
    assert_eq!(gateway.get("/low/x").status, 200);
}
