use std::time::UNIX_EPOCH;

use rustls::RootCertStore;
use serde_json::{Value, json};

use super::*;
use crate::identity::testing::Provider;

const NOW: u64 = 1_700_000_000;

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(NOW)
}

fn later() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(NOW + 6)
}

fn much_later() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(NOW + 30)
}

fn introspection(provider: &Provider, cache: Duration) -> Arc<Introspection> {
    let settings = Settings {
        url: provider.url("/introspect"),
        credentials: credentials("gateway", "hunter2"),
        outgoing: Outgoing::new(RootCertStore::empty(), Duration::from_secs(5)).unwrap(),
        cache,
        rules: Rules::default(),
        roles: ClaimPath::new("roles"),
        forward: Forward::new([(ClaimPath::new("sub"), http::HeaderName::from_static("x-user"))]),
    };
    Introspection::new("partner", settings)
}

fn active(more: Value) -> String {
    let mut answer = json!({ "active": true, "sub": "ada", "scope": "orders stock" });
    answer.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    answer.to_string()
}

const CACHE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn an_active_token_gives_what_the_issuer_says() {
    let mut provider = Provider::start(200, active(json!({ "roles": ["clerk"] }))).await;
    let introspection = introspection(&provider, CACHE);
    let verified = introspection.authenticate(b"opaque+1", now).await.unwrap();
    assert_eq!((&*verified.claims.scopes[1], &*verified.claims.roles[0]), ("stock", "clerk"));
    assert_eq!(verified.fields.as_ref().unwrap()[0].1, "ada");
    let request = provider.request().await;
    assert!(request.starts_with("POST /introspect HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("authorization: Basic Z2F0ZXdheTpodW50ZXIy\r\n"), "{request}");
    assert!(request.ends_with("\r\n\r\ntoken=opaque%2B1&token_type_hint=access_token"), "{request}");
}

#[tokio::test]
async fn an_answer_is_remembered_but_not_beyond_the_end_of_the_token() {
    let mut provider = Provider::start(200, active(json!({}))).await;
    let introspection = introspection(&provider, CACHE);
    for clock in [now, now, later] {
        assert!(introspection.authenticate(b"a", clock).await.is_ok());
    }
    assert_eq!(provider.count(), 1);
    assert!(introspection.authenticate(b"a", much_later).await.is_ok());
    assert_eq!(provider.count(), 1, "after `cache` it is asked again");

    provider.now_says(200, active(json!({ "exp": NOW + 5 })));
    assert!(introspection.authenticate(b"b", now).await.is_ok());
    assert_eq!(introspection.authenticate(b"b", later).await, Err(Reason::Expired));
    assert_eq!(provider.count(), 2);
}

#[tokio::test]
async fn without_a_cache_each_request_is_a_question() {
    let mut provider = Provider::start(200, active(json!({}))).await;
    let introspection = introspection(&provider, Duration::ZERO);
    assert!(introspection.authenticate(b"a", now).await.is_ok());
    provider.now_says(200, r#"{"active":false}"#);
    assert_eq!(introspection.authenticate(b"a", now).await, Err(Reason::Inactive));
    assert_eq!((provider.count(), introspection.remembered().len()), (2, 0));
}

#[tokio::test]
async fn a_refusal_is_remembered_for_a_shorter_while() {
    let mut provider = Provider::start(200, r#"{"active":false}"#).await;
    let introspection = introspection(&provider, CACHE);
    for _ in 0..3 {
        assert_eq!(introspection.authenticate(b"a", now).await, Err(Reason::Inactive));
    }
    assert_eq!(provider.count(), 1);
    provider.now_says(200, active(json!({})));
    assert!(introspection.authenticate(b"a", later).await.is_ok());
    assert!(introspection.remembered().len() == 1 && introspection.refused.len() == 1);
}

#[tokio::test]
async fn a_failure_refuses_and_is_not_remembered() {
    let mut provider = Provider::start(200, "").await;
    let introspection = introspection(&provider, CACHE);
    let large = active(json!({ "x": "x".repeat(ANSWER_MAX) }));
    let odd =
        [(500, ""), (401, ""), (302, ""), (200, "<html>"), (200, "{}"), (200, r#"{"active":"yes"}"#), (200, large.as_str())];
    for (status, body) in odd {
        provider.now_says(status, body);
        assert_eq!(introspection.authenticate(b"a", now).await, Err(Reason::Unavailable), "{status} {}", body.len());
        assert_eq!(provider.count(), 1);
    }
    provider.now_says(200, active(json!({})));
    assert!(introspection.authenticate(b"a", now).await.is_ok());
}

#[tokio::test]
async fn an_issuer_that_is_away_vouches_for_nobody() {
    let provider = Provider::start(200, active(json!({}))).await;
    let mut settings = introspection(&provider, CACHE);
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    Arc::get_mut(&mut settings).unwrap().settings.url = format!("http://{closed}/").parse().unwrap();
    assert_eq!(settings.authenticate(b"a", now).await, Err(Reason::Unavailable));
}

#[tokio::test]
async fn many_requests_with_one_token_ask_once_and_outlive_who_asked_first() {
    let mut provider = Provider::start(200, active(json!({}))).await;
    let introspection = introspection(&provider, CACHE);
    let held = provider.hold().await;
    let ask = || {
        let introspection = introspection.clone();
        tokio::spawn(async move { introspection.authenticate(b"a", now).await.map(drop) })
    };
    let first = ask();
    provider.request().await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    let others: Vec<_> = (0..50).map(|_| ask()).collect();
    // Each has run as far as it can without an answer.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    drop(held);
    for other in others {
        assert_eq!(other.await.unwrap(), Ok(()));
    }
    assert_eq!((provider.count(), introspection.questions.lock().unwrap().len()), (0, 0));
}

#[tokio::test]
async fn questions_under_way_are_bounded() {
    let provider = Provider::start(200, active(json!({}))).await;
    let introspection = introspection(&provider, CACHE);
    let _held = provider.hold().await;
    for n in 0..QUESTIONS_MAX {
        assert!(introspection.question(TokenHash::of(&n.to_be_bytes()), "t", now).is_some());
    }
    assert_eq!(introspection.authenticate(b"one-more", now).await, Err(Reason::Unavailable));
}

#[tokio::test]
async fn what_is_no_token_is_not_asked_about() {
    let mut provider = Provider::start(200, active(json!({}))).await;
    let introspection = introspection(&provider, CACHE);
    assert_eq!(introspection.authenticate(b"a, b", now).await, Err(Reason::Malformed));
    assert_eq!(introspection.authenticate(&vec![b'a'; token::TOKEN_MAX + 1], now).await, Err(Reason::TooLarge));
    assert_eq!(provider.count(), 0);
}
