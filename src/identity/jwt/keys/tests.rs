use rustls::RootCertStore;
use serde_json::{Value, json};

use super::*;
use crate::caller::{ClaimPath, Reason};
use crate::identity::{
    fields::Forward,
    jwt::{Algorithm, Jwt, Rules},
    outgoing::PlainText,
    testing::{Provider, Signer},
};

fn pace() -> Pace {
    Pace { unknown: Duration::ZERO, ..Pace::every(Duration::from_secs(3_600)) }
}

fn jwks(keys: &[Value]) -> String {
    json!({ "keys": keys }).to_string()
}

fn fetched(place: Place, pace: Pace) -> Arc<Keys> {
    let outgoing = Outgoing::new(RootCertStore::empty(), Duration::from_secs(5)).unwrap();
    Keys::fetched("idp", Source { place, outgoing, pace })
}

fn jwt(keys: &Arc<Keys>) -> Jwt {
    let rules = Rules {
        issuer: "idp".into(),
        audience: Box::default(),
        algorithms: [Algorithm::EdDSA].into(),
        leeway: Duration::ZERO,
        typ: None,
        required: Box::default(),
    };
    Jwt::new(rules, ClaimPath::new("roles"), Forward::default(), keys.clone())
}

fn token(signer: &Signer, kid: &str) -> String {
    signer.token(&json!({ "alg": "EdDSA", "kid": kid }), &json!({ "iss": "idp", "exp": 9_999_999_999_u64 }))
}

async fn judged(jwt: &Jwt, token: &str) -> Result<(), Reason> {
    jwt.authenticate(token.as_bytes(), SystemTime::now).await.map(drop)
}

#[tokio::test]
async fn the_first_token_waits_for_the_keys() {
    let signer = Signer::ed25519();
    let mut provider = Provider::start(200, jwks(&[signer.jwk("a")])).await;
    let held = provider.hold().await;
    let keys = fetched(Place::Jwks(provider.url("/jwks")), pace());
    keys.start();
    keys.start();
    let jwt = jwt(&keys);
    assert_eq!(jwt.verify(token(&signer, "a").as_bytes(), SystemTime::now()), Err(Reason::Unavailable));
    let text = token(&signer, "a");
    let (judged, ()) = tokio::join!(judged(&jwt, &text), async {
        assert!(provider.request().await.starts_with("GET /jwks HTTP/1.1\r\n"));
        drop(held);
    });
    assert_eq!((judged, provider.count()), (Ok(()), 0));
    assert_eq!((keys.status().keys, keys.status().fetched, keys.status().failed), (1, 1, 0));
}

#[tokio::test]
async fn a_new_key_is_asked_for_and_a_withdrawn_one_counts_no_longer() {
    let (old, new) = (Signer::ed25519(), Signer::ed25519());
    let provider = Provider::start(200, jwks(&[old.jwk("a")])).await;
    let keys = fetched(Place::Jwks(provider.url("/")), pace());
    keys.start();
    let jwt = jwt(&keys);
    let before = token(&old, "a");
    assert_eq!(judged(&jwt, &before).await, Ok(()));
    assert_eq!((jwt.verify(before.as_bytes(), SystemTime::now()).is_ok(), jwt.remembered().len()), (true, 1));

    provider.now_says(200, jwks(&[new.jwk("b")]));
    assert_eq!(judged(&jwt, &token(&new, "b")).await, Ok(()));
    assert_eq!(jwt.verify(before.as_bytes(), SystemTime::now()), Err(Reason::UnknownKey), "though it was remembered");
    assert_eq!(jwt.remembered().len(), 1, "what was remembered of the old key is gone");

    provider.now_says(200, jwks(&[]));
    assert!(keys.renewed().await);
    assert_eq!(judged(&jwt, &token(&new, "b")).await, Err(Reason::UnknownKey), "all keys may be withdrawn");
}

#[tokio::test]
async fn a_key_that_changes_under_its_name_is_another() {
    let (old, new) = (Signer::ed25519(), Signer::ed25519());
    let provider = Provider::start(200, jwks(&[old.jwk("a")])).await;
    let keys = fetched(Place::Jwks(provider.url("/")), pace());
    keys.start();
    let jwt = jwt(&keys);
    assert_eq!(judged(&jwt, &token(&old, "a")).await, Ok(()));
    provider.now_says(200, jwks(&[new.jwk("a")]));
    assert!(keys.renewed().await);
    assert_eq!(judged(&jwt, &token(&old, "a")).await, Err(Reason::Signature));
    assert_eq!(judged(&jwt, &token(&new, "a")).await, Ok(()));
}

