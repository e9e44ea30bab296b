//! Requests that are tried again, with services that really fail.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use crate::harness::{
    Connection, Gateway, Origin,
    origin::{Visit, ok},
};

const UNAVAILABLE: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy";

/// Every request may be tried again.
const GENEROUS: &str = ", retries: { budget: { share: 100%, floor: 100 } }";

fn before(endpoints: &[&dyn std::fmt::Display], more: &str) -> Gateway {
    let endpoints: Vec<_> = endpoints.iter().map(|endpoint| format!("\"{endpoint}\"")).collect();
    Gateway::start(&format!(
        "upstreams: {{ one: {{ endpoints: [{}]{more} }} }}\nroutes: {{ all: {{ to: {{ upstream: one }} }} }}",
        endpoints.join(", ")
    ))
}

/// Takes a request, then resets its connection.
fn resetting() -> Origin {
    Origin::script(|visit: &mut Visit| {
        visit.request()?;
        visit.reset();
        Ok(())
    })
}

/// Says nothing for longer than anybody waits.
fn silent() -> Origin {
    Origin::script(|visit: &mut Visit| {
        visit.request()?;
        visit.request().map(drop)
    })
}

#[test]
fn a_fresh_connection_that_is_reset_is_left_for_another_endpoint() {
    let (bad, good) = (resetting(), Origin::text("good"));
    let gateway = before(&[&bad, &good], GENEROUS);
    (0..10).for_each(|_| assert_eq!(gateway.get("/").text(), "good"));
    assert_eq!((bad.count(), good.count()), (5, 10), "tries after the first take nobody's turn");
    assert_eq!(gateway.logged(|entry| entry["tries"] == 2)["status"], 200);
    assert!(gateway.metric(r#"banyan_upstream_retries_total{upstream="one"}"#).is_some_and(|tries| tries >= 5.0));
}

#[test]
fn what_may_have_been_acted_upon_is_not_sent_twice() {
    let (bad, good) = (resetting(), Origin::text("good"));
    let gateway = before(&[&bad, &good], "");
    let post = || gateway.ask("POST / HTTP/1.1\nHost: a\nContent-Length: 4\n\nbody").status;
    let statuses: Vec<_> = (0..4).map(|_| post()).collect();
    assert_eq!(statuses, [502, 200, 502, 200]);
    let told = before(&[&bad, &good], ", retries: { non_idempotent: true }");
    assert_eq!(told.ask("POST / HTTP/1.1\nHost: a\nContent-Length: 4\n\nbody").status, 200);
}

#[test]
fn a_body_is_sent_again_whole_up_to_64_kib() {
    let body = "b".repeat(40_000);
    let (bad, good) = (resetting(), Origin::text("good"));
    let gateway = before(&[&bad, &good], "");
    let put = |body: &str| {
        let mut connection = gateway.connect();
        connection.send(format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
        connection.response("PUT").status
    };
    assert_eq!(put(&body), 200);
    assert!(good.last().body == body.as_bytes());
    assert_eq!((put(&body), put(&"c".repeat(200_000))), (200, 502), "what is longer is not held");
}

#[test]
fn a_listed_status_is_asked_for_elsewhere_and_the_last_one_is_told() {
    let (busy, good) = (Origin::answer(|_| UNAVAILABLE), Origin::text("good"));
    let gateway = before(&[&busy, &good], ", retries: { retry_on: [503], budget: { share: 100%, floor: 100 } }");
    (0..6).for_each(|_| assert_eq!(gateway.get("/").text(), "good"));
    let alone = before(&[&busy], ", retries: { retry_on: [503], attempts: 2, budget: { share: 100%, floor: 100 } }");
    let asked = busy.count();
    let reply = alone.get("/");
    assert_eq!((reply.status, reply.text().as_str()), (503, "busy"), "the service's own answer");
    assert_eq!(busy.count() - asked, 3);
}

#[test]
fn a_try_that_takes_too_long_is_left_for_another_and_the_next_one_has_its_own_time() {
    let (slow, good) = (silent(), Origin::text("good"));
    let retries = ", retries: { retry_on: [timeout], per_try: 200ms, budget: { share: 100%, floor: 100 } }";
    let gateway = before(&[&slow, &good], retries);
    (0..4).for_each(|_| assert_eq!(gateway.get("/").text(), "good"));
    let other = silent();
    let none = before(&[&slow, &other], retries);
    let begun = Instant::now();
    let reply = none.get("/");
    assert_eq!(reply.status, 504);
    assert!(begun.elapsed() >= Duration::from_millis(600), "three tries of 200 ms each");
}

#[test]
fn nothing_is_tried_again_once_an_answer_has_begun() {
    let cut = Origin::script(|visit: &mut Visit| {
        visit.head()?;
        visit.wire.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this")
    });
    let gateway = before(&[&cut], "");
    assert!(gateway.connect().send_head("GET / HTTP/1.1\nHost: a").try_response("GET").is_err());
    assert_eq!(cut.count(), 1);
}

#[test]
fn the_budget_holds_while_a_service_fails_altogether() {
    let busy = Origin::answer(|_| UNAVAILABLE);
    let gateway = before(
        &[&busy],
        ", retries: { retry_on: [503], attempts: 3, backoff: { base: 1ms, max: 1ms }, budget: { share: 20%, floor: 0 } }",
    );
    let mut connection = gateway.connect();
    let offered = 500;
    for _ in 0..offered {
        if connection.ask("GET / HTTP/1.1\nHost: a").field("connection").is_some_and(|said| said.eq_ignore_ascii_case("close")) {
            connection = gateway.connect();
        }
    }
    let seen = busy.count();
    assert!(seen > offered, "some are tried again");
    assert!(seen * 10 <= offered * 12, "{seen} tries of {offered} requests");
}

/// A service in a process of its own, at a port that it keeps.
fn service(name: &str) -> Gateway {
    Gateway::start(&format!("routes: {{ all: {{ to: {{ respond: {{ body: {name} }} }} }} }}"))
}

#[test]
fn no_request_fails_while_one_of_three_services_is_killed() {
    let mut services = [service("a"), service("b"), service("c")];
    let [a, b, c] = [0, 1, 2].map(|at: usize| services[at].web());
    let gateway = before(&[&a, &b, &c], "");
    let (stop, done, failed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (stop, done, failed, web) = (stop.clone(), done.clone(), failed.clone(), gateway.web());
            thread::spawn(move || {
                let mut connection = Connection::open(web);
                while !stop.load(Relaxed) {
                    let whole = connection.send_head("GET / HTTP/1.1\nHost: a").try_response("GET");
                    let fine = whole.as_ref().is_ok_and(|reply| reply.status == 200);
                    done.fetch_add(1, Relaxed);
                    failed.fetch_add(usize::from(!fine), Relaxed);
                    if !whole.is_ok_and(|reply| reply.field("connection").is_none()) {
                        connection = Connection::open(web);
                    }
                }
            })
        })
        .collect();
    let more = |count: usize| {
        let from = done.load(Relaxed);
        crate::harness::eventually("requests go on", || (done.load(Relaxed) >= from + count).then_some(()));
    };
    more(200);
    for dies in &mut services[..2] {
        dies.signal("KILL");
        dies.exit();
        more(500);
    }
    stop.store(true, Relaxed);
    clients.into_iter().for_each(|client| client.join().unwrap());
    assert_eq!(failed.load(Relaxed), 0, "of {}", done.load(Relaxed));
}

#[test]
fn to_go_past_a_dead_endpoint_needs_no_budget() {
    let good = Origin::answer(|_| ok("good"));
    let dead = crate::harness::origin::nobody();
    let gateway = before(&[&dead, &good], ", retries: { budget: { share: 0%, floor: 0 } }");
    (0..20).for_each(|_| assert_eq!(gateway.get("/").text(), "good"));
}
