//! How much callers may do, from outside: what is limited by which key, what a client is told, and what outlives a reload.
//!
//! Rates are for an hour, so that nothing comes back while a test runs.

use std::time::{Duration, Instant};

use http::Request;
use sha2::{Digest, Sha256};

use crate::harness::{
    Connection, Gateway, Origin, Response,
    barrier::Barrier,
    eventually,
    h2::{self, ask, full, play},
    origin::ok,
};

/// A gateway that answers everything itself, with these policies of its own and these routes beside the one for everything.
fn gateway(policies: &str, routes: &str) -> Gateway {
    Gateway::start(&config(policies, routes))
}

fn config(policies: &str, routes: &str) -> String {
    let sum = |key: &str| format!("{:x}", Sha256::digest(key));
    format!(
        r#"
plans:
  big: {{ limit: 3/1h }}
  small: {{ limit: 1/1h }}
consumers:
  acme: {{ plan: big, credentials: [{{ api_key: {{ sha256: {} }} }}, {{ api_key: {{ sha256: {} }} }}] }}
  mobile: {{ plan: small, credentials: [{{ api_key: {{ sha256: {} }} }}] }}
policies: {policies}
routes:
  all: {{ to: {{ respond: {{ body: all }} }} }}
{routes}
"#,
        sum("acme"),
        sum("acme-too"),
        sum("mobile"),
    )
}

const AUTH: &str = "auth: { api_key: { header: X-Key } }";

/// How many of so many requests pass; the others are refused by a limit.
#[track_caller]
fn passed(gateway: &Gateway, requests: usize, head: &str) -> usize {
    let mut connection = gateway.connect();
    let statuses: Vec<u16> = (0..requests).map(|_| connection.ask(head).status).collect();
    assert!(statuses.iter().all(|status| matches!(status, 200 | 429)), "{statuses:?}");
    statuses.iter().filter(|status| **status == 200).count()
}

/// Refused by a limit, until about so many seconds have passed.
#[track_caller]
fn assert_limited(response: &Response, retry_after: u64) {
    assert_eq!((response.status, response.field("content-type")), (429, Some("application/problem+json")), "{response:?}");
    assert_about(response.field("retry-after"), retry_after);
}

/// So many seconds, or a few less: the clock goes on while a test runs.
#[track_caller]
fn assert_about(told: Option<&str>, seconds: u64) {
    let told: u64 = told.and_then(|told| told.parse().ok()).expect("a number of seconds");
    assert!((seconds.saturating_sub(60)..=seconds).contains(&told), "{told}, not {seconds}");
}

const GET: &str = "GET / HTTP/1.1\nHost: a";

#[test]
fn each_algorithm_admits_what_its_limit_says_and_no_more() {
    for algorithm in ["token_bucket", "sliding_window", "fixed_window"] {
        let limit = format!("{{ rate_limit: {{ one: {{ key: client_ip, limit: 3/1h, algorithm: {algorithm} }} }} }}");
        assert_eq!(passed(&gateway(&limit, ""), 5, GET), 3, "{algorithm}");
    }
    let bursting = gateway("{ rate_limit: { one: { key: client_ip, limit: 3/1h, burst: 5 } } }", "");
    assert_eq!(passed(&bursting, 8, GET), 5);
    let queue = "{ rate_limit: { one: { key: client_ip, limit: 1/1h, algorithm: leaky_bucket, max_delay: 1s } } }";
    assert_eq!(passed(&gateway(queue, ""), 3, GET), 1);
}

#[test]
fn a_leaky_bucket_holds_requests_back_to_its_rate() {
    let queue = "{ rate_limit: { one: { key: client_ip, limit: 20/1s, algorithm: leaky_bucket, max_delay: 10s } } }";
    let gateway = gateway(queue, "");
    let began = Instant::now();
    let ask = || gateway.get("/").status;
    let statuses: Vec<_> = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..9).map(|_| scope.spawn(ask)).collect();
        asking.into_iter().map(|asked| asked.join().unwrap()).collect()
    });
    assert_eq!(statuses, [200; 9]);
    assert!(began.elapsed() >= Duration::from_millis(8 * 50), "{:?}", began.elapsed());
    let delayed =
        gateway.metric(r#"banyan_limits_total{limit="one",mode="enforce",outcome="delayed",policy="rate_limit",route="all"}"#);
    assert!(delayed >= Some(1.0), "{delayed:?}");
}

