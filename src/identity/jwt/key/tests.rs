use serde_json::json;

use super::*;
use crate::identity::testing::{RSA, Signer, b64};
use Algorithm::{ES256, ES384, EdDSA, HS256, HS384, HS512, PS256, PS384, PS512, RS256, RS384, RS512};

const ALL: [Algorithm; 12] = [HS256, HS384, HS512, ES256, ES384, RS256, RS384, RS512, PS256, PS384, PS512, EdDSA];

fn key(jwk: &Value) -> Result<Key, KeyError> {
    Key::from_jwk(jwk.as_object().unwrap())
}

/// Checks a published signature: good as it is, and bad with any part changed.
fn published(jwk: &Value, alg: Algorithm, message: &str, signature: &str) {
    let key = key(jwk).unwrap();
    let signature: String = signature.split_whitespace().collect();
    let message: String = message.split_whitespace().collect();
    assert!(key.verifies(alg, message.as_bytes(), &signature), "{alg:?}");
    assert!(!key.verifies(alg, format!("{message}A").as_bytes(), &signature), "another message");
    let mut bytes = URL_SAFE_NO_PAD.decode(&signature).unwrap();
    for at in [0, bytes.len() / 2, bytes.len() - 1] {
        bytes[at] ^= 1;
        assert!(!key.verifies(alg, message.as_bytes(), &b64(&bytes)), "byte {at} changed");
        bytes[at] ^= 1;
    }
    assert!(!key.verifies(alg, message.as_bytes(), &b64(&bytes[1..])), "cut");
    assert!(!key.verifies(alg, message.as_bytes(), ""), "none");
    for other in ALL.into_iter().filter(|other| *other != alg) {
        assert!(!key.verifies(other, message.as_bytes(), &signature), "{alg:?} as {other:?}");
    }
}

const JOE: &str = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";

