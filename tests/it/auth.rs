//! Who may pass, from outside: callers with and without credentials, and what services and operators see of them.

use sha2::{Digest, Sha256};

use crate::harness::{Gateway, Origin, Response};

/// The digest of an API key as a configuration has it.
fn digest(key: &str) -> String {
    format!("{:x}", Sha256::digest(key))
}

/// A gateway before this service, with these routes beside one for everything else, whose callers need a key of `acme` or `mobile`.
fn gateway(origin: &Origin, routes: &str) -> Gateway {
    Gateway::start(&format!(
        r#"
upstreams: {{ one: {{ endpoints: ["{origin}"] }} }}
consumers:
  acme: {{ groups: [partners, early], credentials: [{{ api_key: {{ sha256: {} }} }}] }}
  mobile: {{ credentials: [{{ api_key: {{ sha256: {} }} }}] }}
  guest: {{ groups: [public] }}
policies:
  auth: {{ api_key: {{ header: X-Api-Key }} }}
routes:
  all: {{ to: {{ upstream: one }} }}
{routes}
"#,
        digest("key-of-acme"),
        digest("key-of-mobile"),
    ))
}

fn refused(response: &Response, challenges: &[&str]) {
    assert_eq!((response.status, response.head.all("www-authenticate")), (401, challenges.to_vec()));
    assert_eq!(response.field("content-type"), Some("application/problem+json"));
    assert_eq!(response.json()["code"], "unauthenticated");
    assert_eq!(response.field("connection"), Some("keep-alive"));
}

const CHALLENGE: &str = "ApiKey header=\"X-Api-Key\"";

#[test]
fn a_caller_without_a_valid_key_never_reaches_a_service() {
    let origin = Origin::echo();
    let gateway = gateway(&origin, "");
    let mut connection = gateway.connect();
    let ask = |fields: &str| format!("GET /x HTTP/1.1\nHost: a{fields}");
    let mut texts = Vec::new();
    for fields in
        ["", "\nX-Api-Key: wrong", "\nX-Api-Key:", "\nX-Api-Key: key-of-acme\nX-Api-Key: key-of-acme", "\nX_Api_Key: key-of-acme"]
    {
        let response = connection.ask(&ask(fields));
        refused(&response, &[CHALLENGE]);
        let id = response.field("x-request-id").unwrap().to_owned();
        texts.push(response.text().replace(&id, ""));
    }
    assert_eq!(origin.count(), 0);
    assert!(texts.iter().all(|text| *text == texts[0]), "the answer says nothing of what was wrong: {texts:?}");
    assert_eq!(connection.ask(&ask("\nX-Api-Key: key-of-acme")).status, 200, "on the connection of those that were refused");
}

#[test]
fn a_service_is_told_who_calls_and_not_by_what() {
    let origin = Origin::echo();
    let gateway = gateway(&origin, "  open: { match: { path: /open }, policies: { auth: off }, to: { upstream: one } }");
    let claims = "X-Consumer: admin\nX-Consumer-Groups: root\nx_consumer: admin\nX-Consumer_Groups: root";
    gateway.ask(&format!("GET /x HTTP/1.1\nHost: a\n{claims}\nX-Api-Key: key-of-acme"));
    let request = origin.last();
    assert_eq!(request.head.all("x-consumer"), ["acme"]);
    assert_eq!(request.head.all("x-consumer-groups"), ["partners, early"]);
    for gone in ["x-api-key", "x_consumer", "x-consumer_groups"] {
        assert_eq!(request.field(gone), None, "{gone}");
    }
    gateway.ask(&format!("GET /x HTTP/1.1\nHost: a\n{claims}\nX-Api-Key: key-of-mobile"));
    assert_eq!((origin.last().head.all("x-consumer"), origin.last().field("x-consumer-groups")), (vec!["mobile"], None));
    gateway.ask(&format!("GET /open HTTP/1.1\nHost: a\n{claims}\nX-Api-Key: key-of-mobile"));
    let open = origin.last();
    assert_eq!((open.field("x-consumer"), open.field("x-consumer-groups"), open.field("x_consumer")), (None, None, None));
    assert_eq!(open.field("x-api-key"), Some("key-of-mobile"), "a route that asks for no key leaves it alone");
}

#[test]
fn a_client_cannot_have_the_word_of_the_gateway_taken_out() {
    let origin = Origin::echo();
    let gateway = gateway(&origin, "");
    let ask = "GET /x HTTP/1.1\nHost: a\nX-Api-Key: key-of-acme\nConnection: X-Consumer, X-Consumer-Groups";
    gateway.ask(ask);
    assert_eq!(origin.last().field("x-consumer"), Some("acme"));
    assert_eq!(origin.last().field("x-consumer-groups"), Some("partners, early"));
}

