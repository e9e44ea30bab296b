use std::{net::IpAddr, sync::Arc};

use super::*;
use crate::{
    caller::{Caller, Consumer, Groups, Plan},
    config::{self as language, load::from_text, policy::Switch, process::Threads},
    exchange::testing,
    identity::{Consumers, Identities},
    limit::overload::{Guard, Settings},
    name::{ConsumerName, RouteName},
    observe::metrics::Metrics,
    policy::introduction::Guarded,
};

/// The limits of `policies.rate_limit` in this configuration, on a route with this `auth`.
fn compiled(yaml: &str, auth: Option<&str>, counters: &Arc<Counters>) -> Result<RateLimit, Vec<Problem>> {
    let loaded = from_text("test", yaml);
    assert_eq!(loaded.problems, [], "{yaml}");
    let Switch::On(limits) = &loaded.config.policies.rate_limit else { panic!("{yaml}") };
    let metrics = Metrics::new(&language::observe::Metrics::default()).unwrap();
    let ground = Ground {
        loaded: &loaded,
        route: &RouteName::new("r"),
        consumers: &Arc::new(Consumers::default()),
        identities: &Identities::default(),
        guarded: &Arc::new(Guarded::default()),
        metrics: &metrics,
        replays: &Arc::default(),
        counters,
        quotas: &Arc::default(),
        guard: &Arc::new(Guard::new(Settings::of(&Switch::Off, Threads::Auto))),
    };
    let auth = auth.map(|auth| serde_yaml::from_str(auth).unwrap());
    let path = Path::root().key("policies").key("rate_limit");
    RateLimit::compile(limits, &path, auth.as_ref(), Scope::Gateway, &ground).map(|(policy, _)| policy)
}

fn limits(rate_limit: &str) -> RateLimit {
    compiled(&format!("policies: {{ rate_limit: {rate_limit} }}"), Some("{ api_key: { header: X-Key } }"), &Arc::default())
        .unwrap()
}

/// A caller of a consumer with the plan of this index.
fn caller(name: &str, plan: Option<usize>) -> Caller {
    let plan = plan.map(|index| Arc::new(Plan { name: crate::name::PlanName::new("p"), index }));
    let consumer = Consumer { name: ConsumerName::new(name), index: 0, groups: Arc::new(Groups::default()), plan };
    Caller::consumer("api_key", Arc::new(consumer))
}

