//! Limits that nodes share: real gateways with a real Redis between them, and with none.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use crate::harness::{Gateway, Origin, Response, eventually, redis::Redis};

/// How long nodes are watched that share limits.
const WATCHED: Duration = Duration::from_secs(60);

/// What a request may take beyond the store's timeout, on two busy cores.
const SLACK: Duration = Duration::from_millis(400);

/// A node with these routes, each a name and the rest of a limit whose key is a header.
fn node(redis: &Redis, store: &str, routes: &[(&str, &str)]) -> Gateway {
    Gateway::start(&config(redis, store, routes))
}

fn config(redis: &Redis, store: &str, routes: &[(&str, &str)]) -> String {
    let route = |(name, limit): &(&str, &str)| {
        format!(
            "  {name}:\n    match: {{ path: /{name} }}\n    policies: {{ rate_limit: {{ per-key: {{ key: {{ header: x-key }}, store: fleet, {limit} }} }} }}\n    \
             to: {{ respond: {{ status: 200, body: \"{name}\" }} }}\n"
        )
    };
    let routes: String = routes.iter().map(route).collect();
    let port = redis.port();
    format!("stores: {{ fleet: {{ redis: {{ url: \"redis://127.0.0.1:{port}\", {store} }} }} }}\nroutes:\n{routes}")
}

fn head(route: &str) -> String {
    format!("GET /{route} HTTP/1.1\nHost: a\nX-Key: one")
}

/// How often a route lets pass of so many requests.
fn admitted(gateway: &Gateway, route: &str, requests: usize) -> usize {
    let mut connection = gateway.connect();
    (0..requests).filter(|_| connection.ask(&head(route)).status == 200).count()
}

