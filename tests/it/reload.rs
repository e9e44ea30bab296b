//! Reloading: what changes, what stays, what is refused.

use std::{fs, os::unix::fs::symlink, path::Path, sync::Mutex, sync::mpsc};

use crate::harness::{Connection, Gateway, Origin, cert::Authority, eventually, gateway::Start, origin::ok};

fn says(text: &str) -> String {
    format!("routes: {{ all: {{ to: {{ respond: {{ body: \"{text}\" }} }} }} }}")
}

#[track_caller]
fn wait_until_it_says(gateway: &Gateway, text: &str) {
    eventually(text, || (gateway.get("/").text() == text).then_some(()));
}

#[test]
fn a_file_put_in_place_of_the_old_is_taken() {
    let mut gateway = Gateway::start(&says("one"));
    assert_eq!((gateway.get("/").text().as_str(), gateway.generation()), ("one", 1));
    gateway.reload(&says("two"));
    assert_eq!((gateway.get("/").text().as_str(), gateway.generation()), ("two", 2));
    assert_eq!(gateway.metric("banyan_config_generation"), Some(2.0));
    assert_eq!(gateway.metric("banyan_config_last_reload_success"), Some(1.0));
    gateway.get("/now");
    assert_eq!(gateway.logged_path("/now")["generation"], 2);
}

#[test]
fn a_file_written_over_is_taken() {
    let gateway = Gateway::start(&says("one"));
    let file = gateway.dir().join("banyan.yaml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("one", "two")).unwrap();
    wait_until_it_says(&gateway, "two");
}

#[test]
fn a_hangup_signal_reloads() {
    let gateway = Gateway::start(&says("one"));
    let loads = |result: &str| gateway.metric(&format!("banyan_config_reloads_total{{result=\"{result}\"}}")).unwrap_or_default();
    gateway.replace("banyan.yaml", "{{{ not yaml");
    eventually("the file is noticed", || (loads("failure") == 1.0).then_some(()));
    // Nothing changes but the signal comes: it is tried again.
    gateway.signal("HUP");
    eventually("the signal is heard", || (loads("failure") == 2.0).then_some(()));
}

/// Points a link elsewhere in one step.
fn relink(link: &Path, target: &str) {
    let next = link.with_file_name("..next");
    symlink(target, &next).unwrap();
    fs::rename(next, link).unwrap();
}

#[test]
fn a_directory_swapped_by_a_link_is_taken() {
    // As Kubernetes mounts a ConfigMap: files are links through `..data`, which is swapped.
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("conf");
    for version in ["..v1", "..v2"] {
        fs::create_dir_all(folder.join(version)).unwrap();
    }
    fs::write(folder.join("..v1/routes.yaml"), says("one")).unwrap();
    fs::write(folder.join("..v2/routes.yaml"), says("two")).unwrap();
    symlink("..v1", folder.join("..data")).unwrap();
    symlink("..data/routes.yaml", folder.join("routes.yaml")).unwrap();
    let listeners = "listeners: { web: { address: 127.0.0.1:<web> } }\nadmin: { address: \"127.0.0.1:<admin>\" }\n";
    let gateway = Start::default().dir(dir).file("conf/listeners.yaml", listeners).config("conf").ready();
    assert_eq!(gateway.get("/").text(), "one");
    relink(&folder.join("..data"), "..v2");
    wait_until_it_says(&gateway, "two");
}

#[test]
fn a_file_behind_a_link_is_watched() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("real")).unwrap();
    symlink("real/banyan.yaml", dir.path().join("link.yaml")).unwrap();
    let yaml = format!(
        "listeners: {{ web: {{ address: 127.0.0.1:<web> }} }}\nadmin: {{ address: \"127.0.0.1:<admin>\" }}\n{}",
        says("one")
    );
    let gateway = Start::default().dir(dir).file("real/banyan.yaml", &yaml).config("link.yaml").ready();
    let real = gateway.dir().join("real/banyan.yaml");
    let text = fs::read_to_string(&real).unwrap().replace("one", "two");
    fs::write(gateway.dir().join("real/next"), text).unwrap();
    fs::rename(gateway.dir().join("real/next"), real).unwrap();
    wait_until_it_says(&gateway, "two");
}