/// What becomes of a request from this address with these fields: whether it passes, and what it remembers.
fn asked(limits: &RateLimit, client: &str, headers: &[(&'static str, &str)], caller: &Caller) -> (Result<(), Stop>, Memo) {
    let (mut head, mut facts, mut caller) = (testing::head("GET", "/", headers), testing::facts("GET", "/"), caller.clone());
    facts.client = client.parse::<IpAddr>().unwrap();
    let mut memo = Memo::default();
    let mut inbound = Inbound { head: &mut head, facts: &facts, tls: None, caller: &mut caller };
    let passed = testing::now(limits.request(&mut inbound, &mut memo));
    if passed.is_err() {
        // As the chain does.
        limits.give_back(&mut memo);
    }
    (passed, memo)
}

fn passes(limits: &RateLimit, client: &str, headers: &[(&'static str, &str)]) -> bool {
    asked(limits, client, headers, &Caller::default()).0.is_ok()
}

/// What an answer tells, in this field.
fn told(limits: &RateLimit, memo: &mut Memo, field: &str) -> Vec<String> {
    let mut head = ResponseHeader::build(200, None).unwrap();
    limits.response(&mut head, &testing::facts("GET", "/"), memo).unwrap();
    head.headers.get_all(field).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
}

/// What is told to be left of each limit.
fn left(limits: &RateLimit, memo: &mut Memo) -> String {
    let told = told(limits, memo, "ratelimit").concat();
    let items: Vec<_> = told.split(", ").map(|item| item.split_once(";t=").unwrap().0).collect();
    items.join(", ")
}

fn answered(limits: &RateLimit, memo: &mut Memo, headers: &[(&'static str, &str)]) {
    let mut head = ResponseHeader::build(200, None).unwrap();
    for (name, value) in headers {
        head.append_header(*name, *value).unwrap();
    }
    limits.upstream_response(&mut head, &testing::facts("GET", "/"), memo).unwrap();
}

#[test]
fn a_refused_request_takes_nothing_of_any_limit() {
    let limits = limits("{ a: { key: client_ip, limit: 3/1h }, b: { key: { header: X-B }, limit: 1/1h } }");
    assert!(passes(&limits, "192.0.2.1", &[("x-b", "one")]));
    // `b` refuses; `a` was asked before it, and two are left of it.
    assert!((0..10).all(|_| !passes(&limits, "192.0.2.1", &[("x-b", "one")])));
    let (_, mut memo) = asked(&limits, "192.0.2.1", &[("x-b", "two")], &Caller::default());
    assert_eq!(left(&limits, &mut memo), r#""a";r=1, "b";r=0"#);
}

#[test]
fn a_refusal_tells_what_is_left_of_the_others() {
    let limits = limits("{ a: { key: client_ip, limit: 3/1h }, b: { key: client_ip, limit: 1/1h } }");
    passes(&limits, "192.0.2.1", &[]);
    let (refused, mut memo) = asked(&limits, "192.0.2.1", &[], &Caller::default());
    assert!(matches!(refused, Err(Stop::Limited(Limited { by: NAME, .. }))));
    assert_eq!(left(&limits, &mut memo), r#""a";r=2, "b";r=0"#);
    assert_eq!(told(&limits, &mut memo, "ratelimit-policy"), [r#""a";q=3;w=3600, "b";q=1;w=3600"#]);
    assert_eq!(limits.refused(&memo), Some((&LimitName::new("b"), false)));
}

#[test]
fn addresses_are_counted_apart_and_those_of_one_network_together() {
    let limits = limits("{ a: { key: client_ip, limit: 1/1h } }");
    for (client, passes_) in [
        ("192.0.2.1", true),
        ("192.0.2.2", true),
        ("::ffff:192.0.2.2", false),
        ("2001:db8:1:2::1", true),
        ("2001:db8:1:2:ffff::9", false),
        ("2001:db8:1:3::1", true),
    ] {
        assert_eq!(passes(&limits, client, &[]), passes_, "{client}");
    }
}

#[test]
fn no_two_composite_keys_meet_by_what_stands_where() {
    let limits = limits("{ a: { key: [{ header: X-A }, { header: X-B }], limit: 1/1h } }");
    let requests: [&[(&'static str, &str)]; 9] = [
        &[("x-a", "ab"), ("x-b", "c")],
        &[("x-a", "a"), ("x-b", "bc")],
        &[("x-a", "abc"), ("x-b", "")],
        &[("x-a", "abc")],
        &[("x-b", "abc")],
        &[("x-a", "a"), ("x-a", "b"), ("x-b", "c")],
        &[("x-a", "a"), ("x-b", "b"), ("x-b", "c")],
        &[],
        &[("x-a", ""), ("x-b", "")],
    ];
    for request in requests {
        assert!(passes(&limits, "192.0.2.1", request), "{request:?}");
    }
    for request in requests {
        assert!(!passes(&limits, "192.0.2.1", request), "{request:?}: the same again");
    }
}

#[test]
fn requests_without_the_part_are_counted_together() {
    let limits = limits("{ a: { key: { cookie: session }, limit: 1/1h } }");
    assert!(passes(&limits, "192.0.2.1", &[("cookie", "a=1; session=x")]));
    assert!(passes(&limits, "192.0.2.1", &[("cookie", "session=y")]));
    assert!(!passes(&limits, "192.0.2.1", &[("cookie", "b=2"), ("cookie", "session=x; c=3")]));
    assert!(passes(&limits, "192.0.2.1", &[("cookie", "sessions=x")]));
    assert!(!passes(&limits, "192.0.2.2", &[]));
}

#[test]
fn a_trial_takes_and_tells_and_refuses_nothing() {
    let limits = limits("{ a: { key: client_ip, limit: 1/1h, mode: shadow }, b: { key: client_ip, limit: 9/1h } }");
    assert!((0..5).all(|_| passes(&limits, "192.0.2.1", &[])));
    let (_, mut memo) = asked(&limits, "192.0.2.1", &[], &Caller::default());
    assert_eq!(limits.refused(&memo), Some((&LimitName::new("a"), true)));
    assert_eq!(told(&limits, &mut memo, "ratelimit-policy"), [r#""b";q=9;w=3600"#]);
    assert_eq!(left(&limits, &mut memo), r#""b";r=3"#);
}

#[test]
fn each_plan_has_its_own_rate_and_each_consumer_its_own_count() {
    let yaml = "plans: { big: { limit: 3/1h }, small: { limit: 1/1h } }\n\
                policies: { rate_limit: { a: { key: consumer, limit: plan } } }";
    let limits = compiled(yaml, Some("{ api_key: { header: X-Key } }"), &Arc::default()).unwrap();
    let count = |caller: &Caller| (0..9).filter(|_| asked(&limits, "192.0.2.1", &[], caller).0.is_ok()).count();
    assert_eq!([count(&caller("one", Some(0))), count(&caller("two", Some(0))), count(&caller("three", Some(1)))], [3, 3, 1]);
    let (stopped, _) = asked(&limits, "192.0.2.1", &[], &caller("four", None));
    assert!(matches!(stopped, Err(Stop::Forbidden(None))), "who has no plan has no rate");
}

#[test]
fn who_has_no_plan_may_have_a_default() {
    let yaml = "plans: { big: { limit: 3/1h }, small: { limit: 1/1h } }\n\
                policies: { rate_limit: { a: { key: consumer, limit: plan, default_plan: small } } }";
    let limits = compiled(yaml, Some("{ api_key: { header: X-Key } }"), &Arc::default()).unwrap();
    assert!(asked(&limits, "192.0.2.1", &[], &caller("four", None)).0.is_ok());
    assert!(asked(&limits, "192.0.2.1", &[], &Caller::default()).0.is_ok());
    assert!(asked(&limits, "192.0.2.1", &[], &Caller::default()).0.is_err());
}

#[test]
fn a_response_is_charged_what_it_says_it_cost() {
    let limits = limits("{ tokens: { key: client_ip, limit: 100/1h, cost: { response_header: X-Tokens } } }");
    let left_after = |said: &[(&'static str, &str)]| {
        let (passed, mut memo) = asked(&limits, "192.0.2.1", &[], &Caller::default());
        assert!(passed.is_ok());
        answered(&limits, &mut memo, said);
        // A second head is not charged again.
        answered(&limits, &mut memo, said);
        left(&limits, &mut memo)
    };
    assert_eq!(left_after(&[("x-tokens", "40")]), "\"tokens\";r=60");
    assert_eq!(left_after(&[("x-tokens", "0")]), "\"tokens\";r=60");
    assert_eq!(left_after(&[]), "\"tokens\";r=59");
    assert_eq!(left_after(&[("x-tokens", "all")]), "\"tokens\";r=58");
    assert_eq!(left_after(&[("x-tokens", "500")]), "\"tokens\";r=0", "what it took beyond the limit is owed");
    assert!(!passes(&limits, "192.0.2.1", &[]));
}

#[test]
fn a_queue_holds_back_and_refuses_who_would_wait_too_long() {
    let limits = limits("{ a: { key: client_ip, limit: 10/1h, algorithm: leaky_bucket, max_delay: 900s } }");
    let waits: Vec<_> = (0..4)
        .map(|_| {
            let (passed, memo) = asked(&limits, "192.0.2.1", &[], &Caller::default());
            passed.is_ok().then(|| limits.wait(&memo))
        })
        .collect();
    let [Some(first), Some(second), Some(third), None] = waits[..] else { panic!("{waits:?}") };
    assert_eq!(first, Duration::ZERO);
    assert!(second > Duration::from_secs(300) && second <= Duration::from_secs(360), "{second:?}");
    assert!(third > second && third <= Duration::from_secs(720), "{third:?}");
}

#[test]
fn nobody_waits_for_a_trial() {
    let limits = limits("{ a: { key: client_ip, limit: 1/1s, algorithm: leaky_bucket, max_delay: 10s, mode: shadow } }");
    for _ in 0..3 {
        let (_, memo) = asked(&limits, "192.0.2.1", &[], &Caller::default());
        assert_eq!(limits.wait(&memo), Duration::ZERO);
    }
}

#[test]
fn the_older_fields_tell_of_the_limit_with_least_left() {
    let limits = limits(
        "{ a: { key: client_ip, limit: 5/1h, headers: legacy }, b: { key: client_ip, limit: 2/1h, headers: both }, c: { key: client_ip, limit: 1/1h, headers: off } }",
    );
    let (_, mut memo) = asked(&limits, "192.0.2.1", &[], &Caller::default());
    assert_eq!(told(&limits, &mut memo, "x-ratelimit-limit"), ["2"]);
    assert_eq!(told(&limits, &mut memo, "x-ratelimit-remaining"), ["1"]);
    assert_eq!(told(&limits, &mut memo, "x-ratelimit-reset"), ["1800"]);
    assert_eq!(told(&limits, &mut memo, "ratelimit"), [r#""b";r=1;t=1800"#]);
}

#[test]
fn what_is_told_of_a_limit_says_its_terms() {
    let limits = limits(
        "{ a: { key: client_ip, limit: 5/500ms }, b: { key: client_ip, limit: 5/1m, burst: 9 }, c: { key: client_ip, limit: 5/1m, algorithm: leaky_bucket } }",
    );
    let (_, mut memo) = asked(&limits, "192.0.2.1", &[], &Caller::default());
    assert_eq!(told(&limits, &mut memo, "ratelimit-policy"), [r#""a";q=5, "b";q=5;w=60;banyan-burst=9, "c";q=5;w=60"#]);
}
