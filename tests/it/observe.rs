//! What is seen of the traffic: access log and metrics.

use std::{collections::BTreeSet, io};

use crate::harness::{
    Connection, Gateway, Origin,
    cert::Authority,
    eventually,
    gateway::Start,
    h2::{self, ask, full, play},
    origin::{nobody, ok},
};

const KEYS: [&str; 31] = [
    "time",
    "request_id",
    "trace_id",
    "route",
    "upstream",
    "endpoint",
    "tries",
    "method",
    "scheme",
    "host",
    "path",
    "query",
    "protocol",
    "status",
    "bytes_received",
    "bytes_sent",
    "duration_ms",
    "upstream_connect_ms",
    "upstream_first_byte_ms",
    "tls_version",
    "tls_cipher",
    "client",
    "peer",
    "consumer",
    "auth",
    "refusal",
    "limit",
    "user_agent",
    "referer",
    "flag",
    "generation",
];

#[test]
fn a_carried_request_is_logged_with_all_its_facts() {
    let origin = Origin::text("hello");
    let gateway = Gateway::before(&origin);
    let reply = gateway
        .ask("POST /a%2Db?c=d HTTP/1.1\nHost: Shop.Example:80\nUser-Agent: agent \"7\"\nReferer: http://r/\nContent-Length: 0");
    let entry = gateway.logged_path("/a-b");
    let keys: BTreeSet<_> = entry.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, KEYS.into());
    assert_eq!(entry["request_id"].as_str(), reply.field("x-request-id"));
    assert_eq!(entry["endpoint"], origin.to_string());
    for (key, value) in [
        ("route", "all"),
        ("upstream", "one"),
        ("method", "POST"),
        ("scheme", "http"),
        ("host", "shop.example"),
        ("query", "c=d"),
        ("protocol", "HTTP/1.1"),
        ("client", "127.0.0.1"),
        ("user_agent", "agent \"7\""),
        ("referer", "http://r/"),
        ("flag", "-"),
    ] {
        assert_eq!(entry[key], value, "{key} in {entry}");
    }
    for (key, value) in [("tries", 1), ("status", 200), ("bytes_received", 0), ("bytes_sent", 5), ("generation", 1)] {
        assert_eq!(entry[key], value, "{key} in {entry}");
    }
    assert!(entry["duration_ms"].as_f64().unwrap() >= entry["upstream_first_byte_ms"].as_f64().unwrap(), "{entry}");
    assert!(entry["upstream_connect_ms"].is_number(), "{entry}");
    let trace = origin.last().field("traceparent").unwrap().to_owned();
    assert_eq!(entry["trace_id"], trace.split('-').nth(1).unwrap());
    assert!(entry["peer"].as_str().unwrap().starts_with("127.0.0.1:"));
    assert!(entry["tls_version"].is_null() && entry["tls_cipher"].is_null());
}

#[test]
fn sizes_are_those_of_the_bodies() {
    let origin = Origin::answer(|_| "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n");
    let gateway = Gateway::before(&origin);
    let mut connection = gateway.connect();
    connection.send("POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n01234\r\n0\r\n\r\n");
    connection.response("POST");
    let entry = gateway.logged_path("/x");
    assert_eq!((&entry["bytes_received"], &entry["bytes_sent"]), (&5.into(), &7.into()), "{entry}");
}

#[test]
fn a_reused_upstream_connection_took_no_time_to_connect() {
    let origin = Origin::text("x");
    let gateway = Gateway::before(&origin);
    let mut connection = gateway.connect();
    for path in ["/first", "/second"] {
        connection.ask(&format!("GET {path} HTTP/1.1\nHost: a"));
    }
    assert!(gateway.logged_path("/first")["upstream_connect_ms"].is_number());
    assert!(gateway.logged_path("/second")["upstream_connect_ms"].is_null());
}

