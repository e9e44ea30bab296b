use serde_json::json;

use super::*;
use crate::identity::testing::{RSA, Signer};

fn config(yaml: &str) -> BTreeMap<IdentityName, config::Identity> {
    serde_yaml::from_str(yaml).unwrap()
}

/// Compiles one identity `idp` of kind `jwt`; `settings` beside its issuer.
fn jwt(settings: &str) -> Vec<String> {
    let config = config(&format!("idp: {{ jwt: {{ issuer: i, {settings} }} }}"));
    let (identities, problems) = Identities::compile(&config, &Identities::default());
    assert_eq!(problems.is_empty(), identities.named(&IdentityName::new("idp")).is_some());
    problems.iter().map(|problem| format!("{}: {}", problem.path, problem.message)).collect()
}

fn check(settings: &str, expected: &str) {
    let at = "identity.idp.jwt.";
    let found = jwt(settings).iter().map(|problem| problem.replace(at, "")).collect::<Vec<_>>().join("\n");
    assert!(if expected.is_empty() { found.is_empty() } else { found.contains(expected) }, "{settings}\n{found}");
}

#[test]
fn a_weak_secret_is_refused() {
    let secret = |text: &str| format!("algorithms: [HS256], keys: {{ secret: \"{text}\" }}");
    check(&secret(&"x".repeat(32)), "");
    check(&secret(&"x".repeat(31)), "keys.secret: the secret is shorter than 256 bits");
    check(&secret(&format!("-----BEGIN PUBLIC KEY-----{}", "x".repeat(64))), "keys.secret: this is a key or a certificate");
    let long = |alg: &str, bytes: usize| format!("algorithms: [HS256, {alg}], keys: {{ secret: {} }}", "x".repeat(bytes));
    check(&long("HS384", 47), "algorithms[1]: `HS384` needs a secret as long as its hash");
    check(&long("HS512", 63), "algorithms[1]: `HS512` needs a secret as long as its hash");
    check(&long("HS512", 64), "");
}

#[test]
fn keys_fit_the_algorithms() {
    check("algorithms: [RS256], keys: { secret: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx }", "algorithms[0]: `RS256` needs a public key");
    for published in ["jwks_url: 'https://idp.example/jwks'", "discovery: 'https://idp.example/.well-known/openid-configuration'"]
    {
        check(&format!("algorithms: [RS256, HS256], keys: {{ {published} }}"), "algorithms[1]: `HS256` needs a secret");
    }
    check("algorithms: [], keys: { jwks_url: 'https://idp.example/' }", "algorithms: no algorithm is listed");
}

#[test]
fn a_file_of_keys_is_read_and_must_fit() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.json");
    let settings = |algorithms: &str| format!("algorithms: [{algorithms}], keys: {{ file: '{}' }}", file.display());
    check(&settings("RS256"), "keys.file: cannot read");
    std::fs::write(&file, json!({ "keys": [RSA.jwk("a"), Signer::p256().jwk("b")] }).to_string()).unwrap();
    check(&settings("RS256, PS512, ES256"), "");
    check(&settings("RS256, EdDSA"), "algorithms[1]: no key is one for `EdDSA`");
    check(&settings("HS256"), "algorithms[0]: no key is one for `HS256`");
    std::fs::write(&file, "hunter2").unwrap();
    check(&settings("RS256"), "holds neither PEM nor a JSON Web Key Set");
    std::fs::write(&file, vec![b' '; 2 << 20]).unwrap();
    check(&settings("RS256"), "is larger than 1 MiB");
}

#[test]
fn plain_text_does_not_leave_the_machine_unasked() {
    let settings = |keys: &str| format!("algorithms: [RS256], keys: {{ {keys} }}");
    check(&settings("jwks_url: 'http://127.0.0.1:9010/jwks.json'"), "");
    check(&settings("jwks_url: 'http://idp.example/jwks'"), "keys.jwks_url: `http://idp.example/jwks` is plain text");
    check(&settings("jwks_url: 'http://idp.example/jwks', allow_http: true"), "");
    check(&settings("discovery: 'http://idp.example/x'"), "keys.discovery: `http://idp.example/x` is plain text");
    check(&settings("jwks_url: idp.example"), "keys.jwks_url: `idp.example` is not the URL of a web server");
    check(&settings("jwks_url: 'https://a:b@idp.example/'"), "keys.jwks_url: the URL must have no user name");
    check(&settings("jwks_url: 'https://idp.example/', ca: /none.pem"), "keys.ca: cannot read `/none.pem`");
}

