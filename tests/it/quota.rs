//! Quotas of plans, from outside: what callers are told, and that what they used outlives whatever happens to the process.

use std::{fs, os::unix::fs::PermissionsExt};

use sha2::{Digest, Sha256};

use crate::harness::{
    Connection, Gateway, Origin, Response, eventually,
    gateway::{Start, banyan, run},
};

const TOKEN: &str = "correct-horse";

/// Consumers `acme` and `mobile` of a plan with this quota, whose use is kept in the gateway's folder.
fn yaml(quota: &str, more: &str) -> String {
    let sum = |key: &str| format!("{:x}", Sha256::digest(key));
    format!(
        r#"
listeners: {{ web: {{ address: "127.0.0.1:<web>" }} }}
admin: {{ address: "127.0.0.1:<admin>", token: {TOKEN} }}
process: {{ state: <dir> }}
plans:
  free: {{ limit: 1000/1s, quota: {quota} }}
  open: {{ limit: 1000/1s }}
consumers:
  acme: {{ plan: free, credentials: [{{ api_key: {{ sha256: {} }} }}] }}
  mobile: {{ plan: free, credentials: [{{ api_key: {{ sha256: {} }} }}] }}
  staff: {{ plan: open, credentials: [{{ api_key: {{ sha256: {} }} }}] }}
policies:
  auth: {{ api_key: {{ header: X-Api-Key }} }}
routes:
  all: {{ to: {{ respond: {{ body: here }} }} }}
  other: {{ match: {{ path: /other }}, to: {{ respond: {{ body: there }} }} }}
{more}
"#,
        sum("acme"),
        sum("mobile"),
        sum("staff"),
    )
}

fn ask(gateway: &Gateway, key: &str, path: &str) -> Response {
    gateway.ask(&head(key, path))
}

fn head(key: &str, path: &str) -> String {
    format!("GET {path} HTTP/1.1\nHost: a\nX-Api-Key: {key}")
}

#[track_caller]
fn used(gateway: &Gateway, consumer: &str) -> u64 {
    let told = gateway.admin(&format!("/limits/{consumer}")).json();
    told["quota"]["used"].as_u64().unwrap_or_else(|| panic!("no quota: {told}"))
}

/// What the journal says of a consumer, the last time.
fn written(gateway: &Gateway, consumer: &str) -> Option<u64> {
    let text = fs::read_to_string(gateway.dir().join("quota.journal")).ok()?;
    let line = text.lines().rfind(|line| line.split(' ').next_back() == Some(consumer))?;
    line.split(' ').nth(4)?.parse().ok()
}

#[test]
fn a_consumer_has_its_quota_once_for_all_routes() {
    let gateway = Gateway::start(&yaml("3/1mo", ""));
    for path in ["/", "/other", "/x"] {
        assert_eq!(ask(&gateway, "acme", path).status, 200);
    }
    let refused = ask(&gateway, "acme", "/");
    assert_eq!((refused.status, refused.json()["code"].as_str()), (429, Some("quota_exceeded")));
    let retry_after = refused.field("retry-after").unwrap().parse::<u64>().unwrap();
    assert!((1..=31 * 86_400).contains(&retry_after), "{retry_after}");
    assert_eq!(refused.field("ratelimit-policy"), Some("\"quota\";q=3"));
    assert!(refused.field("ratelimit").is_some_and(|told| told.starts_with("\"quota\";r=0;t=")));
    let first = ask(&gateway, "mobile", "/");
    assert!(first.status == 200 && first.field("ratelimit").is_some_and(|told| told.starts_with("\"quota\";r=2;t=")));
    let free = ask(&gateway, "staff", "/");
    assert_eq!((free.status, free.field("ratelimit")), (200, None));
    assert_eq!(gateway.logged(|entry| entry["status"] == 429)["flag"], "RL");
    let counted = |outcome: &str| {
        let labels = format!("limit=\"quota\",mode=\"enforce\",outcome=\"{outcome}\",policy=\"quota\",route=\"all\"");
        gateway.metric(&format!("banyan_limits_total{{{labels}}}"))
    };
    assert_eq!((counted("admitted"), counted("refused")), (Some(3.0), Some(1.0)));
}

