use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};

use super::*;
use crate::identity::testing::{RSA, Signer, b64};

const NOW: u64 = 1_700_000_000;

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn rules(algorithms: &[Algorithm]) -> Rules {
    Rules {
        issuer: "https://idp.example/".into(),
        audience: ["api".into()].into(),
        algorithms: algorithms.into(),
        leeway: Duration::from_secs(30),
        typ: None,
        required: Box::default(),
    }
}

fn set(keys: &[Value]) -> KeySet {
    KeySet::from_jwks(json!({ "keys": keys }).to_string().as_bytes()).unwrap()
}

fn jwt(algorithms: &[Algorithm], keys: &[Value]) -> Jwt {
    let forward = Forward::new([(ClaimPath::new("sub"), http::HeaderName::from_static("x-user"))]);
    Jwt::new(rules(algorithms), ClaimPath::new("realm.roles"), forward, Keys::fixed("idp", set(keys)))
}

fn claims() -> Value {
    json!({ "iss": "https://idp.example/", "aud": "api", "exp": NOW + 60, "sub": "ada", "scope": "orders", "realm": { "roles": ["clerk"] } })
}

fn refusal(jwt: &Jwt, token: &str) -> Reason {
    let refusal = jwt.verify(token.as_bytes(), at(NOW)).unwrap_err();
    assert!(jwt.remembered.is_empty(), "a bad token is not remembered");
    refusal
}

#[test]
fn a_good_token_gives_its_claims() {
    let jwt = jwt(&[Algorithm::RS256], &[RSA.jwk("k")]);
    let token = RSA.token(&json!({ "alg": "RS256", "kid": "k", "typ": "at+jwt" }), &claims());
    let verified = jwt.verify(token.as_bytes(), at(NOW)).unwrap();
    assert_eq!(Value::Object(verified.claims.all.clone()), claims());
    assert_eq!((&*verified.claims.scopes, &*verified.claims.roles), (&["orders".into()][..], &["clerk".into()][..]));
    assert_eq!(verified.fields.as_ref().unwrap()[0].1, "ada");
}

#[test]
fn rfc_7519_3_1_is_taken_in_its_time() {
    let secret =
        json!({ "kty": "oct", "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow" });
    let rules = Rules { issuer: "joe".into(), audience: Box::default(), leeway: Duration::ZERO, ..rules(&[Algorithm::HS256]) };
    let jwt = Jwt::new(rules, ClaimPath::new("roles"), Forward::default(), Keys::fixed("joe", set(&[secret])));
    let token = b"eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb2\
                  90Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    assert_eq!(jwt.verify(token, at(1_300_819_379)).unwrap().claims.all["http://example.com/is_root"], true);
    assert_eq!(jwt.verify(token, at(1_300_819_380)), Err(Reason::Expired), "the same token, remembered before");
    let unsecured =
        "eyJhbGciOiJub25lIn0.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.";
    assert_eq!(jwt.verify(unsecured.as_bytes(), at(1_300_819_379)), Err(Reason::Algorithm), "RFC 7519 §6.1");
}

#[test]
fn every_algorithm_that_is_configured_works_and_no_other() {
    let all = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA", "HS256", "HS384", "HS512"];
    let signers = [("RS", &*RSA), ("PS", &*RSA), ("HS", &Signer::Secret(vec![9; 64])), ("Ed", &Signer::ed25519())];
    let (p256, p384) = (Signer::p256(), Signer::p384());
    for name in all {
        let family = signers.iter().find(|(family, _)| name.starts_with(family)).map(|(_, signer)| *signer);
        let signer = family.unwrap_or(if name == "ES256" { &p256 } else { &p384 });
        let token = signer.token(&json!({ "alg": name, "kid": "k" }), &claims());
        for configured in all {
            let jwt = jwt(&[configured.parse().unwrap()], &[signer.jwk("k")]);
            let judged = jwt.verify(token.as_bytes(), at(NOW)).map(drop);
            assert_eq!(judged, if configured == name { Ok(()) } else { Err(Reason::Algorithm) }, "{name} at {configured}");
        }
    }
}

