//! Sessions of a legacy application that become tokens for new services, from outside.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use jsonwebtoken::{Algorithm, DecodingKey, Validation, jwk::JwkSet};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PKCS_RSA_SHA256, SignatureAlgorithm};
use serde_json::{Value, json};

use crate::harness::{Gateway, Origin, Response, gateway::Start, h2};

/// The legacy application: it knows sessions by their cookie, and answers whatever it is told.
struct Legacy {
    origin: Origin,
    sessions: Arc<Mutex<BTreeMap<String, (u16, String)>>>,
}

impl Legacy {
    fn new() -> Self {
        let sessions = Arc::new(Mutex::new(BTreeMap::new()));
        let shared: Arc<Mutex<BTreeMap<String, (u16, String)>>> = sessions.clone();
        let origin = Origin::answer(move |request| {
            let cookie = request.field("cookie").unwrap_or_default().to_owned();
            let (status, body) = shared.lock().unwrap().get(&cookie).cloned().unwrap_or((401, String::new()));
            format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n\r\n{body}", body.len())
        });
        let legacy = Self { origin, sessions };
        legacy.knows("abc", 200, &json!({ "sub": 42, "email": "ada@shop.example", "roles": ["clerk"], "password": "x" }));
        legacy
    }

    fn knows(&self, session: &str, status: u16, answer: &Value) {
        self.sessions.lock().unwrap().insert(format!("PHPSESSID={session}"), (status, answer.to_string()));
    }
}

fn yaml(origin: &Origin, legacy: &Origin, algorithm: &str, settings: &str) -> String {
    format!(
        r#"
upstreams: {{ one: {{ endpoints: ["{origin}"] }} }}
identity:
  monolith:
    session_bridge:
      cookie: PHPSESSID
      url: "http://{legacy}/whoami"
      issuer: https://shop.example
      audience: [orders]
      algorithm: {algorithm}
      key: key.pem
      claims: {{ email: email, roles: roles }}
      forward: {{ sub: X-User-Id }}
      {settings}
consumers:
  staff: {{ credentials: [{{ jwt: {{ identity: monolith, claim: {{ sub: "42" }} }} }}] }}
policies: {{ auth: {{ session_bridge: monolith }} }}
routes:
  all: {{ to: {{ upstream: one }} }}
  open: {{ match: {{ path: /open }}, policies: {{ auth: off }}, to: {{ upstream: one }} }}
  trial: {{ match: {{ path: /trial }}, policies: {{ auth: {{ session_bridge: monolith, mode: shadow }} }}, to: {{ upstream: one }} }}
  keys: {{ match: {{ path: /.well-known/jwks.json }}, policies: {{ auth: off }}, to: {{ jwks: monolith }} }}
"#
    )
}

fn pem(kind: &'static SignatureAlgorithm) -> String {
    KeyPair::generate_for(kind).unwrap().serialize_pem()
}

fn started(yaml: &str, key: &str) -> Gateway {
    Start::on(yaml).file("key.pem", key).file("other.pem", &pem(&PKCS_ED25519)).ready()
}

fn ask(gateway: &Gateway, fields: &str) -> Response {
    gateway.ask(&format!("GET /x HTTP/1.1\nHost: a{fields}"))
}

const SESSION: &str = "\nCookie: theme=dark; PHPSESSID=abc; lang=en";

fn published(gateway: &Gateway) -> JwkSet {
    let response = gateway.get("/.well-known/jwks.json");
    assert_eq!((response.status, response.field("content-type")), (200, Some("application/jwk-set+json")));
    assert!(!response.text().contains("\"d\""), "a private key");
    serde_json::from_slice(&response.body).unwrap()
}

/// What a service finds in a token that it verifies with the published keys alone.
fn verified(token: &str, keys: &JwkSet, algorithm: Algorithm) -> Value {
    let header = jsonwebtoken::decode_header(token).unwrap();
    let key = keys.find(&header.kid.unwrap()).expect("a key of the token's `kid`");
    let mut validation = Validation::new(algorithm);
    validation.set_audience(&["orders"]);
    validation.set_issuer(&["https://shop.example"]);
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    jsonwebtoken::decode(token, &DecodingKey::from_jwk(key).unwrap(), &validation).unwrap().claims
}

fn bearer(origin: &Origin) -> String {
    origin.last().field("authorization").unwrap().strip_prefix("Bearer ").unwrap().to_owned()
}

