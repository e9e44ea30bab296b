//! The vectors of RFC 9421 appendix B that are of requests and of our algorithms, and what must not pass.

use aws_lc_rs::{hmac, signature::Ed25519KeyPair};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::HeaderValue;
use proptest::prelude::*;

use super::{
    key::{Algorithm, Key},
    *,
};

/// When all signatures of the appendix were made.
const CREATED: u64 = 1_618_884_473;

/// Appendix B.1.5.
const SECRET: &str = "uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ==";

/// Appendix B.1.3.
const P256: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEqIVYZVLCrPZHGHjP17CTW0/+D9Lf
w0EkjqF7xB4FivAxzic30tMM4GF+hR6Dxh71Z50VGGdldkkDXZCnTNnoXQ==
-----END PUBLIC KEY-----";

/// Appendix B.1.4, both halves.
const ED25519: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAJrQLj5P/89iXES9+vFgrIy29clF9CC/oPPsw3c5D0bs=
-----END PUBLIC KEY-----";
const ED25519_PRIVATE: &str = "MC4CAQAwBQYDK2VwBCIEIJ+DYvh6SEqVTm50DFtMDoQikTmiCqirVv9mWG9qfSnF";

/// The body of the appendix's request, and its digest.
const BODY: &[u8] = br#"{"hello": "world"}"#;
const DIGEST: &str = "sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:";

fn keys() -> Keys<&'static str> {
    let key = |id: &'static str, algorithm, text| (id.into(), Key::read(algorithm, text).unwrap(), id);
    Keys::new([
        key("test-shared-secret", Algorithm::HmacSha256, SECRET),
        key("test-key-ecc-p256", Algorithm::EcdsaP256Sha256, P256),
        key("test-key-ed25519", Algorithm::Ed25519, ED25519),
    ])
}

/// A request, owned.
#[derive(Clone)]
struct Request {
    method: &'static str,
    authority: &'static str,
    target: String,
    headers: HeaderMap,
    has_body: bool,
}

impl Request {
    fn new(method: &'static str, authority: &'static str, target: &str, fields: &[(&'static str, &str)]) -> Self {
        let mut request = Self { method, authority, target: target.to_owned(), headers: HeaderMap::new(), has_body: false };
        fields.iter().for_each(|(name, value)| request.add(name, value));
        request
    }

    fn add(&mut self, name: &'static str, value: &str) {
        self.headers.append(name, HeaderValue::from_str(value).unwrap());
    }

    fn message(&self) -> Message<'_> {
        let (path, query) = self.target.split_once('?').map_or((self.target.as_str(), None), |(path, query)| (path, Some(query)));
        Message {
            method: self.method,
            scheme: "https",
            authority: self.authority,
            target: &self.target,
            path,
            query,
            headers: &self.headers,
            has_body: self.has_body,
        }
    }

    /// Signs as `test-shared-secret`, under the label `sig`.
    fn sign(mut self, input: &str) -> Self {
        let entry = field::parse::<sfv::Dictionary>(&format!("sig={input}")).unwrap();
        let base = base::of(&Input::read(&entry["sig"]).unwrap(), &self.message()).unwrap();
        let key = hmac::Key::new(hmac::HMAC_SHA256, &STANDARD.decode(SECRET).unwrap());
        let signature = STANDARD.encode(hmac::sign(&key, base.as_bytes()));
        self.add("signature-input", &format!("sig={input}"));
        self.add("signature", &format!("sig=:{signature}:"));
        self
    }
}

/// The `test-request` of appendix B.2.
fn test_request() -> Request {
    let fields = [
        ("date", "Tue, 20 Apr 2021 02:07:55 GMT"),
        ("content-type", "application/json"),
        ("content-digest", DIGEST),
        ("content-length", "18"),
    ];
    Request::new("POST", "example.com", "/foo?param=Value&Pet=dog", &fields)
}

/// What the appendix's own signatures fulfil.
fn lenient() -> Rules {
    Rules { covered: Vec::new(), body: Body::AsCovered, nonce: Nonce::Optional, ..Rules::default() }
}

fn verify(rules: &Rules, request: &Request) -> Result<&'static str, Refusal> {
    rules.verify(&request.message(), &keys(), CREATED + 1)?.settle(BODY, &Replays::default(), CREATED + 1)
}

fn check(rules: &Rules, request: &Request, expected: Result<&str, Refusal>) {
    assert_eq!(verify(rules, request), expected, "{:?}", request.headers);
}

