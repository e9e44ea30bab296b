//! Reload under load: no request fails while routes, upstreams and headers change.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use crate::harness::{Connection, Gateway, Origin, origin::ok};

const REQUESTS: usize = 10_000;
const RELOADS: usize = 20;
const CLIENTS: usize = 8;

/// The `n`th configuration: a route of its own, the other upstream, another header.
fn configuration(n: usize, origins: &[Origin; 2]) -> String {
    let origin = &origins[n % 2];
    format!(
        "upstreams: {{ service: {{ endpoints: [\"{origin}\"] }} }}
routes:
  service: {{ match: {{ path: \"/service/**\" }}, policies: {{ cors: {{ origins: [\"*\"], expose: [x-generation-{n}] }} }}, to: {{ upstream: service }} }}
  only-{n}: {{ match: {{ path: /only/{n} }}, to: {{ respond: {{ body: only {n} }} }} }}
"
    )
}

fn ask(connection: &mut Connection, path: &str) -> (u16, String, Option<String>) {
    let reply = connection.ask(&format!("GET {path} HTTP/1.1\nHost: a\nOrigin: https://page.example"));
    (reply.status, reply.text(), reply.field("access-control-expose-headers").map(str::to_owned))
}

/// Whether the change of the `n`th configuration shows in all three.
fn shows(gateway: &Gateway, n: usize) {
    let mut connection = gateway.connect();
    assert_eq!(ask(&mut connection, &format!("/only/{n}")).1, format!("only {n}"), "route {n}");
    assert_eq!(ask(&mut connection, &format!("/only/{}", n.wrapping_sub(1))).0, 404, "the route before {n}");
    let (status, text, header) = ask(&mut connection, "/service/check");
    assert_eq!((status, text), (200, format!("origin {}", n % 2)), "upstream {n}");
    assert_eq!(header, Some(format!("x-generation-{n}")), "header {n}");
}

#[test]
fn no_request_fails_in_ten_thousand_over_twenty_reloads() {
    let origins = [Origin::answer(|_| ok("origin 0")), Origin::answer(|_| ok("origin 1"))];
    let mut gateway = Gateway::start(&configuration(0, &origins));
    let (done, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|n| {
            let (address, done, stop) = (gateway.web(), done.clone(), stop.clone());
            thread::spawn(move || client(n, address, &done, &stop))
        })
        .collect();
    for n in 1..=RELOADS {
        let due = REQUESTS / RELOADS * n;
        gateway.reload(&configuration(n, &origins));
        shows(&gateway, n);
        crate::harness::eventually("the load goes on", || {
            (done.load(Ordering::SeqCst) >= due || clients.iter().any(|c| c.is_finished())).then_some(())
        });
    }
    stop.store(true, Ordering::SeqCst);
    let failed: Vec<String> = clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
    assert!(failed.is_empty(), "{} failed: {:#?}", failed.len(), &failed[..failed.len().min(10)]);
    let served = done.load(Ordering::SeqCst);
    assert!(served >= REQUESTS, "only {served} requests");
    assert!(origins.iter().all(|origin| origin.count() > REQUESTS / 10), "both upstreams were used");
    assert_eq!(gateway.generation(), RELOADS as u64 + 1);
    gateway.assert_sound();
}

/// Asks until it is told to stop; half of the clients with a new connection for every request. Gives what failed.
fn client(n: usize, address: std::net::SocketAddr, done: &AtomicUsize, stop: &AtomicBool) -> Vec<String> {
    let mut failed = Vec::new();
    let mut connection = Connection::open(address);
    while !stop.load(Ordering::SeqCst) {
        if n.is_multiple_of(2) {
            connection = Connection::open(address);
        }
        connection.0.send("GET /service/x HTTP/1.1\r\nHost: a\r\nOrigin: https://page.example\r\n\r\n").ok();
        match connection.try_response("GET") {
            Ok(reply) if reply.status == 200 && reply.text().starts_with("origin ") => {}
            Ok(reply) => failed.push(format!("{} {}", reply.status, reply.text())),
            Err(e) => {
                failed.push(e.to_string());
                connection = Connection::open(address);
            }
        }
        done.fetch_add(1, Ordering::SeqCst);
    }
    failed
}
