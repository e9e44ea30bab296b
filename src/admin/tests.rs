use std::{
    sync::Mutex,
    time::{Duration, UNIX_EPOCH},
};

use pingora_core::apps::HttpServerApp;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

const TOKEN: &str = "correct horse";

fn config(token: Option<&str>) -> config::Admin {
    let hosts = ["admin.internal", "Gate.Example."];
    serde_json::from_value(json!({ "address": "127.0.0.1:9901", "token": token, "hosts": hosts })).unwrap()
}

/// A gateway that is ready and whose reloads give what the test says, in turn.
fn app(token: Option<&str>, reloads: Vec<Result<u64, String>>) -> App {
    let reloads = Mutex::new(reloads.into_iter());
    let gateway = Gateway {
        not_ready: Box::new(Vec::new),
        upstreams: Box::new(|| json!({ "shop": {} })),
        tend: Box::new(|tend| tend.upstream == "shop" && tend.drains),
        active: Box::new(|| Active {
            generation: 4,
            hash: "abc".to_owned(),
            config: json!({ "admin": { "token": "[redacted]" } }),
            loaded_at: UNIX_EPOCH + Duration::from_secs(1),
            error: Some("routes.x: no".to_owned()),
            waits_for_restart: vec!["listeners.web.address".to_owned()],
        }),
        metrics: Box::new(|| "banyan_x 1\n".to_owned()),
        limits: Box::new(|consumer| (consumer == "acme").then(|| json!({ "consumer": consumer, "used": 7 }))),
        reset_limits: Box::new(|consumer| (consumer == "acme").then(|| json!({ "consumer": consumer, "used": 0 }))),
        reload: Box::new(move || reloads.lock().unwrap().next().expect("a reload that the test did not expect")),
    };
    App::new(&config(token), gateway)
}

