//! A browser's way through a login, against a small provider on loopback.

use std::sync::Mutex;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::HeaderName;
use rustls::RootCertStore;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;
use crate::{
    caller::ClaimPath,
    identity::{
        fields::Forward,
        jwt::{Algorithm, KeySet, Keys, Rules},
        outgoing::{Outgoing, PlainText, url},
    },
};

const NOW: u64 = 1_700_000_000;
const SECRET: &str = "a secret that has thirty-two bytes";

/// What the provider answers, and what it was asked.
struct Idp {
    issuer: String,
    key: Ed25519KeyPair,
    /// Status and body of the token endpoint's next answers, last first.
    tokens: Mutex<Vec<(u16, Value)>>,
    asked: Mutex<Vec<String>>,
}

impl Idp {
    async fn start() -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("http://{}", listener.local_addr().unwrap());
        let key = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let idp = Arc::new(Self { issuer, key, tokens: Mutex::default(), asked: Mutex::default() });
        let serving = idp.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let idp = serving.clone();
                tokio::spawn(async move {
                    let (mut text, mut buffer) = (String::new(), [0; 8_192]);
                    while !is_whole(&text) {
                        let read = stream.read(&mut buffer).await.unwrap();
                        text.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
                    }
                    let (status, body) = idp.answer(text);
                    let body = body.to_string();
                    let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
                    stream.write_all((head + &body).as_bytes()).await.unwrap();
                });
            }
        });
        idp
    }

    fn answer(&self, request: String) -> (u16, Value) {
        if request.starts_with("GET /.well-known") {
            let (issuer, names) = (&self.issuer, "authorization_response_iss_parameter_supported");
            return (
                200,
                json!({
                    "issuer": issuer, names: true, "authorization_endpoint": format!("{issuer}/auth"),
                    "token_endpoint": format!("{issuer}/token"), "end_session_endpoint": format!("{issuer}/end"),
                }),
            );
        }
        self.asked.lock().unwrap().push(request);
        self.tokens.lock().unwrap().pop().unwrap_or((400, json!({ "error": "invalid_grant" })))
    }

    fn token(&self, typ: &str, claims: Value) -> String {
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(json!({ "alg": "EdDSA", "typ": typ })), part(claims));
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(self.key.sign(message.as_bytes())))
    }

    fn id_token(&self, change: Value) -> String {
        let mut claims = json!({ "iss": self.issuer, "aud": "web", "sub": "ada", "sid": "s1", "iat": NOW, "exp": NOW + 300 });
        claims.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        self.token("JWT", claims)
    }

    fn will_give(&self, id_token: Option<String>, more: Value) {
        let mut body = json!({ "token_type": "Bearer", "access_token": "a", "expires_in": 100 });
        body.as_object_mut().unwrap().extend(id_token.map(|token| ("id_token".to_owned(), json!(token))));
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.tokens.lock().unwrap().push((200, body));
    }

    fn login(self: &Arc<Self>) -> Arc<Login> {
        let (settings, outgoing) = (settings(), Outgoing::new(RootCertStore::empty(), Duration::from_secs(5)).unwrap());
        let jwk = json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode(self.key.public_key()) }] });
        let keys = Keys::fixed("staff", KeySet::from_jwks(jwk.to_string().as_bytes()).unwrap());
        let jwt = |typ: Option<&str>| {
            let rules = Rules {
                issuer: self.issuer.as_str().into(),
                audience: ["web".into()].into(),
                algorithms: [Algorithm::EdDSA].into(),
                leeway: settings.leeway,
                typ: typ.map(Box::from),
                required: ["iat".into()].into(),
            };
            Jwt::new(rules, ClaimPath::new("roles"), Forward::default(), keys.clone())
        };
        let document = url(&format!("{}/.well-known/openid-configuration", self.issuer), PlainText::OnLoopback).unwrap();
        Login::new(Parts {
            seals: Seals::new("staff", [SECRET]).unwrap(),
            client: Client { id: "web".into(), secret: "web-secret".into() },
            provider: Provider::new(&self.issuer, document, PlainText::OnLoopback, outgoing),
            id_tokens: jwt(None),
            logout_tokens: jwt(Some("logout+jwt")),
            ended: Arc::default(),
            settings,
        })
    }
}

fn is_whole(text: &str) -> bool {
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    body.len() >= length.unwrap_or(0)
}