#[test]
fn a_file_added_to_a_directory_is_taken_and_one_removed_is_gone() {
    let base = "listeners: { web: { address: 127.0.0.1:<web> } }\nadmin: { address: \"127.0.0.1:<admin>\" }\n";
    let gateway = Start::default().file("conf/a.yaml", base).file("conf/b.yaml", &says("b")).config("conf").ready();
    let more = "routes: { more: { match: { path: /more }, to: { respond: { body: more } } } }";
    fs::write(gateway.dir().join("conf/c.yaml"), more).unwrap();
    eventually("it is there", || (gateway.get("/more").text() == "more").then_some(()));
    fs::remove_file(gateway.dir().join("conf/c.yaml")).unwrap();
    eventually("it is gone", || (gateway.get("/more").text() == "b").then_some(()));
}

#[test]
fn a_broken_candidate_changes_nothing_and_is_told_everywhere() {
    let mut gateway = Gateway::start(&says("one"));
    gateway.replace(
        "banyan.yaml",
        "listeners: { web: { address: 127.0.0.1:<web> } }\nroutes: { all: { to: { upstream: nowhere } } }",
    );
    gateway.said("nowhere");
    eventually("the metric", || gateway.metric("banyan_config_last_reload_success").filter(|&value| value == 0.0));
    assert_eq!(gateway.metric("banyan_config_reloads_total{result=\"failure\"}"), Some(1.0));
    assert_eq!(gateway.metric("banyan_config_generation"), Some(1.0));
    let shown = gateway.admin("/config").text();
    assert!(shown.contains("nowhere"), "{shown}");
    assert_eq!((gateway.get("/").text().as_str(), gateway.admin("/readyz").status), ("one", 200));
    gateway.reload(&says("two"));
    assert_eq!(gateway.get("/").text(), "two");
    assert_eq!(gateway.metric("banyan_config_last_reload_success"), Some(1.0));
    assert!(!gateway.admin("/config").text().contains("nowhere"), "the error is over");
}

#[test]
fn no_yaml_no_file_and_no_certificate_are_refused_alike() {
    let mut gateway = Gateway::start(&says("one"));
    let good = fs::read_to_string(gateway.dir().join("banyan.yaml")).unwrap();
    let failures = |n: f64| {
        move |gateway: &Gateway| gateway.metric("banyan_config_reloads_total{result=\"failure\"}").filter(|&found| found >= n)
    };
    gateway.replace("banyan.yaml", "{{{ not yaml");
    eventually("no YAML is refused", || failures(1.0)(&gateway));
    let tls = "listeners: { web: { address: 127.0.0.1:<web>, tls: { certificates: [{ cert: no.pem, key: no.key }] } } }\n";
    gateway.replace("banyan.yaml", &format!("{tls}{}", says("two")));
    gateway.said("no.pem");
    eventually("no certificate is refused", || failures(2.0)(&gateway));
    fs::remove_file(gateway.dir().join("banyan.yaml")).unwrap();
    gateway.signal("HUP");
    eventually("no file is refused", || failures(3.0)(&gateway));
    assert_eq!(gateway.get("/").text(), "one");
    gateway.replace("banyan.yaml", &good.replace("one", "three"));
    wait_until_it_says(&gateway, "three");
    gateway.assert_sound();
}

#[test]
fn certificates_are_read_again() {
    let (old, new) = (Authority::new(), Authority::new());
    let dir = tempfile::tempdir().unwrap();
    old.leaf(&["a"]).write(dir.path(), "a");
    let listener =
        "listeners: { secure: { address: 127.0.0.1:<secure>, tls: { certificates: [{ cert: a.pem, key: a.key }] } } }\n";
    let mut gateway = Start::on(&format!("{listener}{}", says("one"))).dir(dir).ready();
    let address = gateway.address("secure");
    let shows = |authority: &Authority| Connection::tls(address, "a", authority.client(&[])).is_ok();
    assert!(shows(&old) && !shows(&new));
    let mut open = Connection::tls(address, "a", old.client(&[])).unwrap();
    new.leaf(&["a"]).write(gateway.dir(), "a");
    gateway.signal("HUP");
    eventually("the new certificate is shown", || shows(&new).then_some(()));
    assert!(!shows(&old));
    assert_eq!(open.ask("GET / HTTP/1.1\nHost: a").text(), "one", "an open connection stays");
    gateway.assert_sound();
}