fn signed(mut request: Request, input: &str, signature: &str) -> Request {
    let (label, _) = input.split_once('=').unwrap();
    request.add("signature-input", input);
    request.add("signature", &format!("{label}=:{signature}:"));
    request
}

#[test]
fn appendix_b_2_5_hmac_verifies() {
    let input = r#"sig-b25=("date" "@authority" "content-type");created=1618884473;keyid="test-shared-secret""#;
    let request = signed(test_request(), input, "pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=");
    check(&lenient(), &request, Ok("test-shared-secret"));
}

#[test]
fn appendix_b_2_6_ed25519_verifies() {
    let input = concat!(
        r#"sig-b26=("date" "@method" "@path" "@authority" "content-type" "content-length")"#,
        r#";created=1618884473;keyid="test-key-ed25519""#
    );
    let signature = "wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw==";
    check(&lenient(), &signed(test_request(), input, signature), Ok("test-key-ed25519"));
}

/// B.2.4 signs a response, which the gateway never verifies: its base stands for itself.
#[test]
fn appendix_b_2_4_ecdsa_verifies() {
    let digest = "sha-512=:mEWXIS7MaLRuGgxOBdODa3xqM1XdEvxoYhvlCFJ41QJgJc4GTsPp29l5oGX69wWdXymyU0rjJuahq4l5aGgfLQ==:";
    let base = format!(
        "\"@status\": 200\n\"content-type\": application/json\n\"content-digest\": {digest}\n\"content-length\": 23\n\
         \"@signature-params\": (\"@status\" \"content-type\" \"content-digest\" \"content-length\")\
         ;created=1618884473;keyid=\"test-key-ecc-p256\""
    );
    let signature = "wNmSUAhwb5LxtOtOpNa6W5xj067m5hFrj0XQ4fvpaCLx0NKocgPquLgyahnzDnDAUy5eCdlYUEkLIj+32oiasw==";
    let signature = STANDARD.decode(signature).unwrap();
    let keys = keys();
    assert_eq!(keys.verify("test-key-ecc-p256", None, base.as_bytes(), &signature), Some("test-key-ecc-p256"));
    assert_eq!(keys.verify("test-key-ecc-p256", None, &base.as_bytes()[1..], &signature), None);
    assert_eq!(keys.verify("test-key-ed25519", None, base.as_bytes(), &signature), None);
}

/// The request of appendix B.3, which a proxy signed.
fn proxied() -> Request {
    let certificate = concat!(
        ":MIIBqDCCAU6gAwIBAgIBBzAKBggqhkjOPQQDAjA6MRswGQYDVQQKDBJMZXQncyBBdXRoZW50aWNhdGUxGzAZBgNVBAMMEkxBIEludGVybWVkaWF0ZSBDQTAe",
        "Fw0yMDAxMTQyMjU1MzNaFw0yMTAxMjMyMjU1MzNaMA0xCzAJBgNVBAMMAkJDMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE8YnXXfaUgmnMtOXU/IncWalR",
        "hebrXmckC8vdgJ1p5Be5F/3YC8OthxM4+k1M6aEAEFcGzkJiNy6J84y7uzo9M6NyMHAwCQYDVR0TBAIwADAfBgNVHSMEGDAWgBRm3WjLa38lbEYCuiCPct0Z",
        "aSED2DAOBgNVHQ8BAf8EBAMCBsAwEwYDVR0lBAwwCgYIKwYBBQUHAwIwHQYDVR0RAQH/BBMwEYEPYmRjQGV4YW1wbGUuY29tMAoGCCqGSM49BAMCA0gAMEUC",
        "IBHda/r1vaL6G3VliL4/Di6YK0Q6bMjeSkC3dFCOOB8TAiEAx/kHSB4urmiZ0NX5r5XarmPk0wmuydBVoU4hBVZ1yhk=:"
    );
    let request = Request::new("POST", "service.internal.example", "/foo?param=Value&Pet=dog", &[("client-cert", certificate)]);
    let input = r#"ttrp=("@path" "@query" "@method" "@authority" "client-cert");created=1618884473;keyid="test-key-ecc-p256""#;
    signed(request, input, "xVMHVpawaAC/0SbHrKRs9i8I3eOs5RtTMGCWXm/9nvZzoHsIg6Mce9315T6xoklyy0yzhD9ah4JHRwMLOgmizw==")
}