#[test]
fn a_service_verifies_who_calls_by_the_keys_that_are_published() {
    for (name, kind, algorithm) in [
        ("ES256", &PKCS_ECDSA_P256_SHA256, Algorithm::ES256),
        ("RS256", &PKCS_RSA_SHA256, Algorithm::RS256),
        ("EdDSA", &PKCS_ED25519, Algorithm::EdDSA),
    ] {
        let (origin, legacy) = (Origin::echo(), Legacy::new());
        let gateway = started(&yaml(&origin, &legacy.origin, name, ""), &pem(kind));
        let claimed = "\nX-User-Id: root\nAuthorization: Bearer forged";
        assert_eq!(ask(&gateway, &format!("{SESSION}{claimed}")).status, 200);
        let seen = origin.last();
        let claims = verified(&bearer(&origin), &published(&gateway), algorithm);
        assert_eq!(
            (&claims["sub"], &claims["email"], &claims["roles"]),
            (&json!("42"), &json!("ada@shop.example"), &json!(["clerk"]))
        );
        assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 300);
        assert_eq!(claims.get("password"), None, "only what was asked for");
        assert_eq!((seen.field("x-user-id"), seen.field("x-consumer")), (Some("42"), Some("staff")));
        assert_eq!(seen.field("cookie"), Some("theme=dark; lang=en"), "the session stays with the monolith");
        let asked = legacy.origin.last();
        assert_eq!((asked.head.line.as_str(), asked.field("cookie")), ("GET /whoami HTTP/1.1", Some("PHPSESSID=abc")));
        assert_eq!(asked.field("authorization"), None);
        let line = gateway.logged_path("/x");
        assert_eq!((&line["consumer"], &line["auth"]), (&"staff".into(), &"session_bridge".into()));
        for said in [gateway.stdout.text(), gateway.stderr.text(), gateway.admin("/config").text()] {
            assert!(!said.contains("abc") && !said.contains("eyJ") && !said.contains("PRIVATE"), "{said}");
        }
    }
}