#[test]
fn tls_and_http2_are_logged() {
    let authority = Authority::new();
    let dir = tempfile::tempdir().unwrap();
    authority.leaf(&["a"]).write(dir.path(), "a");
    let gateway = Start::on(
        "listeners: { secure: { address: 127.0.0.1:<secure>, tls: { certificates: [{ cert: a.pem, key: a.key }] } } }
routes: { all: { to: { respond: { body: x } } } }",
    )
    .dir(dir)
    .ready();
    let mut client = Connection::tls(gateway.address("secure"), "a", authority.client(&[])).unwrap();
    client.ask("GET /one HTTP/1.1\nHost: a");
    play(async {
        let mut client = h2::h2(gateway.address("secure"), "a", authority.client(&["h2"])).await;
        ask(&mut client, http::Request::get("https://a/two").body(full("")).unwrap()).await;
    });
    for (path, protocol) in [("/one", "HTTP/1.1"), ("/two", "HTTP/2")] {
        let entry = gateway.logged_path(path);
        assert_eq!((&entry["scheme"], &entry["protocol"]), (&"https".into(), &protocol.into()));
        assert_eq!(entry["tls_version"], "TLSv1.3", "{entry}");
        assert!(
            entry["tls_cipher"].as_str().is_some_and(|cipher| cipher.contains("AES") || cipher.contains("CHACHA")),
            "{entry}"
        );
    }
}

#[test]
fn no_text_of_a_client_ends_its_line() {
    let origin = Origin::text("x");
    let gateway = Gateway::before(&origin);
    let mut connection = gateway.connect();
    connection.send(b"GET /x HTTP/1.1\r\nHost: a\r\nUser-Agent: \"}\x80\xff\t{\"status\":200,\r\n\r\n");
    connection.response("GET");
    let entry = gateway.logged_path("/x");
    assert!(entry["user_agent"].as_str().unwrap().starts_with("\"}\u{fffd}"), "{entry}");
    gateway.stdout.all().iter().for_each(|line| assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "{line}"));
}

#[test]
fn flags_of_requests_that_went_nowhere() {
    let gateway = Gateway::start(&format!(
        "upstreams: {{ dead: {{ endpoints: [\"{}\"] }} }}
routes:
  dead: {{ match: {{ path: /uf }}, to: {{ upstream: dead }} }}
  get: {{ match: {{ path: /na, methods: [GET] }}, to: {{ respond: {{}} }} }}
  small: {{ match: {{ path: /pr }}, policies: {{ request_limits: {{ body: 1B }} }}, to: {{ respond: {{}} }} }}",
        nobody()
    ));
    for (head, status, flag, route) in [
        ("GET /nr HTTP/1.1\nHost: a", 404, "NR", None),
        ("PUT /na HTTP/1.1\nHost: a\nContent-Length: 0", 405, "NR", None),
        ("GET /uf HTTP/1.1\nHost: a", 502, "UF", Some("dead")),
        ("POST /pr HTTP/1.1\nHost: a\nContent-Length: 2\n\nab", 413, "PR", Some("small")),
        ("GET /dpe HTTP/1.1\nX: no host", 400, "DPE", None),
    ] {
        assert_eq!(gateway.ask(head).status, status, "{head}");
        let entry = gateway.logged(|entry| entry["status"] == status);
        assert_eq!(entry["flag"], flag, "{head}: {entry}");
        assert_eq!(entry["route"].as_str(), route, "{head}: {entry}");
        assert!(entry["request_id"].as_str().is_some_and(|id| id.len() >= 16), "{entry}");
        let counted = || gateway.metric(&format!("banyan_requests_flagged_total{{flag=\"{flag}\"}}")).filter(|&n| n >= 1.0);
        eventually(&format!("{flag} is counted"), counted);
    }
}

#[test]
fn the_combined_format_is_as_other_tools_read_it() {
    let gateway = Gateway::start(
        "observe: { access_log: { format: combined } }
routes: { hello: { match: { path: /hello }, to: { respond: { body: hello } } } }",
    );
    gateway.ask("GET /hello?x=1 HTTP/1.1\nHost: a\nUser-Agent: agent \"7\"");
    gateway.get("/none");
    let line = |words: &str| {
        gateway.stdout.wait(crate::harness::PATIENCE, |line| line.contains(words).then(|| line.to_owned())).unwrap()
    };
    let hello = regex::Regex::new(
        r#"^127\.0\.0\.1 - - \[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d \+0000\] "GET /hello\?x=1 HTTP/1\.1" 200 5 "-" "agent \\x227\\x22"$"#,
    );
    assert!(hello.unwrap().is_match(&line("/hello")), "{}", line("/hello"));
    assert!(line("/none").contains("\"GET /none HTTP/1.1\" 404 "), "{}", line("/none"));
}

