//! A service that is asked about each request, from outside.

use std::sync::{Arc, Mutex};

use crate::harness::{Gateway, Origin, Response, h2};

/// A service that answers as it is told, head and all.
struct Judge {
    origin: Origin,
    says: Arc<Mutex<String>>,
}

impl Judge {
    fn new(says: &str) -> Self {
        let says = Arc::new(Mutex::new(says.to_owned()));
        let shared = says.clone();
        let origin = Origin::answer(move |_| {
            let head = shared.lock().unwrap().clone();
            format!("HTTP/1.1 {}\r\ncontent-length: 0\r\n\r\n", head.replace('\n', "\r\n"))
        });
        Self { origin, says }
    }

    fn says(&self, head: &str) {
        head.clone_into(&mut self.says.lock().unwrap());
    }
}

fn yaml(origin: &Origin, judge: &Origin, settings: &str) -> String {
    format!(
        r#"
upstreams: {{ one: {{ endpoints: ["{origin}"] }} }}
identity:
  old:
    forward:
      url: "http://{judge}/check"
      copy: [X-User, Authorization]
      consumer: X-Consumer-Name
      {settings}
consumers:
  acme: {{ groups: [partners] }}
  guest: {{}}
policies: {{ auth: {{ forward: old }} }}
routes:
  all: {{ to: {{ upstream: one }} }}
  open: {{ match: {{ path: /open }}, policies: {{ auth: off }}, to: {{ upstream: one }} }}
  maybe: {{ match: {{ path: /maybe }}, policies: {{ auth: {{ forward: old, anonymous: guest }} }}, to: {{ upstream: one }} }}
  either: {{ match: {{ path: /either }}, policies: {{ auth: {{ any_of: [{{ api_key: {{ header: X-Key }} }}, {{ forward: old }}] }} }}, to: {{ upstream: one }} }}
  trial: {{ match: {{ path: /trial }}, policies: {{ auth: {{ forward: old, mode: shadow }} }}, to: {{ upstream: one }} }}
"#
    )
}

fn ask(gateway: &Gateway, path: &str, fields: &str) -> Response {
    gateway.ask(&format!("GET {path} HTTP/1.1\nHost: shop.example:8080{fields}"))
}

const TOKEN: &str = "\nAuthorization: Bearer opaque-credential";

