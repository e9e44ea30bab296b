use sha2::{Digest as _, Sha256};

use super::*;
use crate::{
    config::{self as language, load::from_text, policy::Switch, process::Threads},
    exchange::testing,
    identity::{Consumers, Identities, Passwords},
    limit::overload::{Guard, Settings},
    name::RouteName,
    observe::metrics::Metrics,
    policy::introduction::Guarded,
};

/// A policy, among consumers `a` with the key `of-a` and `b` with the keys `of-b` and `too`.
fn compiled(policy: &str) -> Result<Auth, Vec<Problem>> {
    let sum = |key: &str| format!("api_key: {{ sha256: {:x} }}", Sha256::digest(key));
    let loaded = from_text(
        "test",
        &format!(
            "consumers:\n  a: {{ groups: [g], credentials: [{{ {} }}] }}\n  b: {{ credentials: [{{ {} }}, {{ {} }}] }}\n  guest: {{}}\npolicies: {{ auth: {policy} }}",
            sum("of-a"),
            sum("of-b"),
            sum("too"),
        ),
    );
    assert_eq!(loaded.problems, [], "{policy}");
    let Switch::On(auth) = &loaded.config.policies.auth else { panic!("{policy}") };
    let (consumers, _) = Consumers::compile(&loaded.config.consumers, &[], &Arc::new(Passwords::new().unwrap()));
    let metrics = Metrics::new(&language::observe::Metrics::default()).unwrap();
    let ground = Ground {
        loaded: &loaded,
        route: &RouteName::new("r"),
        consumers: &Arc::new(consumers),
        identities: &Identities::default(),
        guarded: &Arc::new(Guarded::default()),
        metrics: &metrics,
        replays: &Arc::default(),
        counters: &Arc::default(),
        quotas: &Arc::default(),
        guard: &Arc::new(Guard::new(Settings::of(&Switch::Off, Threads::Auto))),
    };
    Auth::compile(auth, &Path::root().key("policies").key("auth"), &ground)
}

