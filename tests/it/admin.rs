//! The admin listener: health, readiness, the configuration in force, and who may call it.

use crate::harness::{Connection, Gateway, gateway::Start};

const ROUTES: &str = "routes: { all: { to: { respond: { body: x } } } }";

fn with_token() -> Gateway {
    Start::on(&format!(
        "admin: {{ address: \"127.0.0.1:<admin>\", token: \"${{env:TEST_TOKEN}}\", hosts: [ops.example] }}\n{ROUTES}"
    ))
    .env("TEST_TOKEN", "s3cret-of-the-test")
    .ready()
}

#[test]
fn health_and_readiness_answer_200() {
    let gateway = Gateway::start(ROUTES);
    for path in ["/healthz", "/readyz"] {
        assert_eq!(gateway.admin(path).status, 200, "{path}");
    }
    assert_eq!(gateway.admin("/other").status, 404);
}

#[test]
fn the_configuration_in_force_is_shown() {
    let gateway = Gateway::start(ROUTES);
    let shown = gateway.admin("/config");
    assert_eq!(shown.field("content-type"), Some("application/json"));
    let shown = shown.json();
    assert_eq!(shown["generation"], 1);
    assert_eq!(shown["config"]["routes"]["all"]["to"]["respond"]["body"], "x", "{shown}");
}

#[test]
fn a_secret_shows_nowhere() {
    let mut gateway = with_token();
    let before = gateway.generation();
    let shown = gateway.admin("/config").text();
    gateway.replace(
        "banyan.yaml",
        &format!("admin: {{ token: \"${{env:TEST_TOKEN}}\", tokenn: \"${{env:TEST_TOKEN}}\" }}\n{ROUTES}"),
    );
    gateway.said("tokenn");
    for text in
        [shown, gateway.admin("/config").text(), gateway.admin("/metrics").text(), gateway.stderr.text(), gateway.stdout.text()]
    {
        assert!(!text.contains("s3cret-of-the-test"), "{text}");
    }
    assert_eq!(gateway.generation(), before);
    gateway.assert_sound();
}

#[test]
fn a_strange_host_is_refused() {
    let gateway = with_token();
    let address = gateway.address("admin");
    let ask = |host: &str| Connection::open(address).ask(&format!("GET /config HTTP/1.1\nHost: {host}")).status;
    for host in ["localhost".to_owned(), format!("localhost:{}", address.port()), address.to_string(), "ops.example".to_owned()] {
        assert_eq!(ask(&host), 200, "{host}");
    }
    for host in ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", ""] {
        assert!([400, 403, 421].contains(&ask(host)), "{host}: {}", ask(host));
    }
}

#[test]
fn changing_calls_need_the_token() {
    let gateway = with_token();
    let reload = |authorization: &str| {
        gateway.admin_ask(&format!("POST /reload HTTP/1.1\nHost: localhost\nContent-Length: 0{authorization}")).status
    };
    assert_eq!(reload(""), 401);
    assert_eq!(reload("\nAuthorization: Bearer wrong"), 401);
    assert_eq!(reload("\nAuthorization: Basic czNjcmV0LW9mLXRoZS10ZXN0"), 401);
    assert_eq!(reload("\nAuthorization: Bearer s3cret-of-the-test"), 200);
    let get = gateway.admin_ask("GET /reload HTTP/1.1\nHost: localhost\nAuthorization: Bearer s3cret-of-the-test");
    assert_eq!(get.status, 405, "what changes something is no GET");
}

#[test]
fn without_a_token_nothing_can_be_changed() {
    let gateway = Gateway::start(ROUTES);
    let reply = gateway.admin_ask("POST /reload HTTP/1.1\nHost: localhost\nContent-Length: 0\nAuthorization: Bearer ");
    assert!([401, 403].contains(&reply.status), "{}", reply.status);
}

#[test]
fn a_reload_by_hand_tells_what_came_of_it() {
    let gateway = with_token();
    let reload = || {
        gateway.admin_ask("POST /reload HTTP/1.1\nHost: localhost\nContent-Length: 0\nAuthorization: Bearer s3cret-of-the-test")
    };
    assert_eq!(reload().status, 200);
    std::fs::write(gateway.dir().join("banyan.yaml"), "routes: { all: { to: { upstream: missing } } }").unwrap();
    let refused = reload();
    assert!((400..500).contains(&refused.status), "{}", refused.status);
    assert!(refused.text().contains("missing"), "{}", refused.text());
    assert_eq!(gateway.get("/").text(), "x");
}

#[test]
fn the_admin_listener_does_not_carry_traffic_and_the_others_no_admin() {
    let gateway = Gateway::start("routes: { hello: { match: { path: /hello }, to: { respond: { body: x } } } }");
    assert_eq!(gateway.admin("/hello").status, 404);
    for path in ["/metrics", "/config", "/healthz", "/readyz"] {
        assert_eq!(gateway.get(path).status, 404, "{path}");
    }
}

#[test]
fn the_admin_listener_answers_head_and_refuses_other_methods() {
    let gateway = Gateway::start(ROUTES);
    assert_eq!(gateway.admin_ask("HEAD /healthz HTTP/1.1\nHost: localhost").status, 200);
    assert_eq!(gateway.admin_ask("DELETE /config HTTP/1.1\nHost: localhost").status, 405);
}

#[test]
fn garbage_does_the_admin_listener_no_harm() {
    let mut gateway = Gateway::start(ROUTES);
    let mut random = fastrand::Rng::with_seed(11);
    for _ in 0..50 {
        let mut connection = Connection::open(gateway.address("admin"));
        let bytes: Vec<u8> = (0..random.usize(1..500)).map(|_| random.u8(..)).collect();
        let _ = connection.0.send(bytes);
        let _ = connection.0.socket().shutdown(std::net::Shutdown::Write);
    }
    assert_eq!(gateway.admin("/healthz").status, 200);
    gateway.assert_sound();
}
