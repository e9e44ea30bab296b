//! People who sign in with a browser, from outside. The provider is a small one of our own; a real one is for the conformance suites.

use std::{
    sync::{Arc, Mutex},
    time::{SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::harness::{Gateway, Origin, Response, origin::ok};

/// A provider that signs in `ada` without asking.
struct Provider {
    origin: Origin,
    key: Arc<Ed25519KeyPair>,
    /// Of the login under way.
    nonce: Arc<Mutex<String>>,
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn token(key: &Ed25519KeyPair, typ: &str, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(&json!({ "alg": "EdDSA", "typ": typ })), part(claims));
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(key.sign(message.as_bytes())))
}

impl Provider {
    fn start() -> Self {
        let key = Arc::new(Ed25519KeyPair::generate().unwrap());
        let nonce = Arc::<Mutex<String>>::default();
        let (signs, said) = (key.clone(), nonce.clone());
        let origin = Origin::answer(move |request| {
            let issuer = format!("http://{}", request.field("host").unwrap());
            let answer = match request.target() {
                "/.well-known/openid-configuration" => json!({
                    "issuer": issuer, "jwks_uri": format!("{issuer}/jwks"), "authorization_endpoint": format!("{issuer}/auth"),
                    "token_endpoint": format!("{issuer}/token"), "end_session_endpoint": format!("{issuer}/end"),
                }),
                "/jwks" => {
                    json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode(signs.public_key()) }] })
                }
                _ => {
                    let claims = json!({
                        "iss": issuer, "aud": "web", "sub": "ada", "sid": "s1", "name": "Ada L.", "roles": ["clerk"],
                        "nonce": *said.lock().unwrap(), "iat": now(), "exp": now() + 60,
                    });
                    json!({ "token_type": "Bearer", "access_token": "a", "id_token": token(&signs, "JWT", &claims) })
                }
            };
            ok(&answer.to_string())
        });
        Self { origin, key, nonce }
    }

    fn issuer(&self) -> String {
        format!("http://{}", self.origin)
    }

    fn config(&self, service: &Origin, cookie_secrets: &str) -> String {
        format!(
            r#"
upstreams: {{ one: {{ endpoints: ["{service}"] }} }}
identity:
  people:
    oidc:
      issuer: {}
      client_id: web
      client_secret: web-secret
      algorithms: [EdDSA]
      redirect_url: http://127.0.0.1/callback
      logout_path: /logout
      after_logout: http://127.0.0.1/bye
      backchannel_logout_path: /backchannel
      cookie_secrets: [{cookie_secrets}]
      forward: {{ sub: X-User-Id }}
consumers:
  acme: {{ credentials: [{{ api_key: {{ sha256: "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae" }} }}] }}
policies:
  auth: {{ oidc: people }}
routes:
  all: {{ to: {{ upstream: one }} }}
  both: {{ match: {{ path: /both }}, policies: {{ auth: {{ any_of: [{{ api_key: {{ header: X-Api-Key }} }}, {{ oidc: people }}] }} }}, to: {{ upstream: one }} }}
"#,
            self.issuer()
        )
    }
}

const SECRET: &str = "a secret that has thirty-two bytes";
const OTHER: &str = "another secret that has enough bytes";

/// A browser's cookies.
#[derive(Clone, Default)]
struct Browser(Vec<(String, String)>);

impl Browser {
    fn ask(&mut self, gateway: &Gateway, line: &str) -> Response {
        let cookies: Vec<String> = self.0.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let cookies = if cookies.is_empty() { String::new() } else { format!("\nCookie: theme=dark; {}", cookies.join("; ")) };
        let response = gateway.ask(&format!("{line} HTTP/1.1\nHost: 127.0.0.1\nAccept: text/html{cookies}"));
        for field in response.head.all("set-cookie") {
            let (name, rest) = field.split_once('=').unwrap();
            assert!(field.contains("; HttpOnly; SameSite=Lax"), "{field}");
            self.0.retain(|(known, _)| known != name);
            if !rest.contains("Max-Age=0") {
                self.0.push((name.to_owned(), rest.split(';').next().unwrap().to_owned()));
            }
        }
        response
    }

    /// Signs in, and back to the page that was asked for.
    fn sign_in(&mut self, gateway: &Gateway, provider: &Provider) {
        let response = self.ask(gateway, "GET /page?a=b");
        assert_eq!((response.status, response.field("cache-control")), (302, Some("no-store")));
        let to = response.field("location").unwrap().to_owned();
        assert!(to.starts_with(&format!("{}/auth?", provider.issuer())), "{to}");
        let parameter = |name: &str| {
            let (_, rest) = to.split_once(&format!("{name}=")).unwrap_or_else(|| panic!("{name} in {to}"));
            rest.split('&').next().unwrap().to_owned()
        };
        assert_eq!(parameter("code_challenge_method"), "S256");
        *provider.nonce.lock().unwrap() = parameter("nonce");
        let response = self.ask(gateway, &format!("GET /callback?code=c&state={}", parameter("&state")));
        assert_eq!((response.status, response.field("location")), (302, Some("/page?a=b")), "{}", response.text());
    }
}