#[tokio::test]
async fn while_the_issuer_is_away_its_last_keys_count() {
    let signer = Signer::ed25519();
    let provider = Provider::start(200, jwks(&[signer.jwk("a")])).await;
    let keys = fetched(Place::Jwks(provider.url("/")), pace());
    keys.start();
    let jwt = jwt(&keys);
    assert_eq!(judged(&jwt, &token(&signer, "a")).await, Ok(()));
    let odd = "x".repeat(600 << 10);
    for (status, body) in [(500, ""), (404, ""), (301, ""), (204, ""), (200, "<html>"), (200, "{}"), (200, odd.as_str())] {
        provider.now_says(status, body);
        let failed = keys.status().failed;
        assert!(keys.renewed().await);
        assert_eq!((keys.status().failed, keys.status().keys), (failed + 1, 1), "{status} {}", body.len());
        assert_eq!(judged(&jwt, &token(&signer, "a")).await, Ok(()));
    }
}

#[tokio::test]
async fn an_issuer_that_was_never_reached_vouches_for_nobody() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let place = Place::Jwks(format!("http://{closed}/").parse().unwrap());
    let keys = fetched(place, Pace { retry: Duration::from_millis(1), ..pace() });
    keys.start();
    let jwt = jwt(&keys);
    assert_eq!(judged(&jwt, &token(&Signer::ed25519(), "a")).await, Err(Reason::Unavailable));
    assert!(keys.was_asked() && keys.status().good.is_none());
}

#[tokio::test]
async fn it_is_asked_again_after_a_failure_and_in_time() {
    let signer = Signer::ed25519();
    let mut provider = Provider::start(200, jwks(&[signer.jwk("a")])).await;
    provider.says_once(503, "");
    let keys = fetched(Place::Jwks(provider.url("/")), Pace { refresh: Duration::from_millis(1), ..pace() });
    keys.start();
    for _ in 0..4 {
        provider.request().await;
    }
    drop(keys);
}

#[tokio::test]
async fn unknown_keys_lead_to_one_question_at_a_time_and_not_too_soon() {
    let signer = Signer::ed25519();
    let mut provider = Provider::start(200, jwks(&[signer.jwk("a")])).await;
    let keys = fetched(Place::Jwks(provider.url("/")), Pace { unknown: Duration::from_secs(3_600), ..pace() });
    let held = provider.hold().await;
    keys.start();
    let jwt = Arc::new(jwt(&keys));
    let asking: Vec<_> = (0..50)
        .map(|n| {
            let (jwt, token) = (jwt.clone(), token(&Signer::ed25519(), &format!("unknown-{n}")));
            tokio::spawn(async move { judged(&jwt, &token).await })
        })
        .collect();
    provider.request().await;
    drop(held);
    for one in asking {
        assert_eq!(one.await.unwrap(), Err(Reason::UnknownKey));
    }
    assert_eq!(judged(&jwt, &token(&Signer::ed25519(), "more")).await, Err(Reason::UnknownKey));
    assert_eq!(provider.count(), 0, "one question for all of them");
}

#[tokio::test]
async fn a_request_does_not_wait_for_ever() {
    let provider = Provider::start(200, jwks(&[])).await;
    let _held = provider.hold().await;
    let keys = fetched(Place::Jwks(provider.url("/")), Pace { patience: Duration::from_millis(1), ..pace() });
    keys.start();
    assert_eq!(judged(&jwt(&keys), &token(&Signer::ed25519(), "a")).await, Err(Reason::Unavailable));
}

#[tokio::test]
async fn keys_are_found_by_discovery_of_their_own_issuer_only() {
    let signer = Signer::ed25519();
    let provider = Provider::start(404, "").await;
    let document = |issuer: &str| json!({ "issuer": issuer, "jwks_uri": provider.url("/keys").as_str() }).to_string();
    let place = Place::Discovery { document: provider.url("/doc"), issuer: "idp".into(), plain: PlainText::OnLoopback };
    let keys = fetched(place, pace());
    provider.says_once(200, document("evil"));
    keys.start();
    let jwt = jwt(&keys);
    assert_eq!(judged(&jwt, &token(&signer, "a")).await, Err(Reason::Unavailable));
    provider.says_once(200, document("idp"));
    provider.says_once(200, jwks(&[signer.jwk("a")]));
    assert_eq!(judged(&jwt, &token(&signer, "a")).await, Ok(()));
}

#[tokio::test]
async fn what_a_published_set_calls_a_secret_is_none() {
    let secret = Signer::Secret(vec![7; 32]);
    let provider = Provider::start(200, jwks(&[secret.jwk("a")])).await;
    let keys = fetched(Place::Jwks(provider.url("/")), pace());
    keys.start();
    assert!(keys.renewed().await);
    assert_eq!(keys.status().keys, 0);
}

#[test]
fn failures_are_followed_by_longer_and_longer_waits() {
    let pace = Pace::every(Duration::from_secs(600));
    let waits: Vec<_> = (0..9).map(|failures| pace.after(failures).as_secs()).collect();
    assert_eq!(waits, [600, 1, 2, 4, 8, 16, 32, 60, 60]);
    assert_eq!(Pace::every(Duration::from_secs(5)).after(40).as_secs(), 5);
}