#[test]
fn a_changed_certificate_file_is_noticed_without_a_signal() {
    let (old, new) = (Authority::new(), Authority::new());
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("tls")).unwrap();
    old.leaf(&["a"]).write(&dir.path().join("tls"), "a");
    let listener =
        "listeners: { secure: { address: 127.0.0.1:<secure>, tls: { certificates: [{ cert: tls/a.pem, key: tls/a.key }] } } }\n";
    let gateway = Start::on(&format!("{listener}{}", says("one"))).dir(dir).ready();
    new.leaf(&["a"]).write(&gateway.dir().join("tls"), "a");
    let address = gateway.address("secure");
    eventually("the new certificate is shown", || Connection::tls(address, "a", new.client(&[])).ok().map(drop));
}

#[test]
fn a_request_in_flight_ends_on_the_configuration_it_began_with() {
    let (go, may_go) = mpsc::channel();
    let may_go = Mutex::new(may_go);
    let origin = Origin::script(move |visit| {
        visit.head()?;
        let () = may_go.lock().unwrap().recv().map_err(std::io::Error::other)?;
        visit.wire.send(ok("old"))
    });
    let cors = |origin: &str| format!("policies: {{ cors: {{ origins: [\"{origin}\"] }} }}");
    let yaml = |text: &str| {
        format!(
            "upstreams: {{ one: {{ endpoints: [\"{origin}\"] }} }}\n{text}\nroutes: {{ slow: {{ to: {{ upstream: one }} }} }}"
        )
    };
    let mut gateway = Gateway::start(&yaml(&cors("https://old.example")));
    let mut connection = gateway.connect();
    connection.send_head("GET /slow HTTP/1.1\nHost: a\nOrigin: https://old.example");
    origin.wait_for(1);
    gateway.reload(&format!("{}\n{}", cors("https://new.example"), says("new")));
    assert_eq!(gateway.get("/").text(), "new");
    go.send(()).unwrap();
    let reply = connection.response("GET");
    assert_eq!(reply.text(), "old");
    assert_eq!(reply.field("access-control-allow-origin"), Some("https://old.example"));
    assert_eq!(gateway.logged_path("/slow")["generation"], 1);
    assert_eq!(connection.ask("GET /next HTTP/1.1\nHost: a").text(), "new", "the connection outlives the reload");
}