#[test]
fn a_person_signs_in_and_the_service_is_told() {
    let (provider, service) = (Provider::start(), Origin::echo());
    let gateway = Gateway::start(&provider.config(&service, &format!("\"{SECRET}\"")));
    let mut browser = Browser::default();
    browser.sign_in(&gateway, &provider);
    assert_eq!(service.count(), 0);
    assert_eq!(browser.ask(&gateway, "GET /page").status, 200);
    let request = service.last();
    assert_eq!((request.field("x-user-id"), request.field("cookie")), (Some("ada"), Some("theme=dark")));
    assert_eq!(gateway.logged_path("/page")["status"], 302);
    let query = gateway.logged_path("/callback")["query"].to_string();
    assert!(query.contains("code=***"), "{query}");
    assert_eq!(browser.ask(&gateway, "POST /form").status, 200);
    assert_eq!(browser.ask(&gateway, "GET /both").status, 200);
}

#[test]
fn who_has_no_session_reaches_no_service() {
    let (provider, service) = (Provider::start(), Origin::echo());
    let gateway = Gateway::start(&provider.config(&service, &format!("\"{SECRET}\"")));
    for (head, status) in [
        ("GET / HTTP/1.1\nHost: a", 302),
        ("GET / HTTP/1.1\nHost: a\nCookie: banyan_session=AAAA", 302),
        ("POST / HTTP/1.1\nHost: a", 401),
        ("GET / HTTP/1.1\nHost: a\nAccept: application/json", 401),
        ("GET / HTTP/1.1\nHost: a\nConnection: Upgrade\nUpgrade: websocket\nSec-Fetch-Mode: websocket", 401),
        ("GET /callback?code=c&state=forged HTTP/1.1\nHost: a", 400),
        ("GET /callback HTTP/1.1\nHost: a", 400),
        ("GET /backchannel HTTP/1.1\nHost: a", 400),
        ("GET /both HTTP/1.1\nHost: a\nX-Api-Key: foo", 200),
        ("GET /both HTTP/1.1\nHost: a\nX-Api-Key: wrong", 401),
        ("GET /both HTTP/1.1\nHost: a", 302),
    ] {
        let response = gateway.ask(head);
        assert_eq!(response.status, status, "{head}: {}", response.text());
    }
    let response = gateway.ask("POST / HTTP/1.1\nHost: a");
    assert_eq!(response.field("www-authenticate"), Some("Cookie cookie-name=\"__Host-banyan_session\""));
    assert_eq!(service.count(), 1);
}

#[test]
fn a_session_outlives_a_reload_and_the_change_of_its_key() {
    let (provider, service) = (Provider::start(), Origin::echo());
    let mut gateway = Gateway::start(&provider.config(&service, &format!("\"{SECRET}\"")));
    let mut browser = Browser::default();
    browser.sign_in(&gateway, &provider);
    gateway.reload(&provider.config(&service, &format!("\"{OTHER}\", \"{SECRET}\"")));
    assert_eq!(browser.ask(&gateway, "GET /").status, 200);
    gateway.reload(&provider.config(&service, &format!("\"{OTHER}\"")));
    assert_eq!(browser.ask(&gateway, "GET /").status, 302);
}

#[test]
fn a_session_is_of_one_provider_and_one_client() {
    let (provider, other, service) = (Provider::start(), Provider::start(), Origin::echo());
    let secrets = format!("\"{SECRET}\"");
    let config = provider.config(&service, &secrets);
    let mut gateway = Gateway::start(&config);
    let mut browser = Browser::default();
    browser.sign_in(&gateway, &provider);
    let client = config.replace("client_id: web", "client_id: office");
    for (change, status) in [(client, 302), (other.config(&service, &secrets), 302), (config, 200)] {
        gateway.reload(&change);
        assert_eq!(browser.clone().ask(&gateway, "GET /").status, status);
    }
}

#[test]
fn who_signs_out_is_out() {
    let (provider, service) = (Provider::start(), Origin::echo());
    let gateway = Gateway::start(&provider.config(&service, &format!("\"{SECRET}\"")));
    let mut browser = Browser::default();
    browser.sign_in(&gateway, &provider);
    let mut copy = browser.clone();
    let response = browser.ask(&gateway, "GET /logout");
    assert_eq!(response.status, 302);
    assert!(response.field("location").unwrap().starts_with(&format!("{}/end?client_id=web&id_token_hint=", provider.issuer())));
    assert!(browser.0.is_empty());
    assert_eq!(copy.ask(&gateway, "GET /").status, 302, "a copy of its cookie is no good either");
}

#[test]
fn the_provider_ends_a_session() {
    let (provider, service) = (Provider::start(), Origin::echo());
    let mut gateway = Gateway::start(&provider.config(&service, &format!("\"{SECRET}\"")));
    let mut browser = Browser::default();
    browser.sign_in(&gateway, &provider);
    let claims = json!({
        "iss": provider.issuer(), "aud": "web", "iat": now(), "exp": now() + 60, "jti": "j", "sid": "s1",
        "events": { "http://schemas.openid.net/event/backchannel-logout": {} },
    });
    let post = |token: &str| {
        let body = format!("logout_token={token}");
        let head = format!("POST /backchannel HTTP/1.1\nHost: a\nContent-Length: {}", body.len());
        gateway.connect().send_head(&head).send(body).response("POST").status
    };
    assert_eq!(post(&token(&provider.key, "JWT", &claims)), 400);
    assert_eq!(browser.ask(&gateway, "GET /").status, 200);
    assert_eq!(post(&token(&provider.key, "logout+jwt", &claims)), 200);
    assert_eq!(browser.ask(&gateway, "GET /").status, 302);
    gateway.reload(&provider.config(&service, &format!("\"{SECRET}\", \"{OTHER}\"")));
    assert_eq!(browser.ask(&gateway, "GET /").status, 302, "a reload brings nobody back");
}