#[test]
fn the_log_names_the_consumer_and_never_the_key() {
    let origin = Origin::echo();
    let gateway = gateway(
        &origin,
        "  query: { match: { path: '/query/**' }, policies: { auth: { api_key: { query: key, keep: true } } }, to: { upstream: one } }",
    );
    gateway.ask("GET /one HTTP/1.1\nHost: a\nX-Api-Key: key-of-acme");
    let line = gateway.logged_path("/one");
    assert_eq!((&line["consumer"], &line["auth"], &line["refusal"]), (&"acme".into(), &"api_key".into(), &().into()));
    gateway.ask("GET /two HTTP/1.1\nHost: a\nX-Api-Key: wrong-key");
    let line = gateway.logged_path("/two");
    assert_eq!((&line["consumer"], &line["auth"], &line["refusal"]), (&().into(), &().into(), &"api_key unknown".into()));
    assert_eq!(line["flag"], "PR");
    let response =
        gateway.ask("GET /query/three?a=1&k%65y=key-of-acme HTTP/1.1\nHost: a\nReferer: http://a/query/?key=key-of-acme");
    assert_eq!((response.status, origin.last().target()), (200, "/query/three?a=1&k%65y=key-of-acme"), "kept on purpose");
    let line = gateway.logged_path("/query/three");
    assert_eq!((&line["query"], &line["referer"]), (&"a=1&k%65y=***".into(), &"http://a/query/?key=***".into()));
    // What no route takes, what cannot be read, and what the edge refuses.
    gateway.ask("PURGE /four?key=key-of-acme HTTP/1.1\nHost: a");
    gateway.ask("GET /five%?key=key-of-acme HTTP/1.1\nHost: a");
    gateway.ask("GET /six?key=key-of-acme HTTP/1.1\nHost: a\nHost: b");
    gateway.ask("GET /last HTTP/1.1\nHost: a");
    gateway.logged_path("/last");
    gateway.logged(|entry| entry["path"].as_str().is_some_and(|path| path.starts_with("/six")));
    assert!(!gateway.stdout.text().contains("key-of-acme"), "{}", gateway.stdout.text());
    assert!(!gateway.stderr.text().contains("key-of-acme"), "{}", gateway.stderr.text());
}

#[test]
fn what_authentication_said_is_counted() {
    let origin = Origin::echo();
    let gateway = gateway(
        &origin,
        "  trial: { match: { path: /trial }, policies: { auth: { api_key: { header: X-Api-Key }, mode: shadow } }, to: { upstream: one } }",
    );
    for path in ["x", "trial"] {
        for fields in ["", "\nX-Api-Key: wrong", "\nX-Api-Key: key-of-acme"] {
            gateway.ask(&format!("GET /{path} HTTP/1.1\nHost: a{fields}"));
        }
    }
    let count = |mode: &str, reason: &str, route: &str, scheme: &str| {
        let labels = format!(r#"mode="{mode}",reason="{reason}",route="{route}",scheme="{scheme}""#);
        gateway.metric(&format!("banyan_auth_total{{{labels}}}"))
    };
    for (mode, route) in [("enforce", "all"), ("shadow", "trial")] {
        assert_eq!(count(mode, "missing", route, "-"), Some(1.0));
        assert_eq!(count(mode, "unknown", route, "api_key"), Some(1.0));
        assert_eq!(count(mode, "ok", route, "api_key"), Some(1.0));
    }
    assert_eq!(origin.count(), 4, "one that was let pass, and three of the trial");
    assert_eq!(gateway.logged(|entry| entry["path"] == "/trial")["refusal"], "shadow - missing");
}

#[test]
fn a_refusal_has_its_cors_fields_and_a_preflight_needs_no_key() {
    let origin = Origin::echo();
    let gateway = gateway(
        &origin,
        "  api: { match: { path: /api }, policies: { cors: { origins: ['https://shop.example'], methods: [PUT] } }, to: { upstream: one } }",
    );
    let response = gateway.ask("PUT /api HTTP/1.1\nHost: a\nOrigin: https://shop.example\nContent-Length: 0");
    refused(&response, &[CHALLENGE]);
    assert_eq!(response.field("access-control-allow-origin"), Some("https://shop.example"));
    let ask = "OPTIONS /api HTTP/1.1\nHost: a\nOrigin: https://shop.example\nAccess-Control-Request-Method: PUT";
    assert_eq!(gateway.ask(ask).status, 204);
    assert_eq!(
        gateway.ask("OPTIONS /api HTTP/1.1\nHost: a\nOrigin: https://shop.example").status,
        401,
        "an OPTIONS that asks for nothing"
    );
    assert_eq!(origin.count(), 0);
}

#[test]
fn a_key_that_is_taken_away_is_refused_after_the_reload() {
    let origin = Origin::echo();
    let yaml = |keys: &str| {
        format!(
            "upstreams: {{ one: {{ endpoints: [\"{origin}\"] }} }}\nconsumers: {{ acme: {{ credentials: [{keys}] }} }}\nroutes: {{ all: {{ policies: {{ auth: {{ api_key: {{ header: X-Api-Key }} }} }}, to: {{ upstream: one }} }} }}"
        )
    };
    let entry = |key: &str| format!("{{ api_key: {{ sha256: {} }} }}", digest(key));
    let mut gateway = Gateway::start(&yaml(&entry("old")));
    let mut connection = gateway.connect();
    let ask = |key: &str| format!("GET /x HTTP/1.1\nHost: a\nX-Api-Key: {key}");
    assert_eq!((connection.ask(&ask("old")).status, connection.ask(&ask("new")).status), (200, 401));
    gateway.reload(&yaml(&format!("{}, {}", entry("old"), entry("new"))));
    assert_eq!((connection.ask(&ask("old")).status, connection.ask(&ask("new")).status), (200, 200));
    gateway.reload(&yaml(&entry("new")));
    assert_eq!((connection.ask(&ask("old")).status, connection.ask(&ask("new")).status), (401, 200));
}