#[test]
fn appendix_b_3_of_a_proxy_verifies() {
    check(&lenient(), &proxied(), Ok("test-key-ecc-p256"));
    let default_but_nonce = Rules { nonce: Nonce::Optional, ..Rules::default() };
    check(&default_but_nonce, &proxied(), Ok("test-key-ecc-p256"));
}

/// The message of appendix B.4, with these lines of `accept`.
fn transformed(method: &'static str, authority: &'static str, target: &str, accept: &[&str]) -> Request {
    let mut request = Request::new(method, authority, target, &[("date", "Fri, 15 Jul 2022 14:24:55 GMT")]);
    accept.iter().for_each(|line| request.add("accept", line));
    let input = r#"transform=("@method" "@path" "@authority" "accept");created=1618884473;keyid="test-key-ed25519""#;
    signed(request, input, "ZT1kooQsEHpZ0I1IjCqtQppOmIqlJPeo7DHR3SoMn0s5JZ1eRGS0A+vyYP9t/LXlh5QMFFQ6cpLt2m0pmj3NDA==")
}

#[test]
fn appendix_b_4_survives_what_it_may_and_nothing_else() {
    let (target, both) = ("/demo?name1=Value1&Name2=value2", ["application/json", "*/*"]);
    let good = Ok("test-key-ed25519");
    check(&lenient(), &transformed("GET", "example.org", target, &both), good);
    check(&lenient(), &transformed("GET", "example.org", &format!("{target}&param=added"), &both), good);
    check(&lenient(), &transformed("GET", "example.org", target, &["application/json, */*"]), good);
    check(&lenient(), &transformed("GET", "example.org", target, &["application/json  ", "   */*"]), good);
    let bad = Err(Refusal::Invalid);
    check(&lenient(), &transformed("POST", "example.com", target, &both), bad);
    check(&lenient(), &transformed("GET", "example.org", target, &["*/*", "application/json"]), bad);
    check(&lenient(), &transformed("GET", "example.org", "/Demo", &both), bad);
}

/// Covers all that the default rules demand.
const FULL: &str =
    r#"("@method" "@authority" "@path" "@query" "content-digest");created=1618884473;keyid="test-shared-secret";nonce="n1""#;

#[test]
fn the_default_rules_take_a_whole_signature() {
    let mut request = test_request();
    request.has_body = true;
    check(&Rules::default(), &request.sign(FULL), Ok("test-shared-secret"));
}

#[test]
fn another_body_is_refused() {
    let request = test_request().sign(FULL);
    let prove = || Rules::default().verify(&request.message(), &keys(), CREATED).unwrap();
    assert!(prove().needs_body());
    for body in [&b""[..], b"{\"hello\": \"World\"}"] {
        assert_eq!(prove().settle(body, &Replays::default(), CREATED), Err(Refusal::Digest));
    }
}

#[test]
fn a_body_that_is_not_covered_is_refused() {
    let uncovered = r#"("@target-uri" "@method");created=1618884473;keyid="test-shared-secret";nonce="n""#;
    let mut request = test_request();
    check(&Rules::default(), &request.clone().sign(uncovered), Ok("test-shared-secret"));
    request.has_body = true;
    check(&Rules::default(), &request.clone().sign(uncovered), Err(Refusal::Coverage));
    let unknown =
        r#"("@target-uri" "@method" "content-digest";key="md5");created=1618884473;keyid="test-shared-secret";nonce="n""#;
    request.headers.insert("content-digest", HeaderValue::from_static("md5=:AAAA:"));
    check(&Rules::default(), &request.sign(unknown), Err(Refusal::Coverage));
}

#[test]
fn of_a_digest_whose_one_member_is_signed_the_others_do_not_count() {
    let mut request = test_request();
    request.headers.insert("content-digest", HeaderValue::from_str(&format!("sha-256=:AAAA:, {DIGEST}")).unwrap());
    let one =
        r#"("@target-uri" "@method" "content-digest";key="sha-512");created=1618884473;keyid="test-shared-secret";nonce="n""#;
    check(&Rules::default(), &request.clone().sign(one), Ok("test-shared-secret"));
    check(&Rules::default(), &request.sign(FULL), Err(Refusal::Digest));
}

#[test]
fn what_is_not_covered_is_refused() {
    for left_out in ["\"@method\" ", "\"@authority\" ", "\"@path\" ", "\"@query\" "] {
        check(&Rules::default(), &test_request().sign(&FULL.replace(left_out, "")), Err(Refusal::Coverage));
    }
    let rules = Rules { covered: vec![Component::parse("content-type").unwrap()], ..Rules::default() };
    check(&rules, &test_request().sign(FULL), Err(Refusal::Coverage));
}

