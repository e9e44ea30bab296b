//! Who may pass, from outside: callers with and without credentials, and what services and operators see of them.

use std::collections::BTreeSet;

use base64::Engine;
use sha2::{Digest, Sha256};

use crate::harness::{
    Connection, Gateway, Origin, PATIENCE, Response,
    cert::Authority,
    eventually,
    gateway::{Start, banyan, run},
    h2::{self, full, h2c, play},
    meet::client_as,
};

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
    let (origin, modern) = (Origin::shouting(), h2::Service::h2c(|_| http::Response::new(full(""))));
    let gateway = Gateway::start(&format!(
        r#"
upstreams: {{ old: {{ endpoints: ["{origin}"] }}, new: {{ protocol: h2c, endpoints: ["{modern}"] }} }}
consumers: {{ acme: {{ groups: [partners], credentials: [{{ api_key: {{ sha256: {} }} }}] }} }}
policies: {{ auth: {{ api_key: {{ header: X-Api-Key }} }} }}
routes:
  old: {{ to: {{ upstream: old }} }}
  new: {{ match: {{ path: /new }}, to: {{ upstream: new }} }}
"#,
        digest("key-of-acme"),
    ));
    let fields = "X-Api-Key: key-of-acme\nX-Consumer: admin";
    for (options, passed_on) in [
        ("X-Consumer, X-Consumer-Groups, X-Api-Key", None),
        ("keep-alive,x-consumer\nConnection: X-CONSUMER-GROUPS", None),
        ("Upgrade, X-Consumer, X-Consumer-Groups\nUpgrade: websocket", Some("Upgrade")),
        ("X-Consumer, X-Consumer-Groups\nUpgrade: x-consumer", None),
    ] {
        let served = origin.count();
        gateway.connect().send_head(&format!("GET /x HTTP/1.1\nHost: a\n{fields}\nConnection: {options}")).0.head().unwrap();
        assert_eq!(origin.count(), served + 1, "{options}");
        let request = origin.last();
        assert_eq!(request.head.all("x-consumer"), ["acme"], "{options}");
        assert_eq!(request.head.all("x-consumer-groups"), ["partners"], "{options}");
        assert_eq!(request.field("x-api-key"), None, "{options}");
        assert_eq!(request.field("connection"), passed_on, "nor by whoever comes next: {options}");
    }
    let options = "Connection: X-Consumer, X-Consumer-Groups";
    assert_eq!(gateway.ask(&format!("GET /new HTTP/1.1\nHost: a\n{fields}\n{options}")).status, 200);
    let request = modern.last();
    let said = |name: &str| request.headers().get_all(name).iter().map(|value| value.to_str().unwrap()).collect::<Vec<_>>();
    assert_eq!((said("x-consumer"), said("x-consumer-groups"), said("x-api-key")), (vec!["acme"], vec!["partners"], vec![]));
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