#[test]
fn pools_survive_a_reload_that_does_not_touch_them() {
    let origin = Origin::text("x");
    let yaml = |body: &str| {
        format!(
            "upstreams: {{ one: {{ endpoints: [\"{origin}\"] }} }}
routes:
  all: {{ to: {{ upstream: one }} }}
  other: {{ match: {{ path: /other }}, to: {{ respond: {{ body: \"{body}\" }} }} }}"
        )
    };
    let mut gateway = Gateway::start(&yaml("0"));
    // Over one connection: the next request is read only when the one before has given its connection back.
    let mut connection = gateway.connect();
    connection.ask("GET / HTTP/1.1\nHost: a");
    for n in 1..4 {
        gateway.reload(&yaml(&n.to_string()));
        assert_eq!(gateway.get("/other").text(), n.to_string());
        connection.ask("GET / HTTP/1.1\nHost: a");
    }
    assert_eq!((origin.count(), origin.connections()), (4, 1));
}

#[test]
fn health_survives_a_reload_that_does_not_touch_it() {
    let sick = Origin::answer(|_| "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n");
    let well = Origin::answer(|_| ok("well"));
    let yaml = |body: &str| {
        format!(
            "upstreams: {{ one: {{ endpoints: [\"{sick}\", \"{well}\"], health: {{ http: {{ path: /healthz, interval: 100ms, unhealthy_after: 3 }} }} }} }}
routes:
  all: {{ to: {{ upstream: one }} }}
  other: {{ match: {{ path: /other }}, to: {{ respond: {{ body: \"{body}\" }} }} }}"
        )
    };
    let mut gateway = Gateway::start(&yaml("0"));
    let unhealthy = format!("banyan_upstream_endpoint_healthy{{endpoint=\"{sick}\",upstream=\"one\"}}");
    eventually("it is out", || gateway.metric(&unhealthy).filter(|&value| value == 0.0));
    for n in 1..4 {
        gateway.reload(&yaml(&n.to_string()));
        // With its state lost, the sick one would get a half of these until three checks failed again.
        (0..4).for_each(|_| assert_eq!(gateway.get("/").text(), "well"));
    }
}

#[test]
fn the_series_of_what_was_removed_go() {
    let origin = Origin::text("x");
    let mut gateway = Gateway::start(&format!(
        "upstreams: {{ gone: {{ endpoints: [\"{origin}\"] }} }}\nroutes: {{ leaving: {{ to: {{ upstream: gone }} }} }}"
    ));
    gateway.get("/");
    eventually("it is counted", || gateway.metric("banyan_requests_total{class=\"2xx\",route=\"leaving\"}"));
    gateway.reload(&says("one"));
    gateway.get("/");
    let series = gateway.admin("/metrics").text();
    assert!(!series.contains("leaving") && !series.contains("gone"), "{series}");
}

#[test]
fn a_changed_upstream_is_used_at_once_and_the_old_left() {
    let (old, new) = (Origin::text("old"), Origin::text("new"));
    let yaml = |origin: &Origin| {
        format!("upstreams: {{ one: {{ endpoints: [\"{origin}\"] }} }}\nroutes: {{ all: {{ to: {{ upstream: one }} }} }}")
    };
    let mut gateway = Gateway::start(&yaml(&old));
    assert_eq!(gateway.get("/").text(), "old");
    gateway.reload(&yaml(&new));
    (0..10).for_each(|_| assert_eq!(gateway.get("/").text(), "new"));
    assert_eq!(old.count(), 1);
}

#[test]
fn what_is_no_route_and_no_upstream_changes_too() {
    let yaml = |format: &str, trusted: &str, slashes: &str| {
        format!(
            "observe: {{ access_log: {{ format: {format} }} }}\ntrusted_proxies: [{trusted}]\npaths: {{ encoded_slashes: {slashes} }}\n{}",
            says("one")
        )
    };
    let ask = |gateway: &Gateway, path: &str| {
        gateway.ask(&format!("GET {path} HTTP/1.1\nHost: a\nX-Request-Id: from-the-client")).status
    };
    let mut gateway = Gateway::start(&yaml("combined", "", "refuse"));
    assert_eq!(ask(&gateway, "/a%2Fb"), 400);
    gateway.reload(&yaml("json", "127.0.0.1", "keep"));
    assert_eq!(ask(&gateway, "/a%2Fb"), 200);
    assert_eq!(gateway.logged_path("/a%2Fb")["request_id"], "from-the-client");
}

#[test]
fn a_change_of_listeners_waits_and_the_rest_applies() {
    let mut gateway = Gateway::start(&says("one"));
    gateway.reload(&format!(
        "listeners: {{ web: {{ address: 127.0.0.1:<web> }}, more: {{ address: 127.0.0.1:<more> }} }}\n{}",
        says("two")
    ));
    assert_eq!(gateway.get("/").text(), "two");
    assert!(std::net::TcpStream::connect(gateway.address("more")).is_err());
    gateway.said("waits_for_restart=\"listeners.more\"");
    assert_eq!(gateway.admin("/config").json()["waits_for_restart"], serde_json::json!(["listeners.more"]));
    gateway.reload(&says("three"));
    assert_eq!(gateway.get("/").text(), "three");
}

#[test]
fn a_listener_that_was_taken_away_stays_until_the_restart() {
    let mut gateway = Gateway::start(&format!(
        "listeners: {{ web: {{ address: 127.0.0.1:<web> }}, more: {{ address: 127.0.0.1:<more> }} }}\n{}",
        says("one")
    ));
    gateway.reload(&format!("listeners: {{ web: {{ address: 127.0.0.1:<web> }} }}\n{}", says("two")));
    assert_eq!(Connection::open(gateway.address("more")).ask("GET / HTTP/1.1\nHost: a").text(), "two");
    gateway.said("waits_for_restart=\"listeners.more\"");
}

#[test]
fn a_mistake_that_is_taken_back_is_no_failure_any_more_and_what_waits_is_still_known() {
    let gateway = Gateway::start(&says("one"));
    let good = fs::read_to_string(gateway.dir().join("banyan.yaml")).unwrap();
    let success = || gateway.metric("banyan_config_last_reload_success");
    let waits = || gateway.admin("/config").json()["waits_for_restart"].clone();
    gateway.replace("banyan.yaml", &format!("process: {{ threads: 3 }}\n{good}"));
    eventually("what waits", || (waits() == serde_json::json!(["process.threads"])).then_some(()));
    gateway.replace("banyan.yaml", &format!("process: {{ threads: 3 }}\nmistake: 1\n{good}"));
    eventually("a refusal", || (success() == Some(0.0)).then_some(()));
    assert_eq!(waits(), serde_json::json!(["process.threads"]));
    gateway.replace("banyan.yaml", &format!("process: {{ threads: 3 }}\n{good}"));
    eventually("success again", || (success() == Some(1.0)).then_some(()));
}

#[test]
fn a_release_that_is_linked_anew_is_seen_and_so_are_later_edits() {
    let release = |text: &str| {
        let listeners = "listeners: { web: { address: 127.0.0.1:<web> } }\nadmin: { address: \"127.0.0.1:<admin>\" }\n";
        format!("{listeners}{}", says(text))
    };
    let dir = tempfile::tempdir().unwrap();
    symlink("release-1", dir.path().join("current")).unwrap();
    let start =
        Start::default().dir(dir).file("release-1/banyan.yaml", &release("one")).file("release-2/banyan.yaml", &release("two"));
    let gateway = start.config("current/banyan.yaml").ready();
    assert_eq!(gateway.get("/").text(), "one");
    relink(&gateway.dir().join("current"), "release-2");
    wait_until_it_says(&gateway, "two");
    let file = gateway.dir().join("release-2/banyan.yaml");
    fs::write(&file, fs::read_to_string(&file).unwrap().replace("two", "edited")).unwrap();
    wait_until_it_says(&gateway, "edited");
}

#[test]
fn a_directory_that_is_exchanged_is_seen_and_so_are_later_edits() {
    let base = "listeners: { web: { address: 127.0.0.1:<web> } }\nadmin: { address: \"127.0.0.1:<admin>\" }\n";
    let start = Start::default().file("conf/a.yaml", base).file("conf/b.yaml", &says("one"));
    let gateway = start.file("new/a.yaml", base).file("new/b.yaml", &says("two")).config("conf").ready();
    fs::rename(gateway.dir().join("conf"), gateway.dir().join("old")).unwrap();
    fs::rename(gateway.dir().join("new"), gateway.dir().join("conf")).unwrap();
    wait_until_it_says(&gateway, "two");
    fs::write(gateway.dir().join("conf/b.yaml"), says("edited")).unwrap();
    wait_until_it_says(&gateway, "edited");
}

#[test]
fn many_changes_at_once_end_in_the_last() {
    let gateway = Gateway::start(&says("0"));
    let good = fs::read_to_string(gateway.dir().join("banyan.yaml")).unwrap();
    for n in 1..=50 {
        gateway.replace("banyan.yaml", &good.replace("\"0\"", &format!("\"{n}\"")));
    }
    wait_until_it_says(&gateway, "50");
}

#[test]
fn a_reload_that_changes_nothing_is_no_new_generation() {
    let mut gateway = Gateway::start(&says("one"));
    gateway.reload(&says("two"));
    let same = fs::read_to_string(gateway.dir().join("banyan.yaml")).unwrap();
    gateway.replace("banyan.yaml", &same);
    gateway.signal("HUP");
    gateway.reload(&says("three"));
    assert_eq!(gateway.generation(), 3);
}