fn answers(gateway: &Gateway) {
    eventually("the store answers", || (gateway.metric(r#"banyan_store_open{store="fleet"}"#)? == 0.0).then_some(()));
}

fn does_not_answer(gateway: &Gateway) {
    eventually("the store is not asked", || (gateway.metric(r#"banyan_store_open{store="fleet"}"#)? > 0.0).then_some(()));
}

#[test]
fn three_nodes_admit_together_what_the_limit_says() {
    let Some(redis) = Redis::start(&[]) else { return };
    // So large a burst that a machine which stands still for some seconds loses nothing.
    let exact = "limit: 100/1s, burst: 500, on_store_failure: closed";
    let routes = [("exact", exact), ("leased", "limit: 100/1s, burst: 500, sync: leased, on_store_failure: closed")];
    let nodes: Vec<_> = (0..3).map(|_| node(&redis, "timeout: 1s", &routes)).collect();
    nodes.iter().for_each(answers);
    let counts = [const { AtomicU64::new(0) }; 2];
    let begun = Instant::now();
    thread::scope(|scope| {
        for (node, route) in nodes.iter().flat_map(|node| [0, 0, 1, 1].map(|route| (node, route))) {
            let count = &counts[route];
            scope.spawn(move || {
                let (mut connection, head) = (node.connect(), head(routes[route].0));
                while begun.elapsed() < WATCHED {
                    count.fetch_add(u64::from(connection.ask(&head).status == 200), Relaxed);
                    // A client that asks for twice as much as it may have, and more.
                    thread::sleep(Duration::from_millis(10));
                }
            });
        }
    });
    let allowed = 500.0 + 100.0 * begun.elapsed().as_secs_f64();
    let [exact, leased] = counts.map(|count| count.into_inner() as f64);
    println!("exact {exact}, leased {leased}, allowed {allowed:.0}");
    assert!((exact - allowed).abs() <= 0.01 * allowed, "exact: {exact} of {allowed}");
    // No node held anything when it began: one request each on credit.
    assert!(leased <= allowed + 3.0, "leased: {leased} of {allowed}");
    assert!(leased >= 0.97 * allowed, "leased: {leased} of {allowed}");
}

#[test]
fn two_nodes_count_as_one() {
    let Some(redis) = Redis::start(&[]) else { return };
    let routes = [
        ("bucket", "limit: 10/1d"),
        ("window", "limit: 10/365d, algorithm: fixed_window"),
        ("sliding", "limit: 10/365d, algorithm: sliding_window"),
    ];
    let nodes = [node(&redis, "timeout: 1s", &routes), node(&redis, "timeout: 1s", &routes)];
    nodes.iter().for_each(answers);
    for (route, _) in routes {
        assert_eq!([admitted(&nodes[0], route, 6), admitted(&nodes[1], route, 6)], [6, 4], "{route}");
        let refused = nodes[0].ask(&head(route));
        assert_eq!(refused.status, 429);
        assert!(refused.head.field("retry-after").unwrap().parse::<u64>().unwrap() > 3_600, "{route}");
    }
    let keys = redis.ask(&["KEYS", "*"]);
    assert!(keys.contains("{banyan:bucket/per-key:value="), "{keys}");
    assert!(!keys.contains("one"), "what clients send is not shown: {keys}");
}

#[test]
fn what_a_later_limit_refuses_is_not_counted_by_the_store() {
    let Some(redis) = Redis::start(&[]) else { return };
    let limits = "key: route, limit: 3/1d, store: fleet }, narrow: { key: route, limit: 1/1d, store: fleet";
    let gateway = Gateway::start(&format!(
        r#"
stores: {{ fleet: {{ redis: {{ url: "redis://127.0.0.1:{}", timeout: 1s }} }} }}
routes:
  both: {{ match: {{ path: /both }}, policies: {{ rate_limit: {{ wide: {{ {limits} }} }} }}, to: {{ respond: {{ status: 200 }} }} }}
  then: {{ match: {{ path: /then }}, policies: {{ rate_limit: {{ wide: {{ key: route, limit: 3/1d, store: fleet }}, tight: {{ key: route, limit: 1/1d }} }} }}, to: {{ respond: {{ status: 200 }} }} }}
"#,
        redis.port()
    ));
    answers(&gateway);
    for route in ["both", "then"] {
        let told = |_| {
            let answer = gateway.get(&format!("/{route}"));
            (answer.status, answer.head.field("ratelimit").map(str::to_owned))
        };
        let [first, second, third] = [0, 1, 2].map(told);
        assert_eq!([first.0, second.0, third.0], [200, 429, 429], "{route}");
        assert!(first.1.is_some_and(|told| told.contains("\"wide\";r=2")), "{route}");
    }
}

#[test]
fn what_the_answer_says_that_it_cost_is_charged_for_all_nodes() {
    let Some(redis) = Redis::start(&[]) else { return };
    let origin = Origin::script(|visit| {
        while visit.request()?.is_some() {
            visit.wire.send("HTTP/1.1 200 OK\r\nX-Tokens: 60\r\nContent-Length: 0\r\n\r\n")?;
        }
        Ok(())
    });
    for sync in ["exact", "leased"] {
        let node = || {
            Gateway::start(&format!(
                r#"
stores: {{ fleet: {{ redis: {{ url: "redis://127.0.0.1:{}", timeout: 1s }} }} }}
upstreams: {{ one: {{ endpoints: ["{origin}"] }} }}
routes:
  {sync}:
    policies: {{ rate_limit: {{ tokens: {{ key: client_ip, limit: 100/1d, cost: {{ response_header: x-tokens }}, store: fleet, sync: {sync} }} }} }}
    to: {{ upstream: one }}
"#,
                redis.port()
            ))
        };
        let nodes = [node(), node()];
        nodes.iter().for_each(answers);
        assert_eq!([nodes[0].get("/").status, nodes[0].get("/").status], [200, 200], "{sync}");
        eventually("the other node knows of it", || (nodes[1].get("/").status == 429).then_some(()));
    }
}

#[test]
fn without_its_store_a_limit_is_local_open_or_closed() {
    let Some(mut redis) = Redis::start(&[]) else { return };
    redis.kill();
    let routes = [
        ("local", "limit: 5/1d"),
        ("open", "limit: 5/1d, on_store_failure: open"),
        ("closed", "limit: 5/1d, on_store_failure: closed"),
        ("leased", "limit: 5/1d, sync: leased"),
    ];
    // Who is not there is known at once; a slow machine is not to be taken for a store that is away.
    let gateway = node(&redis, "timeout: 1s", &routes);
    let count = |route| admitted(&gateway, route, 8);
    assert_eq!(["local", "open", "closed", "leased"].map(count), [5, 8, 0, 5]);
    let closed = gateway.ask(&head("closed"));
    assert_eq!((closed.status, closed.head.field("retry-after")), (503, Some("1")));
    assert_eq!(closed.json()["code"], "limits_unavailable");
    redis.restart();
    answers(&gateway);
    assert_eq!(["local", "open", "closed", "leased"].map(count), [5, 5, 5, 5], "back to normal by itself");
}

/// What requests saw that did not stop for anything.
#[derive(Default)]
struct Seen {
    statuses: std::collections::BTreeMap<u16, usize>,
    longest: Duration,
}

fn ask_until(stop: &AtomicBool, gateway: &Gateway, route: &str) -> Seen {
    let (mut seen, mut connection) = (Seen::default(), gateway.connect());
    while !stop.load(Relaxed) {
        let begun = Instant::now();
        let Response { status, .. } = connection.ask(&head(route));
        seen.longest = seen.longest.max(begun.elapsed());
        *seen.statuses.entry(status).or_default() += 1;
        thread::sleep(Duration::from_millis(2));
    }
    seen
}

#[test]
fn no_request_waits_or_is_lost_while_the_store_is_killed_paused_and_started_again() {
    let Some(mut redis) = Redis::start(&[]) else { return };
    let routes = [
        ("local", "limit: 100000/1s"),
        ("open", "limit: 100000/1s, on_store_failure: open"),
        ("closed", "limit: 100000/1s, on_store_failure: closed"),
        ("leased", "limit: 100000/1s, sync: leased"),
        ("tight", "limit: 1/1d, sync: leased"),
    ];
    let gateway = node(&redis, "timeout: 50ms", &routes);
    answers(&gateway);
    let stop = AtomicBool::new(false);
    let seen = thread::scope(|scope| {
        let clients = routes.map(|(route, _)| {
            let (stop, gateway) = (&stop, &gateway);
            scope.spawn(move || ask_until(stop, gateway, route))
        });
        for _ in 0..2 {
            redis.kill();
            does_not_answer(&gateway);
            redis.restart();
            answers(&gateway);
            redis.pause();
            does_not_answer(&gateway);
            redis.resume();
            answers(&gateway);
        }
        stop.store(true, Relaxed);
        clients.map(|client| client.join().expect("every request has its answer"))
    });
    for ((route, _), Seen { statuses, longest }) in routes.iter().zip(&seen) {
        assert!(*longest <= Duration::from_millis(50) + SLACK, "{route}: {longest:?}");
        let allowed: &[u16] = match *route {
            "closed" => &[200, 503],
            "tight" => &[200, 429],
            _ => &[200],
        };
        assert!(statuses.keys().all(|status| allowed.contains(status)), "{route}: {statuses:?}");
    }
    let passed = seen[4].statuses.get(&200).copied().unwrap_or(0);
    // One before, one for each of the two restarts that forgot it, one that the node counted alone; each with one on credit.
    assert!(passed <= 8, "limits hold all the time: {passed}");
    let slow = gateway.metric(r#"banyan_store_unanswered_total{reason="timeout",store="fleet"}"#).unwrap_or(0.0);
    let not_asked = gateway.metric(r#"banyan_store_unanswered_total{reason="not_asked",store="fleet"}"#).unwrap();
    assert!(not_asked > slow, "most did not wait: {slow} did, {not_asked} did not");
}

#[test]
fn a_reload_keeps_what_is_held_and_a_new_store_is_asked() {
    let (Some(redis), Some(other)) = (Redis::start(&[]), Redis::start(&[])) else { return };
    let text = config(&redis, "timeout: 1s", &[("all", "limit: 3/1d")]);
    let mut gateway = Gateway::start(&text);
    answers(&gateway);
    assert_eq!(admitted(&gateway, "all", 5), 3);
    gateway.reload(&text.replace("body", "headers: { x-new: a }, body"));
    assert_eq!(admitted(&gateway, "all", 5), 0);
    gateway.reload(&config(&other, "timeout: 1s", &[("all", "limit: 3/1d")]));
    answers(&gateway);
    eventually("it counts", || (admitted(&gateway, "all", 1) == 0).then_some(()));
    assert!(other.ask(&["KEYS", "*"]).contains("{banyan:all/per-key:"));
}