#[test]
fn what_the_service_lets_pass_has_its_word_and_nobody_elses() {
    let (origin, judge) = (Origin::echo(), Judge::new("200 OK\nX-User: ada\nX-Consumer-Name: acme\nX-Other: 1"));
    let gateway = Gateway::start(&yaml(&origin, &judge.origin, ""));
    let claimed = "\nX-User: root\nX_User: root\nX-Consumer: root\nX-Forwarded-Uri: /open\nX-Forwarded-Method: GET";
    let response = gateway.ask(&format!(
        "POST /a/../b%2e?q=1 HTTP/1.1\nHost: shop.example:8080{TOKEN}\nCookie: sid=1\nX-Other: mine\nContent-Length: 2{claimed}\n\nhi"
    ));
    assert_eq!(response.status, 200);
    let (asked, seen) = (judge.origin.last(), origin.last());
    assert_eq!((asked.head.line.as_str(), asked.body.len()), ("GET /check HTTP/1.1", 0));
    for (name, value) in [
        ("authorization", "Bearer opaque-credential"),
        ("cookie", "sid=1"),
        ("x-forwarded-method", "POST"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "shop.example:8080"),
        ("x-forwarded-uri", "/b.?q=1"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-request-id", response.field("x-request-id").unwrap()),
    ] {
        assert_eq!(asked.head.all(name), [value], "{name}");
    }
    assert_eq!(
        (asked.field("x-user"), asked.field("x-other"), asked.field("host")),
        (None, None, Some(judge.origin.to_string().as_str()))
    );
    assert_eq!((seen.head.all("x-user"), seen.head.all("x-consumer")), (vec!["ada"], vec!["acme"]));
    assert_eq!((seen.field("x_user"), seen.field("authorization"), seen.field("x-other")), (None, None, Some("mine")));
    assert_eq!((seen.field("cookie"), seen.body.as_slice()), (Some("sid=1"), &b"hi"[..]));
    ask(&gateway, "/open", &format!("{TOKEN}{claimed}"));
    let open = origin.last();
    assert_eq!((open.field("x-user"), open.field("x_user")), (None, None), "its word is the gateway's on every route");
    assert!(open.field("authorization").is_some(), "a route that does not ask leaves it alone");
    let line = gateway.logged_path("/b.");
    assert_eq!((&line["consumer"], &line["auth"]), (&"acme".into(), &"forward".into()));
    for said in [gateway.stdout.text(), gateway.stderr.text()] {
        assert!(!said.contains("opaque-credential"), "{said}");
    }
}

#[test]
fn a_field_that_the_service_fills_is_its_own_on_the_route() {
    let (origin, judge) = (Origin::echo(), Judge::new("200 OK\nAuthorization: Bearer inner"));
    let gateway = Gateway::start(&yaml(&origin, &judge.origin, "keep: true"));
    ask(&gateway, "/x", TOKEN);
    assert_eq!(origin.last().head.all("authorization"), ["Bearer inner"]);
    judge.says("200 OK");
    ask(&gateway, "/x", TOKEN);
    assert_eq!(origin.last().field("authorization"), None, "what the service was to say and did not");
}

#[test]
fn what_the_service_refuses_is_refused_with_its_challenges() {
    let (origin, judge) =
        (Origin::echo(), Judge::new("401 No\nWWW-Authenticate: Basic realm=\"old\"\nSet-Cookie: s=1\nX-User: ada"));
    let gateway = Gateway::start(&yaml(&origin, &judge.origin, ""));
    let response = ask(&gateway, "/x", TOKEN);
    assert_eq!((response.status, response.head.all("www-authenticate")), (401, vec!["Basic realm=\"old\""]));
    assert_eq!((response.field("set-cookie"), response.field("x-user")), (None, None));
    assert_eq!(response.json()["code"], "unauthenticated");
    assert_eq!(gateway.logged_path("/x")["refusal"], "forward inactive");
    let either = ask(&gateway, "/either", TOKEN);
    assert_eq!(either.head.all("www-authenticate"), ["Basic realm=\"old\"", "ApiKey header=\"X-Key\""]);
    judge.says("401 No");
    assert_eq!(ask(&gateway, "/x", "").head.all("www-authenticate"), ["Forward"], "a 401 says something");
    judge.says("403 No");
    let response = ask(&gateway, "/no", TOKEN);
    assert_eq!((response.status, response.field("www-authenticate")), (403, None));
    assert_eq!(gateway.logged_path("/no")["refusal"], "forward denied");
    judge.says("200 OK\nX-Consumer-Name: nobody");
    assert_eq!(ask(&gateway, "/x", TOKEN).status, 403, "a consumer that is not there");
    assert_eq!(origin.count(), 0);
    let count = |reason: &str| {
        gateway.metric(&format!(r#"banyan_auth_total{{mode="enforce",reason="{reason}",route="all",scheme="forward"}}"#))
    };
    assert_eq!((count("inactive"), count("denied"), count("unknown")), (Some(1.0), Some(1.0), Some(1.0)));
}

#[test]
fn who_says_nothing_is_asked_about_and_may_be_anonymous() {
    let (origin, judge) = (Origin::echo(), Judge::new("401 No"));
    let gateway = Gateway::start(&yaml(&origin, &judge.origin, ""));
    assert_eq!(ask(&gateway, "/maybe", "").status, 200);
    assert_eq!(origin.last().field("x-consumer"), Some("guest"));
    assert_eq!(ask(&gateway, "/maybe", TOKEN).status, 401, "a wrong credential is refused all the same");
    judge.says("403 No");
    assert_eq!(ask(&gateway, "/maybe", "").status, 403);
    judge.says("200 OK\nX-Consumer-Name: acme");
    assert_eq!(ask(&gateway, "/maybe", "").status, 200);
    assert_eq!(origin.last().field("x-consumer"), Some("acme"), "some need no credentials");
    judge.says("500 Oh");
    assert_eq!(ask(&gateway, "/maybe", "").status, 503);
    assert_eq!(ask(&gateway, "/trial", TOKEN).status, 200);
    assert_eq!(origin.last().field("authorization"), Some("Bearer opaque-credential"), "a trial changes nothing");
    assert_eq!(gateway.logged_path("/trial")["refusal"], "shadow forward unavailable");
}

#[test]
fn without_a_clear_word_in_time_nobody_passes() {
    let (origin, judge) = (Origin::echo(), Judge::new("302 Found\nLocation: /login"));
    let gateway = Gateway::start(&yaml(&origin, &judge.origin, "cache: { ttl: 1m }"));
    for odd in ["302 Found\nLocation: /login", "404 Not Found", "500 Oh", "429 Too Many", "304 Same"] {
        judge.says(odd);
        let response = ask(&gateway, "/x", TOKEN);
        assert_eq!((response.status, response.field("www-authenticate"), response.field("location")), (503, None, None), "{odd}");
        assert_eq!(response.json()["code"], "authentication_unavailable");
    }
    gateway.said("neither lets pass nor refuses");
    let failures = gateway.metric(r#"banyan_identity_questions_total{identity="old",result="failure"}"#);
    assert_eq!(failures, Some(5.0));
    drop(judge);
    assert_eq!(ask(&gateway, "/x", TOKEN).status, 503);
    assert_eq!(origin.count(), 0);
    let silent = Origin::script(|visit| {
        visit.head()?;
        visit.wire.rest();
        Ok(())
    });
    let gateway = Gateway::start(&yaml(&origin, &silent, "timeout: 100ms"));
    assert_eq!((ask(&gateway, "/x", TOKEN).status, origin.count()), (503, 0));
}

#[test]
fn people_are_led_to_where_they_sign_in_where_that_was_asked_for() {
    let login = "302 Found\nLocation: https://login.example/?back=x\nSet-Cookie: state=1; HttpOnly\nSet-Cookie: b=2\nX-User: ada";
    let (origin, judge) = (Origin::echo(), Judge::new(login));
    let gateway =
        Gateway::start(&yaml(&origin, &judge.origin, "relay: true, cache: { ttl: 1m }".replace(", ", "\n      ").as_str()));
    for _ in 0..2 {
        let response = ask(&gateway, "/x", TOKEN);
        assert_eq!((response.status, response.field("location")), (302, Some("https://login.example/?back=x")));
        assert_eq!(response.head.all("set-cookie"), ["state=1; HttpOnly", "b=2"]);
        assert_eq!((response.field("cache-control"), response.field("x-user")), (Some("no-store"), None));
    }
    assert_eq!(judge.origin.count(), 2, "what is meant for one browser is not remembered");
    judge.says("401 No\nSet-Cookie: gone=1; Max-Age=0");
    let response = ask(&gateway, "/x", TOKEN);
    assert_eq!((response.status, response.field("set-cookie")), (401, Some("gone=1; Max-Age=0")));
    assert_eq!(
        (response.field("www-authenticate"), response.json()["code"].as_str()),
        (Some("Forward"), Some("unauthenticated"))
    );
    assert_eq!(origin.count(), 0);
}

#[test]
fn an_answer_holds_for_the_same_request_and_no_other() {
    let (origin, judge) = (Origin::echo(), Judge::new("200 OK\nX-User: ada"));
    let gateway = Gateway::start(&yaml(&origin, &judge.origin, "cache: { ttl: 1h }"));
    for _ in 0..3 {
        assert_eq!(ask(&gateway, "/x?a", TOKEN).status, 200);
        assert_eq!(origin.last().field("x-user"), Some("ada"));
    }
    assert_eq!(judge.origin.count(), 1);
    judge.says("403 No");
    assert_eq!(ask(&gateway, "/x?a", TOKEN).status, 200);
    for other in ["/y?a", "/x?b", "/x"] {
        assert_eq!(ask(&gateway, other, TOKEN).status, 403, "{other}");
    }
    let others = [
        format!("POST /x?a HTTP/1.1\nHost: shop.example:8080{TOKEN}\nContent-Length: 0"),
        format!("GET /x?a HTTP/1.1\nHost: other.example{TOKEN}"),
        "GET /x?a HTTP/1.1\nHost: shop.example:8080\nAuthorization: Bearer other".to_owned(),
        format!("GET /x?a HTTP/1.1\nHost: shop.example:8080{TOKEN}\nCookie: a=1"),
    ];
    for other in &others {
        assert_eq!(gateway.ask(other).status, 403, "{other}");
    }
    assert_eq!(gateway.metric(r#"banyan_identity_tokens_remembered{identity="old"}"#), Some(1.0));
}

#[test]
fn no_way_leads_around_the_service() {
    let (origin, judge) = (Origin::echo(), Judge::new("403 No"));
    let gateway = Gateway::start(&yaml(&origin, &judge.origin, ""));
    for head in [
        "HEAD /x HTTP/1.1\nHost: a",
        "OPTIONS /x HTTP/1.1\nHost: a",
        "OPTIONS * HTTP/1.1\nHost: a",
        "PROPFIND /x HTTP/1.1\nHost: a",
        "GET /open/../x HTTP/1.1\nHost: a",
        "GET /open/ HTTP/1.1\nHost: a",
        "GET /x HTTP/1.1\nHost: a.",
        "GET /x HTTP/1.0",
        "GET /x HTTP/1.1\nHost: a\nConnection: Upgrade\nUpgrade: websocket",
        "GET /x HTTP/1.1\nHost: a\nConnection: Authorization, Cookie",
        "GET /x HTTP/1.1\nHost: a\nX-Original-URL: /open",
    ] {
        assert_eq!(gateway.ask(head).status, 403, "{head}");
    }
    h2::play(async {
        let mut client = h2::h2c(gateway.web()).await;
        let request =
            http::Request::get("http://a/x").header("cookie", "a=1").header("cookie", "b=2").body(h2::full("")).unwrap();
        assert_eq!(h2::ask(&mut client, request).await.head.status, 403);
    });
    assert_eq!(judge.origin.last().head.all("cookie"), ["a=1; b=2"]);
    assert_eq!(origin.count(), 0);
}