#[test]
fn who_is_in_no_group_that_is_asked_for_is_refused() {
    let origin = Origin::echo();
    let gateway = gateway(
        &origin,
        "  partners: { match: { path: /partners }, policies: { authz: { groups: [partners] } }, to: { upstream: one } }
  trial: { match: { path: /trial }, policies: { authz: { groups: [partners], mode: shadow } }, to: { upstream: one } }",
    );
    let ask = |path: &str, key: &str| gateway.ask(&format!("GET {path} HTTP/1.1\nHost: a\nX-Api-Key: key-of-{key}"));
    assert_eq!(ask("/partners", "acme").status, 200);
    let response = ask("/partners", "mobile");
    assert_eq!((response.status, response.field("www-authenticate")), (403, None));
    assert_eq!(response.json()["code"], "forbidden");
    assert_eq!(gateway.ask("GET /partners HTTP/1.1\nHost: a").status, 401, "who is not known is asked who it is");
    assert_eq!(ask("/trial", "mobile").status, 200);
    assert_eq!(origin.count(), 2);
    let line = gateway.logged(|entry| entry["status"] == 403);
    assert_eq!((&line["consumer"], &line["refusal"]), (&"mobile".into(), &"authz groups".into()));
    assert_eq!(gateway.logged_path("/trial")["refusal"], "shadow authz groups");
    for (mode, reason, route) in [("enforce", "ok", "partners"), ("enforce", "groups", "partners"), ("shadow", "groups", "trial")]
    {
        let sample = format!(r#"banyan_authz_total{{mode="{mode}",reason="{reason}",route="{route}"}}"#);
        assert_eq!(gateway.metric(&sample), Some(1.0), "{sample}");
    }
}

#[test]
fn who_does_not_fit_the_rule_is_refused() {
    let origin = Origin::echo();
    let gateway = gateway(
        &origin,
        r#"  rule: { match: { path: "/rule/**" }, policies: { authz: { when: 'request.method == "GET" || "partners" in consumer.groups && request.headers["x-reason"] != ""' } }, to: { upstream: one } }"#,
    );
    let ask = |head: &str, key: &str| gateway.ask(&format!("{head}\nHost: a\nX-Api-Key: key-of-{key}")).status;
    assert_eq!(ask("GET /rule/a HTTP/1.1", "mobile"), 200);
    assert_eq!(ask("DELETE /rule/a HTTP/1.1\nX-Reason: sold", "acme"), 200);
    assert_eq!(ask("DELETE /rule/b HTTP/1.1\nX-Reason: sold", "mobile"), 403);
    assert_eq!(ask("DELETE /rule/c HTTP/1.1", "acme"), 403, "a rule without a value refuses");
    assert_eq!(origin.count(), 2);
    assert_eq!(gateway.logged_path("/rule/b")["refusal"], "authz when");
    assert_eq!(gateway.logged_path("/rule/c")["refusal"], "authz when");
}

/// Clients by certificate, over TLS 1.3: what each is answered.
#[test]
fn a_certificate_says_whose_it_is() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let dir = tempfile::tempdir().unwrap();
    authority.leaf(&["a"]).write(dir.path(), "a");
    std::fs::write(dir.path().join("ca.pem"), clients.pem()).unwrap();
    let [printed, named, subject, stranger] =
        ["printed", "named.example", "subject", "stranger"].map(|name| clients.leaf(&[name]));
    let print: String = Sha256::digest(printed.der()).iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":");
    let origin = Origin::echo();
    let gateway = Start::on(&format!(
        r#"
listeners:
  web: {{ address: 127.0.0.1:<web> }}
  secure: {{ address: 127.0.0.1:<secure>, tls: {{ certificates: [{{ cert: a.pem, key: a.key }}], client_auth: {{ mode: optional, ca: ca.pem }} }} }}
upstreams: {{ one: {{ endpoints: ["{origin}"] }} }}
consumers:
  by-print: {{ credentials: [{{ client_certificate: {{ fingerprint: "{print}" }} }}] }}
  by-name: {{ credentials: [{{ client_certificate: {{ san: "DNS:Named.example" }} }}] }}
  by-subject: {{ credentials: [{{ client_certificate: {{ subject: "cn = subject" }} }}] }}
routes:
  all: {{ policies: {{ auth: {{ client_certificate: {{ forward: certificate }} }} }}, to: {{ upstream: one }} }}
  open: {{ match: {{ path: /open }}, to: {{ upstream: one }} }}
"#
    ))
    .dir(dir)
    .ready();
    let ask = |client, path: &str| {
        let mut connection = Connection::tls(gateway.address("secure"), "a", client).unwrap();
        connection
            .ask(&format!("GET {path} HTTP/1.1\nHost: a\nClient-Cert: :AAAA:\nClient_Cert: :AAAA:\nClient-Cert-Chain: :AAAA:"))
    };
    let versions = rustls::DEFAULT_VERSIONS;
    for (leaf, consumer) in [(&printed, "by-print"), (&named, "by-name"), (&subject, "by-subject")] {
        assert_eq!(ask(client_as(&authority, leaf, versions), "/x").status, 200, "{consumer}");
        let request = origin.last();
        assert_eq!(request.head.all("x-consumer"), [consumer]);
        let der = base64::engine::general_purpose::STANDARD.encode(leaf.der());
        assert_eq!(request.head.all("client-cert"), [format!(":{der}:")]);
        assert_eq!((request.field("client_cert"), request.field("client-cert-chain")), (None, None));
    }
    ask(client_as(&authority, &printed, versions), "/open");
    assert_eq!(
        (origin.last().field("client-cert"), origin.last().field("x-consumer")),
        (None, None),
        "forwarded where it is asked for"
    );
    let served = origin.count();
    refused(&ask(client_as(&authority, &stranger, versions), "/x"), &["ClientCertificate"]);
    refused(&ask(authority.client_of(versions), "/x"), &["ClientCertificate"]);
    refused(&gateway.ask("GET /x HTTP/1.1\nHost: a\nClient-Cert: :AAAA:"), &["ClientCertificate"]);
    assert_eq!(origin.count(), served);
}

