//! Tokens that are verified here, from outside: good and forged ones, keys that come and go, issuers that are away.

use serde_json::{Value, json};

use crate::harness::{
    Gateway, Origin, Response, eventually, h2,
    issuer::{Published, Signer},
};

/// A gateway whose callers need a token of `idp`, whose keys are at `keys`. `settings` are more of the identity's.
fn yaml(origin: &Origin, keys: &str, settings: &str) -> String {
    format!(
        r#"
upstreams: {{ one: {{ endpoints: ["{origin}"] }} }}
identity:
  idp:
    jwt:
      issuer: idp
      audience: [api]
      algorithms: [EdDSA]
      keys: {{ {keys} }}
      forward: {{ sub: X-User-Id, groups: X_Groups, name: X-User-Name }}
      {settings}
consumers:
  acme: {{ groups: [partners], credentials: [{{ jwt: {{ identity: idp, claim: {{ azp: acme-client }} }} }}] }}
policies: {{ auth: {{ jwt: idp }} }}
routes:
  all: {{ to: {{ upstream: one }} }}
  trial: {{ match: {{ path: /trial }}, policies: {{ auth: {{ jwt: idp, mode: shadow }} }}, to: {{ upstream: one }} }}
  open: {{ match: {{ path: /open }}, policies: {{ auth: off }}, to: {{ upstream: one }} }}
"#
    )
}

fn published(origin: &Origin, keys: &Published, settings: &str) -> String {
    yaml(origin, &format!("jwks_url: \"http://{}/jwks\", refresh: 1s", keys.origin), settings)
}

fn ask(gateway: &Gateway, token: &str) -> Response {
    gateway.ask(&format!("GET /x HTTP/1.1\nHost: a\nAuthorization: Bearer {token}"))
}

fn refused(response: &Response, challenge: &str) {
    assert_eq!((response.status, response.head.all("www-authenticate")), (401, vec![challenge]));
    assert_eq!(response.json()["code"], "unauthenticated");
}

const INVALID: &str = "Bearer error=\"invalid_token\"";

#[test]
fn a_service_is_told_who_calls_and_not_by_what() {
    let (origin, signer) = (Origin::echo(), Signer::new("a"));
    let keys = Published::keys(&[&signer]);
    let gateway = Gateway::start(&published(&origin, &keys, ""));
    let claims = json!({ "sub": "ada", "azp": "acme-client", "groups": ["a", "b,root"], "name": "Zoë\r\nX-Admin: 1" });
    let token = signer.token(claims);
    let claimed = "X-User-Id: root\nX_User_Id: root\nX-Groups: root\nX_Groups: root\nX-User-Name: root";
    for _ in ["cold", "warm"] {
        let response = gateway.ask(&format!("GET /x HTTP/1.1\nHost: a\n{claimed}\nauthorization: bearer {token}"));
        assert_eq!(response.status, 200);
        let seen = origin.last();
        assert_eq!((seen.head.all("x-consumer"), seen.head.all("x-consumer-groups")), (vec!["acme"], vec!["partners"]));
        assert_eq!((seen.head.all("x-user-id"), seen.head.all("x_groups")), (vec!["ada"], vec!["a,b%2Croot"]));
        assert_eq!(seen.head.all("x-user-name"), ["Zo%C3%AB%0D%0AX-Admin: 1"]);
        for gone in ["authorization", "x_user_id", "x-groups", "x-admin"] {
            assert_eq!(seen.field(gone), None, "{gone}");
        }
    }
    gateway.ask(&format!("GET /open HTTP/1.1\nHost: a\n{claimed}\nAuthorization: Bearer {token}"));
    let open = origin.last();
    assert_eq!((open.field("x-user-id"), open.field("x-user-name")), (None, None), "its word is the gateway's on every route");
    assert!(open.field("authorization").is_some(), "a route that asks for no token leaves it alone");
    let line = gateway.logged_path("/x");
    assert_eq!((&line["consumer"], &line["auth"]), (&"acme".into(), &"jwt".into()));
    for said in [gateway.stdout.text(), gateway.stderr.text()] {
        assert!(!said.contains(&token[token.len() - 40..]), "{said}");
    }
}