#[test]
fn what_is_refused_for_coming_too_fast_costs_no_quota() {
    let limit = "  once: { match: { path: /once }, policies: { rate_limit: { slow: { key: consumer, limit: 1/1h } } }, to: { respond: {} } }";
    let gateway = Gateway::start(&yaml("10/1mo", limit));
    let statuses = [0; 4].map(|_| ask(&gateway, "acme", "/once").status);
    assert_eq!((statuses, used(&gateway, "acme")), ([200, 429, 429, 429], 1));
}

#[test]
fn what_the_quota_refuses_costs_nothing_of_the_rate() {
    let limit = "  some: { match: { path: /some }, policies: { rate_limit: { slow: { key: consumer, limit: 5/1h } } }, to: { respond: {} } }";
    let gateway = Gateway::start(&yaml("2/1mo", limit));
    let statuses = [0; 5].map(|_| ask(&gateway, "acme", "/some").status);
    assert_eq!(statuses, [200, 200, 429, 429, 429]);
    let told = gateway.admin("/limits/acme").json();
    assert_eq!((&told["rate_limits"][0]["name"], &told["rate_limits"][0]["remaining"]), (&"slow".into(), &3.into()));
}

#[test]
fn a_route_may_count_nothing_or_only_try() {
    let routes = "  free: { match: { path: /free }, policies: { quota: off }, to: { respond: {} } }\n  \
                  trial: { match: { path: /trial }, policies: { quota: { mode: shadow } }, to: { respond: {} } }";
    let gateway = Gateway::start(&yaml("1/1mo", routes));
    for _ in 0..3 {
        let free = ask(&gateway, "acme", "/free");
        assert_eq!((free.status, free.field("ratelimit")), (200, None));
    }
    assert_eq!(used(&gateway, "acme"), 0);
    assert_eq!([0; 3].map(|_| ask(&gateway, "acme", "/trial").status), [200; 3]);
    assert_eq!((used(&gateway, "acme"), ask(&gateway, "acme", "/").status), (1, 429));
}