#[test]
fn a_new_key_is_one_that_the_gateway_takes() {
    let (code, told, _) = run(&mut banyan(["key", "new", "acme"]));
    assert_eq!(code, 0);
    let (key, yaml) = told.split_once('\n').unwrap();
    assert!(
        key.strip_prefix("banyan_").is_some_and(|rest| rest.len() == 49 && rest.bytes().all(|b| b.is_ascii_alphanumeric())),
        "{key}"
    );
    assert!(!yaml.contains(key));
    let origin = Origin::echo();
    let gateway = Gateway::start(&format!(
        "{yaml}upstreams: {{ one: {{ endpoints: [\"{origin}\"] }} }}\nroutes: {{ all: {{ policies: {{ auth: {{ api_key: {{ header: X-Api-Key }} }} }}, to: {{ upstream: one }} }} }}"
    ));
    assert_eq!(gateway.ask(&format!("GET / HTTP/1.1\nHost: a\nX-Api-Key: {key}")).status, 200);
    assert_eq!(origin.last().field("x-consumer"), Some("acme"));
    let (code, _, error) = run(&mut banyan(["key", "new", "two words"]));
    assert!(code == 2 && error.contains("two words"), "{code} {error}");
    let (_, other, _) = run(&mut banyan(["key", "new", "acme"]));
    assert_ne!(other.lines().next(), Some(key));
}