fn settings() -> Settings {
    Settings {
        scopes: "openid profile".into(),
        redirect: Url::parse("https://shop.example/callback").unwrap(),
        logout: Some("/logout".into()),
        after_logout: Some(Url::parse("https://shop.example/bye").unwrap()),
        backchannel: Some("/backchannel".into()),
        cookie: cookie::Name::new("session"),
        lifetime: Duration::from_secs(3_600),
        idle: Duration::from_secs(600),
        leeway: Duration::from_secs(30),
        roles: ClaimPath::new("roles"),
        forward: Forward::default(),
    }
}

/// A browser with its cookies.
#[derive(Clone, Default)]
struct Browser {
    cookies: Vec<(String, String)>,
    fields: Vec<(&'static str, &'static str)>,
}

impl Browser {
    async fn send(&mut self, login: &Arc<Login>, method: &str, target: &str, body: Option<&[u8]>, now: u64) -> Step {
        let cookies: Vec<String> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut headers = HeaderMap::new();
        headers.insert(header::COOKIE, HeaderValue::try_from(cookies.join("; ")).unwrap());
        for (name, value) in &self.fields {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(now);
        let visit = Visit { method: &method, channel: Channel::Tls, path, query, target, headers: &headers, body, now };
        let step = login.step(&visit).await;
        if let Step::Session { cookies, .. } | Step::Redirect { cookies, .. } | Step::Done { cookies } = &step {
            cookies.iter().for_each(|cookie| self.take(cookie.to_str().unwrap()));
        }
        step
    }

    async fn get(&mut self, login: &Arc<Login>, target: &str, now: u64) -> Step {
        self.send(login, "GET", target, None, now).await
    }

    fn take(&mut self, field: &str) {
        assert!(field.starts_with("__Host-") && field.ends_with("; Secure; HttpOnly; SameSite=Lax"), "{field}");
        let (name, rest) = field.split_once('=').unwrap();
        self.cookies.retain(|(known, _)| known != name);
        if !rest.contains("Max-Age=0;") {
            self.cookies.push((name.to_owned(), rest.split(';').next().unwrap().to_owned()));
        }
    }

    /// As far as the provider: the parameters with which it was sent there.
    async fn begin(&mut self, login: &Arc<Login>, target: &str) -> impl Fn(&str) -> String + use<> {
        let Step::Redirect { to, .. } = self.get(login, target, NOW).await else { panic!("no redirect") };
        let url = Url::parse(to.to_str().unwrap()).unwrap();
        move |name| url.query_pairs().find(|(found, _)| found == name).map(|(_, value)| value.into_owned()).unwrap_or_default()
    }
}

/// The callback with which the provider answers.
fn callback(idp: &Idp, state: &str) -> String {
    format!("/callback?code=c&state={state}&iss={}", address::encoded(&idp.issuer))
}

async fn signed_in(idp: &Arc<Idp>, login: &Arc<Login>, more: Value) -> Browser {
    let mut browser = Browser::default();
    let sent = browser.begin(login, "/orders?a=b").await;
    idp.will_give(Some(idp.id_token(json!({ "nonce": sent("nonce") }))), more);
    let step = browser.get(login, &callback(idp, &sent("state")), NOW).await;
    assert!(matches!(&step, Step::Redirect { to, .. } if to == "/orders?a=b"), "{step:?}");
    browser
}

fn fault(step: Step) -> Fault {
    match step {
        Step::Failed(fault) => fault,
        step => panic!("{step:?}"),
    }
}

fn is_session(step: &Step) -> bool {
    matches!(step, Step::Session { session, .. } if session.claims.all["sub"] == "ada")
}

fn is_redirect(step: &Step) -> bool {
    matches!(step, Step::Redirect { .. })
}

#[tokio::test]
async fn a_person_is_sent_to_the_provider_and_comes_back_with_a_session() {
    let idp = Idp::start().await;
    let login = idp.login();
    let mut browser = Browser::default();
    let sent = browser.begin(&login, "/orders?a=b").await;
    for (name, value) in [
        ("response_type", "code"),
        ("client_id", "web"),
        ("redirect_uri", "https://shop.example/callback"),
        ("scope", "openid profile"),
        ("code_challenge_method", "S256"),
    ] {
        assert_eq!(sent(name), value);
    }
    assert!(["state", "nonce", "code_challenge"].iter().all(|name| sent(name).len() == 43));
    idp.will_give(Some(idp.id_token(json!({ "nonce": sent("nonce") }))), json!({}));
    assert!(is_redirect(&browser.get(&login, &callback(&idp, &sent("state")), NOW).await));
    assert_eq!(browser.cookies.len(), 1, "the login's cookie is gone");
    assert!(is_session(&browser.get(&login, "/orders", NOW + 1).await));
    let asked = idp.asked.lock().unwrap().join("");
    let verifier = asked.split("code_verifier=").nth(1).unwrap();
    let begun = Begun { state: String::new(), nonce: String::new(), verifier: verifier.to_owned(), back: String::new(), at: 0 };
    assert_eq!(begun.challenge(), sent("code_challenge"));
    assert!(asked.contains("authorization: Basic d2ViOndlYi1zZWNyZXQ=") && asked.contains("code=c&"), "{asked}");
}

#[tokio::test]
async fn an_answer_that_nobody_asked_for_is_refused() {
    let idp = Idp::start().await;
    let login = idp.login();
    let mut browser = Browser::default();
    let state = browser.begin(&login, "/").await("state");
    let good = callback(&idp, &state);
    let mut other = Browser::default();
    let _ = other.begin(&login, "/").await;
    assert_eq!(fault(other.get(&login, &good, NOW).await), Fault::Unasked, "of another browser");
    for bad in [
        "/callback",
        "/callback?code=c",
        "/callback?code=c&state=forged",
        &format!("{good}&state=x"),
        &good.replace("state=", "state=x"),
    ] {
        assert_eq!(fault(browser.get(&login, bad, NOW).await), Fault::Unasked, "{bad}");
    }
    let swapped = format!("{}{}", &state[..8], "x".repeat(35));
    assert_eq!(
        fault(browser.get(&login, &callback(&idp, &swapped), NOW).await),
        Fault::Unasked,
        "the name of its cookie is not enough"
    );
    assert_eq!(fault(browser.get(&login, &good, NOW + 600).await), Fault::Unasked, "late");
    assert_eq!(fault(browser.send(&login, "POST", &good, None, NOW).await), Fault::Unasked);
    assert_eq!(idp.asked.lock().unwrap().len(), 0, "the provider was not asked");
}

#[tokio::test]
async fn an_answer_of_another_provider_is_refused() {
    let idp = Idp::start().await;
    let login = idp.login();
    let mut browser = Browser::default();
    let state = browser.begin(&login, "/").await("state");
    for bad in
        [format!("/callback?code=c&state={state}"), format!("/callback?code=c&state={state}&iss=https%3A%2F%2Fevil.example")]
    {
        assert_eq!(fault(browser.get(&login, &bad, NOW).await), Fault::MixedUp);
    }
    let denied = callback(&idp, &state).replace("code=c", "error=access_denied");
    assert_eq!(fault(browser.get(&login, &denied, NOW).await), Fault::Denied);
    assert_eq!(fault(browser.get(&login, &callback(&idp, &state), NOW).await), Fault::Denied, "a code that is no good");
}

#[tokio::test]
async fn an_id_token_is_of_this_login_and_for_us() {
    let idp = Idp::start().await;
    let login = idp.login();
    let mut browser = Browser::default();
    let sent = browser.begin(&login, "/").await;
    let nonce = sent("nonce");
    for (change, expected) in [
        (json!({ "nonce": "other" }), Fault::OtherLogin),
        (json!({}), Fault::OtherLogin),
        (json!({ "nonce": nonce, "azp": "other" }), Fault::OtherLogin),
        (json!({ "nonce": nonce, "aud": ["web", "other"] }), Fault::OtherLogin),
        (json!({ "nonce": nonce, "aud": "other" }), Fault::Token(Reason::Audience)),
        (json!({ "nonce": nonce, "iss": "https://evil.example" }), Fault::Token(Reason::Issuer)),
        (json!({ "nonce": nonce, "exp": NOW - 31 }), Fault::Token(Reason::Expired)),
        (json!({ "nonce": nonce, "iat": null }), Fault::Token(Reason::MissingClaim)),
    ] {
        idp.will_give(Some(idp.id_token(change)), json!({}));
        assert_eq!(fault(browser.get(&login, &callback(&idp, &sent("state")), NOW).await), expected);
    }
    idp.will_give(Some(format!("{}x", idp.id_token(json!({ "nonce": nonce })))), json!({}));
    assert!(matches!(fault(browser.get(&login, &callback(&idp, &sent("state")), NOW).await), Fault::Token(_)));
    idp.will_give(None, json!({}));
    assert_eq!(fault(browser.get(&login, &callback(&idp, &sent("state")), NOW).await), Fault::OtherLogin);
}

#[tokio::test]
async fn a_session_ends_by_age_and_for_lack_of_use() {
    let idp = Idp::start().await;
    let login = idp.login();
    let mut browser = signed_in(&idp, &login, json!({})).await;
    assert!(is_redirect(&browser.clone().get(&login, "/", NOW + 600).await), "not used");
    for step in 1..12 {
        assert!(is_session(&browser.get(&login, "/", NOW + 300 * step).await));
    }
    assert!(is_redirect(&browser.get(&login, "/", NOW + 3_600).await), "too old");
}

#[tokio::test]
async fn a_changed_cookie_is_no_session() {
    let idp = Idp::start().await;
    let login = idp.login();
    let browser = signed_in(&idp, &login, json!({})).await;
    let mut changed = browser.clone();
    let value = &mut changed.cookies[0].1;
    *value = value.replacen(&value[20..21].to_owned(), "-", 1);
    assert!(is_redirect(&changed.get(&login, "/", NOW).await));
    let mut renamed = browser.clone();
    renamed.cookies[0].0 = "session".to_owned();
    assert!(is_redirect(&renamed.get(&login, "/", NOW).await), "over TLS only the bound name counts");
}

#[tokio::test]
async fn programs_are_told_and_not_sent_away() {
    let idp = Idp::start().await;
    let login = idp.login();
    let step = |method: &'static str, fields: &[(&'static str, &'static str)]| {
        let (login, mut browser) = (login.clone(), Browser { fields: fields.to_vec(), ..Browser::default() });
        async move { matches!(browser.send(&login, method, "/", None, NOW).await, Step::Anonymous) }
    };
    assert!(step("POST", &[]).await);
    assert!(step("GET", &[("accept", "application/json")]).await);
    assert!(step("GET", &[("x-requested-with", "XMLHttpRequest")]).await);
    assert!(step("GET", &[("sec-fetch-mode", "cors"), ("accept", "*/*")]).await);
    assert!(!step("GET", &[("sec-fetch-mode", "navigate")]).await);
    assert!(!step("HEAD", &[("accept", "text/html,*/*;q=0.8")]).await);
}

