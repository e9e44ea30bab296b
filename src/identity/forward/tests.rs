use std::time::UNIX_EPOCH;

use http::header::{AUTHORIZATION, COOKIE};
use rustls::RootCertStore;

use super::*;
use crate::{exchange::testing, identity::testing::Provider};

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}

fn later() -> SystemTime {
    now() + Duration::from_secs(6)
}

const CACHE: Option<Cache> = Some(Cache { ttl: Duration::from_secs(30), by: By::Request });

fn service(provider: &Provider, cache: Option<Cache>, relay: bool) -> Arc<ForwardAuth> {
    let settings = Settings {
        url: provider.url("/check"),
        outgoing: Outgoing::new(RootCertStore::empty(), Duration::from_secs(5)).unwrap(),
        headers: [AUTHORIZATION, COOKIE].into(),
        copy: [HeaderName::from_static("x-user")].into(),
        consumer: Some(HeaderName::from_static("x-consumer-name")),
        relay,
        cache,
    };
    ForwardAuth::new("old", settings)
}

async fn judged(service: &Arc<ForwardAuth>, target: &str, token: Option<&str>, clock: fn() -> SystemTime) -> Judgement {
    let fields: Vec<_> = token.iter().map(|token| ("authorization", *token)).collect();
    let (head, facts) = (testing::head("GET", "/", &fields), testing::facts("GET", target));
    service.judge(Question { headers: &head.headers, facts: &facts }, clock).await
}

const USER: &[(&str, &str)] = &[("X-User", "ada"), ("x-user", "lovelace"), ("X-Consumer-Name", "acme"), ("X-Other", "1")];