/// What becomes of a request: its consumer, or what it is told to bring.
fn judged(policy: &str, path: &str, headers: &[(&'static str, &str)]) -> String {
    let auth = compiled(policy).map_err(|problems| format!("{problems:?}")).unwrap();
    let (mut head, facts, mut caller) = (testing::head("GET", path, headers), testing::facts("GET", path), Caller::default());
    let mut inbound = Inbound { head: &mut head, facts: &facts, tls: None, caller: &mut caller };
    let passed = testing::now(auth.request(&mut inbound, &mut Memo::default()));
    let refusal = caller.refusal.map(|refusal| format!(" ({} {})", refusal.by, refusal.reason)).unwrap_or_default();
    let consumer = caller.consumer.map_or_else(|| "nobody".to_owned(), |consumer| consumer.name.to_string());
    match passed {
        Ok(()) => format!("{consumer}{refusal}"),
        Err(Stop::Unauthenticated(challenges)) => {
            let challenges: Vec<_> = challenges.iter().map(|challenge| challenge.to_str().unwrap()).collect();
            format!("{}{refusal}", challenges.join(" | "))
        }
        Err(stop) => panic!("{stop:?}"),
    }
}

const HEADER: &str = "{ api_key: { header: X-Key } }";
const ANY: &str = "{ any_of: [{ api_key: { header: X-Key } }, { api_key: { query: key } }] }";
const ALL: &str = "{ all_of: [{ api_key: { header: X-Key } }, { api_key: { query: key } }] }";

#[test]
fn a_key_says_who_calls() {
    let challenge = "ApiKey header=\"X-Key\"";
    assert_eq!(judged(HEADER, "/", &[("x-key", "of-a")]), "a");
    assert_eq!(judged(HEADER, "/", &[("x-key", "too")]), "b");
    assert_eq!(judged(HEADER, "/?key=of-a", &[]), format!("{challenge} (- missing)"));
    assert_eq!(judged(HEADER, "/", &[("x-key", "of-A")]), format!("{challenge} (api_key unknown)"));
    assert_eq!(judged(HEADER, "/", &[("x-key", "")]), format!("{challenge} (api_key malformed)"));
    assert_eq!(judged(HEADER, "/", &[("x-key", "of-a"), ("x-key", "of-a")]), format!("{challenge} (api_key repeated)"));
    assert_eq!(judged(HEADER, "/", &[("x_key", "of-a")]), format!("{challenge} (- missing)"));
}

#[test]
fn a_key_in_the_query_is_read_as_services_would() {
    let query = "{ api_key: { query: key } }";
    let refused = |reason: &str| format!("ApiKey query=\"key\" ({reason})");
    assert_eq!(judged(query, "/?a=1&key=of-a", &[]), "a");
    assert_eq!(judged(query, "/?k%65y=of%2Da", &[]), "a");
    assert_eq!(judged(query, "/?key=of-a&k%65y=of-a", &[]), refused("api_key repeated"));
    assert_eq!(judged(query, "/?KEY=of-a", &[("key", "of-a")]), refused("- missing"));
}

#[test]
fn one_of_several_is_enough() {
    let both = "ApiKey header=\"X-Key\" | ApiKey query=\"key\"";
    assert_eq!(judged(ANY, "/?key=of-b", &[]), "b");
    assert_eq!(judged(ANY, "/?key=of-b", &[("x-key", "of-a")]), "a");
    assert_eq!(judged(ANY, "/?key=of-b", &[("x-key", "wrong")]), "b");
    assert_eq!(judged(ANY, "/?key=wrong", &[]), format!("{both} (api_key unknown)"));
    assert_eq!(judged(ANY, "/", &[]), format!("{both} (- missing)"));
}

#[test]
fn all_must_speak_of_one_consumer() {
    let both = "ApiKey header=\"X-Key\" | ApiKey query=\"key\"";
    assert_eq!(judged(ALL, "/?key=of-b", &[("x-key", "too")]), "b");
    assert_eq!(judged(ALL, "/?key=of-b", &[("x-key", "of-a")]), format!("{both} (api_key conflict)"));
    assert_eq!(judged(ALL, "/", &[("x-key", "of-a")]), format!("{both} (api_key missing)"));
    assert_eq!(judged(ALL, "/?key=of-b", &[]), format!("{both} (api_key missing)"));
    assert_eq!(judged(ALL, "/?key=of-b", &[("x-key", "wrong")]), format!("{both} (api_key unknown)"));
    assert_eq!(judged(ALL, "/", &[]), format!("{both} (- missing)"));
}

#[test]
fn only_who_says_nothing_is_anonymous() {
    let policy = "{ api_key: { header: X-Key }, anonymous: guest }";
    assert_eq!(judged(policy, "/", &[]), "guest");
    assert_eq!(judged(policy, "/", &[("x-key", "of-a")]), "a");
    assert_eq!(judged(policy, "/", &[("x-key", "wrong")]), "ApiKey header=\"X-Key\" (api_key unknown)");
    let all = "{ all_of: [{ api_key: { header: X-Key } }, { api_key: { query: key } }], anonymous: guest }";
    assert_eq!(judged(all, "/", &[]), "guest");
    assert_eq!(judged(all, "/", &[("x-key", "of-a")]), "ApiKey header=\"X-Key\" | ApiKey query=\"key\" (api_key missing)");
}

#[test]
fn a_trial_refuses_nobody() {
    let policy = "{ api_key: { header: X-Key }, mode: shadow }";
    assert_eq!(judged(policy, "/", &[("x-key", "of-a")]), "a");
    assert_eq!(judged(policy, "/", &[("x-key", "wrong")]), "nobody (api_key unknown)");
    assert_eq!(judged(policy, "/", &[]), "nobody (- missing)");
}

#[test]
fn what_proved_it_goes_no_further() {
    let check = |policy: &str, target: &str, left: &str| {
        let mut head = testing::head("GET", target, &[("x-key", "of-a"), ("x-other", "1")]);
        compiled(policy).ok().unwrap().upstream_request(&mut head, &testing::facts("GET", target), &mut Memo::default()).unwrap();
        let fields: Vec<_> = head.headers.keys().map(|name| name.as_str().to_owned()).collect();
        assert_eq!(format!("{} {}", head.uri, fields.join(" ")), left, "{policy}");
    };
    check(HEADER, "/p?key=of-a", "/p?key=of-a x-other");
    check(ANY, "/p?key=of-a", "/p x-other");
    check(ANY, "/p?a=b%20c&k%65y=of-a&d", "/p?a=b%20c&d x-other");
    check("{ api_key: { header: X-Key, keep: true } }", "/", "/ x-key x-other");
    check("{ api_key: { query: key, keep: true } }", "/?key=of-a", "/?key=of-a x-key x-other");
    check("{ api_key: { header: X-Key }, mode: shadow }", "/", "/ x-key x-other");
}

#[test]
fn what_cannot_be_enforced_is_refused() {
    let check = |policy: &str, expected: &str| {
        let problems = compiled(policy).err().expect(policy);
        let told: Vec<_> = problems.iter().map(|problem| format!("{}: {}", problem.path, problem.message)).collect();
        assert_eq!(told, [format!("policies.auth{expected}")]);
    };
    check("{ any_of: [] }", ".any_of: there is no scheme in the list");
    check(
        "{ any_of: [{ api_key: { header: a } }, { api_key: { header: a } }] }",
        ".any_of[1]: this scheme is in the list already",
    );
    check("{ api_key: { header: Host } }", ".api_key.header: no API key can stand in a header field `Host`");
    check(
        "{ all_of: [{ api_key: { header: 'a b' } }] }",
        ".all_of[0].api_key.header: no API key can stand in a header field `a b`",
    );
    check("{ api_key: { query: 'a&b' } }", ".api_key.query: `a&b` is no name of a query parameter");
    check("{ api_key: { header: a }, anonymous: gust }", ".anonymous: there is no consumer `gust`");
}