fn ask(method: Method, path: &str, fields: &[(&'static str, &str)]) -> Asked {
    let mut head = RequestHeader::build(method, path.as_bytes(), None).unwrap();
    for (name, value) in fields {
        head.append_header(*name, *value).unwrap();
    }
    Asked::of(&head)
}

fn get(app: &App, path: &str) -> Answer {
    app.desk.answer(&ask(Method::GET, path, &[("host", "127.0.0.1:9901")]))
}

fn post(app: &App, fields: &[(&'static str, &str)]) -> Answer {
    let host = [("host", "127.0.0.1:9901")];
    app.desk.answer(&ask(Method::POST, "/reload", &[&host, fields].concat()))
}

fn body(answer: &Answer) -> serde_json::Value {
    serde_json::from_slice(&answer.body).unwrap()
}

fn is_problem(answer: &Answer, status: u16, code: &str) {
    assert_eq!((answer.status.as_u16(), answer.media_type), (status, "application/problem+json"));
    let body = body(answer);
    assert_eq!((&body["status"], &body["code"]), (&json!(status), &json!(code)));
    for key in ["type", "title", "detail"] {
        assert!(body[key].as_str().is_some_and(|text| !text.is_empty()), "{key} of {body}");
    }
}

#[test]
fn pages_are_served() {
    let app = app(None, vec![]);
    for (path, starts) in [("/", "Banyan"), ("/healthz", "ok\n"), ("/metrics", "banyan_x 1\n"), ("/healthz?verbose", "ok\n")] {
        let answer = get(&app, path);
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.body.starts_with(starts.as_bytes()), "{path}");
    }
    assert_eq!(get(&app, "/metrics").media_type, "text/plain; version=0.0.4; charset=utf-8");
}

#[test]
fn the_index_lists_every_page() {
    let listed: Vec<_> = INDEX.lines().filter_map(|line| line.split_ascii_whitespace().nth(1)).filter_map(Page::of).collect();
    assert_eq!(
        listed,
        [
            Page::Health,
            Page::Ready,
            Page::Metrics,
            Page::Config,
            Page::Upstreams,
            Page::Tend,
            Page::Tend,
            Page::Reload,
            Page::Limits("CONSUMER"),
            Page::Reset("CONSUMER"),
        ]
    );
}

#[test]
fn config_shows_where_it_came_from() {
    let expected = json!({
        "generation": 4,
        "hash": "abc",
        "last_reload": { "at": "1970-01-01T00:00:01.000Z", "success": false, "error": "routes.x: no" },
        "waits_for_restart": ["listeners.web.address"],
        "config": { "admin": { "token": "[redacted]" } },
    });
    assert_eq!(body(&get(&app(None, vec![]), "/config")), expected);
}

#[test]
fn readiness_gives_its_reasons() {
    let mut app = app(None, vec![]);
    let answer = get(&app, "/readyz");
    assert_eq!((answer.status, body(&answer)), (StatusCode::OK, json!({ "ready": true, "reasons": [] })));
    Arc::get_mut(&mut app.desk).unwrap().gateway.not_ready = Box::new(|| vec!["draining".to_owned()]);
    let answer = get(&app, "/readyz");
    assert_eq!((answer.status.as_u16(), body(&answer)), (503, json!({ "ready": false, "reasons": ["draining"] })));
    assert_eq!(get(&app, "/healthz").status, 200);
}

#[test]
fn hosts_that_rebinding_could_forge_are_refused() {
    let app = app(None, vec![]);
    let check = |hosts: &[&str], status: u16| {
        let fields: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
        assert_eq!(app.desk.answer(&ask(Method::GET, "/config", &fields)).status, status, "{hosts:?}");
    };
    for host in
        ["127.0.0.1:9901", "10.1.2.3", "[::1]:9901", "[fe80::1]", "localhost", "LOCALHOST:1", "localhost.", "admin.internal:9901"]
    {
        check(&[host], 200);
    }
    check(&["gate.example"], 200);
    check(&["gate.example.:80"], 200);
    check(&[], 200);
    for host in
        ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "1.2.3", "0x7f.1", "admin.internal.evil", "[::1"]
    {
        let fields = [("host", host)];
        let answer = app.desk.answer(&ask(Method::GET, "/config", &fields));
        assert!(answer.status == 421 || answer.status == 400, "{host}: {}", answer.status);
    }
    check(&["evil.example"], 421);
    check(&["localhost@evil.example"], 400);
    check(&["evil@localhost"], 400);
    check(&["localhost", "evil.example"], 400);
    check(&["localhost", "localhost"], 200);
    check(&[""], 400);
}

#[test]
fn the_target_of_a_request_is_a_host_too() {
    let app = app(None, vec![]);
    let check = |target: &str, status: u16| {
        let mut head = RequestHeader::build("GET", b"/", None).unwrap();
        head.insert_header("host", "localhost").unwrap();
        head.set_uri(target.parse().unwrap());
        assert_eq!(app.desk.answer(&Asked::of(&head)).status, status, "{target}");
    };
    check("http://localhost/healthz", 200);
    check("http://evil.example/healthz", 400);
}

#[test]
fn unknown_pages_are_problems() {
    let app = app(None, vec![]);
    for path in ["/nope", "/healthz/", "/Config", "//config", "/reload/x"] {
        is_problem(&get(&app, path), 404, "no_such_page");
    }
}

#[test]
fn other_methods_are_refused_and_the_right_ones_named() {
    let app = app(Some(TOKEN), vec![]);
    let check = |method: &Method, path: &str, allow: &str| {
        let answer = app.desk.answer(&ask(method.clone(), path, &[("host", "localhost")]));
        is_problem(&answer, 405, "method_not_allowed");
        assert_eq!(answer.extra.as_ref().unwrap(), &(header::ALLOW, allow.parse().unwrap()), "{method} {path}");
    };
    for path in ["/", "/healthz", "/readyz", "/metrics", "/config"] {
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS, Method::TRACE] {
            check(&method, path, "GET, HEAD");
        }
    }
    for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
        check(&method, "/reload", "POST");
    }
}

#[test]
fn a_reload_needs_the_token() {
    let app = app(Some(TOKEN), vec![Ok(5), Ok(6)]);
    for wrong in ["Bearer wrong", "Bearer", "Bearer ", "correct horse", "Basic correct horse", "Bearer correct horse battery", ""]
    {
        let answer = post(&app, &[("authorization", wrong)]);
        is_problem(&answer, 401, "token_needed");
        assert_eq!(answer.extra.unwrap().0, header::WWW_AUTHENTICATE);
    }
    is_problem(&post(&app, &[]), 401, "token_needed");
    for (scheme, generation) in [("Bearer", 5), ("bearer", 6)] {
        let answer = post(&app, &[("authorization", &format!("{scheme} {TOKEN}"))]);
        assert_eq!(answer.status, 200);
        assert_eq!(body(&answer), json!({ "generation": generation, "waits_for_restart": ["listeners.web.address"] }));
    }
}

#[test]
fn without_a_configured_token_nothing_changes() {
    let app = app(None, vec![]);
    for fields in [vec![], vec![("authorization", "Bearer ")], vec![("authorization", "Bearer x")]] {
        is_problem(&post(&app, &fields), 403, "no_token_configured");
    }
}

