//! What must hold for credentials that anyone may send.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use banyan::caller::ClaimPath;
use banyan::identity::{
    fields::Forward,
    jwt::{Jwt, Key, KeySet, Keys, Rules, key::Material},
    signature::{self, Message, Nonce, key::Algorithm as SigningAlgorithm, key::Key as SigningKey, replay::Replays},
    strict,
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use http::{HeaderMap, HeaderName, HeaderValue};
use jsonwebtoken::{Algorithm, EncodingKey, crypto};

const SECRET: &[u8] = b"thirty-two bytes, all of one key";
const NOW: u64 = 1_618_884_473;

/// A token whose signature is not the key's is refused, whatever it says; one that is the key's is accepted only if it says what the rules ask
/// for. The input is a token, or the header and the claims of one, a line each.
pub fn token(data: &[u8]) {
    let verifier = verifier();
    let now = UNIX_EPOCH + Duration::from_secs(NOW);
    if verifier.verify(data, now).is_ok() {
        assert_is_ours(data);
    }
    let mut lines = data.splitn(2, |byte| *byte == b'\n');
    let (Some(header), Some(claims)) = (lines.next(), lines.next()) else { return };
    if verifier.verify(signed(header, claims).as_bytes(), now).is_ok() {
        assert_says_enough(header, claims, now);
    }
}

fn verifier() -> Jwt {
    let rules = Rules {
        issuer: "https://idp.example/".into(),
        audience: ["api".into()].into(),
        algorithms: [Algorithm::HS256].into(),
        leeway: Duration::ZERO,
        typ: None,
        required: Box::default(),
    };
    let key = Key::new(None, None, Material::Secret(SECRET)).expect("a key");
    let forward = Forward::new([(ClaimPath::new("sub"), HeaderName::from_static("x-user"))]);
    Jwt::new(rules, ClaimPath::new("realm_access.roles"), forward, Keys::fixed("fuzzed", KeySet::new([key])))
}

fn signed(header: &[u8], claims: &[u8]) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    format!("{message}.{}", signature_of(&message))
}

fn signature_of(message: &str) -> String {
    crypto::sign(message.as_bytes(), &EncodingKey::from_secret(SECRET), Algorithm::HS256).expect("it signs")
}

fn assert_is_ours(token: &[u8]) {
    let token = std::str::from_utf8(token).expect("text");
    let (message, signature) = token.rsplit_once('.').expect("three parts");
    assert_eq!(signature_of(message), signature, "{token}");
}

fn assert_says_enough(header: &[u8], claims: &[u8], now: SystemTime) {
    let (header, claims) = (strict::object(header).expect("an object"), strict::object(claims).expect("an object"));
    assert_eq!(header.get("alg").and_then(|alg| alg.as_str()), Some("HS256"), "{header:?}");
    assert!(["crit", "b64", "enc", "zip"].iter().all(|name| !header.contains_key(*name)), "{header:?}");
    assert_eq!(claims.get("iss").and_then(|issuer| issuer.as_str()), Some("https://idp.example/"), "{claims:?}");
    let until = claims.get("exp").and_then(|until| until.as_f64()).expect("an end");
    let now = now.duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64();
    assert!(until > now, "{claims:?}");
}

/// Fields about signatures are read or refused; what one key vouches for no other does, and only once. The input is header fields, one a line.
pub fn signature(data: &[u8]) {
    let headers: HeaderMap = data.split(|byte| *byte == b'\n').filter_map(field).collect();
    let message = Message {
        method: "POST",
        scheme: "https",
        authority: "example.com",
        target: "/foo?param=Value&Pet=dog",
        path: "/foo",
        query: Some("param=Value&Pet=dog"),
        headers: &headers,
        has_body: true,
    };
    let rules =
        signature::Rules { covered: Vec::new(), body: signature::Body::AsCovered, nonce: Nonce::Optional, ..Default::default() };
    let verify = |secret: u8| rules.verify(&message, &signers(secret), NOW + 1);
    let (Ok(proof), Ok(again)) = (verify(1), verify(1)) else { return };
    assert!(verify(2).is_err(), "another key vouches for {headers:?}");
    let replays = Replays::default();
    let body = br#"{"hello": "world"}"#;
    if proof.settle(body, &replays, NOW + 1).is_ok() {
        assert!(again.settle(body, &replays, NOW + 1).is_err(), "it counts twice: {headers:?}");
    }
}

fn field(line: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let mut parts = line.splitn(2, |byte| *byte == b':');
    let name = HeaderName::from_bytes(parts.next()?).ok()?;
    Some((name, HeaderValue::from_bytes(parts.next()?.trim_ascii()).ok()?))
}

fn signers(secret: u8) -> signature::key::Keys<()> {
    let text = STANDARD.encode([secret; 64]);
    let key = SigningKey::read(SigningAlgorithm::HmacSha256, &text).expect("a key");
    signature::key::Keys::new([("fuzzed".into(), key, ())])
}