#[test]
fn use_survives_restart_and_reload() {
    let mut gateway = Gateway::start(&yaml("5/1mo", ""));
    assert_eq!([0; 2].map(|_| ask(&gateway, "acme", "/").status), [200; 2]);
    gateway.reload(&yaml("4/1mo", ""));
    assert_eq!(used(&gateway, "acme"), 2);
    gateway.signal("TERM");
    assert!(gateway.exit().success());
    assert_eq!(written(&gateway, "acme"), Some(2), "written before the process ended");
    let mode = fs::metadata(gateway.dir().join("quota.journal")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let again = gateway.again();
    assert_eq!([0; 4].map(|_| ask(&again, "acme", "/").status), [200, 200, 429, 429]);
}

#[test]
fn a_process_that_is_killed_loses_no_more_than_its_last_second() {
    let gateway = Gateway::start(&yaml("5/1mo", ""));
    assert_eq!([0; 3].map(|_| ask(&gateway, "acme", "/").status), [200; 3]);
    eventually("the use on disk", || (written(&gateway, "acme") == Some(3)).then_some(()));
    gateway.signal("KILL");
    let journal = gateway.dir().join("quota.journal");
    // And its last line was torn.
    let mut torn = fs::read(&journal).unwrap();
    torn.extend_from_slice(b"q1 00ff");
    fs::write(&journal, torn).unwrap();
    let again = gateway.again();
    assert_eq!([0; 3].map(|_| ask(&again, "acme", "/").status), [200, 200, 429]);
    eventually("the use on disk", || (written(&again, "acme") == Some(5)).then_some(()));
}

#[test]
fn old_process_and_successor_count_together() {
    let origin = Origin::text("here");
    let more = format!(
        "  carried: {{ match: {{ path: /carried }}, to: {{ upstream: one }} }}\nupstreams: {{ one: {{ endpoints: [\"{origin}\"] }} }}"
    );
    let old = Gateway::start(&yaml("100/1mo", &more));
    let mut before = Connection::open(old.web());
    assert_eq!(before.ask(&head("acme", "/carried")).status, 200);
    let successor = old.succeeded();
    assert_eq!(before.ask(&head("acme", "/carried")).status, 200, "the old process still answers who was connected");
    assert_eq!([0; 3].map(|_| ask(&successor, "acme", "/").status), [200; 3]);
    eventually("all that was used", || (used(&successor, "acme") == 5).then_some(()));
    eventually("all that was used, on disk", || (written(&successor, "acme") == Some(5)).then_some(()));
}

#[test]
fn an_operator_sees_what_was_used_and_may_forget_it() {
    let gateway = Gateway::start(&yaml("2/1d", ""));
    assert_eq!([0; 3].map(|_| ask(&gateway, "acme", "/").status), [200, 200, 429]);
    let told = gateway.admin("/limits/acme").json();
    let quota = &told["quota"];
    assert_eq!((&told["consumer"], &told["plan"], &quota["period"]), (&"acme".into(), &"free".into(), &"1d".into()));
    assert_eq!(
        (quota["used"].as_u64(), quota["limit"].as_u64(), quota["survives_restart"].as_bool()),
        (Some(2), Some(2), Some(true))
    );
    assert!(quota["ends"].as_str().is_some_and(|ends| ends.ends_with("T00:00:00+00:00")), "{quota}");
    assert!(gateway.admin("/limits/staff").json()["quota"].is_null());
    assert_eq!(gateway.admin("/limits/nobody").status, 404);
    let reset = |fields: &str| {
        gateway.admin_ask(&format!("POST /limits/acme/reset HTTP/1.1\nHost: localhost\nContent-Length: 0{fields}"))
    };
    assert_eq!((reset("").status, used(&gateway, "acme")), (401, 2));
    assert_eq!(reset(&format!("\nAuthorization: Bearer {TOKEN}")).json()["quota"]["used"], 0);
    assert_eq!(ask(&gateway, "acme", "/").status, 200);
    let command = |arguments: &[&str]| {
        let file = gateway.dir().join("banyan.yaml").display().to_string();
        run(&mut banyan(["limits", "-c", &file].into_iter().chain(arguments.iter().copied())))
    };
    let (code, told, _) = command(&["acme"]);
    assert!(code == 0 && told.contains("\"used\": 1"), "{told}");
    assert!(command(&["--reset", "acme"]).1.contains("\"used\": 0"));
    let (code, _, said) = command(&["nobody"]);
    assert_eq!((code, said.as_str()), (1, "banyan: There is no consumer of this name.\n"));
}

#[test]
fn a_quota_that_cannot_be_kept_is_told_and_a_place_that_is_not_there_ends_the_start() {
    let nowhere = Gateway::start(&yaml("2/1d", "").replace("process: { state: <dir> }", ""));
    nowhere.said("a restart forgets what was used of quotas");
    assert_eq!(nowhere.admin("/limits/acme").json()["quota"]["survives_restart"], false);
    let (status, said) = Start::on(&yaml("2/1d", "").replace("state: <dir>", "state: <dir>/nowhere")).fails();
    assert_eq!(status.code(), Some(73), "{said}");
    assert!(said.contains("the use of quotas cannot be kept in"), "{said}");
    let given =
        Start::on(&yaml("2/1d", "").replace("process: { state: <dir> }", "")).env("STATE_DIRECTORY", "/nowhere:/tmp").fails();
    assert_eq!(given.0.code(), Some(73), "the first of what the service manager names: {}", given.1);
}

#[test]
fn a_reload_may_bring_the_first_quota() {
    let without = yaml("2/1d", "").replace(", quota: 2/1d", "");
    let mut gateway = Gateway::start(&without);
    assert_eq!(ask(&gateway, "acme", "/").field("ratelimit"), None);
    gateway.reload(&yaml("2/1d", ""));
    assert_eq!([0; 3].map(|_| ask(&gateway, "acme", "/").status), [200, 200, 429]);
    eventually("the use on disk", || (written(&gateway, "acme") == Some(2)).then_some(()));
}