#[tokio::test]
async fn one_request_renews_for_all() {
    let idp = Idp::start().await;
    let login = idp.login();
    let browser = signed_in(&idp, &login, json!({ "refresh_token": "r1" })).await;
    idp.will_give(Some(idp.id_token(json!({ "name": "Ada L." }))), json!({ "refresh_token": "r2" }));
    let before = idp.asked.lock().unwrap().len();
    let (mut one, mut two) = (browser.clone(), browser.clone());
    let (first, second) = tokio::join!(one.get(&login, "/", NOW + 95), two.get(&login, "/", NOW + 95));
    for step in [first, second, browser.clone().get(&login, "/", NOW + 100).await] {
        assert!(matches!(&step, Step::Session { session, .. } if session.claims.all["name"] == "Ada L."), "{step:?}");
    }
    assert_eq!(idp.asked.lock().unwrap().len(), before + 1);
    assert!(idp.asked.lock().unwrap().last().unwrap().ends_with("grant_type=refresh_token&refresh_token=r1"));
    assert!(is_redirect(&one.get(&login, "/", NOW + 300).await), "the provider says no to r2");
}

#[tokio::test]
async fn a_renewal_for_another_person_ends_the_session() {
    let idp = Idp::start().await;
    let login = idp.login();
    let mut browser = signed_in(&idp, &login, json!({ "refresh_token": "r1" })).await;
    idp.will_give(Some(idp.id_token(json!({ "sub": "eve" }))), json!({}));
    assert!(is_redirect(&browser.get(&login, "/", NOW + 95).await));
}