/// Every way around the policy that comes to mind: none reaches the service.
#[test]
fn nothing_passes_by_the_policy() {
    let origin = Origin::shouting();
    let gateway = Gateway::start(&format!(
        r#"
upstreams: {{ one: {{ endpoints: ["{origin}"] }} }}
consumers: {{ acme: {{ credentials: [{{ api_key: {{ sha256: {} }} }}] }} }}
routes:
  private: {{ match: {{ hosts: [shop.example], path: "/private/**" }}, policies: {{ auth: {{ api_key: {{ header: X-Api-Key }} }} }}, to: {{ upstream: one }} }}
"#,
        digest("key-of-acme"),
    ));
    let ask = |line: &str, fields: &str| gateway.ask(&format!("{line} HTTP/1.1\nHost: {fields}"));
    for method in ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND", "BREW", "get"] {
        let length = if matches!(method, "POST" | "PUT" | "PATCH") { "\nContent-Length: 0" } else { "" };
        assert_eq!(ask(&format!("{method} /private/x"), &format!("shop.example{length}")).status, 401, "{method}");
    }
    for path in [
        "/private",
        "/private/",
        "/%70rivate/x",
        "/./private/x",
        "/a/../private/x",
        "/private/%2e/x",
        "/private?x",
        "http://shop.example/private/x",
    ] {
        assert_eq!(ask(&format!("GET {path}"), "shop.example").status, 401, "{path}");
    }
    for path in ["//private/x", "/private%2fx", "/private/..%2fx", "/private\\x", "/PRIVATE/x"] {
        assert_ne!(ask(&format!("GET {path}"), "shop.example").status, 200, "{path}");
    }
    for host in ["shop.example.", "SHOP.example", "shop.example:80", "shop.example.:443"] {
        assert_eq!(ask("GET /private/x", host).status, 401, "{host}");
    }
    let key = "X-Api-Key: key-of-acme";
    for fields in [
        "Connection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 13\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "X-Api-Key: a\nX-Api-Key: b",
        &format!("{key}\nX-Api-Key: x"),
        &format!("X-Api-Key: x\n{key}"),
        &format!("{key}\n{key}"),
        "X-Api-Key: key-of-acme, key-of-acme",
        "X-Api-Key: \"key-of-acme\"",
        "X-Api_Key: key-of-acme",
        "Connection: X-Api-Key",
        "X-Original-URL: /open\nX-Rewrite-URL: /open",
        "X-HTTP-Method-Override: OPTIONS",
        "Authorization: Bearer key-of-acme",
        "X-Consumer: acme",
        "Origin: https://a\nAccess-Control-Request-Method: GET",
    ] {
        assert_eq!(ask("GET /private/x", &format!("shop.example\n{fields}")).status, 401, "{fields}");
    }
    let mut old = gateway.connect();
    old.send("GET /private/x HTTP/1.0\r\nHost: shop.example\r\n\r\n");
    assert_eq!(old.response("GET").status, 401);
    play(async {
        let mut client = h2c(gateway.web()).await;
        let request = || http::Request::get("http://shop.example/private/x");
        for request in [
            request(),
            request().header("x-api-key", "wrong"),
            request().header("x-api-key", "key-of-acme").header("x-api-key", "key-of-acme"),
            http::Request::options("http://shop.example./private/x"),
            http::Request::builder().method("BREW").uri("http://shop.example/%70rivate/x"),
        ] {
            let answer = h2::ask(&mut client, request.body(full("")).unwrap()).await;
            assert_eq!(answer.head.status, 401);
            assert_eq!(answer.field("www-authenticate"), Some(CHALLENGE));
        }
    });
    assert_eq!(origin.connections(), 0);
    let mut connection = gateway.connect();
    connection.send_head(&format!("GET /private/x HTTP/1.1\nHost: shop.example\nConnection: Upgrade\nUpgrade: websocket\n{key}"));
    assert_eq!(connection.0.head().unwrap().unwrap().status().unwrap(), 101, "with the key the upgrade is followed");
}

#[test]
fn a_password_is_verified_and_stays_at_the_gateway() {
    use argon2::{Algorithm, Argon2, Params, PasswordHasher, Version, password_hash::SaltString};
    let little = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(8, 1, 1, None).unwrap());
    let argon = little.hash_password(b"open sesame", &SaltString::from_b64("c2FsdHNhbHQ").unwrap()).unwrap().to_string();
    let bcrypt = bcrypt::hash("other", 4).unwrap();
    let origin = Origin::echo();
    let gateway = Gateway::start(&format!(
        r#"
upstreams: {{ one: {{ endpoints: ["{origin}"] }} }}
consumers:
  aladdin: {{ credentials: [{{ basic: {{ username: Aladdin, password_hash: "{argon}" }} }}] }}
  other: {{ credentials: [{{ basic: {{ username: other, password_hash: "{bcrypt}" }} }}] }}
routes:
  all: {{ policies: {{ auth: {{ basic: {{ realm: shop }} }} }}, to: {{ upstream: one }} }}
"#
    ));
    let mut connection = gateway.connect();
    let said = |both: &str| base64::engine::general_purpose::STANDARD.encode(both);
    let mut ask = |credentials: &str| connection.ask(&format!("GET /x HTTP/1.1\nHost: a\nAuthorization: {credentials}"));
    for _ in 0..2 {
        for (both, consumer) in [("Aladdin:open sesame", "aladdin"), ("other:other", "other")] {
            assert_eq!(ask(&format!("Basic {}", said(both))).status, 200, "{both}");
            assert_eq!(origin.last().head.all("x-consumer"), [consumer]);
            assert_eq!(origin.last().field("authorization"), None);
        }
        for wrong in ["Aladdin:open", "Aladdin:", "aladdin:open sesame", "other:open sesame", "nobody:other", ":"] {
            refused(&ask(&format!("Basic {}", said(wrong))), &["Basic realm=\"shop\", charset=\"UTF-8\""]);
        }
    }
    for odd in ["Basic", "Basic QWxhZGRpbg==", "Basic !!", "Bearer QWxhZGRpbjpvcGVuIHNlc2FtZQ=="] {
        assert_eq!(ask(odd).status, 401, "{odd}");
    }
    assert_eq!(origin.count(), 4);
    let config = gateway.admin("/config").text();
    assert!(!config.contains("argon2id") && !config.contains("$2b$"), "{config}");
    assert!(gateway.stderr.text().contains("no listener has TLS, so anyone on the way can read the passwords"));
}