#[test]
fn a_refusal_says_when_to_come_again_and_is_told_to_operators() {
    let origin = Origin::text("hi");
    let gateway = Gateway::start(&format!(
        "upstreams: {{ one: {{ endpoints: [\"{origin}\"] }} }}\nroutes: {{ all: {{ policies: {{ rate_limit: {{ per-hour: {{ key: client_ip, limit: 2/1h }} }} }}, to: {{ upstream: one }} }} }}"
    ));
    let mut connection = gateway.connect();
    for (left, again) in [("1", 1800), ("0", 3600)] {
        let response = connection.ask(GET);
        assert_eq!(response.status, 200);
        assert_eq!(response.field("ratelimit-policy"), Some(r#""per-hour";q=2;w=3600"#));
        assert_about(response.field("ratelimit").unwrap().strip_prefix(&format!(r#""per-hour";r={left};t="#)), again);
        assert!(response.field("x-ratelimit-limit").is_none() && response.field("retry-after").is_none());
    }
    let refused = connection.ask("GET /refused HTTP/1.1\nHost: a");
    assert_limited(&refused, 1800);
    assert_about(refused.field("ratelimit").unwrap().strip_prefix(r#""per-hour";r=0;t="#), 1800);
    assert_eq!(refused.json()["code"], "rate_limited");
    assert_eq!(
        connection.ask("GET /page HTTP/1.1\nHost: a\nAccept: text/html").field("content-type"),
        Some("text/html; charset=utf-8")
    );
    assert_eq!(origin.count(), 2, "a refused request reaches no service");
    let logged = gateway.logged_path("/refused");
    assert_eq!(
        (&logged["flag"], &logged["limit"], &logged["status"]),
        (&"RL".into(), &"rate_limit per-hour".into(), &429.into())
    );
    let count = |outcome: &str| {
        let labels = format!("limit=\"per-hour\",mode=\"enforce\",outcome=\"{outcome}\",policy=\"rate_limit\",route=\"all\"");
        gateway.metric(&format!("banyan_limits_total{{{labels}}}"))
    };
    assert_eq!((count("admitted"), count("refused")), (Some(2.0), Some(2.0)));
    assert_eq!(gateway.metric("banyan_requests_flagged_total{flag=\"RL\"}"), Some(2.0));
}

#[test]
fn keys_count_apart_what_they_name() {
    let requests = [
        ("{ header: X-Device }", "GET / HTTP/1.1\nHost: a\nX-Device: 1", "GET / HTTP/1.1\nHost: a\nX-Device: 2"),
        (
            "{ cookie: session }",
            "GET / HTTP/1.1\nHost: a\nCookie: x=1; session=1",
            "GET / HTTP/1.1\nHost: a\nCookie: session=2; x=1",
        ),
        ("{ query: id }", "GET /?id=1 HTTP/1.1\nHost: a", "GET /?x=1&%69d=2 HTTP/1.1\nHost: a"),
        ("route", GET, "GET /other HTTP/1.1\nHost: a"),
        ("[client_ip, { header: X-Device }]", "GET / HTTP/1.1\nHost: a\nX-Device: 1", GET),
    ];
    for (key, one, other) in requests {
        let policies = format!("{{ rate_limit: {{ one: {{ key: {key}, limit: 2/1h }} }} }}");
        let gateway = gateway(&policies, "  other: { match: { path: /other }, to: { respond: {} } }");
        assert_eq!((passed(&gateway, 4, one), passed(&gateway, 4, other)), (2, 2), "{key}");
    }
}

#[test]
fn callers_are_counted_by_consumer_credential_and_plan() {
    let by = |key: &str| gateway(&format!("{{ {AUTH}, rate_limit: {{ one: {{ key: {key}, limit: 3/1h }} }} }}"), "");
    let counts =
        |gateway: &Gateway| ["acme", "acme-too", "mobile"].map(|key| passed(gateway, 4, &format!("{GET}\nX-Key: {key}")));
    assert_eq!(counts(&by("consumer")), [3, 0, 3]);
    assert_eq!(counts(&by("credential")), [3, 3, 3]);
    assert_eq!(counts(&by("plan")), [3, 0, 3]);
}

#[test]
fn a_plan_says_how_often_its_consumers_may_ask() {
    let limits = format!("{{ {AUTH}, rate_limit: {{ per-plan: {{ key: consumer, limit: plan, headers: both }} }} }}");
    let gateway = gateway(&limits, "");
    assert_eq!(passed(&gateway, 5, &format!("{GET}\nX-Key: acme")), 3);
    let response = gateway.ask(&format!("{GET}\nX-Key: mobile"));
    assert_eq!(response.field("ratelimit-policy"), Some(r#""per-plan";q=1;w=3600"#));
    assert_eq!((response.field("x-ratelimit-limit"), response.field("x-ratelimit-remaining")), (Some("1"), Some("0")));
    assert_about(response.field("x-ratelimit-reset"), 3600);
    assert_limited(&gateway.ask(&format!("{GET}\nX-Key: mobile")), 3600);
    assert_eq!(gateway.get("/").status, 401, "who is nobody is not counted");
}

/// What is left of the limit with this name, as an answer tells it.
fn left(response: &Response, name: &str) -> Option<u64> {
    let told = response.head.all("ratelimit").join(", ");
    let (_, rest) = told.split_once(&format!("\"{name}\";r="))?;
    rest.split(';').next()?.parse().ok()
}

#[test]
fn a_refused_request_takes_nothing_of_other_limits() {
    let limits = "{ throttle: { limit: 20/1h }, rate_limit: { a: { key: client_ip, limit: 10/1h }, b: { key: { header: X-B }, limit: 1/1h } } }";
    let gateway = gateway(limits, "");
    let first = gateway.ask(&format!("{GET}\nX-B: 1"));
    assert_eq!((left(&first, "throttle"), left(&first, "a"), left(&first, "b")), (Some(19), Some(9), Some(0)));
    for _ in 0..5 {
        let refused = gateway.ask(&format!("{GET}\nX-B: 1"));
        assert_eq!(refused.status, 429);
        assert_eq!((left(&refused, "throttle"), left(&refused, "a"), left(&refused, "b")), (Some(19), Some(9), Some(0)));
    }
    let other = gateway.ask(&format!("{GET}\nX-B: 2"));
    assert_eq!((left(&other, "throttle"), left(&other, "a")), (Some(18), Some(8)));
}

#[test]
fn what_concurrency_refuses_takes_nothing_of_rates() {
    let (barrier, origin) = waiting();
    let gateway = Gateway::start(&format!(
        "upstreams: {{ one: {{ endpoints: [\"{origin}\"] }} }}\nroutes: {{ all: {{ policies: {{ rate_limit: {{ a: {{ key: client_ip, limit: 10/1h }} }}, concurrency: {{ key: client_ip, limit: 1 }} }}, to: {{ upstream: one }} }} }}"
    ));
    let mut first = gateway.connect();
    first.send_head(GET);
    eventually("the service has it", || (origin.count() == 1).then_some(()));
    let refused = gateway.get("/");
    assert_limited(&refused, 1);
    assert_eq!((refused.json()["code"].as_str(), left(&refused, "a")), (Some("too_many_at_once"), Some(9)));
    barrier.open();
    assert_eq!(left(&first.response("GET"), "a"), Some(9));
    assert_eq!(left(&gateway.get("/"), "a"), Some(8));
}

#[test]
fn a_limit_in_its_trial_refuses_nobody_and_is_told_to_operators_only() {
    let limits = "{ throttle: { limit: 1/1h, mode: shadow }, rate_limit: { one: { key: client_ip, limit: 1/1h, mode: shadow } }, concurrency: { key: client_ip, limit: 1, mode: shadow } }";
    let gateway = gateway(limits, "");
    gateway.get("/first");
    let second = gateway.get("/second");
    assert_eq!(second.status, 200);
    for field in ["ratelimit", "ratelimit-policy", "x-ratelimit-limit", "retry-after"] {
        assert!(second.field(field).is_none(), "{field}");
    }
    let logged = gateway.logged_path("/second");
    assert_eq!((&logged["flag"], &logged["limit"]), (&"-".into(), &"shadow rate_limit one".into()));
    assert!(gateway.logged_path("/first")["limit"].is_null());
    for (policy, limit) in [("rate_limit", "one"), ("throttle", "throttle")] {
        let labels = format!("limit=\"{limit}\",mode=\"shadow\",outcome=\"refused\",policy=\"{policy}\",route=\"all\"");
        assert_eq!(gateway.metric(&format!("banyan_limits_total{{{labels}}}")), Some(1.0), "{policy}");
    }
}

#[test]
fn a_reload_keeps_what_was_counted() {
    let limit = |rest: &str| format!("{{ rate_limit: {{ one: {{ key: client_ip, limit: {rest} }} }} }}");
    let mut gateway = gateway(&limit("10/1h"), "");
    assert_eq!(passed(&gateway, 4, GET), 4);
    gateway.reload(&config(&limit("10/1h"), "  more: { match: { path: /more }, to: { respond: {} } }"));
    assert_eq!(left(&gateway.get("/"), "one"), Some(5), "a reload that does not touch it");
    gateway.reload(&config(&limit("20/1h"), ""));
    assert_eq!(left(&gateway.get("/"), "one"), Some(14), "with another rate it keeps the use");
    gateway.reload(&config(&limit("6/1h, algorithm: sliding_window"), ""));
    assert_eq!(gateway.get("/").status, 429, "with another algorithm too");
    let before = gateway.generation();
    gateway.replace("banyan.yaml", "routes: [");
    let refused = || gateway.metric("banyan_config_reloads_total{result=\"failure\"}").filter(|refused| *refused > 0.0);
    eventually("the file is refused", refused);
    assert_eq!(gateway.generation(), before);
    assert_eq!(gateway.get("/").status, 429, "a configuration that is refused changes nothing");
}

#[test]
fn a_limit_of_the_gateway_is_one_for_all_its_routes() {
    let routes = "  same: { match: { path: /same }, to: { respond: {} } }\n  \
                  own: { match: { path: /own }, policies: { rate_limit: { all: { key: client_ip, limit: 2/1h } } }, to: { respond: {} } }\n  \
                  free: { match: { path: /free }, policies: { rate_limit: off }, to: { respond: {} } }";
    let gateway = gateway("{ rate_limit: { all: { key: client_ip, limit: 4/1h } } }", routes);
    let count = |path: &str| passed(&gateway, 3, &format!("GET {path} HTTP/1.1\nHost: a"));
    assert_eq!([count("/x"), count("/same"), count("/own"), count("/free")], [3, 1, 2, 3]);
}

#[test]
fn requests_over_http2_and_upgrades_are_limited_too() {
    let origin = Origin::shouting();
    let gateway = Gateway::start(&format!(
        "upstreams: {{ one: {{ endpoints: [\"{origin}\"] }} }}\nroutes:\n  all: {{ policies: {{ rate_limit: {{ a: {{ key: {{ header: X-A }}, limit: 1/1h }} }} }}, to: {{ upstream: one }} }}\n  own: {{ match: {{ path: /own }}, policies: {{ rate_limit: {{ a: {{ key: client_ip, limit: 1/1h }} }} }}, to: {{ respond: {{}} }} }}"
    ));
    let upgrade = "GET /x HTTP/1.1\nHost: a\nConnection: Upgrade\nUpgrade: websocket";
    drop(gateway.upgraded("/x"));
    assert_limited(&gateway.ask(upgrade), 3600);
    play(async {
        let mut client = h2::h2c(gateway.web()).await;
        let get = || Request::get("http://a/own").body(full("")).unwrap();
        let first = ask(&mut client, get()).await;
        assert_eq!(first.head.status.as_u16(), 200);
        assert_about(first.field("ratelimit").unwrap().strip_prefix("\"a\";r=0;t="), 3600);
        let refused = ask(&mut client, get()).await;
        assert_eq!(refused.head.status.as_u16(), 429);
        assert_about(refused.field("retry-after"), 3600);
        let call = Request::post("http://a/own").header("content-type", "application/grpc").body(full("")).unwrap();
        let call = ask(&mut client, call).await;
        assert_eq!((call.head.status.as_u16(), call.field("grpc-status"), call.head_only), (200, Some("8"), true));
    });
}

#[test]
fn a_refusal_may_be_read_by_the_pages_that_may_call() {
    let limits = "{ cors: { origins: [\"https://shop.example\"], expose: [RateLimit] }, throttle: { limit: 3/1h }, rate_limit: { a: { key: client_ip, limit: 1/1h } } }";
    let gateway = gateway(limits, "");
    let ask = || gateway.ask(&format!("{GET}\nOrigin: https://shop.example"));
    let preflight = gateway.ask("OPTIONS / HTTP/1.1\nHost: a\nOrigin: https://shop.example\nAccess-Control-Request-Method: GET");
    assert_eq!((preflight.status, left(&preflight, "throttle"), left(&preflight, "a")), (204, Some(2), None));
    assert_eq!(ask().status, 200);
    let by_rate = ask();
    gateway.get("/");
    for (refused, by) in [(by_rate, "a"), (throttled(&gateway), "throttle")] {
        assert_eq!(refused.status, 429);
        assert!(left(&refused, by) == Some(0), "{by}: {refused:?}");
        assert_eq!(refused.field("access-control-allow-origin"), Some("https://shop.example"), "{by}");
    }
}

/// The first answer of `throttle`: what other limits refuse takes nothing of it, preflights do.
fn throttled(gateway: &Gateway) -> Response {
    let preflight = "OPTIONS / HTTP/1.1\nHost: a\nOrigin: https://shop.example\nAccess-Control-Request-Method: GET";
    eventually("throttle refuses", || Some(gateway.ask(preflight)).filter(|response| response.status == 429))
}

#[test]
fn throttle_comes_before_who_calls_is_asked_and_takes_what_no_route_does() {
    let gateway = gateway(&format!("{{ throttle: {{ limit: 3/1h, headers: off }}, {AUTH} }}"), "");
    let statuses = [(); 4].map(|()| gateway.ask(&format!("{GET}\nX-Key: wrong")).status);
    assert_eq!(statuses, [401, 401, 401, 429]);
    let refused = gateway.ask("GET /right HTTP/1.1\nHost: a\nX-Key: acme");
    assert_limited(&refused, 1200);
    assert!(refused.field("ratelimit").is_none());
    let logged = gateway.logged_path("/right");
    assert_eq!(
        (&logged["limit"], &logged["flag"], &logged["consumer"]),
        (&"throttle".into(), &"RL".into(), &serde_json::Value::Null)
    );
    let nowhere =
        Gateway::start("policies: { throttle: { limit: 1/1h } }\nroutes: { a: { match: { path: /a }, to: { respond: {} } } }");
    assert_eq!([nowhere.get("/no").status, nowhere.get("/no").status, nowhere.get("/a").status], [404, 429, 429]);
}

#[test]
fn addresses_are_throttled_apart() {
    let gateway = gateway("{ throttle: { limit: 1/1h } }", "");
    let from = |last: u8| Connection::open_from([127, 0, 0, last], gateway.web()).ask(GET).status;
    assert_eq!([from(1), from(2), from(1), from(2)], [200, 200, 429, 429]);
}

#[test]
fn who_floods_is_refused_by_the_sketch() {
    let gateway = gateway("{ throttle: { limit: 1/1h } }", "");
    let mut connection = gateway.connect();
    let burst = "GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(600);
    // 2 × 1 + 256 within a second, whenever that begins. A flood is told to come again in a second, by the exact count it would be an hour.
    eventually("a flood", || {
        connection.send(&burst);
        let answers: Vec<_> = (0..600).map(|_| connection.response("GET")).collect();
        answers.iter().any(|answer| answer.status == 429 && answer.field("retry-after") == Some("1")).then_some(())
    });
}

/// A service that answers when the barrier is open.
fn waiting() -> (Barrier, Origin) {
    let barrier = Barrier::default();
    let origin = Origin::answer({
        let barrier = barrier.clone();
        move |_| {
            barrier.pass();
            ok("hi")
        }
    });
    (barrier, origin)
}

fn at_once(origin: &Origin, limit: u32) -> Gateway {
    Gateway::start(&format!(
        "upstreams: {{ one: {{ endpoints: [\"{origin}\"] }} }}\nroutes: {{ all: {{ policies: {{ concurrency: {{ key: client_ip, limit: {limit} }} }}, to: {{ upstream: one }} }}, other: {{ match: {{ path: /other }}, to: {{ respond: {{}} }} }} }}"
    ))
}

#[test]
fn so_many_are_carried_at_once_and_room_comes_back_when_one_ends() {
    let (barrier, origin) = waiting();
    let gateway = at_once(&origin, 2);
    let mut carried: Vec<_> = (0..2)
        .map(|_| {
            let mut connection = gateway.connect();
            connection.send_head(GET);
            connection
        })
        .collect();
    eventually("the service has both", || (origin.count() == 2).then_some(()));
    let refused = gateway.get("/");
    assert_limited(&refused, 1);
    assert_eq!(refused.json()["code"], "too_many_at_once");
    let mut other = Connection::open_from([127, 0, 0, 9], gateway.web());
    other.send_head(GET);
    eventually("the service has that of another client", || (origin.count() == 3).then_some(()));
    barrier.open();
    for connection in &mut carried {
        assert_eq!(connection.response("GET").status, 200);
    }
    eventually("there is room", || (gateway.get("/").status == 200).then_some(()));
}

#[test]
fn a_request_that_is_given_up_makes_room() {
    let (_barrier, origin) = waiting();
    let gateway = at_once(&origin, 1);
    let mut gone = gateway.connect();
    // Closed with an answer unread, the connection is reset. One that only ends its sending waits for its answer.
    gone.send_head("GET /other HTTP/1.1\nHost: a").send_head(GET);
    eventually("the service has it", || (origin.count() == 1).then_some(()));
    assert_eq!(gateway.get("/").status, 429);
    drop(gone);
    eventually("there is room", || {
        let mut next = gateway.connect();
        next.0.socket().set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let _ = next.send_head(GET).try_response("GET");
        (origin.count() > 1).then_some(())
    });
}

#[test]
fn a_stream_that_is_reset_makes_room() {
    let (_barrier, origin) = waiting();
    let gateway = at_once(&origin, 1);
    play(async {
        let mut client = h2::h2c(gateway.web()).await;
        let pending = client.send_request(Request::get("http://a/x").body(full("")).unwrap());
        let pending = tokio::spawn(pending);
        while origin.count() == 0 {
            tokio::task::yield_now().await;
        }
        let refused = ask(&mut client, Request::get("http://a/y").body(full("")).unwrap()).await;
        assert_eq!(refused.head.status.as_u16(), 429);
        pending.abort();
        while origin.count() < 2 {
            let request = client.send_request(Request::get("http://a/z").body(full("")).unwrap());
            let _ = tokio::time::timeout(Duration::from_millis(100), request).await;
        }
    });
}

#[test]
fn an_upgraded_connection_is_carried_until_it_ends() {
    let origin = Origin::shouting();
    let gateway = at_once(&origin, 1);
    let connection = gateway.upgraded("/x");
    assert_eq!(gateway.get("/").status, 429);
    drop(connection);
    let upgrade = "GET /x HTTP/1.1\nHost: a\nConnection: Upgrade\nUpgrade: websocket";
    eventually("there is room", || {
        let mut next = gateway.connect();
        next.send_head(upgrade);
        (next.0.head().unwrap().unwrap().status().unwrap() == 101).then_some(())
    });
}

#[test]
fn a_cost_is_what_the_request_or_the_response_says() {
    let by = |cost: &str| format!("{{ rate_limit: {{ one: {{ key: client_ip, limit: 100/1h, cost: {cost} }} }} }}");
    let fixed = gateway(&by("30"), "");
    assert_eq!(passed(&fixed, 5, GET), 3);
    let asked = gateway(&by("{ header: X-Cost }"), "");
    let left_after = |cost: &str| left(&asked.ask(&format!("{GET}\nX-Cost: {cost}")), "one");
    assert_eq!([left_after("10"), left_after("-5"), left_after("0"), left_after("60")], [Some(90), Some(89), Some(88), Some(28)]);
    let origin = Origin::answer(|_| "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Tokens: 70\r\n\r\n");
    let charged = Gateway::start(&format!(
        "upstreams: {{ one: {{ endpoints: [\"{origin}\"] }} }}\npolicies: {}\nroutes: {{ all: {{ to: {{ upstream: one }} }} }}",
        by("{ response_header: X-Tokens }")
    ));
    assert_eq!(left(&charged.get("/"), "one"), Some(30));
    assert_eq!(left(&charged.get("/"), "one"), Some(0), "what it took beyond the limit is owed");
    let refused = charged.get("/");
    let retry_after: u64 = refused.field("retry-after").unwrap().parse().unwrap();
    assert_eq!((refused.status, origin.count()), (429, 2));
    assert!((36 * 40..=36 * 41).contains(&retry_after), "until 40 that are owed and one more have come: {retry_after}");
}