#[test]
fn the_log_goes_to_a_file_or_nowhere() {
    let routes = "routes: { all: { to: { respond: {} } } }";
    let gateway = Start::on(&format!("observe: {{ access_log: {{ path: access.log }} }}\n{routes}")).ready();
    gateway.get("/x");
    let file = gateway.dir().join("access.log");
    eventually("the line is in the file", || {
        std::fs::read_to_string(&file).ok().filter(|text| text.contains("\"/x\"") && text.ends_with('\n'))
    });
    assert_eq!(gateway.stdout.all(), [""; 0]);
    let gateway = Gateway::start(&format!("observe: {{ access_log: {{ path: \"off\" }} }}\n{routes}"));
    gateway.get("/x");
    assert_eq!(gateway.stdout.all(), [""; 0]);
}

#[test]
fn a_trusted_chain_names_the_client() {
    let gateway = Gateway::start("trusted_proxies: [127.0.0.1]\nroutes: { all: { to: { respond: {} } } }");
    gateway.ask("GET /x HTTP/1.1\nHost: a\nX-Forwarded-For: 203.0.113.9, 198.51.100.7\nX-Request-Id: from-the-proxy");
    let entry = gateway.logged_path("/x");
    assert_eq!((&entry["client"], &entry["request_id"]), (&"198.51.100.7".into(), &"from-the-proxy".into()));
}

#[test]
fn metrics_are_prometheus_text_with_bounded_labels() {
    let origin = Origin::answer(|request| match request.target() {
        "/teapot" => "HTTP/1.1 418 I'm a teapot\r\nContent-Length: 0\r\n\r\n".to_owned(),
        _ => ok("x"),
    });
    let gateway = Gateway::start(&format!(
        "upstreams: {{ one: {{ endpoints: [\"{origin}\"] }} }}\nroutes: {{ all: {{ match: {{ hosts: [a] }}, to: {{ upstream: one }} }} }}"
    ));
    let accepted = || gateway.metric("banyan_connections_total{listener=\"web\"}").expect("it is there");
    let before = accepted();
    for n in 0..20 {
        gateway.ask(&format!("GET /{n} HTTP/1.1\nHost: a"));
        gateway.ask(&format!("GET /{n} HTTP/1.1\nHost: unknown-{n}.example"));
    }
    gateway.ask("GET /teapot HTTP/1.1\nHost: a");
    let sample = |name: &str, value: f64| eventually(name, || gateway.metric(name).filter(|&found| found == value));
    sample("banyan_requests_total{class=\"2xx\",route=\"all\"}", 20.0);
    sample("banyan_requests_total{class=\"4xx\",route=\"all\"}", 1.0);
    sample("banyan_requests_total{class=\"4xx\",route=\"-\"}", 20.0);
    sample("banyan_request_duration_seconds_count{route=\"all\"}", 21.0);
    sample("banyan_upstream_first_byte_seconds_count{upstream=\"one\"}", 21.0);
    sample("banyan_requests_in_flight{route=\"all\"}", 0.0);
    sample("banyan_config_generation", 1.0);
    sample("banyan_config_last_reload_success", 1.0);
    // Readiness tries the listener once; that may be counted later.
    assert!((41.0..=42.0).contains(&(accepted() - before)), "{} connections", accepted() - before);
    sample("banyan_connections{listener=\"web\"}", 0.0);
    sample(&format!("banyan_upstream_endpoint_healthy{{endpoint=\"{origin}\",upstream=\"one\"}}"), 1.0);
    let reply = gateway.admin("/metrics");
    assert!(reply.field("content-type").unwrap().starts_with("text/plain"));
    let text = reply.text();
    assert!(text.contains("banyan_build_info{"));
    assert!(!text.contains("unknown-"), "what clients send is no label");
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        assert!(line.rsplit_once(' ').is_some_and(|(_, value)| value.parse::<f64>().is_ok()), "{line}");
    }
}

#[test]
fn requests_in_flight_are_counted() {
    let (go, may_go) = std::sync::mpsc::channel();
    let may_go = std::sync::Mutex::new(may_go);
    let origin = Origin::script(move |visit| {
        visit.head()?;
        let () = may_go.lock().unwrap().recv().map_err(io::Error::other)?;
        visit.wire.send(ok("x"))
    });
    let gateway = Gateway::before(&origin);
    let mut connection = gateway.connect();
    connection.send_head("GET / HTTP/1.1\nHost: a");
    origin.wait_for(1);
    assert_eq!(gateway.metric("banyan_requests_in_flight{route=\"all\"}"), Some(1.0));
    assert_eq!(gateway.metric("banyan_connections{listener=\"web\"}"), Some(1.0));
    go.send(()).unwrap();
    connection.response("GET");
    eventually("it has ended", || gateway.metric("banyan_requests_in_flight{route=\"all\"}").filter(|&n| n == 0.0));
}