#[test]
fn a_refused_configuration_is_a_problem_with_the_mistakes() {
    let app = app(Some(TOKEN), vec![Err("routes.x: unknown upstream `y`".to_owned())]);
    let answer = post(&app, &[("authorization", &format!("Bearer {TOKEN}"))]);
    is_problem(&answer, 409, "configuration_refused");
    assert_eq!(body(&answer)["detail"], "routes.x: unknown upstream `y`");
}

#[test]
fn pages_of_other_origins_change_nothing() {
    let app = app(Some(TOKEN), vec![Ok(1), Ok(2)]);
    let authorization = format!("Bearer {TOKEN}");
    for origin in
        ["http://evil.example", "null", "", "127.0.0.1:9901", "http://127.0.0.1", "http://127.0.0.1:9901.evil", "file://"]
    {
        is_problem(&post(&app, &[("origin", origin), ("authorization", &authorization)]), 403, "foreign_origin");
    }
    for origin in ["http://127.0.0.1:9901", "https://127.0.0.1:9901"] {
        assert_eq!(post(&app, &[("origin", origin), ("authorization", &authorization)]).status, 200);
    }
}

/// One request over a connection, through Pingora's own server session.
async fn exchange(app: App, request: &str) -> String {
    let (mut client, server) = tokio::io::duplex(64 << 10);
    let (_stop, shutdown) = tokio::sync::watch::channel(false);
    let server = tokio::spawn(async move {
        let session = ServerSession::new_http1(Box::new(server));
        drop(Arc::new(app).process_new_http(session, &shutdown).await);
    });
    client.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    client.read_to_string(&mut response).await.unwrap();
    server.await.unwrap();
    response
}

#[tokio::test]
async fn answers_over_a_connection_are_whole_and_guarded() {
    let response = exchange(app(None, vec![]), "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
    assert!(response.ends_with("\r\n\r\nok\n"), "{response}");
    let lower = response.to_ascii_lowercase();
    for field in ["cache-control: no-store", "x-content-type-options: nosniff", "content-length: 3", "content-type: text/plain"] {
        assert!(lower.contains(field), "{field} in {response}");
    }
    assert!(!lower.contains("access-control"), "{response}");
}

#[tokio::test]
async fn a_head_request_gets_all_but_the_body() {
    let response = exchange(app(None, vec![]), "HEAD /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
    assert!(response.to_ascii_lowercase().contains("content-length: 3\r\n"), "{response}");
    assert!(response.ends_with("\r\n\r\n"), "{response}");
}

#[tokio::test]
async fn a_reload_over_a_connection_reaches_the_gateway() {
    let request =
        format!("POST /reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nAuthorization: Bearer {TOKEN}\r\n\r\n{{}}");
    let response = exchange(app(Some(TOKEN), vec![Ok(9)]), &request).await;
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n") && response.contains("\"generation\": 9"), "{response}");
}

#[tokio::test]
async fn a_fault_inside_is_an_answer_too() {
    let request =
        format!("POST /reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nAuthorization: Bearer {TOKEN}\r\n\r\n");
    let response = exchange(app(Some(TOKEN), vec![]), &request).await;
    assert!(response.starts_with("HTTP/1.1 500 ") && response.contains("internal_error"), "{response}");
}

#[test]
fn limits_of_a_consumer_are_shown_to_all_and_reset_with_the_token() {
    let app = app(Some(TOKEN), vec![]);
    let reset = |path: &str, fields: &[(&'static str, &str)]| {
        app.desk.answer(&ask(Method::POST, path, &[&[("host", "127.0.0.1:9901")], fields].concat()))
    };
    assert_eq!(body(&get(&app, "/limits/acme"))["used"], 7);
    is_problem(&get(&app, "/limits/nobody"), 404, "no_such_consumer");
    is_problem(&reset("/limits/acme/reset", &[]), 401, "token_needed");
    let bearer = format!("Bearer {TOKEN}");
    let token = [("authorization", bearer.as_str())];
    assert_eq!(body(&reset("/limits/acme/reset", &token))["used"], 0);
    is_problem(&reset("/limits/nobody/reset", &token), 404, "no_such_consumer");
    is_problem(&get(&app, "/limits/acme/reset"), 405, "method_not_allowed");
    is_problem(&reset("/limits/acme", &token), 405, "method_not_allowed");
    for path in ["/limits", "/limits/acme/", "/limits/acme/reset/", "/limits/a/b"] {
        is_problem(&get(&app, path), 404, "no_such_page");
    }
}