#[tokio::test]
async fn while_the_provider_fails_a_session_that_is_due_is_not_taken() {
    let idp = Idp::start().await;
    let login = idp.login();
    let mut browser = signed_in(&idp, &login, json!({ "refresh_token": "r1" })).await;
    idp.tokens.lock().unwrap().push((503, json!({})));
    assert_eq!(fault(browser.get(&login, "/", NOW + 95).await), Fault::Unavailable);
    idp.will_give(None, json!({}));
    assert!(is_session(&browser.get(&login, "/", NOW + 96).await));
}

#[tokio::test]
async fn who_signs_out_is_signed_out_everywhere() {
    let idp = Idp::start().await;
    let login = idp.login();
    let mut browser = signed_in(&idp, &login, json!({})).await;
    let mut copy = browser.clone();
    let Step::Redirect { to, .. } = browser.get(&login, "/logout", NOW + 1).await else { panic!("no redirect") };
    let to = to.to_str().unwrap();
    assert!(to.starts_with(&format!("{}/end?client_id=web&id_token_hint=ey", idp.issuer)), "{to}");
    assert!(to.ends_with("&post_logout_redirect_uri=https%3A%2F%2Fshop.example%2Fbye"), "{to}");
    assert!(browser.cookies.is_empty());
    assert!(is_redirect(&copy.get(&login, "/", NOW + 1).await), "a copy of the cookie is no good either");
}

