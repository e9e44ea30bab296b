//! Tokens that their issuer is asked about, from outside.

use serde_json::json;

use crate::harness::{
    Gateway, Origin, Response,
    issuer::{Published, Signer},
};

fn gateway(origin: &Origin, issuer: &Origin, settings: &str) -> Gateway {
    Gateway::start(&format!(
        r#"
upstreams: {{ one: {{ endpoints: ["{origin}"] }} }}
identity:
  partner:
    introspection:
      url: "http://{issuer}/introspect"
      client_id: gateway
      client_secret: hunter2hunter2
      forward: {{ sub: X-User-Id }}
      {settings}
consumers:
  acme: {{ credentials: [{{ jwt: {{ identity: partner, claim: {{ client_id: acme }} }} }}] }}
policies: {{ auth: {{ introspection: partner }} }}
routes: {{ all: {{ to: {{ upstream: one }} }} }}
"#
    ))
}

fn ask(gateway: &Gateway, token: &str) -> Response {
    gateway.ask(&format!("GET /x HTTP/1.1\nHost: a\nAuthorization: Bearer {token}"))
}

#[test]
fn an_active_token_passes_and_its_issuer_is_asked_once() {
    let origin = Origin::echo();
    let issuer = Published::new(&json!({ "active": true, "sub": "ada", "client_id": "acme", "scope": "orders" }));
    let gateway = gateway(&origin, &issuer.origin, "");
    for _ in 0..3 {
        assert_eq!(ask(&gateway, "opaque-token-1").status, 200);
    }
    let seen = origin.last();
    assert_eq!(
        (seen.field("x-consumer"), seen.field("x-user-id"), seen.field("authorization")),
        (Some("acme"), Some("ada"), None)
    );
    assert_eq!(issuer.origin.count(), 1);
    let question = issuer.origin.last();
    assert_eq!(question.head.all("authorization"), ["Basic Z2F0ZXdheTpodW50ZXIyaHVudGVyMg=="]);
    assert_eq!(question.body, b"token=opaque-token-1&token_type_hint=access_token");
    let line = gateway.logged_path("/x");
    assert_eq!((&line["consumer"], &line["auth"]), (&"acme".into(), &"introspection".into()));
    for said in [gateway.stdout.text(), gateway.stderr.text(), gateway.admin("/config").text()] {
        assert!(!said.contains("opaque-token-1") && !said.contains("hunter2"), "{said}");
    }
}

#[test]
fn a_token_that_is_not_active_is_refused_and_what_is_no_token_not_asked_about() {
    let origin = Origin::echo();
    let issuer = Published::new(&json!({ "active": false }));
    let gateway = gateway(&origin, &issuer.origin, "");
    for token in ["junk", "junk"] {
        let response = ask(&gateway, token);
        assert_eq!((response.status, response.field("www-authenticate")), (401, Some("Bearer error=\"invalid_token\"")));
    }
    assert_eq!(ask(&gateway, "two words").field("www-authenticate"), Some("Bearer error=\"invalid_request\""));
    assert_eq!((issuer.origin.count(), origin.count()), (1, 0));
    assert_eq!(gateway.logged_path("/x")["refusal"], "introspection inactive");
}

#[test]
fn an_issuer_that_cannot_be_asked_lets_nobody_pass() {
    let origin = Origin::echo();
    let issuer = Published::new(&json!({ "active": true }));
    let gateway = gateway(&origin, &issuer.origin, "cache: 0s");
    assert_eq!(ask(&gateway, "a").status, 200);
    issuer.says(500, &json!({ "active": true }));
    let response = ask(&gateway, "a");
    assert_eq!((response.status, response.field("www-authenticate")), (503, None));
    drop(issuer);
    assert_eq!(ask(&gateway, "a").status, 503);
    assert_eq!(origin.count(), 1);
}

#[test]
fn an_issuer_that_is_silent_is_not_waited_for_longer_than_told() {
    let origin = Origin::echo();
    let silent = Origin::script(|visit| {
        visit.head()?;
        visit.wire.rest();
        Ok(())
    });
    let gateway = gateway(&origin, &silent, "timeout: 100ms");
    assert_eq!(ask(&gateway, "a").status, 503);
    assert_eq!(origin.count(), 0);
}

#[test]
fn a_token_that_nobody_could_look_at_is_not_called_wrong() {
    let (origin, signer) = (Origin::echo(), Signer::new("a"));
    let (keys, issuer) = (Published::keys(&[&signer]), Published::new(&json!({ "active": true })));
    issuer.says(500, &json!({}));
    let gateway = Gateway::start(&format!(
        r#"
upstreams: {{ one: {{ endpoints: ["{origin}"] }} }}
identity:
  idp: {{ jwt: {{ issuer: idp, audience: [api], algorithms: [EdDSA], keys: {{ jwks_url: "http://{}/" }} }} }}
  partner: {{ introspection: {{ url: "http://{}/", client_id: gateway, client_secret: hunter2 }} }}
policies: {{ auth: {{ any_of: [{{ jwt: idp }}, {{ introspection: partner }}] }} }}
routes: {{ all: {{ to: {{ upstream: one }} }} }}
"#,
        keys.origin, issuer.origin
    ));
    assert_eq!(ask(&gateway, "opaque").status, 503);
    assert_eq!(gateway.logged_path("/x")["refusal"], "introspection unavailable");
    assert_eq!(ask(&gateway, &signer.token(json!({}))).status, 200, "one that is known to be good needs no other");
    issuer.says(200, &json!({ "active": false }));
    assert_eq!(ask(&gateway, "opaque").status, 401);
}
