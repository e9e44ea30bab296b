use std::time::UNIX_EPOCH;

use rustls::RootCertStore;
use serde_json::json;

use super::*;
use crate::{
    config::identity::session_bridge::SigningAlgorithm,
    identity::{
        mint::SigningKey,
        testing::{Provider, pem},
    },
};

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}

fn later() -> SystemTime {
    now() + Duration::from_secs(6)
}

const CACHE: Duration = Duration::from_secs(60);

fn bridge(provider: &Provider, cache: Duration, header: HeaderName) -> Arc<Bridge> {
    let key = SigningKey::read(pem::ed25519().as_bytes(), SigningAlgorithm::EdDSA).unwrap();
    let settings = Settings {
        url: provider.url("/session"),
        outgoing: Outgoing::new(RootCertStore::empty(), Duration::from_secs(5)).unwrap(),
        cookie: "PHPSESSID".into(),
        cache,
        minter: Minter::new(key, "https://shop.example", &["orders".to_owned()], Duration::from_secs(100)),
        subject: ClaimPath::new("user.id"),
        claims: [("email".into(), ClaimPath::new("user.email")), ("gone".into(), ClaimPath::new("gone"))].into(),
        header,
        forward: Forward::new([(ClaimPath::new("sub"), HeaderName::from_static("x-user"))]),
        published: Bytes::new(),
    };
    Bridge::new("old", settings)
}

fn known() -> String {
    json!({ "user": { "id": 42, "email": "ada@shop.example" }, "gone": null, "admin": true }).to_string()
}

fn told(verified: &Verified) -> Vec<(&str, &str)> {
    let fields = verified.fields.iter().flat_map(|fields| fields.iter());
    fields.map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect()
}

#[tokio::test]
async fn a_session_becomes_a_token_of_what_the_application_says() {
    let mut provider = Provider::start(200, known()).await;
    let bridge = bridge(&provider, CACHE, AUTHORIZATION);
    let verified = bridge.authenticate(b"abc", now).await.unwrap();
    let claims = &verified.claims.all;
    assert_eq!((&claims["sub"], &claims["email"]), (&json!("42"), &json!("ada@shop.example")));
    assert!(!claims.contains_key("admin") && !claims.contains_key("gone"), "only what was asked for");
    let [("x-user", "42"), ("authorization", bearer)] = told(&verified)[..] else { panic!("{:?}", told(&verified)) };
    assert_eq!(bearer.strip_prefix("Bearer ").unwrap().split('.').count(), 3);
    let request = provider.request().await;
    assert!(request.starts_with("GET /session HTTP/1.1\r\n") && request.contains("\r\ncookie: PHPSESSID=abc\r\n"), "{request}");
}

#[tokio::test]
async fn another_field_has_the_bare_token() {
    let provider = Provider::start(200, known()).await;
    let bridge = bridge(&provider, CACHE, HeaderName::from_static("x-identity"));
    let verified = bridge.authenticate(b"abc", now).await.unwrap();
    let (name, token) = told(&verified)[1];
    assert!(name == "x-identity" && !token.contains(' '));
    assert!(!format!("{:?}", verified.fields).contains(token), "it is not shown");
}

#[tokio::test]
async fn a_token_is_remembered_and_minted_anew_before_it_expires() {
    let mut provider = Provider::start(200, known()).await;
    let bridge = bridge(&provider, Duration::from_secs(1_000), AUTHORIZATION);
    let token = |verified: &Verified| told(verified)[1].1.to_owned();
    let first = token(&bridge.authenticate(b"abc", now).await.unwrap());
    let before = || now() + Duration::from_millis(79_999);
    let after = || now() + Duration::from_secs(80);
    assert_eq!(token(&bridge.authenticate(b"abc", before).await.unwrap()), first);
    assert_eq!(provider.count(), 1);
    assert_ne!(token(&bridge.authenticate(b"abc", after).await.unwrap()), first);
    assert_eq!(provider.count(), 1, "a fifth of the lifetime is left");
    assert_ne!(token(&bridge.authenticate(b"abd", after).await.unwrap()), first, "another session");
    assert_eq!((provider.count(), bridge.remembered().len()), (1, 2));
}

#[tokio::test]
async fn without_a_cache_each_request_is_a_question() {
    let mut provider = Provider::start(200, known()).await;
    let bridge = bridge(&provider, Duration::ZERO, AUTHORIZATION);
    assert!(bridge.authenticate(b"abc", now).await.is_ok());
    provider.now_says(401, "");
    assert_eq!(bridge.authenticate(b"abc", now).await, Err(Reason::Inactive));
    assert_eq!((provider.count(), bridge.remembered().len()), (2, 0));
}

#[tokio::test]
async fn a_session_that_is_not_known_is_refused_and_asked_about_again_soon() {
    let mut provider = Provider::start(200, "").await;
    let bridge = bridge(&provider, CACHE, AUTHORIZATION);
    for status in [401, 403, 404] {
        provider.now_says(status, known());
        for _ in 0..2 {
            assert_eq!(bridge.authenticate(&status.to_string().into_bytes(), now).await, Err(Reason::Inactive), "{status}");
        }
        assert_eq!(provider.count(), 1);
    }
    provider.now_says(200, known());
    assert!(bridge.authenticate(b"401", later).await.is_ok());
}

#[tokio::test]
async fn a_failure_refuses_and_is_not_remembered() {
    let mut provider = Provider::start(200, "").await;
    let bridge = bridge(&provider, CACHE, AUTHORIZATION);
    let (large, twice) = (format!("{}{}", known(), " ".repeat(ANSWER_MAX)), r#"{"user":{"id":1},"user":{"id":2}}"#);
    let answers = [
        (500, known()),
        (204, String::new()),
        (201, known()),
        (302, known()),
        (200, "<html>".to_owned()),
        (200, "{}".to_owned()),
        (200, r#"{"user":{"id":""}}"#.to_owned()),
        (200, r#"{"user":{"id":1.5}}"#.to_owned()),
        (200, r#"{"user":{"id":true}}"#.to_owned()),
        (200, twice.to_owned()),
        (200, large),
    ];
    for (status, body) in answers {
        provider.now_says(status, body.clone());
        assert_eq!(bridge.authenticate(b"abc", now).await, Err(Reason::Unavailable), "{status} {}", body.len());
        assert_eq!(provider.count(), 1);
    }
    assert_eq!(bridge.outcomes().counts(), (0, 11));
    provider.now_says(200, known());
    assert!(bridge.authenticate(b"abc", now).await.is_ok());
}

#[tokio::test]
async fn what_is_no_cookie_is_not_asked_about() {
    let mut provider = Provider::start(200, known()).await;
    let bridge = bridge(&provider, CACHE, AUTHORIZATION);
    assert_eq!(bridge.authenticate(&vec![b'a'; COOKIE_MAX + 1], now).await, Err(Reason::TooLarge));
    assert_eq!(bridge.authenticate(b"a\r\nX-Admin: 1", now).await, Err(Reason::Malformed));
    assert_eq!(provider.count(), 0);
}