#[test]
fn parameters_are_demanded() {
    for (left_out, name) in
        [(";created=1618884473", "created"), (";keyid=\"test-shared-secret\"", "keyid"), (";nonce=\"n1\"", "nonce")]
    {
        check(&Rules::default(), &test_request().sign(&FULL.replace(left_out, "")), Err(Refusal::Parameter(name)));
    }
}

#[test]
fn a_signature_is_good_in_its_time_only() {
    let at = |input: &str, now| Rules::default().verify(&test_request().sign(input).message(), &keys(), now).map(drop);
    assert_eq!(at(FULL, CREATED - 30), Ok(()));
    assert_eq!(at(FULL, CREATED - 31), Err(Refusal::Window));
    assert_eq!(at(FULL, CREATED + 330), Ok(()));
    assert_eq!(at(FULL, CREATED + 331), Err(Refusal::Window));
    let short = format!("{FULL};expires={}", CREATED + 10);
    assert_eq!(at(&short, CREATED + 40), Ok(()));
    assert_eq!(at(&short, CREATED + 41), Err(Refusal::Window));
    let long = format!("{FULL};expires={}", CREATED + 10_000);
    assert_eq!(at(&long, CREATED + 331), Err(Refusal::Window), "a signer cannot make it last longer than the rules");
    assert_eq!(at(&format!("{FULL};expires=999999999999999"), u64::MAX), Err(Refusal::Window));
}

#[test]
fn a_replay_is_refused() {
    let (replays, keys) = (Replays::default(), keys());
    let send = |request: &Request| {
        Rules { nonce: Nonce::Optional, ..Rules::default() }
            .verify(&request.message(), &keys, CREATED)
            .and_then(|proof| proof.settle(BODY, &replays, CREATED))
            .map(drop)
    };
    let request = test_request().sign(FULL);
    assert_eq!(send(&request), Ok(()));
    assert_eq!(send(&request), Err(Refusal::Replayed));
    let mut other = test_request();
    other.target = "/other".to_owned();
    assert_eq!(send(&other.sign(FULL)), Err(Refusal::Replayed), "a nonce is used once");
    assert_eq!(send(&test_request().sign(&FULL.replace("n1", "n2"))), Ok(()));
    let bare = FULL.replace(";nonce=\"n1\"", "");
    assert_eq!(send(&test_request().sign(&bare)), Ok(()));
    let mut relabelled = test_request().sign(&bare);
    for name in ["signature", "signature-input"] {
        let text = relabelled.headers[name].to_str().unwrap().replacen("sig=", "x=", 1);
        relabelled.headers.insert(name, HeaderValue::from_str(&text).unwrap());
    }
    assert_eq!(send(&relabelled), Err(Refusal::Replayed), "the label is not signed");
}

#[test]
fn a_refused_body_uses_up_no_signature() {
    let (replays, keys, request) = (Replays::default(), keys(), test_request().sign(FULL));
    let prove = || Rules::default().verify(&request.message(), &keys, CREATED).unwrap();
    assert_eq!(prove().settle(b"other", &replays, CREATED), Err(Refusal::Digest));
    assert_eq!(prove().settle(BODY, &replays, CREATED), Ok("test-shared-secret"));
}

#[test]
fn an_unknown_key_is_as_good_as_a_wrong_one() {
    for (from, to) in [("test-shared-secret", "nobody"), ("test-shared-secret", "test-key-ed25519")] {
        check(&Rules::default(), &test_request().sign(&FULL.replace(from, to)), Err(Refusal::Invalid));
    }
}

#[test]
fn the_algorithm_is_the_keys() {
    let with = |algorithm: &str| test_request().sign(&format!("{FULL};alg=\"{algorithm}\""));
    check(&Rules::default(), &with("hmac-sha256"), Ok("test-shared-secret"));
    for other in ["ed25519", "none", "HMAC-SHA256", ""] {
        check(&Rules::default(), &with(other), Err(Refusal::Invalid));
    }
}

#[test]
fn a_tag_that_is_demanded_chooses_the_signature() {
    let rules = Rules { tag: Some("shop".into()), ..Rules::default() };
    check(&rules, &test_request().sign(FULL), Err(Refusal::Missing));
    check(&rules, &test_request().sign(&format!("{FULL};tag=\"other\"")), Err(Refusal::Missing));
    check(&rules, &test_request().sign(&format!("{FULL};tag=\"shop\"")), Ok("test-shared-secret"));
}