#[test]
fn more_passwords_than_can_be_verified_are_turned_away_and_told_so() {
    // Slow enough that none is verified before the last has come.
    let hash = "$2b$14$......................oHDYXgeRLGzE1t7uvJLuTjGpvnl1dOW";
    let origin = Origin::echo();
    let gateway = Gateway::start(&format!(
        r#"
upstreams: {{ one: {{ endpoints: ["{origin}"] }} }}
consumers: {{ acme: {{ credentials: [{{ basic: {{ username: acme, password_hash: "{hash}" }} }}] }} }}
policies: {{ auth: {{ any_of: [{{ api_key: {{ header: X-Api-Key }} }}, {{ basic: {{}} }}] }} }}
routes: {{ all: {{ to: {{ upstream: one }} }} }}
"#
    ));
    let (sender, answers) = std::sync::mpsc::channel();
    for number in 0..80 {
        let said = base64::engine::general_purpose::STANDARD.encode(format!("acme:{number}"));
        let mut connection = gateway.connect();
        connection.send_head(&format!("GET /x HTTP/1.1\nHost: a\nX-Api-Key: wrong\nAuthorization: Basic {said}"));
        let sender = sender.clone();
        // It ends with the gateway, if it gets no answer.
        std::thread::spawn(move || connection.0.head().map(|head| sender.send(head)));
    }
    let head = answers.recv_timeout(PATIENCE).unwrap().unwrap();
    assert_eq!((head.status().unwrap(), head.field("www-authenticate")), (503, None), "it may have been right");
    assert_eq!(gateway.logged(|entry| entry["status"] == 503)["refusal"], "basic busy");
    assert_eq!(origin.connections(), 0);
}

/// What consumers take, beside what the gateway takes without them. Of 100,000 it must not be over 64 MiB. Reading the file takes far more for a
/// moment, which the allocator is told to give back at once: by itself it keeps some MiB, however many consumers there are.
#[test]
fn consumers_take_little_memory() {
    const CONSUMERS: u64 = 20_000;
    const KIB_MAX: u64 = (64 << 10) * CONSUMERS / 100_000;
    let start = |consumers: u64| {
        let each = (0..consumers).map(|n| {
            format!(
                "  c{n}: {{ groups: [g{}], credentials: [{{ api_key: {{ sha256: {} }} }}] }}\n",
                n % 10,
                digest(&n.to_string())
            )
        });
        let yaml = format!(
            "consumers:\n  c: {{}}\n{}routes: {{ all: {{ policies: {{ auth: {{ api_key: {{ header: X-Api-Key }} }} }}, to: {{ respond: {{}} }} }} }}",
            each.collect::<String>()
        );
        Start::on(&yaml).env("MIMALLOC_PURGE_DELAY", "0").ready()
    };
    let asked = |gateway: &Gateway| {
        let mut connection = gateway.connect();
        let ask = format!("GET / HTTP/1.1\nHost: a\nX-Api-Key: {}", CONSUMERS - 1);
        (0..100).map(|_| connection.ask(&ask).status).collect::<BTreeSet<_>>()
    };
    let (none, all) = (start(0), start(CONSUMERS));
    assert_eq!((asked(&none), asked(&all)), (BTreeSet::from([401]), BTreeSet::from([200])));
    let before = none.memory("VmRSS");
    // The file is read once more when it begins to be watched.
    eventually("so little memory", || (all.memory("VmRSS") <= before + KIB_MAX).then_some(()));
    let last = format!("c{}", CONSUMERS - 1);
    assert_eq!(all.logged_path("/")["consumer"], *last);
}