#[test]
fn claims_are_told_in_fields_that_are_free() {
    let settings =
        |forward: &str| format!("algorithms: [RS256], keys: {{ jwks_url: 'https://idp.example/' }}, forward: {{ {forward} }}");
    check(&settings("sub: X-User-Id, email: X-User-Email"), "");
    check(&settings("sub: 'X User'"), "forward.sub: `X User` is no name of a header field");
    check(&settings("sub: X-Consumer"), "forward.sub: `X-Consumer` is not free for claims");
    check(&settings("sub: Content-Length"), "forward.sub: `Content-Length` is not free for claims");
    check(&settings("sub: X-Forwarded-For"), "forward.sub: `X-Forwarded-For` is not free for claims");
    check(&settings("sub: X-User, email: x-user"), "forward.sub: two claims would be told in `X-User`");
}

#[test]
fn an_issuer_may_be_asked_where_nobody_listens() {
    let compile = |settings: &str| {
        let config = config(&format!("idp: {{ introspection: {{ client_id: c, client_secret: s, {settings} }} }}"));
        let (_, problems) = Identities::compile(&config, &Identities::default());
        problems.first().map(|problem| format!("{}: {}", problem.path, problem.message)).unwrap_or_default()
    };
    assert_eq!(compile("url: 'http://127.0.0.1:9010/introspect'"), "");
    let plain = compile("url: 'http://idp.example/introspect'");
    assert!(plain.starts_with("identity.idp.introspection.url: `http://idp.example/introspect` is plain text"), "{plain}");
    assert_eq!(compile("url: 'http://idp.example/introspect', allow_http: true"), "");
}

#[test]
fn what_does_not_change_stays_the_same() {
    let yaml = |leeway: &str, refresh: &str| {
        config(&format!(
            "idp: {{ jwt: {{ issuer: i, algorithms: [RS256], leeway: {leeway}, keys: {{ jwks_url: 'https://idp.example/', refresh: {refresh} }} }} }}"
        ))
    };
    let name = IdentityName::new("idp");
    let jwt = |identities: &Identities| match identities.named(&name) {
        Some(Identity::Jwt(jwt)) => jwt.clone(),
        _ => panic!(),
    };
    let (first, _) = Identities::compile(&yaml("1s", "10m"), &Identities::default());
    let (same, _) = Identities::compile(&yaml("1s", "10m"), &first);
    assert!(Arc::ptr_eq(&jwt(&first), &jwt(&same)));
    let (changed, _) = Identities::compile(&yaml("2s", "10m"), &same);
    assert!(!Arc::ptr_eq(&jwt(&first), &jwt(&changed)), "what was remembered under other rules is forgotten");
    assert!(Arc::ptr_eq(jwt(&first).keys(), jwt(&changed).keys()), "keys are not fetched again");
    let (other, _) = Identities::compile(&yaml("2s", "20m"), &changed);
    assert!(!Arc::ptr_eq(jwt(&first).keys(), jwt(&other).keys()));
}

#[test]
fn keys_that_stay_must_fit_the_algorithms_that_change() {
    let yaml = |algorithms: &str| {
        let secret = "x".repeat(32);
        config(&format!("idp: {{ jwt: {{ issuer: i, algorithms: [{algorithms}], keys: {{ secret: {secret} }} }} }}"))
    };
    let (first, _) = Identities::compile(&yaml("HS256"), &Identities::default());
    for algorithms in ["HS256, HS512", "RS256"] {
        let (_, problems) = Identities::compile(&yaml(algorithms), &first);
        assert_eq!(problems.len(), 1, "{algorithms}");
    }
}

#[test]
fn keys_of_a_file_that_changed_are_other_keys() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.json");
    let yaml = format!("idp: {{ jwt: {{ issuer: i, algorithms: [EdDSA], keys: {{ file: '{}' }} }} }}", file.display());
    let compile = |before: &Identities| Identities::compile(&config(&yaml), before).0;
    let jwt = |identities: &Identities| match identities.named(&IdentityName::new("idp")) {
        Some(Identity::Jwt(jwt)) => jwt.clone(),
        _ => panic!(),
    };
    let write = || std::fs::write(&file, json!({ "keys": [Signer::ed25519().jwk("a")] }).to_string()).unwrap();
    write();
    let first = compile(&Identities::default());
    assert!(Arc::ptr_eq(&jwt(&first), &jwt(&compile(&first))));
    write();
    assert!(!Arc::ptr_eq(jwt(&first).keys(), jwt(&compile(&first)).keys()));
}