#[test]
fn one_good_signature_among_others_is_enough() {
    let mut request = test_request().sign(FULL);
    request.add("signature-input", r#"proxy=("@method");created=1618884473;keyid="nobody""#);
    request.add("signature", "proxy=:AAAA:");
    check(&Rules::default(), &request, Ok("test-shared-secret"));
    for label in ["c", "d", "e"] {
        request.add("signature-input", &format!("{label}=()"));
    }
    check(&Rules::default(), &request, Err(Refusal::Malformed("too many signatures")));
}

#[test]
fn fields_that_cannot_be_read_are_refused() {
    let refusal = |input: &str, signature: &str| {
        let mut request = test_request();
        request.add("signature-input", input);
        request.add("signature", signature);
        verify(&lenient(), &request).unwrap_err().code()
    };
    let good = r#"s=("date");created=1618884473;keyid="test-shared-secret""#;
    assert_eq!(refusal(good, "s=:AAAA:"), "invalid");
    assert_eq!(refusal("s=1", "s=:AAAA:"), "malformed");
    assert_eq!(refusal("s=(date)", "s=:AAAA:"), "malformed");
    assert_eq!(refusal("", ""), "missing");
    assert_eq!(refusal(good, "t=:AAAA:"), "malformed");
    assert_eq!(refusal(good, "s=AAAA"), "malformed");
    assert_eq!(refusal(good, "s=:AAA*:"), "malformed");
    assert_eq!(refusal(&good.replace("1618884473", "\"x\""), "s=:AAAA:"), "malformed");
    assert_eq!(refusal(&good.replace("1618884473", "-1"), "s=:AAAA:"), "malformed");
    assert_eq!(refusal(&good.replace("1618884473", "@1618884473"), "s=:AAAA:"), "malformed");
    assert_eq!(refusal(&good.replace("\"date\"", "\"date\" \"date\""), "s=:AAAA:"), "component");
    assert_eq!(refusal(&good.replace("\"date\"", "\"absent\""), "s=:AAAA:"), "component");
    assert_eq!(refusal(&good.replace("\"date\"", "\"@status\""), "s=:AAAA:"), "component");
}

#[test]
fn a_value_cannot_write_a_line_of_the_base() {
    let mut request = test_request();
    request.target = "/foo?a=1\n\"@method\": GET".to_owned();
    let entry = field::parse::<sfv::Dictionary>("s=(\"@query\")").unwrap();
    let base = base::of(&Input::read(&entry["s"]).unwrap(), &request.message());
    assert_eq!(base, Err(Refusal::Component("a value that is not ASCII text")));
}

#[test]
fn ed25519_of_another_text_is_refused() {
    let pair = Ed25519KeyPair::from_pkcs8(&STANDARD.decode(ED25519_PRIVATE).unwrap()).unwrap();
    let signature = pair.sign(b"text");
    assert!(keys().verify("test-key-ed25519", Some("ed25519"), b"text", signature.as_ref()).is_some());
    assert!(keys().verify("test-key-ed25519", Some("ed25519"), b"Text", signature.as_ref()).is_none());
}

fn printable() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ -~]{0,80}",
        r#"[a-z]{1,3}=\(("[@a-z-]{1,12}"(;[a-z]{1,4}(="[a-z]{0,3}")?)? ?){0,4}\)(;(created|expires|nonce|alg|keyid|tag)=("[a-z]{0,5}"|[0-9]{1,16})){0,4}"#,
    ]
}

proptest! {
    #[test]
    fn no_input_panics_or_passes(
        input in printable(), signature in printable(), digest in printable(), target in "\\PC{0,40}", now in any::<u64>(),
    ) {
        let mut request = test_request();
        request.add("signature-input", &input);
        request.add("signature", &signature);
        request.add("content-digest", &digest);
        request.target = target;
        for rules in [Rules::default(), lenient()] {
            prop_assert!(rules.verify(&request.message(), &keys(), now).is_err());
        }
    }

    #[test]
    fn no_component_panics(text in printable(), target in "\\PC{0,40}") {
        let mut request = test_request();
        request.target = target;
        if let Ok(component) = Component::parse(&text) {
            let _ = component.value(&request.message());
        }
    }
}
