use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::{
    caller::{Consumer, Groups},
    config::policy::authz::Authz as Settings,
    exchange::testing,
    name::ConsumerName,
};

fn authz(yaml: &str) -> Authz {
    let config: Settings = serde_yaml::from_str(yaml).unwrap();
    let scopes = config.scopes.as_ref().map(|scopes| scopes.listed().join(" "));
    Authz {
        challenge: scopes.and_then(|scopes| HeaderValue::from_str(&scopes).ok()),
        scopes: config.scopes,
        roles: config.roles,
        groups: config.groups.map(Into::into),
        claims: config.claims.iter().map(|(name, values)| Claim::new(name, values)).collect(),
        when: config.when.map(|text| Box::new(Expression::compile(&text).unwrap())),
        mode: config.mode,
        metrics: AuthzMetrics::default(),
    }
}

fn holder(claims: Value, groups: &[&str]) -> Caller {
    let groups = Groups::new(groups.iter().map(|group| GroupName::new(group)).collect());
    Caller {
        consumer: Some(Arc::new(Consumer { name: ConsumerName::new("c"), index: 0, groups: Arc::new(groups), plan: None })),
        scheme: Some("jwt"),
        claims: Some(Arc::new(Claims::new(claims.as_object().unwrap().clone()))),
        ..Caller::default()
    }
}

fn check(yaml: &str, caller: &Caller, lack: Option<Lack>) {
    assert_eq!(authz(yaml).lack(caller), lack, "{yaml} of {:?}", caller.claims);
}

#[test]
fn scopes_and_roles_are_words_of_which_one_or_all_are_needed() {
    let caller = holder(json!({ "scope": "orders stock", "roles": ["clerk"] }), &[]);
    check("{ scopes: { any: [orders, admin] } }", &caller, None);
    check("{ scopes: { all: [orders, stock] } }", &caller, None);
    check("{ scopes: { all: [orders, admin] } }", &caller, Some(Lack::Scopes));
    check("{ scopes: { any: [order] } }", &caller, Some(Lack::Scopes));
    check("{ scopes: { any: ['orders stock'] } }", &caller, Some(Lack::Scopes));
    check("{ roles: { any: [clerk] } }", &caller, None);
    check("{ scopes: { any: [orders] }, roles: { any: [chief] } }", &caller, Some(Lack::Roles));
}

#[test]
fn a_group_is_enough_and_it_is_the_consumers() {
    check("{ groups: [partners, staff] }", &holder(json!({}), &["staff"]), None);
    check("{ groups: [partners] }", &holder(json!({ "groups": ["partners"] }), &["staff"]), Some(Lack::Groups));
}

#[test]
fn a_claim_must_have_a_value_of_the_same_kind() {
    let caller = holder(
        json!({ "tenant": "eu", "verified": true, "level": 3, "aud": ["a", "b"], "realm_access": { "roles": ["x"], "a/b": 1 }, "https://a.example/t": "u", "n": null }),
        &[],
    );
    for (rule, holds) in [
        ("tenant: eu", true),
        ("tenant: [us, eu]", true),
        ("tenant: us", false),
        ("verified: true", true),
        ("verified: 'true'", false),
        ("level: 3", true),
        ("level: '3'", false),
        ("aud: b", true),
        ("aud: [c, a]", true),
        ("aud: c", false),
        ("realm_access.roles: x", true),
        ("realm_access.a/b: 1", true),
        ("realm_access.nothing: x", false),
        ("realm_access: x", false),
        ("https://a.example/t: u", true),
        ("nothing: x", false),
        ("n: 'null'", false),
    ] {
        let (name, value) = rule.rsplit_once(": ").unwrap();
        check(&format!("claims: {{ '{name}': {value} }}"), &caller, (!holds).then_some(Lack::Claims));
    }
}

#[test]
fn nobody_has_nothing() {
    for yaml in ["{ scopes: { any: [a] } }", "{ roles: { all: [a] } }", "{ groups: [a] }", "{ claims: { a: 1 } }"] {
        assert!(authz(yaml).lack(&Caller::default()).is_some(), "{yaml}");
    }
}

fn request(yaml: &str, mut caller: Caller) -> (Result<(), Stop>, Caller) {
    let (mut head, facts) = (testing::head("GET", "/", &[]), testing::facts("GET", "/"));
    let mut inbound = Inbound { head: &mut head, facts: &facts, tls: None, caller: &mut caller };
    let passed = testing::now(authz(yaml).request(&mut inbound, &mut ()));
    (passed, caller)
}

#[test]
fn only_who_holds_a_token_is_told_the_scope() {
    let told = |caller| match request("{ scopes: { any: [orders] } }", caller).0 {
        Err(Stop::Forbidden(challenge)) => challenge.is_some(),
        passed => panic!("{passed:?}"),
    };
    assert!(told(holder(json!({}), &[])));
    assert!(!told(Caller { scheme: Some("api_key"), ..holder(json!({}), &[]) }));
}

/// What a rule says of a request for `/orders` by a consumer of the group `staff` whose token says `tenant: eu`.
fn ruled(rule: &str, caller: Caller) -> (bool, Option<&'static str>) {
    let (passed, caller) = request(&format!("{{ when: '{rule}' }}"), caller);
    assert!(matches!(passed, Ok(()) | Err(Stop::Forbidden(None))), "{rule}: {passed:?}");
    (passed.is_ok(), caller.refusal.map(|refusal| refusal.reason))
}

#[test]
fn a_rule_speaks_of_the_request_and_of_who_calls() {
    let (passes, refused) = ((true, None), (false, Some("when")));
    for (rule, told) in [
        (r#"request.method == "GET" && request.path == "/""#, passes),
        (r#"request.method == "POST""#, refused),
        (r#"consumer.name == "c" && "staff" in consumer.groups"#, passes),
        (r#""partners" in consumer.groups"#, refused),
        (r#"claims.tenant == "eu""#, passes),
        (r#"claims.tenant != "eu""#, refused),
    ] {
        assert_eq!(ruled(rule, holder(json!({ "tenant": "eu" }), &["staff"])), told, "{rule}");
    }
}

#[test]
fn a_rule_without_a_value_refuses() {
    let refused = (false, Some("when"));
    for rule in [r#"claims.tenant != "us""#, r#"claims.level > 3"#] {
        assert_eq!(ruled(rule, holder(json!({ "level": "high" }), &[])), refused, "{rule}");
        assert_eq!(ruled(rule, Caller::default()), refused, "{rule} of nobody");
    }
}

#[test]
fn a_rule_is_asked_after_what_is_needed_besides() {
    let yaml = r#"{ groups: [a], when: 'consumer.name == "d"' }"#;
    let reason = |groups: &[&str]| request(yaml, holder(json!({}), groups)).1.refusal.map(|refusal| refusal.reason);
    assert_eq!((reason(&["b"]), reason(&["a"])), (Some("groups"), Some("when")));
}

#[test]
fn a_trial_notes_what_it_would_refuse() {
    let (passed, caller) = request("{ groups: [a], mode: shadow }", holder(json!({}), &[]));
    assert!(passed.is_ok());
    assert_eq!(caller.refusal, Some(Refusal { by: "authz", reason: "groups", shadow: true }));
}
