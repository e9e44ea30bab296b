use aws_lc_rs::{encoding::AsDer, signature::KeyPair};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;

use super::*;
use crate::identity::{
    jwt::Algorithm,
    testing::{RSA, Signer},
};

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

fn spki(signer: &Signer) -> String {
    let der = match signer {
        Signer::Rsa(pair) => pair.public_key().as_der().unwrap().as_ref().to_vec(),
        Signer::P256(pair) | Signer::P384(pair) => pair.public_key().as_der().unwrap().as_ref().to_vec(),
        Signer::Ed25519(pair) => pair.public_key().as_der().unwrap().as_ref().to_vec(),
        Signer::Secret(_) => unreachable!(),
    };
    pem("PUBLIC KEY", &der)
}

fn check(text: &str, expected: Result<&[Algorithm], KeyFileError>) {
    let found = keys(text.as_bytes());
    match (found, expected) {
        (Ok(set), Ok(served)) => assert!(set.len() == served.len() && served.iter().all(|alg| set.serves(*alg)), "{text}"),
        (found, expected) => assert_eq!(found.map(drop), expected.map(drop), "{text}"),
    }
}

#[test]
fn public_keys_of_every_kind_are_read() {
    check(&spki(&RSA), Ok(&[Algorithm::RS256]));
    check(&spki(&Signer::p256()), Ok(&[Algorithm::ES256]));
    check(&spki(&Signer::p384()), Ok(&[Algorithm::ES384]));
    check(&spki(&Signer::ed25519()), Ok(&[Algorithm::EdDSA]));
    check(&format!("{}\n{}", spki(&RSA), spki(&Signer::p256())), Ok(&[Algorithm::RS256, Algorithm::ES256]));
    let set = json!({ "keys": [RSA.jwk("a"), Signer::Secret(vec![1; 32]).jwk("b")] });
    check(&format!("\n {set}"), Ok(&[Algorithm::RS256, Algorithm::HS256]));
}

#[test]
fn a_key_of_a_file_verifies_what_its_other_half_signed() {
    for signer in [&*RSA, &Signer::p256(), &Signer::ed25519()] {
        let alg = match signer {
            Signer::Rsa(_) => Algorithm::RS256,
            Signer::P256(_) => Algorithm::ES256,
            _ => Algorithm::EdDSA,
        };
        let set = keys(spki(signer).as_bytes()).unwrap();
        let token = signer.token(&json!({ "alg": format!("{alg:?}") }), &json!({}));
        let (message, signature) = token.rsplit_once('.').unwrap();
        assert!(set.candidates(alg, Some("any name")).any(|key| key.verifies(alg, message.as_bytes(), signature)), "{alg:?}");
    }
}

#[test]
fn what_is_not_to_be_used_is_refused() {
    let Signer::P256(pair) = Signer::p256() else { unreachable!() };
    let private = pair.to_pkcs8v1().unwrap();
    check(&pem("PRIVATE KEY", private.as_ref()), Err(KeyFileError::Key(KeyError::Private)));
    check(&pem("CERTIFICATE REQUEST", b"x"), Err(KeyFileError::Section("Csr".to_owned())));
    check(&pem("PUBLIC KEY", b"x"), Err(KeyFileError::Key(KeyError::Malformed)));
    check("hunter2hunter2hunter2hunter2hunter2", Err(KeyFileError::Neither));
    check("", Err(KeyFileError::Neither));
    check("{}", Err(KeyFileError::Set(KeySetError::Malformed)));
    check(r#"{"keys":[]}"#, Err(KeyFileError::Empty));
    let weak = json!({ "keys": [RSA.jwk("a"), { "kty": "oct", "k": "AAAA" }] }).to_string();
    check(&weak, Err(KeyFileError::Key(KeyError::WeakSecret)));
}