#[test]
fn a_token_that_nobody_is_known_by_passes_without_a_consumer() {
    let (origin, signer) = (Origin::echo(), Signer::new("a"));
    let keys = Published::keys(&[&signer]);
    let gateway = Gateway::start(&published(&origin, &keys, "keep: true"));
    let token = signer.token(json!({ "sub": "eve", "azp": "other" }));
    assert_eq!(ask(&gateway, &token).status, 200);
    let seen = origin.last();
    assert_eq!((seen.field("x-consumer"), seen.field("x-user-id")), (None, Some("eve")));
    assert_eq!(seen.field("authorization"), Some(format!("Bearer {token}").as_str()), "kept on purpose");
}

#[test]
fn what_proves_nothing_reaches_no_service_and_says_why_to_the_operator_only() {
    let (origin, signer, mallory) = (Origin::echo(), Signer::new("a"), Signer::new("a"));
    let keys = Published::keys(&[&signer]);
    let gateway = Gateway::start(&published(&origin, &keys, ""));
    let good = signer.token(json!({}));
    let (message, _) = good.rsplit_once('.').unwrap();
    let none = mallory.sign(&json!({ "alg": "none" }), &json!({ "iss": "idp", "aud": "api", "exp": 9_999_999_999_u64 }));
    let forged = [
        (mallory.token(json!({})), "signature"),
        (format!("{message}."), "signature"),
        (none, "algorithm"),
        (signer.token(json!({ "iss": "other" })), "issuer"),
        (signer.token(json!({ "aud": "other" })), "audience"),
        (signer.token(json!({ "exp": 1 })), "expired"),
        (signer.token(json!({ "nbf": 9_999_999_998_u64 })), "not_yet_valid"),
        (signer.token(json!({ "exp": "soon" })), "unreadable"),
        (Signer::new("unknown").token(json!({})), "unknown_key"),
        ("opaque".to_owned(), "unreadable"),
    ];
    let mut texts = Vec::new();
    for (token, reason) in &forged {
        let response = ask(&gateway, token);
        refused(&response, INVALID);
        let id = response.field("x-request-id").unwrap().to_owned();
        texts.push(response.text().replace(&id, ""));
        gateway.logged(|entry| entry["refusal"] == format!("jwt {reason}"));
    }
    assert!(texts.iter().all(|text| *text == texts[0]), "{texts:?}");
    refused(&gateway.get("/x"), "Bearer");
    refused(&gateway.ask("GET /x HTTP/1.1\nHost: a\nAuthorization: Basic YTpi"), "Bearer");
    for odd in ["Bearer", &format!("Bearer {good}, Bearer x"), &format!("Bearer {good}\nAuthorization: Bearer {good}")] {
        let response = gateway.ask(&format!("GET /x HTTP/1.1\nHost: a\nAuthorization: {odd}"));
        refused(&response, "Bearer error=\"invalid_request\"");
    }
    for elsewhere in
        [format!("GET /x?access_token={good} HTTP/1.1\nHost: a"), format!("GET /x HTTP/1.1\nHost: a\nCookie: t={good}")]
    {
        refused(&gateway.ask(&elsewhere), "Bearer");
    }
    assert_eq!(origin.count(), 0);
    let count = |reason: &str| {
        gateway.metric(&format!(r#"banyan_auth_total{{mode="enforce",reason="{reason}",route="all",scheme="jwt"}}"#))
    };
    assert_eq!((count("signature"), count("expired"), count("repeated")), (Some(2.0), Some(1.0), Some(1.0)));
    assert_eq!(gateway.metric(r#"banyan_identity_tokens_remembered{identity="idp"}"#), Some(0.0));
}

#[test]
fn no_way_leads_around_the_token() {
    let (origin, signer) = (Origin::echo(), Signer::new("a"));
    let keys = Published::keys(&[&signer]);
    let gateway = Gateway::start(&published(&origin, &keys, ""));
    for head in [
        "HEAD /x HTTP/1.1\nHost: a",
        "OPTIONS /x HTTP/1.1\nHost: a",
        "OPTIONS * HTTP/1.1\nHost: a",
        "PROPFIND /x HTTP/1.1\nHost: a",
        "POST /x HTTP/1.1\nHost: a\nContent-Length: 0",
        "GET /%78 HTTP/1.1\nHost: a",
        "GET //x HTTP/1.1\nHost: a",
        "GET /open/../x HTTP/1.1\nHost: a",
        "GET /open/ HTTP/1.1\nHost: a",
        "GET /x HTTP/1.1\nHost: a.",
        "GET http://a/x HTTP/1.1\nHost: a",
        "GET /x HTTP/1.0",
        "GET /x HTTP/1.1\nHost: a\nConnection: Upgrade\nUpgrade: websocket",
        "GET /x HTTP/1.1\nHost: a\nX-Original-URL: /open",
        "GET /x HTTP/1.1\nHost: a\nConnection: Authorization",
    ] {
        let status = gateway.ask(head).status;
        assert!(status == 401 || status == 400, "{head}: {status}");
    }
    assert_eq!(origin.count(), 0);
    let token = signer.token(json!({}));
    h2::play(async {
        let mut client = h2::h2c(gateway.web()).await;
        let bare = http::Request::get("http://a/x").body(h2::full("")).unwrap();
        assert_eq!(h2::ask(&mut client, bare).await.head.status, 401);
        let good =
            http::Request::get("http://a/x").header("authorization", format!("Bearer {token}")).body(h2::full("")).unwrap();
        assert_eq!(h2::ask(&mut client, good).await.head.status, 200);
    });
}

#[test]
fn a_trial_refuses_nothing_and_tells_what_it_would_have_refused() {
    let (origin, signer) = (Origin::echo(), Signer::new("a"));
    let keys = Published::keys(&[&signer]);
    let gateway = Gateway::start(&published(&origin, &keys, ""));
    let token = signer.token(json!({ "exp": 1 }));
    let response = gateway.ask(&format!("GET /trial HTTP/1.1\nHost: a\nAuthorization: Bearer {token}"));
    assert_eq!((response.status, origin.last().field("authorization")), (200, Some(format!("Bearer {token}").as_str())));
    assert_eq!(gateway.logged_path("/trial")["refusal"], "shadow jwt expired");
}

#[test]
fn a_new_key_counts_at_once_and_a_withdrawn_one_no_longer() {
    let (origin, old, new) = (Origin::echo(), Signer::new("old"), Signer::new("new"));
    let keys = Published::keys(&[&old]);
    let gateway = Gateway::start(&published(&origin, &keys, ""));
    let (before, after) = (old.token(json!({})), new.token(json!({})));
    assert_eq!(ask(&gateway, &before).status, 200);
    keys.says(200, &Published::set(&[&old, &new]));
    eventually("the new key", || (ask(&gateway, &after).status == 200).then_some(()));
    assert_eq!(ask(&gateway, &before).status, 200);
    keys.says(200, &Published::set(&[&new]));
    eventually("the old key is withdrawn", || (ask(&gateway, &before).status == 401).then_some(()));
    assert_eq!(ask(&gateway, &after).status, 200);
    assert_eq!(gateway.metric(r#"banyan_identity_keys{identity="idp"}"#), Some(1.0));
}

#[test]
fn keys_outlive_the_issuer_and_a_reload() {
    let (origin, signer) = (Origin::echo(), Signer::new("a"));
    let keys = Published::keys(&[&signer]);
    let (first, second) = (published(&origin, &keys, ""), published(&origin, &keys, "leeway: 1s"));
    let mut gateway = Gateway::start(&first);
    assert_eq!(ask(&gateway, &signer.token(json!({}))).status, 200);
    keys.says(503, &Value::Null);
    let failures = || gateway.metric(r#"banyan_identity_key_fetches_total{identity="idp",result="failure"}"#);
    eventually("a failure", || (failures()? > 0.0).then_some(()));
    assert_eq!(ask(&gateway, &signer.token(json!({ "sub": "cold" }))).status, 200);
    gateway.reload(&second);
    assert_eq!(ask(&gateway, &signer.token(json!({ "sub": "after the reload" }))).status, 200);
}

#[test]
fn while_the_keys_are_not_known_nobody_is_let_pass_and_nobody_is_blamed() {
    let (origin, signer) = (Origin::echo(), Signer::new("a"));
    let keys = Published::new(&Value::Null);
    keys.says(503, &Value::Null);
    let gateway = Gateway::start(&published(&origin, &keys, ""));
    let response = ask(&gateway, &signer.token(json!({})));
    assert_eq!((response.status, response.field("www-authenticate")), (503, None));
    assert_eq!(response.json()["code"], "authentication_unavailable");
    assert_eq!(origin.count(), 0);
    keys.says(200, &Published::set(&[&signer]));
    eventually("the issuer is back", || (ask(&gateway, &signer.token(json!({}))).status == 200).then_some(()));
}

#[test]
fn discovery_leads_to_the_keys_of_its_issuer() {
    let (origin, signer) = (Origin::echo(), Signer::new("a"));
    let keys = Published::keys(&[&signer]);
    let document = |issuer: &str| json!({ "issuer": issuer, "jwks_uri": format!("http://{}/jwks", keys.origin) });
    let discovery = Published::new(&document("evil"));
    let at = format!("discovery: \"http://{}/.well-known/openid-configuration\", refresh: 1s", discovery.origin);
    let gateway = Gateway::start(&yaml(&origin, &at, ""));
    assert_eq!(ask(&gateway, &signer.token(json!({}))).status, 503, "a document of another issuer");
    discovery.says(200, &document("idp"));
    eventually("its own", || (ask(&gateway, &signer.token(json!({}))).status == 200).then_some(()));
}

#[test]
fn keys_of_a_file_follow_the_file() {
    let (origin, old, new) = (Origin::echo(), Signer::new("a"), Signer::new("a"));
    let set = |signer: &Signer| Published::set(&[signer]).to_string();
    let gateway = crate::harness::gateway::Start::on(&yaml(&origin, "file: keys.json", "")).file("keys.json", &set(&old)).ready();
    let (before, after) = (old.token(json!({})), new.token(json!({})));
    assert_eq!((ask(&gateway, &before).status, ask(&gateway, &after).status), (200, 401));
    let generation = gateway.generation();
    gateway.replace("keys.json", &set(&new));
    gateway.wait_past(generation);
    assert_eq!((ask(&gateway, &before).status, ask(&gateway, &after).status), (401, 200), "though the old token was remembered");
}

#[test]
fn scopes_roles_and_claims_of_a_token_say_what_its_holder_may_do() {
    let (origin, signer) = (Origin::echo(), Signer::new("a"));
    let keys = Published::keys(&[&signer]);
    let gateway = Gateway::start(&format!(
        r#"
upstreams: {{ one: {{ endpoints: ["{origin}"] }} }}
identity:
  idp: {{ jwt: {{ issuer: idp, audience: [api], algorithms: [EdDSA], roles: realm_access.roles, keys: {{ jwks_url: "http://{}/" }} }} }}
policies: {{ auth: {{ jwt: idp }} }}
routes:
  scopes: {{ match: {{ path: /scopes }}, policies: {{ authz: {{ scopes: {{ all: [orders, stock] }} }} }}, to: {{ upstream: one }} }}
  roles: {{ match: {{ path: /roles }}, policies: {{ authz: {{ roles: {{ any: [clerk] }} }} }}, to: {{ upstream: one }} }}
  claims: {{ match: {{ path: /claims }}, policies: {{ authz: {{ claims: {{ org.id: [shop] }} }} }}, to: {{ upstream: one }} }}
"#,
        keys.origin
    ));
    let rich = json!({ "scope": "stock orders", "realm_access": { "roles": ["clerk"] }, "org": { "id": "shop" } });
    let poor = json!({ "scope": "orders", "roles": ["clerk"], "org": { "id": "bank" } });
    for (path, lack, challenge) in [
        ("/scopes", "authz scopes", Some("Bearer error=\"insufficient_scope\", scope=\"orders stock\"")),
        ("/roles", "authz roles", None),
        ("/claims", "authz claims", None),
    ] {
        let ask = |claims: &Value| {
            let token = signer.token(claims.clone());
            gateway.ask(&format!("GET {path} HTTP/1.1\nHost: a\nAuthorization: Bearer {token}"))
        };
        let refused = ask(&poor);
        assert_eq!((refused.status, refused.field("www-authenticate")), (403, challenge), "{path}");
        assert_eq!(gateway.logged_path(path)["refusal"], lack);
        assert_eq!(ask(&rich).status, 200, "{path}");
    }
    assert_eq!(origin.count(), 3);
}