#[test]
fn a_session_is_exchanged_once_and_its_token_stays() {
    let (origin, legacy) = (Origin::echo(), Legacy::new());
    let gateway = started(&yaml(&origin, &legacy.origin, "EdDSA", ""), &pem(&PKCS_ED25519));
    let tokens: Vec<_> = (0..3)
        .map(|_| {
            assert_eq!(ask(&gateway, SESSION).status, 200);
            bearer(&origin)
        })
        .collect();
    assert!(tokens.iter().all(|token| *token == tokens[0]));
    assert_eq!(legacy.origin.count(), 1);
    legacy.knows("bob", 200, &json!({ "sub": "7" }));
    assert_eq!(ask(&gateway, "\nCookie: PHPSESSID=bob").status, 200);
    let claims = verified(&bearer(&origin), &published(&gateway), Algorithm::EdDSA);
    assert_eq!((&claims["sub"], claims.get("email")), (&json!("7"), None));
    assert_eq!(origin.last().field("cookie"), None);
    assert_eq!(gateway.metric(r#"banyan_identity_tokens_remembered{identity="monolith"}"#), Some(2.0));
    assert_eq!(gateway.metric(r#"banyan_identity_questions_total{identity="monolith",result="success"}"#), Some(2.0));
}

#[test]
fn without_a_session_nobody_passes() {
    let (origin, legacy) = (Origin::echo(), Legacy::new());
    let gateway = started(&yaml(&origin, &legacy.origin, "EdDSA", ""), &pem(&PKCS_ED25519));
    legacy.knows("gone", 404, &json!({ "sub": 1 }));
    legacy.knows("barred", 403, &json!({ "sub": 1 }));
    let forged = "\nAuthorization: Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiI0MiJ9.";
    for (fields, reason) in [
        ("", "- missing"),
        ("\nCookie: PHPSESSID=", "- missing"),
        (forged, "- missing"),
        ("\nCookie: PHPSESSID=wrong", "session_bridge inactive"),
        ("\nCookie: PHPSESSID=gone", "session_bridge inactive"),
        ("\nCookie: PHPSESSID=barred", "session_bridge inactive"),
        ("\nCookie: PHPSESSID=abc; PHPSESSID=wrong", "session_bridge repeated"),
    ] {
        let response = ask(&gateway, fields);
        assert_eq!(
            (response.status, response.field("www-authenticate")),
            (401, Some("Cookie cookie-name=\"PHPSESSID\"")),
            "{fields}"
        );
        let id = response.field("x-request-id").unwrap().to_owned();
        assert_eq!(gateway.logged(|entry| entry["request_id"] == id.as_str())["refusal"], reason, "{fields}");
    }
    let asked = legacy.origin.count();
    assert_eq!(ask(&gateway, "\nCookie: PHPSESSID=wrong").status, 401);
    assert_eq!((legacy.origin.count(), origin.count()), (asked, 0), "made-up sessions are not asked about again and again");
    h2::play(async {
        let mut client = h2::h2c(gateway.web()).await;
        let bare = http::Request::get("http://a/x").body(h2::full("")).unwrap();
        assert_eq!(h2::ask(&mut client, bare).await.head.status, 401);
        let split = http::Request::get("http://a/x").header("cookie", "a=1").header("cookie", "PHPSESSID=abc");
        assert_eq!(h2::ask(&mut client, split.body(h2::full("")).unwrap()).await.head.status, 200);
    });
    assert_eq!(origin.last().field("cookie"), Some("a=1"));
}

#[test]
fn an_application_that_cannot_be_asked_lets_nobody_pass() {
    let (origin, legacy) = (Origin::echo(), Legacy::new());
    let gateway = started(&yaml(&origin, &legacy.origin, "EdDSA", "cache: 0s"), &pem(&PKCS_ED25519));
    assert_eq!(ask(&gateway, SESSION).status, 200);
    for (status, answer) in [
        (500, json!({ "sub": 1 })),
        (302, json!({})),
        (200, json!({ "email": "a" })),
        (200, json!([1])),
        (200, json!({ "sub": null })),
    ] {
        legacy.knows("abc", status, &answer);
        let response = ask(&gateway, SESSION);
        assert_eq!(
            (response.status, response.json()["code"].as_str()),
            (503, Some("authentication_unavailable")),
            "{status} {answer}"
        );
    }
    drop(legacy);
    assert_eq!((ask(&gateway, SESSION).status, origin.count()), (503, 1));
    gateway.said("a session could not be exchanged");
}

#[test]
fn the_cookie_and_the_field_are_as_configured() {
    let (origin, legacy) = (Origin::echo(), Legacy::new());
    let settings = "header: X-Identity\n      keep: true\n      lifetime: 10s";
    let gateway = started(&yaml(&origin, &legacy.origin, "EdDSA", settings), &pem(&PKCS_ED25519));
    ask(&gateway, &format!("{SESSION}\nX-Identity: forged\nx_identity: forged\nAuthorization: Basic YTpi"));
    let seen = origin.last();
    assert_eq!(seen.field("cookie"), Some("theme=dark; PHPSESSID=abc; lang=en"));
    assert_eq!((seen.field("authorization"), seen.field("x_identity")), (Some("Basic YTpi"), None));
    let claims = verified(seen.field("x-identity").unwrap(), &published(&gateway), Algorithm::EdDSA);
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 10);
    gateway.ask(&format!("GET /open HTTP/1.1\nHost: a{SESSION}\nX-Identity: forged"));
    let open = origin.last();
    assert_eq!(open.field("x-identity"), None, "its word is the gateway's on every route");
    assert_eq!(open.field("cookie"), Some("theme=dark; PHPSESSID=abc; lang=en"));
}

#[test]
fn a_trial_leaves_the_credentials_as_they_came() {
    let (origin, legacy) = (Origin::echo(), Legacy::new());
    let gateway = started(&yaml(&origin, &legacy.origin, "EdDSA", ""), &pem(&PKCS_ED25519));
    let ask = |fields: &str| gateway.ask(&format!("GET /trial HTTP/1.1\nHost: a\nAuthorization: Basic YTpi{fields}")).status;
    assert_eq!(ask(SESSION), 200);
    let seen = origin.last();
    assert_eq!((seen.field("authorization"), seen.field("x-user-id")), (Some("Basic YTpi"), Some("42")));
    assert_eq!(seen.field("cookie"), Some("theme=dark; PHPSESSID=abc; lang=en"));
    assert_eq!(ask("\nCookie: PHPSESSID=wrong"), 200);
    assert_eq!(gateway.logged(|entry| entry["refusal"] != Value::Null)["refusal"], "shadow session_bridge inactive");
}

#[test]
fn a_key_is_replaced_while_tokens_of_the_one_before_are_good() {
    let (origin, legacy) = (Origin::echo(), Legacy::new());
    let mut gateway = started(&yaml(&origin, &legacy.origin, "EdDSA", ""), &pem(&PKCS_ED25519));
    ask(&gateway, SESSION);
    let (before, keys) = (bearer(&origin), published(&gateway));
    assert_eq!(keys.keys.len(), 1);
    let next = yaml(&origin, &legacy.origin, "EdDSA", "other_keys: [key.pem]").replace("key: key.pem", "key: other.pem");
    gateway.reload(&next);
    ask(&gateway, SESSION);
    let (after, both) = (bearer(&origin), published(&gateway));
    assert_ne!(before, after);
    assert_eq!(both.keys.len(), 2);
    for token in [&before, &after] {
        assert_eq!(verified(token, &both, Algorithm::EdDSA)["sub"], "42");
    }
    let generation = gateway.generation();
    gateway.replace("other.pem", &pem(&PKCS_ED25519));
    gateway.wait_past(generation);
    ask(&gateway, SESSION);
    assert_eq!(
        verified(&bearer(&origin), &published(&gateway), Algorithm::EdDSA)["sub"],
        "42",
        "a file that changed is read again"
    );
}
