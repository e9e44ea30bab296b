//! The commands: run, check, explain, demo, schema, version, completions and man.

use std::{fs, path::Path, process::Stdio, time::Duration};

use serde_json::Value;

use crate::harness::{
    Connection, PATIENCE,
    cert::trusting,
    eventually,
    gateway::{Start, banyan, run},
    lines::Lines,
};

const GOOD: &str = "listeners: { web: { address: 127.0.0.1:8080 } }
upstreams: { shop: { endpoints: [127.0.0.1:9001] } }
policies: { request_limits: { body: 1MiB } }
routes:
  api: { match: { hosts: [shop.example], path: \"/api/**\", methods: [GET] }, policies: { cors: { origins: [\"https://a.example\"] } }, to: { upstream: shop } }
  v2: { match: { hosts: [shop.example], path: \"/api/**\", headers: { x-version: \"2\" } }, to: { upstream: shop } }
  rest: { to: { upstream: shop } }
";

const BAD: &str = "listeners: { web: { address: 127.0.0.1:8080 } }
upstreams:
  shop: { endpoints: [127.0.0.1:9001], timeout: 1s }
routes:
  api: { match: { path: \"/api/**\" }, to: { upstream: shp } }
";

fn written(text: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("banyan.yaml");
    fs::write(&file, text).unwrap();
    (dir, file.display().to_string())
}

#[test]
fn check_passes_a_good_file() {
    let (_dir, file) = written(GOOD);
    for arguments in [&["check", "-c", file.as_str()][..], &["check", file.as_str()]] {
        let (code, out, err) = run(&mut banyan(arguments.iter().copied()));
        assert_eq!(code, 0, "{out}{err}");
    }
}

#[test]
fn check_finds_every_mistake_in_one_run() {
    let (_dir, file) = written(BAD);
    let (code, out, err) = run(&mut banyan(["check", &file]));
    let all = out + &err;
    assert_eq!(code, 1, "{all}");
    for expected in ["banyan.yaml:3", "timeout", "timeouts", "shp", "banyan.yaml:5", "did you mean"] {
        assert!(all.to_lowercase().contains(expected), "no {expected} in\n{all}");
    }
    assert!(!all.contains("panicked"), "{all}");
}

#[test]
fn check_tells_programs_in_json() {
    let (_dir, file) = written(BAD);
    let (code, out, _) = run(&mut banyan(["check", &file, "--format", "json"]));
    assert_eq!(code, 1, "{out}");
    let told: Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}"));
    let problems = told.as_array().or_else(|| told["problems"].as_array()).unwrap_or_else(|| panic!("{told}"));
    assert!(problems.len() >= 2, "{told}");
    for problem in problems {
        for key in ["severity", "file", "line", "column", "path", "message"] {
            assert!(!problem[key].is_null(), "no {key} in {problem}");
        }
    }
    let (_dir, file) = written(GOOD);
    let (code, out, _) = run(&mut banyan(["check", &file, "--format", "json"]));
    assert_eq!(code, 0, "{out}");
    serde_json::from_str::<Value>(&out).unwrap_or_else(|e| panic!("{e}: {out}"));
}

#[test]
fn check_of_a_file_that_is_not_there_fails() {
    let (code, out, err) = run(&mut banyan(["check", "/nonexistent/banyan.yaml"]));
    assert_eq!(code, 1, "{out}{err}");
    assert!((out + &err).contains("/nonexistent/banyan.yaml"));
}

#[test]
fn a_wrong_command_line_exits_with_2() {
    for arguments in [&["check"][..], &["run"], &["nonsense"], &["explain", "GET"]] {
        assert_eq!(run(&mut banyan(arguments.iter().copied())).0, 2, "{arguments:?}");
    }
}

#[test]
fn run_on_a_broken_file_exits_with_78_and_says_why() {
    let (status, said) = Start::default().file("banyan.yaml", BAD).fails();
    assert_eq!(status.code(), Some(78), "{said}");
    assert!(said.contains("shp") && said.contains("timeout"), "{said}");
}

#[test]
fn run_where_the_port_is_taken_exits_and_says_so() {
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = holder.local_addr().unwrap().port();
    let yaml =
        format!("listeners: {{ web: {{ address: \"127.0.0.1:{port}\" }} }}\nroutes: {{ all: {{ to: {{ respond: {{}} }} }} }}");
    let (status, said) = Start::on(&yaml).fails();
    assert_eq!(status.code(), Some(69), "{said}");
    assert!(said.contains(&port.to_string()) && said.to_lowercase().contains("in use"), "{said}");
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn run_ends_on_a_termination_signal() {
    for signal in ["TERM", "INT"] {
        let mut gateway = Start::on("routes: { all: { to: { respond: {} } } }").ready();
        gateway.signal(signal);
        let status = gateway.exit();
        assert_eq!(status.code(), Some(0), "{signal}: {}", gateway.stderr.text());
    }
}

fn explain(file: &str, rest: &[&str]) -> String {
    let (code, out, err) = run(&mut banyan(["explain", "-c", file].into_iter().chain(rest.iter().copied())));
    assert_eq!(code, 0, "{out}{err}");
    out
}

#[test]
fn explain_names_the_route_the_losers_and_the_policies() {
    let (_dir, file) = written(GOOD);
    let told = explain(&file, &["GET", "http://shop.example/api/x"]);
    for expected in ["api", "v2", "rest", "x-version", "cors", "request_limits"] {
        assert!(told.contains(expected), "no {expected} in\n{told}");
    }
    let told = explain(&file, &["GET", "http://shop.example/api/x", "-H", "X-Version: 2"]);
    assert!(told.lines().next().is_some_and(|line| line.contains("api")), "method before headers:\n{told}");
    let told = explain(&file, &["POST", "http://shop.example/api/../x?y=1"]);
    assert!(told.lines().next().is_some_and(|line| line.contains("rest")), "{told}");
}

#[test]
fn explain_tells_when_no_route_takes_it() {
    let (_dir, file) = written(
        "listeners: { web: { address: 127.0.0.1:8080 } }\nroutes: { get: { match: { path: /x, methods: [GET] }, to: { respond: {} } } }",
    );
    let (_, out, _) = run(&mut banyan(["explain", "-c", &file, "GET", "http://a/none"]));
    assert!(out.contains("404") || out.to_lowercase().contains("no route"), "{out}");
    let (_, out, _) = run(&mut banyan(["explain", "-c", &file, "PUT", "http://a/x"]));
    assert!(out.contains("405") || out.contains("GET"), "{out}");
}

#[test]
fn schema_version_completions_and_man_are_printed() {
    let print = |arguments: &[&str]| {
        let (code, out, err) = run(&mut banyan(arguments.iter().copied()));
        assert_eq!(code, 0, "{arguments:?}: {err}");
        out
    };
    let schema: Value = serde_json::from_str(&print(&["schema"])).unwrap();
    assert!(schema["properties"]["routes"].is_object());
    assert!(print(&["version"]).starts_with(&format!("banyan {}\n", env!("CARGO_PKG_VERSION"))));
    assert!(print(&["man"]).contains(".TH banyan"));
    for shell in ["bash", "zsh", "fish"] {
        assert!(print(&["completions", shell]).contains("banyan"), "{shell}");
    }
    assert!(print(&["--help"]).contains("explain"));
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let mut child = banyan(["schema"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let said = Lines::of(child.stderr.take().unwrap());
    assert!(child.wait().unwrap().success(), "{}", said.text());
    assert!(!said.ended().contains("panicked"));
}

#[test]
fn demo_serves_what_it_invites_to() {
    let mut child = banyan(["demo"]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (out, err) = (Lines::of(child.stdout.take().unwrap()), Lines::of(child.stderr.take().unwrap()));
    let tried = std::panic::catch_unwind(|| try_demo(&out));
    let _ = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    let ended = crate::harness::within(PATIENCE, || child.try_wait().unwrap());
    let _ = child.kill();
    let said = format!("{}\n{}", out.text(), err.text());
    assert!(tried.is_ok(), "{said}");
    assert!(ended.is_some(), "Ctrl-C ends it:\n{said}");
    assert!(!said.contains("panicked"), "{said}");
    let file = words(&out.text()).find(|word| word.ends_with("/banyan.yaml")).map(str::to_owned).expect("it names its file");
    assert!(!Path::new(&file).exists(), "it leaves nothing behind");
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split_whitespace().map(|word| word.trim_matches('\''))
}

/// Does by hand what the printed curl lines do.
fn try_demo(out: &Lines) {
    let ready = |line: &str| line.contains("Ctrl-C").then_some(());
    out.wait(PATIENCE, ready).expect("it invites");
    let lines: Vec<String> = out.all().into_iter().filter(|line| line.contains("  curl -i")).collect();
    assert_eq!(lines.len(), 5, "{lines:?}");
    let (tls, plain): (Vec<_>, Vec<_>) = lines.into_iter().partition(|line| line.contains("--cacert"));
    assert_eq!(tls.len(), 1);
    try_https(&tls[0]);
    for line in plain {
        let host = line.split("Host: ").nth(1).and_then(|rest| rest.split('\'').next()).expect("a host");
        let url = words(&line).find_map(|word| word.strip_prefix("http://")).expect("a URL").to_owned();
        let (address, path) = url.split_once('/').expect("a path");
        let address = address.parse().unwrap();
        eventually("it listens", || std::net::TcpStream::connect(address).ok());
        let ask = || Connection::open(address).ask(&format!("GET /{path} HTTP/1.1\nHost: {host}")).status;
        let expected = match (host, path) {
            ("nowhere.example", _) => 404,
            (_, path) if path.starts_with("blog") => 308,
            _ => 200,
        };
        assert!(
            crate::harness::within(Duration::from_secs(5), || (ask() == expected).then_some(())).is_some(),
            "{line} got {}",
            ask()
        );
    }
}

/// `curl -i --cacert FILE --resolve NAME:PORT:127.0.0.1 https://NAME:PORT/PATH`
fn try_https(line: &str) {
    let words: Vec<&str> = words(line).collect();
    let after = |option: &str| words[words.iter().position(|word| *word == option).expect(option) + 1];
    let mut resolved = after("--resolve").split(':');
    let (name, port) = (resolved.next().unwrap(), resolved.next().unwrap().parse::<u16>().unwrap());
    let path = words.last().unwrap().split(&format!(":{port}")).nth(1).expect("a path");
    let client = trusting(Path::new(after("--cacert")));
    let address: std::net::SocketAddr = ([127, 0, 0, 1], port).into();
    eventually("it listens", || std::net::TcpStream::connect(address).ok());
    let mut connection = Connection::tls(address, name, client).unwrap();
    let answered = connection.ask(&format!("GET {path} HTTP/1.1\nHost: {name}:{port}")).status;
    assert_eq!(answered, 200, "{line}");
}

/// What `check` says of a configuration that it must refuse.
#[track_caller]
fn refused(text: &str) -> String {
    let (_dir, file) = written(&format!("listeners: {{ web: {{ address: 127.0.0.1:8080 }} }}\n{text}"));
    let (code, out, err) = run(&mut banyan(["check", &file]));
    assert_eq!(code, 1, "{text}\n{out}{err}");
    assert!(!err.contains("panicked"), "{err}");
    out + &err
}

#[test]
fn what_cannot_work_is_refused_with_its_place() {
    for (text, expected) in [
        ("routes: { a: { to: { upstream: x } } }", "`x`"),
        ("upstreams: { x: { endpoints: [] } }\nroutes: { a: { to: { upstream: x } } }", "endpoints"),
        (
            "upstreams: { x: { endpoints: [{ address: 127.0.0.1:1, weight: 0 }] } }\nroutes: { a: { to: { upstream: x } } }",
            "weight",
        ),
        ("routes: { a: { match: { path_regex: \"(\" }, to: { respond: {} } } }", "path_regex"),
        ("routes: { a: { match: { path: \"no-slash\" }, to: { respond: {} } } }", "no-slash"),
        ("routes: { a: { to: { respond: {} } }, b: { to: { respond: {} } } }", "routes.b"),
        ("routes: { a: { to: { respond: { status: 99 } } } }", "status"),
        ("routes: { a: { timeouts: { request: 10 }, to: { respond: {} } } }", "request"),
        ("routes: { a: { to: { respond: {}, redirect: { location: / } } } }", "exactly one"),
        ("identity: { a: {} }", "exactly one"),
        ("stores: {}", "stores"),
        ("routes: { a: { policies: { auth: {} }, to: { respond: {} } } }", "auth"),
        ("admin: { token: \"${env:BANYAN_TEST_NOT_SET}\" }", "BANYAN_TEST_NOT_SET"),
        ("routes: { a: &a { to: { respond: {} } }, a: { to: { respond: {} } } }", "`a`"),
    ] {
        let told = refused(text);
        assert!(told.contains(expected) && told.contains("banyan.yaml:"), "no {expected} in\n{told}");
    }
}

#[test]
fn what_later_work_brings_is_refused_as_not_supported_yet() {
    for text in [
        "cache: {}",
        "policies: { waf: {} }",
        "routes: { a: { to: { aggregate: {} } } }",
        "routes: { a: { to: { migrate: {} } } }",
    ] {
        let told = refused(text);
        assert!(told.contains("not supported yet"), "{told}");
    }
}

#[test]
fn a_name_in_two_files_is_an_error_that_names_both() {
    let dir = tempfile::tempdir().unwrap();
    let route = "routes: { twice: { to: { respond: {} } } }";
    fs::write(dir.path().join("one.yaml"), format!("listeners: {{ web: {{ address: 127.0.0.1:8080 }} }}\n{route}")).unwrap();
    fs::write(dir.path().join("two.yaml"), route).unwrap();
    let (code, out, err) = run(banyan(["check"]).arg(dir.path()));
    let told = out + &err;
    assert_eq!(code, 1, "{told}");
    for expected in ["twice", "one.yaml:2", "two.yaml"] {
        assert!(told.contains(expected), "no {expected} in\n{told}");
    }
}

#[test]
fn a_secret_in_a_broken_file_is_not_told() {
    let (_dir, file) = written(
        "admin: { token: \"${env:BANYAN_TEST_SECRET}\", hosts: \"${env:BANYAN_TEST_SECRET}\", address: \"${env:BANYAN_TEST_SECRET}\" }",
    );
    for arguments in [&["check", file.as_str()][..], &["check", "--format", "json", file.as_str()], &["run", "-c", file.as_str()]]
    {
        let (code, out, err) = run(banyan(arguments.iter().copied()).env("BANYAN_TEST_SECRET", "s3cret-of-the-test"));
        assert_eq!(code, if arguments[0] == "run" { 78 } else { 1 }, "{out}{err}");
        assert!(!(out.clone() + &err).contains("s3cret"), "{out}{err}");
    }
}
