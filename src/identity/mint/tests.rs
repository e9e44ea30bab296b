use std::time::UNIX_EPOCH;

use super::{signing_key::SigningKeyError, *};
use crate::{
    config::identity::session_bridge::SigningAlgorithm::{self, ES256, EdDSA, RS256},
    identity::{
        jwt::{Algorithm, KeySet},
        testing::pem,
    },
};

/// openssl genrsa -traditional 1024
const WEAK: &str = "-----BEGIN RSA PRIVATE KEY-----
MIICXwIBAAKBgQDpLdrzNMRt2KPx4PKBJLxUswMiGN7nuSaZil83ND/zxcjRj7yI
CBR75yOulbIvEuT131exuIb2cj1bL7q4s3lCsPhiv71k0QnqkX1vP945HIds+uqM
x/fB/FQLHBLrJzVGqEcgIwKmvZ+BmbX2uosrHG4jlJIlMYgfW75xROI/YQIDAQAB
AoGBAI95tKAzFq5UP8RD2lNWTD99im7/iKBiT3roJmAsWTFgwIkZfTLibeAzP8Rb
vbCzWohjLW1gEkMv1cr22lhtri0LShkwozuBfBG3SKB5/BUgJrcOMewNrolc9OnW
+j2nZNOZTw6/cJFM+ZUQq5NxthKiDXSoLhfj996fIVXk6MHBAkEA+KGjqd7N1iQv
scAzpMPNpVoCMLPANIbgfUu+EBJuJPI1N5Tov42AJo68MapbkDJnKAyhY+a1nVuw
rR403SmHaQJBAPAW+thDAhYG4VFZK6refxFmi5Yee6yYkiTqNFOrL9vbeyP6SiN5
64ieBE+x8LijDW4v/IOGQ/IbNjGjdfb4MTkCQQDUGfBopa2rFMurM2/bCz6P5K0h
pvY82SMBQHAvfcmAsy8670luv+OnAPUC2XWrGZRu0feMJfChAOtDhBVM5nShAkEA
qX3vlGCpxlcRFda3pybv2Z7lCBN5B72l3n2gdziwzqtBYYK+eBEIICg9ru1VnWMu
hg1GXKuap/5h4eUd0D4isQJBAJ91b7bWZkZipuf/BMYz4Y3k5CIEEX4M934bF72v
dsDf3g3gOK8xTld9CPmWmrcqmNHpEHUO7k28tMzOTJpwYcs=
-----END RSA PRIVATE KEY-----
";

const NOW: Moment = Moment(1_700_000_000_000);

fn check(file: &str, algorithm: SigningAlgorithm, verified_by: Algorithm) {
    let key = SigningKey::read(file.as_bytes(), algorithm).unwrap();
    let published = signing_key::set([key.public().clone()]);
    let minter = Minter::new(key, "https://shop.example", &["orders".to_owned()], Duration::from_secs(300));
    let claims = json!({ "email": "ada@shop.example" }).as_object().unwrap().clone();
    let minted = minter.mint("42", claims, NOW).unwrap();
    let set = KeySet::from_jwks(published.as_bytes()).unwrap();
    let header = jsonwebtoken::decode_header(&minted.token).unwrap();
    let key = set.candidates(verified_by, header.kid.as_deref()).next().unwrap();
    let (message, signature) = minted.token.rsplit_once('.').unwrap();
    assert!(key.verifies(verified_by, message.as_bytes(), signature), "{algorithm:?}");
    assert_eq!((key.id(), header.typ.as_deref()), (header.kid.as_deref(), Some("JWT")));
    let (_, payload) = message.split_once('.').unwrap();
    let said: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap();
    assert_eq!(said, Value::Object(minted.claims));
    assert_eq!((&said["sub"], &said["aud"], &said["email"]), (&json!("42"), &json!("orders"), &json!("ada@shop.example")));
    assert_eq!(said["exp"].as_u64().unwrap() - said["iat"].as_u64().unwrap(), 300);
}

#[test]
fn a_token_is_verified_by_what_is_published() {
    check(&pem::p256(), ES256, Algorithm::ES256);
    check(&pem::rsa(), RS256, Algorithm::RS256);
    check(&pem::ed25519(), EdDSA, Algorithm::EdDSA);
}

#[test]
fn a_key_that_openssl_made_is_read() {
    // openssl ecparam -genkey -name prime256v1 -noout
    const SEC1: &str = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIB9oLopfxreUQw9nf2GbiEWL5wPtK1YhBZvfQWbFTPNeoAoGCCqGSM49\nAwEHoUQDQgAELVRdVbzoR3Jvevc9Cwq6c7BX/VO8N3VGGDHpP01Q2n/mqHsvqpr6\n/AcUm9iTpWREfrtBHmB5OavDSmXS/iKveQ==\n-----END EC PRIVATE KEY-----\n";
    assert_eq!(SigningKey::read(SEC1.as_bytes(), ES256).unwrap().public()["x"], "LVRdVbzoR3Jvevc9Cwq6c7BX_VO8N3VGGDHpP01Q2n8");
    const ED25519: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";
    // RFC 8410 §10.3 with the public key of its §10.1.
    let key = SigningKey::read(ED25519.as_bytes(), EdDSA).unwrap();
    assert_eq!(key.public()["x"], "Gb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE");
}

#[test]
fn no_two_tokens_are_the_same() {
    let key = SigningKey::read(pem::ed25519().as_bytes(), EdDSA).unwrap();
    let minter = Minter::new(key, "i", &["a".to_owned(), "b".to_owned()], Duration::from_secs(10));
    let now = Moment::from(UNIX_EPOCH);
    let (one, other) = (minter.mint("1", Map::new(), now).unwrap(), minter.mint("1", Map::new(), now).unwrap());
    assert_ne!(one.token, other.token);
    assert_eq!(one.claims["aud"], json!(["a", "b"]));
}

#[test]
fn keys_that_do_not_fit_or_are_weak_are_refused() {
    let refused = |text: &str, algorithm| SigningKey::read(text.as_bytes(), algorithm).err();
    for (text, unfit) in [(pem::p256(), RS256), (pem::rsa(), ES256), (pem::ed25519(), ES256), (pem::p384(), ES256)] {
        assert_eq!(refused(&text, unfit), Some(SigningKeyError::Unfit(unfit)), "{unfit:?}");
    }
    assert_eq!(refused(WEAK, RS256), Some(SigningKeyError::Unfit(RS256)));
    for none in [
        "",
        "hunter2",
        "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n",
    ] {
        assert_eq!(refused(none, EdDSA), Some(SigningKeyError::NoKey), "{none}");
    }
}

#[test]
fn of_a_private_key_only_the_public_half_is_published() {
    const PUBLIC: &str =
        "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";
    const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";
    let public = |text: &str| signing_key::public(text.as_bytes()).unwrap();
    assert_eq!(public(PUBLIC), public(PRIVATE));
    let set = signing_key::set([public(PUBLIC), public(PRIVATE)].concat());
    assert_eq!(serde_json::from_str::<Value>(&set).unwrap()["keys"].as_array().unwrap().len(), 1);
    assert!(!set.contains("\"d\""));
    assert!(signing_key::public(pem::p384().as_bytes()).is_err(), "nothing is signed with it");
    assert!(signing_key::public(b"hunter2").is_err());
}