#[test]
fn a_public_key_is_never_a_secret() {
    let algorithms = [Algorithm::RS256, Algorithm::HS256];
    let jwt = jwt(&algorithms, &[RSA.jwk("k")]);
    let jwk = RSA.jwk("k");
    let modulus = compact::decoded(jwk["n"].as_str().unwrap()).unwrap();
    for secret in [modulus, jwk.to_string().into_bytes(), jwk["n"].as_str().unwrap().as_bytes().to_vec(), Vec::new()] {
        let forged = Signer::Secret(secret).token(&json!({ "alg": "HS256", "kid": "k" }), &claims());
        assert_eq!(refusal(&jwt, &forged), Reason::UnknownKey, "no key of the set serves HS256");
    }
}

#[test]
fn forged_tokens_are_refused() {
    let jwt = jwt(&[Algorithm::RS256], &[RSA.jwk("k")]);
    let header = json!({ "alg": "RS256", "kid": "k" });
    let good = RSA.token(&header, &claims());
    let parts: Vec<_> = good.split('.').collect();
    let other = claims().to_string().replace("ada", "eve");
    let mallory = Signer::p256();
    let check = |token: &str, expected: Reason| assert_eq!(refusal(&jwt, token), expected, "{token}");
    check(&format!("{}.{}.{}", parts[0], b64(&other), parts[2]), Reason::Signature);
    check(&format!("{}.{}.", parts[0], parts[1]), Reason::Signature);
    check(&format!("{}.{}.{}", parts[0], parts[1], b64([0; 256])), Reason::Signature);
    check(&format!("{}.{}.{}", b64(r#"{"alg":"none"}"#), parts[1], parts[2]), Reason::Algorithm);
    check(&format!("{}.{}.", b64(r#"{"alg":"none","typ":"JWT"}"#), parts[1]), Reason::Algorithm);
    check(&mallory.token(&json!({ "alg": "ES256", "kid": "k" }), &claims()), Reason::Algorithm);
    check(&mallory.sign("ES256", &header.to_string(), &claims().to_string()), Reason::Signature);
    check(&RSA.sign("PS256", &header.to_string(), &claims().to_string()), Reason::Signature);
    check(&RSA.token(&json!({ "alg": "RS256", "kid": "other" }), &claims()), Reason::UnknownKey);
    check(&format!("{good}A"), Reason::Signature);
    check(&format!("{good}="), Reason::Signature);
    check(&format!("{good}.x"), Reason::Unreadable);
    check(&good.replace('.', ".."), Reason::Unreadable);
    check(&format!("{good}, Bearer x"), Reason::Malformed);
    check(&"a".repeat(token::TOKEN_MAX + 1), Reason::TooLarge);
    check("opaque-token", Reason::Unreadable);
}

#[test]
fn a_key_that_a_token_brings_along_is_not_used() {
    let jwt = jwt(&[Algorithm::ES256], &[Signer::p256().jwk("k")]);
    let mallory = Signer::p256();
    let header =
        json!({ "alg": "ES256", "jwk": mallory.jwk("k"), "jku": "https://evil.example/jwks", "x5u": "https://evil.example/" });
    assert_eq!(refusal(&jwt, &mallory.token(&header, &claims())), Reason::Signature);
}

#[test]
fn a_key_of_zeros_signs_nothing() {
    // CVE-2022-21449: a signature of zeros is no signature.
    let jwt = jwt(&[Algorithm::ES256], &[Signer::p256().jwk("k")]);
    let token = format!("{}.{}.{}", b64(r#"{"alg":"ES256","kid":"k"}"#), b64(claims().to_string()), b64([0; 64]));
    assert_eq!(refusal(&jwt, &token), Reason::Signature);
}

#[test]
fn what_the_header_asks_for_beyond_us_is_refused_though_it_is_signed() {
    let jwt = jwt(&[Algorithm::RS256], &[RSA.jwk("k")]);
    let check = |header: &str, payload: &str, expected: Reason| {
        assert_eq!(refusal(&jwt, &RSA.sign("RS256", header, payload)), expected, "{header} {payload}");
    };
    let good = claims().to_string();
    check(r#"{"alg":"RS256","kid":"k","crit":["exp"],"exp":1}"#, &good, Reason::Header);
    check(r#"{"alg":"RS256","kid":"k","b64":false,"crit":["b64"]}"#, &good, Reason::Header);
    check(r#"{"alg":"RS256","kid":"k","typ":"logout+jwt"}"#, &good, Reason::Type);
    check(r#"{"alg":"RS256","kid":"k","kid":"k"}"#, &good, Reason::Unreadable);
    let header = r#"{"alg":"RS256","kid":"k"}"#;
    check(header, &good.replace(r#""sub":"ada""#, r#""sub":"ada","sub":"root""#), Reason::Unreadable);
    check(header, "[]", Reason::Unreadable);
    check(header, "", Reason::Unreadable);
    check(header, &good.replace("https://idp.example/", "https://evil.example/"), Reason::Issuer);
    check(header, &good.replace(r#""api""#, r#""other""#), Reason::Audience);
}

#[test]
fn clocks_may_differ_by_the_leeway() {
    let jwt = jwt(&[Algorithm::RS256], &[RSA.jwk("k")]);
    let token = |claims: &Value| RSA.token(&json!({ "alg": "RS256", "kid": "k" }), claims);
    let (plain, mut later) = (token(&claims()), claims());
    later["nbf"] = json!(NOW);
    let later = token(&later);
    let check = |token: &str, seconds: u64, expected: Result<(), Reason>| {
        assert_eq!(jwt.verify(token.as_bytes(), at(seconds)).map(drop), expected, "{seconds}");
    };
    for _ in ["cold", "warm"] {
        check(&plain, NOW + 89, Ok(()));
        check(&plain, NOW + 90, Err(Reason::Expired));
    }
    check(&later, NOW - 31, Err(Reason::NotYetValid));
    check(&later, NOW - 30, Ok(()));
}

#[test]
fn a_repeat_is_remembered() {
    let jwt = jwt(&[Algorithm::RS256], &[RSA.jwk("k")]);
    let token = RSA.token(&json!({ "alg": "RS256", "kid": "k" }), &claims());
    let first = jwt.verify(token.as_bytes(), at(NOW)).unwrap();
    let second = jwt.verify(token.as_bytes(), at(NOW + 1)).unwrap();
    assert!(Arc::ptr_eq(&first, &second));
    assert_eq!((jwt.remembered.len(), jwt.remembered.looks()), (1, (1, 1)));
}

#[test]
fn bad_tokens_push_no_good_one_out() {
    let jwt = jwt(&[Algorithm::EdDSA], &[]);
    for n in 0..1_000 {
        refusal(&jwt, &format!("{}.{}.{}", b64(r#"{"alg":"EdDSA"}"#), b64(format!("{{\"n\":{n}}}")), b64([1; 64])));
    }
    assert_eq!(jwt.remembered.bytes(), 0);
}

#[test]
fn a_set_of_nameless_keys_is_tried_in_part_only() {
    let signers: Vec<_> = (0..=TRIES_MAX).map(|_| Signer::ed25519()).collect();
    let jwk = |signer: &Signer| {
        let mut jwk = signer.jwk("");
        jwk.as_object_mut().unwrap().remove("kid");
        jwk
    };
    let jwt = jwt(&[Algorithm::EdDSA], &signers.iter().map(jwk).collect::<Vec<_>>());
    let judged = |index: usize| {
        let token = signers[index].token(&json!({ "alg": "EdDSA" }), &claims());
        jwt.verify(token.as_bytes(), at(NOW)).map(drop)
    };
    assert_eq!(judged(TRIES_MAX), Err(Reason::Signature));
    assert_eq!(judged(TRIES_MAX - 1), Ok(()));
}