#[test]
fn rfc_7515_a_1_hs256() {
    let jwk =
        json!({ "kty": "oct", "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow" });
    let message = format!("eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.{JOE}");
    published(&jwk, HS256, &message, "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
}

#[test]
fn rfc_7515_a_2_rs256() {
    let n = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMs\
             D1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdV\
             MTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";
    let signature = "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CU\
                     Ar7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_d\
                     O--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0ig\
                     cN_IoypGlUPQGe77Rw";
    published(&json!({ "kty": "RSA", "n": n, "e": "AQAB" }), RS256, &format!("eyJhbGciOiJSUzI1NiJ9.{JOE}"), signature);
}

#[test]
fn rfc_7515_a_3_es256() {
    let (x, y) = ("f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0");
    let signature = "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
    let jwk = json!({ "kty": "EC", "crv": "P-256", "x": x, "y": y });
    published(&jwk, ES256, &format!("eyJhbGciOiJFUzI1NiJ9.{JOE}"), signature);
}

#[test]
fn rfc_8037_a_4_eddsa() {
    let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" });
    let signature = "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
    published(&jwk, EdDSA, "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc", signature);
}

#[test]
fn rfc_7520_4_2_ps384() {
    let n = "n4EPtAOCc9AlkeQHPzHStgAbgs7bTZLwUBZdR8_KuKPEHLd4rHVTeT-O-XV2jRojdNhxJWTDvNd7nqQ0VEiZQHz_AJmSCpMaJMRBSFKrKb2wqVwGU_Ns\
             YOYL-QtiWN2lbzcEe6XC0dApr5ydQLrHqkHHig3RBordaZ6Aj-oBHqFEHYpPe7Tpe-OfVfHd1E6cS6M1FZcD1NNLYD5lFHpPI9bTwJlsde3uhGqC0ZCu\
             EHg8lhzwOHrtIQbS0FVbb9k3-tVTU4fg_3L_vniUFAKwuCLqKnS2BYwdq_mzSnbLY7h_qixoR7jig3__kRhuaxwUkRz5iaiQkqgc5gHdrNP5zw";
    let message = "eyJhbGciOiJQUzM4NCIsImtpZCI6ImJpbGJvLmJhZ2dpbnNAaG9iYml0b24uZXhhbXBsZSJ9.SXTigJlzIGEgZGFuZ2Vyb3VzIGJ1c2luZXNzLCBGcm9k\
                   bywgZ29pbmcgb3V0IHlvdXIgZG9vci4gWW91IHN0ZXAgb250byB0aGUgcm9hZCwgYW5kIGlmIHlvdSBkb24ndCBrZWVwIHlvdXIgZmVldCwgdGhl\
                   cmXigJlzIG5vIGtub3dpbmcgd2hlcmUgeW91IG1pZ2h0IGJlIHN3ZXB0IG9mZiB0by4";
    let signature = "cu22eBqkYDKgIlTpzDXGvaFfz6WGoz7fUDcfT0kkOy42miAh2qyBzk1xEsnk2IpN6-tPid6VrklHkqsGqDqHCdP6O8TTB5dDDItllVo6_1OL\
                     PpcbUrhiUSMxbbXUvdvWXzg-UD8biiReQFlfz28zGWVsdiNAUf8ZnyPEgVFn442ZdNqiVJRmBqrYRXe8P_ijQ7p8Vdz0TTrxUeT3lm8d9shn\
                     r2lfJT8ImUjvAA2Xez2Mlp8cBE5awDzT0qI0n6uiP1aCN_2_jLAeQTlqRHtfa64QQSUmFAAjVKPbByi7xho0uTOcbH510a6GYmJUAfmWjwZ6\
                     oD4ifKo8DYM-X72Eaw";
    published(&json!({ "kty": "RSA", "n": n, "e": "AQAB" }), PS384, message, signature);
}

#[test]
fn a_key_serves_the_algorithms_of_its_kind_and_no_other() {
    let check = |signer: &Signer, served: &[Algorithm]| {
        let key = key(&signer.jwk("k")).unwrap();
        assert_eq!(ALL.into_iter().filter(|alg| key.serves(*alg)).collect::<Vec<_>>(), served);
        for alg in served {
            let token = signer.token(&json!({ "alg": format!("{alg:?}") }), &json!({}));
            let (message, signature) = token.rsplit_once('.').unwrap();
            assert!(key.verifies(*alg, message.as_bytes(), signature), "{alg:?}");
        }
    };
    check(&RSA, &[RS256, RS384, RS512, PS256, PS384, PS512]);
    check(&Signer::p256(), &[ES256]);
    check(&Signer::p384(), &[ES384]);
    check(&Signer::ed25519(), &[EdDSA]);
    check(&Signer::Secret(vec![1; 32]), &[HS256]);
    check(&Signer::Secret(vec![1; 48]), &[HS256, HS384]);
    check(&Signer::Secret(vec![1; 64]), &[HS256, HS384, HS512]);
}

fn changed(jwk: Value, name: &str, value: Value) -> Value {
    let mut jwk = jwk;
    jwk[name] = value;
    jwk
}

#[test]
fn a_key_is_for_what_its_owner_says() {
    let jwk = |name: &str, value: Value| changed(RSA.jwk("k"), name, value);
    let only = key(&jwk("alg", json!("PS256"))).unwrap();
    assert!(only.serves(PS256) && !only.serves(RS256));
    assert!(key(&jwk("key_ops", json!(["verify"]))).is_ok());
    let check = |name: &str, value: Value, expected: KeyError| {
        assert_eq!(key(&jwk(name, value.clone())).unwrap_err(), expected, "{name}: {value}");
    };
    check("use", json!("enc"), KeyError::Use);
    check("key_ops", json!(["sign"]), KeyError::Use);
    check("key_ops", json!("verify"), KeyError::Malformed);
    check("alg", json!("RSA-OAEP"), KeyError::Unsupported);
    check("alg", json!("HS256"), KeyError::Unsupported);
    check("alg", json!("none"), KeyError::Unsupported);
    check("kid", json!(7), KeyError::Malformed);
    check("d", json!("AQAB"), KeyError::Private);
    check("kty", json!("rsa"), KeyError::Unsupported);
    check("kty", Value::Null, KeyError::Malformed);
}

#[test]
fn weak_and_broken_keys_are_found_when_they_are_read() {
    let check = |jwk: Value, expected: KeyError| assert_eq!(key(&jwk).unwrap_err(), expected, "{jwk}");
    check(json!({ "kty": "oct", "k": b64([7; 31]) }), KeyError::WeakSecret);
    check(json!({ "kty": "oct", "k": "" }), KeyError::Malformed);
    check(json!({ "kty": "RSA", "n": b64([255; 128]), "e": "AQAB" }), KeyError::Rsa);
    check(json!({ "kty": "RSA", "n": b64([&[1], &[255; 255][..]].concat()), "e": "AQAB" }), KeyError::Rsa);
    check(json!({ "kty": "RSA", "n": b64([255; 1025]), "e": "AQAB" }), KeyError::Rsa);
    check(changed(RSA.jwk("k"), "e", json!("AQ")), KeyError::Rsa);
    check(changed(RSA.jwk("k"), "e", json!("AQAA")), KeyError::Rsa);
    check(changed(RSA.jwk("k"), "e", json!("AA")), KeyError::Malformed);
    check(changed(RSA.jwk("k"), "n", json!("not base64!")), KeyError::Malformed);
    let (p256, p384) = (Signer::p256().jwk("k"), Signer::p384().jwk("k"));
    check(changed(p256.clone(), "y", p256["x"].clone()), KeyError::Point);
    check(changed(p256.clone(), "x", json!(b64([0; 31]))), KeyError::Point);
    check(changed(p256.clone(), "crv", json!("P-384")), KeyError::Point);
    check(changed(p384, "crv", json!("P-256")), KeyError::Point);
    check(changed(p256, "crv", json!("secp256k1")), KeyError::Unsupported);
    check(changed(Signer::ed25519().jwk("k"), "x", json!(b64([1; 31]))), KeyError::Point);
    check(changed(Signer::ed25519().jwk("k"), "crv", json!("X25519")), KeyError::Unsupported);
}

#[test]
fn zeros_before_an_rsa_number_do_not_count() {
    let Signer::Rsa(pair) = &*RSA else { unreachable!() };
    let public = RsaPublicKeyComponents::<Vec<u8>>::from(aws_lc_rs::signature::KeyPair::public_key(pair));
    let padded = json!({ "kty": "RSA", "n": b64([&[0, 0], public.n.as_slice()].concat()), "e": b64([&[0], public.e.as_slice()].concat()), "kid": "k" });
    assert!(key(&padded).unwrap().is_same(&key(&changed(RSA.jwk("k"), "use", json!("sig"))).unwrap()));
}

#[test]
fn a_key_is_not_shown() {
    let shown = format!("{:?}", key(&Signer::Secret(vec![b'x'; 32]).jwk("name")).unwrap());
    assert!(shown.contains("name") && !shown.contains("xxx") && !shown.contains("120"), "{shown}");
}