#[tokio::test]
async fn what_a_service_lets_pass_has_its_chosen_fields() {
    let mut provider = Provider::start(200, "").await;
    provider.with(USER);
    let service = service(&provider, None, false);
    let passed = judged(&service, "/a?b", Some("Bearer t"), now).await.unwrap();
    let fields: Vec<_> = passed.verified.fields.iter().flat_map(|fields| fields.iter()).collect();
    assert_eq!(fields, [&(HeaderName::from_static("x-user"), http::HeaderValue::from_static("ada, lovelace"))]);
    assert_eq!((&passed.verified.claims.all["x-user"], passed.consumer.as_deref()), (&"ada, lovelace".into(), Some("acme")));
    let request = provider.request().await;
    assert!(request.starts_with("GET /check HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("authorization: Bearer t\r\n") && request.contains("x-forwarded-uri: /a?b\r\n"), "{request}");
}

#[tokio::test]
async fn without_a_cache_each_request_is_a_question() {
    let mut provider = Provider::start(204, "").await;
    let service = service(&provider, None, false);
    for _ in 0..3 {
        assert!(judged(&service, "/", Some("t"), now).await.is_ok());
    }
    assert_eq!((provider.count(), service.remembered().len(), service.outcomes().counts()), (3, 0, (3, 0)));
}

#[tokio::test]
async fn an_answer_holds_for_the_same_request_for_a_while() {
    let mut provider = Provider::start(200, "").await;
    let service = service(&provider, CACHE, false);
    for (target, token, asked) in [("/a", "t", 1), ("/a", "t", 0), ("/b", "t", 1), ("/a?q", "t", 1), ("/a", "u", 1)] {
        assert!(judged(&service, target, Some(token), now).await.is_ok());
        assert_eq!(provider.count(), asked, "{target} {token}");
    }
    assert!(judged(&service, "/a", Some("t"), || now() + Duration::from_secs(30)).await.is_ok());
    assert_eq!(provider.count(), 1, "after `ttl` it is asked again");
}

#[tokio::test]
async fn by_credentials_alone_where_it_was_asked_for_and_never_without_any() {
    let mut provider = Provider::start(200, "").await;
    let cache = Some(Cache { by: By::Credentials, ttl: Duration::from_secs(30) });
    let service = service(&provider, cache, false);
    for target in ["/a", "/b"] {
        assert!(judged(&service, target, Some("t"), now).await.is_ok());
        assert!(judged(&service, target, None, now).await.is_ok());
    }
    assert_eq!(provider.count(), 3);
}

#[tokio::test]
async fn a_refusal_is_remembered_for_a_shorter_while() {
    let mut provider = Provider::start(401, "").await;
    provider.with(&[("WWW-Authenticate", "Bearer realm=\"old\""), ("WWW-Authenticate", "Basic realm=\"old\"")]);
    let service = service(&provider, CACHE, false);
    let challenges = ["Bearer realm=\"old\"", "Basic realm=\"old\""].map(http::HeaderValue::from_static);
    for _ in 0..2 {
        let refusal = judged(&service, "/", Some("t"), now).await.unwrap_err();
        assert_eq!(refusal, Refusal::Unauthenticated(Arc::new(challenges.clone())));
    }
    assert_eq!(provider.count(), 1);
    provider.now_says(403, "");
    provider.with(&[]);
    assert_eq!(judged(&service, "/", Some("t"), later).await, Err(Refusal::Forbidden(None)));
}

#[tokio::test]
async fn what_it_does_not_say_clearly_refuses_and_is_not_remembered() {
    let mut provider = Provider::start(200, "").await;
    let service = service(&provider, CACHE, false);
    for status in [302, 304, 400, 402, 404, 407, 418, 429, 500, 503] {
        provider.now_says(status, "");
        provider.with(&[("Location", "/login")]);
        assert_eq!(judged(&service, "/", Some("t"), now).await, Err(Refusal::Unavailable), "{status}");
        assert_eq!(provider.count(), 1);
    }
    let long = "x".repeat(9_000);
    for odd in [("X-User", long.as_str()), ("X-Consumer-Name", "Zoë")] {
        provider.now_says(200, "");
        provider.with(&[odd]);
        assert_eq!(judged(&service, "/", Some("t"), now).await, Err(Refusal::Unavailable), "{}", odd.0);
    }
    assert_eq!(service.outcomes().counts(), (0, 12));
    provider.with(&[]);
    assert!(judged(&service, "/", Some("t"), now).await.is_ok());
}

#[tokio::test]
async fn a_redirect_is_relayed_only_where_it_was_asked_for_and_never_remembered() {
    let mut provider = Provider::start(302, "").await;
    provider.with(&[("Location", "https://login.example/"), ("Set-Cookie", "state=1"), ("X-Secret", "1")]);
    let service = service(&provider, CACHE, true);
    for _ in 0..2 {
        let Err(Refusal::Relayed(relayed)) = judged(&service, "/", Some("t"), now).await else { panic!() };
        let fields: Vec<_> = relayed.fields.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(fields, [("location", "https://login.example/"), ("set-cookie", "state=1")]);
        assert_eq!(relayed.status, 302);
    }
    assert_eq!(provider.count(), 2);
    provider.now_says(401, "");
    let Err(Refusal::Relayed(relayed)) = judged(&service, "/", None, now).await else { panic!() };
    let names: Vec<_> = relayed.fields.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["www-authenticate", "set-cookie"]);
    provider.now_says(300, "");
    assert_eq!(judged(&service, "/", None, now).await, Err(Refusal::Unavailable), "a choice is no redirect");
}

#[tokio::test]
async fn many_requests_with_one_question_ask_once() {
    let mut provider = Provider::start(200, "").await;
    let service = service(&provider, CACHE, false);
    let held = provider.hold().await;
    let others: Vec<_> = (0..50)
        .map(|_| {
            let service = service.clone();
            tokio::spawn(async move { judged(&service, "/", Some("t"), now).await.is_ok() })
        })
        .collect();
    provider.request().await;
    drop(held);
    for other in others {
        assert!(other.await.unwrap());
    }
    assert_eq!(provider.count(), 0);
}
