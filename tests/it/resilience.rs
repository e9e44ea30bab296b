//! Services that fail, and what is spared them: ejection, the breaker, limits; how endpoints are chosen.

use std::{
    collections::BTreeMap,
    fmt::Display,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use crate::harness::{
    Gateway, Origin, eventually,
    gateway::Start,
    origin::{Visit, nobody, ok},
};

const UNAVAILABLE: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy";

fn before(endpoints: &[&dyn Display], more: &str) -> Gateway {
    let endpoints: Vec<_> = endpoints.iter().map(|endpoint| format!("\"{endpoint}\"")).collect();
    upstream(&format!("endpoints: [{}]{more}", endpoints.join(", ")))
}

fn upstream(body: &str) -> Gateway {
    Gateway::start(&format!("upstreams: {{ one: {{ {body} }} }}\nroutes: {{ all: {{ to: {{ upstream: one }} }} }}"))
}

/// A service that fails while the switch is on.
fn switched(name: &'static str) -> (Arc<AtomicBool>, Origin) {
    let fails = Arc::new(AtomicBool::new(true));
    let switch = fails.clone();
    let origin = Origin::answer(move |_| if switch.load(SeqCst) { UNAVAILABLE.to_owned() } else { ok(name) });
    (fails, origin)
}

/// How often each of the services answered so many requests.
fn drawn(gateway: &Gateway, requests: usize, head: &str) -> BTreeMap<String, usize> {
    let mut drawn = BTreeMap::new();
    (0..requests).for_each(|_| *drawn.entry(gateway.ask(head).text()).or_default() += 1);
    drawn
}

const GET: &str = "GET / HTTP/1.1\nHost: a";

#[test]
fn an_endpoint_that_fails_is_ejected_and_comes_back() {
    let (fails, bad) = switched("back");
    let good = Origin::text("good");
    let gateway = before(&[&bad, &good], ", outlier: { consecutive_failures: 3, eject_for: 400ms }");
    eventually("it is ejected", || {
        gateway.get("/");
        gateway.stderr.text().contains("endpoint is ejected").then_some(())
    });
    let asked = bad.count();
    assert_eq!(drawn(&gateway, 6, GET), BTreeMap::from([("good".to_owned(), 6)]));
    assert_eq!(bad.count(), asked, "it is left alone");
    fails.store(false, SeqCst);
    eventually("it is back", || (gateway.get("/").text() == "back").then_some(()));
    gateway.said("endpoint is no longer ejected");
}

#[test]
fn when_all_are_ejected_all_are_asked_and_it_is_said() {
    let (fails, one) = switched("one");
    let other = Origin::answer(|_| UNAVAILABLE);
    let gateway = before(&[&one, &other], ", outlier: { consecutive_failures: 1, eject_for: 1h, max_ejected: 100% }");
    eventually("it panics", || {
        gateway.get("/");
        gateway.stderr.text().contains("too few endpoints are left").then_some(())
    });
    fails.store(false, SeqCst);
    eventually("all are asked", || (gateway.get("/").text() == "one").then_some(()));
}

#[test]
fn a_breaker_leaves_a_failing_service_alone_and_finds_out_that_it_is_well() {
    let (fails, service) = switched("well");
    let gateway = before(&[&service], ", breaker: { min_requests: 5, open_for: 300ms, probes: 1 }");
    let refused = eventually("the breaker opens", || Some(gateway.get("/")).filter(|reply| reply.text() != "busy"));
    assert_eq!(refused.status, 503);
    assert_eq!(refused.field("retry-after"), Some("1"));
    assert!(refused.text().contains("circuit_open"), "{}", refused.text());
    assert_eq!(gateway.logged(|entry| entry["flag"] == "UO")["tries"], 0);
    let asked = service.count();
    gateway.get("/");
    assert!(service.count() <= asked + 1, "at most a probe");
    fails.store(false, SeqCst);
    eventually("it closes", || (gateway.get("/").text() == "well").then_some(()));
    gateway.said("breaker closes");
}

#[test]
fn no_more_than_its_limit_is_asked_of_a_service_and_the_rest_waits_in_line() {
    let slow = Origin::answer(|_| {
        thread::sleep(Duration::from_millis(150));
        ok("done")
    });
    let gateway = before(&[&slow], ", limits: { connections: 1, pending: 2 }");
    let statuses: Vec<_> = thread::scope(|scope| {
        let asked: Vec<_> = (0..6).map(|_| scope.spawn(|| gateway.get("/").status)).collect();
        asked.into_iter().map(|asked| asked.join().unwrap()).collect()
    });
    let fine = statuses.iter().filter(|status| **status == 200).count();
    assert!(fine >= 3 && statuses.contains(&503), "{statuses:?}");
    assert_eq!(slow.connections(), 1, "one at a time, on one connection");
    assert_eq!(gateway.logged(|entry| entry["status"] == 503)["flag"], "UO");
}

#[test]
fn who_waits_in_line_has_only_the_time_of_its_request() {
    let silent = Origin::script(|visit: &mut Visit| {
        visit.request()?;
        visit.request().map(drop)
    });
    let gateway = Gateway::start(&format!(
        "upstreams: {{ one: {{ endpoints: [\"{silent}\"], limits: {{ connections: 1 }} }} }}\n\
         routes: {{ all: {{ timeouts: {{ request: 600ms }}, to: {{ upstream: one }} }} }}"
    ));
    let mut first = gateway.connect();
    first.send_head(GET);
    silent.wait_for(1);
    let reply = gateway.get("/late");
    assert_eq!(reply.status, 504);
    assert_eq!(gateway.logged_path("/late")["flag"], "DT");
}

#[test]
fn the_same_key_goes_to_the_same_endpoint() {
    let services = ["a", "b", "c"].map(Origin::text);
    let [a, b, c] = &services;
    let gateway = before(&[a, b, c], ", balance: { hash: { key: { header: X-User } } }");
    let mut used = std::collections::BTreeSet::new();
    for user in 0..20 {
        let of = drawn(&gateway, 3, &format!("GET / HTTP/1.1\nHost: a\nX-User: {user}"));
        assert_eq!(of.len(), 1, "{user}: {of:?}");
        used.extend(of.into_keys());
    }
    assert_eq!(used.len(), 3, "and the keys are spread");
    let by_path = before(&[a, b, c], ", balance: { hash: { key: path, bound: 2.0 } }");
    assert_eq!(drawn(&by_path, 5, "GET /one HTTP/1.1\nHost: a").len(), 1);
}

#[test]
fn a_session_stays_with_its_endpoint_until_that_is_gone() {
    let service = |name: &str| Gateway::start(&format!("routes: {{ all: {{ to: {{ respond: {{ body: {name} }} }} }} }}"));
    let (a, b) = (service("a"), service("b"));
    let gateway = before(&[&a.web(), &b.web()], ", sticky: { cookie: lane }, outlier: { consecutive_failures: 1 }");
    let first = gateway.get("/");
    let cookie = first.field("set-cookie").unwrap().to_owned();
    assert!(cookie.starts_with("lane=") && cookie.contains("HttpOnly") && !cookie.contains("127.0.0.1"), "{cookie}");
    let pair = cookie.split(';').next().unwrap();
    let again = || gateway.ask(&format!("GET / HTTP/1.1\nHost: a\nCookie: x=1; {pair}"));
    for _ in 0..6 {
        let reply = again();
        assert_eq!((reply.text(), reply.field("set-cookie")), (first.text(), None));
    }
    drop(if first.text() == "a" { a } else { b });
    let elsewhere = again();
    assert_eq!(elsewhere.status, 200);
    assert!(elsewhere.text() != first.text() && elsewhere.field("set-cookie").is_some(), "it is dealt anew");
}

#[test]
fn the_second_tier_is_asked_when_the_first_is_out() {
    let reserve = Origin::text("reserve");
    let (fails, first) = switched("first");
    fails.store(false, SeqCst);
    let gateway = upstream(&format!(
        "endpoints: [\"{first}\", {{ address: \"{reserve}\", priority: 1 }}], outlier: {{ consecutive_failures: 2, eject_for: 300ms }}"
    ));
    assert_eq!(drawn(&gateway, 6, GET), BTreeMap::from([("first".to_owned(), 6)]));
    fails.store(true, SeqCst);
    eventually("the reserve takes over", || (gateway.get("/").text() == "reserve").then_some(()));
    fails.store(false, SeqCst);
    eventually("the first is back", || (gateway.get("/").text() == "first").then_some(()));
}

#[test]
fn every_way_of_balancing_reaches_the_living() {
    let (a, b) = (Origin::text("a"), Origin::text("b"));
    for balance in ["least_requests", "peak_ewma", "random", "{ hash: { key: client_ip } }"] {
        let gateway = before(&[&a, &nobody(), &b], &format!(", balance: {balance}, outlier: {{ consecutive_failures: 2 }}"));
        let drawn = drawn(&gateway, 30, GET);
        assert_eq!(drawn.values().sum::<usize>(), 30);
        assert!(drawn.keys().all(|by| by == "a" || by == "b"), "{balance}: {drawn:?}");
    }
}

#[test]
fn the_slower_of_two_gets_the_lesser_part_by_peak_ewma() {
    let slow = Origin::answer(|_| {
        thread::sleep(Duration::from_millis(60));
        ok("slow")
    });
    let fast = Origin::text("fast");
    let gateway = before(&[&slow, &fast], ", balance: peak_ewma");
    let drawn = drawn(&gateway, 60, GET);
    assert!(drawn.get("slow").copied().unwrap_or(0) < 20, "{drawn:?}");
}

#[test]
fn an_endpoint_is_drained_and_shown_by_the_admin_listener() {
    let (a, b) = (Origin::text("a"), Origin::text("b"));
    let gateway = Start::on(&format!(
        "admin: {{ address: \"127.0.0.1:<admin>\", token: \"${{env:TEST_TOKEN}}\" }}\n\
         upstreams: {{ one: {{ endpoints: [\"{a}\", \"{b}\"] }} }}\nroutes: {{ all: {{ to: {{ upstream: one }} }} }}"
    ))
    .env("TEST_TOKEN", "of-the-test")
    .ready();
    let call = |deed: &str, token: &str| {
        gateway.admin_ask(&format!("POST /upstreams/one/{a}/{deed} HTTP/1.1\nHost: localhost\nAuthorization: Bearer {token}"))
    };
    assert_eq!(call("drain", "wrong").status, 401);
    assert_eq!(drawn(&gateway, 4, GET).len(), 2);
    let shown = call("drain", "of-the-test").json();
    assert_eq!(shown["one"]["endpoints"][0]["state"], "out", "{shown}");
    assert_eq!(shown["one"]["endpoints"][0]["why"][0], "draining");
    assert!(shown["one"]["endpoints"][1]["latency_ms"].as_f64().is_some(), "{shown}");
    assert_eq!(drawn(&gateway, 4, GET), BTreeMap::from([("b".to_owned(), 4)]));
    assert_eq!(call("resume", "of-the-test").status, 200);
    assert_eq!(drawn(&gateway, 4, GET).len(), 2);
    assert_eq!(gateway.admin("/upstreams").json()["one"]["endpoints"][0]["state"], "in");
}

#[test]
fn failures_on_purpose_befall_those_that_ask_for_them() {
    let origin = Origin::text("well");
    let gateway = Gateway::start(&format!(
        "upstreams: {{ one: {{ endpoints: [\"{origin}\"] }} }}\n\
         routes: {{ all: {{ faults: {{ delay: {{ fixed: 150ms }}, abort: {{ status: 503 }}, only_with: {{ header: X-Game-Day }} }}, \
         to: {{ upstream: one }} }} }}"
    ));
    assert_eq!(gateway.get("/").text(), "well");
    let begun = std::time::Instant::now();
    let reply = gateway.ask("GET /day HTTP/1.1\nHost: a\nX-Game-Day: 1");
    assert_eq!(reply.status, 503);
    assert!(begun.elapsed() >= Duration::from_millis(150));
    assert_eq!(gateway.logged_path("/day")["flag"], "FI");
    assert_eq!(origin.count(), 1, "the service was not asked");
}

#[test]
fn a_health_check_takes_the_statuses_that_it_is_told() {
    let origin = Origin::answer(|request| match request.target() {
        "/healthz" => "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
        _ => ok("well"),
    });
    let health = |statuses: &str| {
        format!(", health: {{ http: {{ path: /healthz, interval: 50ms, unhealthy_after: 1, statuses: {statuses} }} }}")
    };
    let strict = before(&[&origin], &health("[200]"));
    eventually("it is out", || (strict.get("/").status == 503).then_some(()));
    let told = before(&[&origin], &health("[200, 204]"));
    (0..10).for_each(|_| assert_eq!(told.get("/").text(), "well"));
}