#[tokio::test]
async fn the_provider_ends_sessions() {
    let idp = Idp::start().await;
    let login = idp.login();
    let event = json!({ "http://schemas.openid.net/event/backchannel-logout": {} });
    let token = |typ: &str, change: Value| {
        let mut claims = json!({ "iss": idp.issuer, "aud": "web", "iat": NOW + 1, "exp": NOW + 100, "jti": "j", "sid": "s1", "events": event });
        for (name, value) in change.as_object().unwrap() {
            match value {
                Value::Null => claims.as_object_mut().unwrap().remove(name),
                _ => claims.as_object_mut().unwrap().insert(name.clone(), value.clone()),
            };
        }
        format!("logout_token={}", idp.token(typ, claims))
    };
    let mut provider = Browser::default();
    for (what, bad) in [
        ("an ID token", token("JWT", json!({}))),
        ("a nonce", token("logout+jwt", json!({ "nonce": "n" }))),
        ("no event", token("logout+jwt", json!({ "events": {} }))),
        ("no jti", token("logout+jwt", json!({ "jti": null }))),
        ("no iat", token("logout+jwt", json!({ "iat": null }))),
        ("nobody", token("logout+jwt", json!({ "sid": null }))),
        ("another client", token("logout+jwt", json!({ "aud": "other" }))),
        ("twice", format!("{0}&{0}", token("logout+jwt", json!({})))),
        ("none", "a=b".to_owned()),
    ] {
        let step = provider.send(&login, "POST", "/backchannel", Some(bad.as_bytes()), NOW + 1).await;
        assert_eq!(fault(step), Fault::LogoutToken, "{what}");
    }
    for good in [json!({}), json!({ "sid": null, "sub": "ada" })] {
        let login = idp.login();
        let mut browser = signed_in(&idp, &login, json!({})).await;
        assert!(is_session(&browser.get(&login, "/", NOW + 1).await));
        let body = token("logout+jwt", good);
        assert!(matches!(provider.send(&login, "POST", "/backchannel", Some(body.as_bytes()), NOW + 1).await, Step::Done { .. }));
        assert!(is_redirect(&browser.get(&login, "/", NOW + 1).await));
    }
    assert_eq!(fault(provider.get(&login, "/backchannel", NOW + 1).await), Fault::LogoutToken);
}

#[tokio::test]
async fn a_provider_that_was_never_reached_is_told() {
    let idp = Idp::start().await;
    let login = idp.login();
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nowhere = url(&format!("http://{}/", gone.local_addr().unwrap()), PlainText::OnLoopback).unwrap();
    drop(gone);
    let outgoing = Outgoing::new(RootCertStore::empty(), Duration::from_secs(5)).unwrap();
    let provider = Provider::new(&idp.issuer, nowhere, PlainText::OnLoopback, outgoing);
    let mut parts = Arc::into_inner(login).unwrap();
    parts.provider = provider;
    assert_eq!(fault(Browser::default().get(&Arc::new(parts), "/", NOW).await), Fault::Unavailable);
}

#[tokio::test]
async fn forgotten_logins_do_not_pile_up() {
    let idp = Idp::start().await;
    let login = idp.login();
    let mut browser = Browser::default();
    for _ in 0..12 {
        let _ = browser.begin(&login, "/").await;
        assert!(browser.cookies.len() <= BEGUN_MAX);
    }
}
