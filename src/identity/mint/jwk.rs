//! Public keys as others read them: JSON Web Keys (RFC 7517, RFC 7518 §6, RFC 8037) and their thumbprints (RFC 7638).

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::identity::jwt::key::Material;

/// A public key, by the members that make it (RFC 7638 §3.2), in their order. `None`: it is a secret, or no point of its curve.
fn members(material: Material<'_>) -> Option<Vec<(&'static str, String)>> {
    let b64 = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let text = str::to_owned;
    let elliptic = |curve: &str, point: &[u8]| {
        let (x, y) = point.strip_prefix(&[4])?.split_at_checked(point.len() / 2)?;
        Some(vec![("crv", text(curve)), ("kty", text("EC")), ("x", b64(x)), ("y", b64(y))])
    };
    match material {
        Material::Secret(_) => None,
        Material::Rsa { n, e } => Some(vec![("e", b64(e)), ("kty", text("RSA")), ("n", b64(n))]),
        Material::P256(point) => elliptic("P-256", point),
        Material::P384(point) => elliptic("P-384", point),
        Material::Ed25519(x) => Some(vec![("crv", text("Ed25519")), ("kty", text("OKP")), ("x", b64(x))]),
    }
}

/// The algorithm that a key of ours is for. Of the others nothing is known.
fn algorithm(material: Material<'_>) -> Option<&'static str> {
    match material {
        Material::Rsa { .. } => Some("RS256"),
        Material::P256(_) => Some("ES256"),
        Material::Ed25519(_) => Some("EdDSA"),
        Material::Secret(_) | Material::P384(_) => None,
    }
}

/// A public key with its name, as it is published. `None`: it is none that the gateway signs with.
pub fn published(material: Material<'_>) -> Option<Map<String, Value>> {
    let (alg, members) = (algorithm(material)?, members(material)?);
    let named = [("kid", thumbprint(&members)), ("use", "sig".to_owned()), ("alg", alg.to_owned())];
    Some(members.into_iter().chain(named).map(|(name, value)| (name.to_owned(), Value::String(value))).collect())
}

/// RFC 7638 §3: SHA-256 over the members, without blanks, in the order of their names.
fn thumbprint(members: &[(&'static str, String)]) -> String {
    let members: Vec<String> = members.iter().map(|(name, value)| format!("\"{name}\":\"{value}\"")).collect();
    URL_SAFE_NO_PAD.encode(Sha256::digest(format!("{{{}}}", members.join(","))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(material: Material<'_>, kid: &str, kty: &str) {
        let jwk = published(material).unwrap();
        assert_eq!((&jwk["kid"], &jwk["kty"]), (&kid.into(), &kty.into()));
        assert!(!jwk.contains_key("d"));
    }

    fn b64(text: &str) -> Vec<u8> {
        URL_SAFE_NO_PAD.decode(text).unwrap()
    }

    #[test]
    fn thumbprints_are_those_of_the_rfcs() {
        let n = b64(concat!(
            "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W",
            "-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrd",
            "kt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"
        ));
        let rsa = Material::Rsa { n: &n, e: &b64("AQAB") };
        check(rsa, "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs", "RSA");
        let x = b64("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
        check(Material::Ed25519(&x), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k", "OKP");
        assert_eq!(published(Material::Secret(&[0; 32])), None, "a secret is never published");
    }
}
