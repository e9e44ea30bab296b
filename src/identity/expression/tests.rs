use std::net::Ipv4Addr;

use http::HeaderValue;
use proptest::prelude::*;
use serde_json::json;

use super::*;

/// One request of one caller.
fn judge(text: &str) -> Result<bool, Failed> {
    let mut headers = HeaderMap::new();
    for (name, value) in [("x-tenant", "acme"), ("accept", "text/html"), ("accept", "*/*")] {
        headers.append(name, HeaderValue::from_static(value));
    }
    headers.append("x-binary", HeaderValue::from_bytes(b"\xff").unwrap());
    let claims = json!({
        "sub": "ada", "email": "ada@shop.example", "level": 3, "rate": 0.5, "admin": true, "none": null,
        "roles": ["buyer", "editor"], "org": { "id": 7, "tags": ["a"] }, "https://shop.example/plan": "gold",
        "many": vec![0; ELEMENTS_MAX + 1],
    });
    let groups = ["partners", "first-party"].map(GroupName::new);
    let scene = Scene {
        method: "GET",
        path: "/api/orders",
        host: "shop.example",
        query: Some("id=7&id=8&q=a+b%21&empty&bad=%ff"),
        headers: &headers,
        client: Ipv4Addr::LOCALHOST.into(),
        consumer: "acme",
        groups: &groups,
        claims: claims.as_object(),
    };
    Expression::compile(text).unwrap().holds(&scene)
}

fn check(text: &str, expected: bool) {
    assert_eq!(judge(text), Ok(expected), "{text}");
}

#[test]
fn expressions_speak_of_request_consumer_and_claims() {
    check(r#"request.method == "GET" && request.path.startsWith("/api/")"#, true);
    check(r#"request.method in ["POST", "PUT"]"#, false);
    check(r#"request.host == "shop.example" && request.client_ip == "127.0.0.1""#, true);
    check(r#"request.headers["x-tenant"] == consumer.name"#, true);
    check(r#"request.headers.accept == "text/html, */*""#, true);
    check(r#"has(request.headers.cookie) || !("cookie" in request.headers)"#, true);
    check(r#"request.query.q == "a b!" && request.query["empty"] == """#, true);
    check(r#""partners" in consumer.groups && size(consumer.groups) == 2"#, true);
    check(r#"consumer.groups.exists(g, g.endsWith("-party"))"#, true);
    check(r#"consumer.groups.all(g, g == "partners")"#, false);
    check(r#"claims.email.endsWith("@" + request.host)"#, true);
    check(r#"claims.level >= 3 && claims.level < 3.5 && claims.rate == 0.5"#, true);
    check(r#"claims.admin"#, true);
    check(r#"claims.none == null && !has(claims.absent)"#, true);
    check(r#"claims.org.id == 7 && claims.org.tags[0] == "a""#, true);
    check(r#"claims["https://shop.example/plan"] == "gold""#, true);
    check(r#"claims.roles.exists(r, r in ["editor", "owner"])"#, true);
    check(r#"claims.roles.filter(r, r != "buyer") == ["editor"]"#, true);
    check(r#"claims.roles.map(r, r + "s").exists_one(r, r == "buyers")"#, true);
    check(r#"(claims.level > 2 ? "high" : "low") == "high""#, true);
    check(r#"int("7") == claims.org.id && string(claims.level) == "3""#, true);
}

#[test]
fn what_has_no_answer_refuses() {
    let fails = |text: &str, why: &str| {
        let failed = judge(text).unwrap_err().to_string();
        assert!(failed.contains(why), "{text}: {failed}");
    };
    fails(r#"claims.absent == "x""#, "there is no `absent`");
    fails(r#"!(claims.absent == "x")"#, "there is no `absent`");
    fails(r#"request.headers["absent"] == """#, "there is no `absent`");
    fails(r#"claims.sub > 3"#, "do not fit");
    fails(r#"claims.sub"#, "neither true nor false");
    fails(r#"request.query.id == "7""#, "twice");
    fails(r#"request.query.exists(k, k == "q")"#, "twice");
    fails(r#"request.query.bad == "x""#, "is not text");
    fails(r#"request.headers["x-binary"] == "x""#, "is not text");
    fails(r#"claims.many.exists(n, n == 0)"#, "too long");
    fails(r#"claims.exists(name, name == "sub")"#, "too long");
    fails(r#"claims.roles[5] == "x""#, "no such element");
    fails(r#"claims.level / 0 == 1"#, "division by zero");
    fails(r#"9223372036854775807 + claims.level > 0"#, "too large");
}

/// A text that is refused when it is loaded: what is said, and of which character.
fn refused(text: &str, at: usize, what: &str) {
    let fault = Expression::compile(text).map(|_| ()).unwrap_err();
    assert!(fault.what.contains(what) && fault.at == at, "{text}: {fault}");
}

#[test]
fn names_that_there_are_not_are_found_at_load() {
    refused("user.name == 'x'", 1, "unknown variable `user`");
    refused("true && user == 'x'", 9, "unknown variable `user`");
    refused("request.body == 'x'", 8, "`request` has no `body`");
    refused("consumer.plan == 'x'", 9, "`consumer` has no `plan`");
    refused("request == 'x'", 1, "no value of its own");
    refused("request['method'] == 'x'", 1, "no value of its own");
    refused("has(request.method)", 4, "always there");
    refused("request.path.matches('^/a')", 21, "unknown function `matches`");
    refused("timestamp('x') > 3", 10, "unknown function `timestamp`");
    refused("consumer.groups.exists(g, h == 'x')", 27, "unknown variable `h`");
    refused("consumer.groups.exists(g, g == 'x') && g == 'x'", 40, "unknown variable `g`");
    refused("request.headers['X-Tenant'] == 'x'", 16, "in lower case here: `x-tenant`");
    refused("a.b{c: 1} == 'x'", 4, "no messages");
}

#[test]
fn types_that_do_not_fit_are_found_at_load() {
    refused("request.method", 8, "true or false, this is text");
    refused("size(consumer.groups)", 5, "true or false, this is a number");
    refused("request.method == 3", 16, "`==` does not take text and a number");
    refused("request.method > 3", 16, "`>` does not take");
    refused("request.method && true", 16, "`&&` does not take text");
    refused("!consumer.name", 1, "`!` does not take text");
    refused("'x' in request.path", 5, "`in` does not take text and text");
    refused("3 in consumer.groups", 3, "`in` does not take a number and a list");
    refused("request.path.startsWith(3)", 24, "`startsWith` does not take text and a number");
    refused("request.path.x == 'y'", 13, "text has no parts");
    refused("request.path.all(c, c == 'x')", 17, "text cannot be looked through");
    refused("consumer.groups.exists(g, g == 3)", 29, "`==` does not take");
    refused("request.query + request.query == {}", 15, "`+` does not take");
}

#[test]
fn what_is_no_expression_has_its_place() {
    refused("", 1, "ends too early");
    refused("request.path ==", 16, "ends too early");
    refused("true\n&& &", 9, "");
    refused("claims.?a == 'x'", 7, "unsupported syntax");
    refused(&format!("{}true{}", "(".repeat(200), ")".repeat(200)), 1, "too deep");
    refused(&format!("claims{} == 1", ".a".repeat(100)), 77, "too deep");
    refused(&"!".repeat(TEXT_MAX + 1), TEXT_MAX, "at most");
}

#[test]
fn loops_within_loops_are_bounded() {
    let nested = "consumer.groups.all(a, consumer.groups.all(b, consumer.groups.all(c, a == b || b == c)))";
    refused(nested, 20, "steps");
    let grown = "consumer.groups.map(a, consumer.groups).map(b, b.map(c, c)).exists(d, d.exists(e, e == 'x'))";
    refused(grown, 67, "steps");
    check("['a', 'b'].all(a, ['c', 'd'].all(b, ['e'].all(c, a != b && b != c)))", true);
    check("claims.roles.exists(r, consumer.groups.exists(g, g == r))", false);
}

#[test]
fn only_what_is_named_is_built() {
    let names = |text: &str| Expression::compile(text).unwrap().names;
    let bare = names("request.method == 'GET'");
    assert!(bare.method && !bare.path && bare.claims.is_empty() && bare.headers.is_empty());
    let these = |keys: &[&str]| check::Keys::These(keys.iter().map(|key| (*key).to_owned()).collect());
    let some = names("claims.a == 1 && has(claims.b) && claims['c'].d == 2 && request.headers.x == 'y'");
    assert_eq!((some.claims, some.headers), (these(&["a", "b", "c"]), these(&["x"])));
    assert_eq!(names("claims.a == 1 && 'b' in claims").claims, these(&["a", "b"]));
    assert_eq!(names("claims.a == 1 && claims.exists(c, c == 'b')").claims, check::Keys::All);
    assert_eq!(names("request.query[request.path] == 'x'").query, check::Keys::All);
}

proptest! {
    #[test]
    fn no_text_panics(text in "\\PC{0,60}") {
        let _ = Expression::compile(&text);
    }

    #[test]
    fn no_expression_panics(text in r#"(request\.(path|query|headers)|claims|consumer\.groups|[a-z]|[0-9]|'[a-z]')((\.[a-z]| == | \+ |\[0\]| in |&&|!| \? | : |\.all\(x, |\)|,|\()(request\.path|claims\.a|1|'x'|x|true)){0,6}"#) {
        if let Ok(expression) = Expression::compile(&text) {
            let headers = HeaderMap::new();
            let scene = Scene {
                method: "GET", path: "/", host: "h", query: None, headers: &headers, client: Ipv4Addr::LOCALHOST.into(),
                consumer: "", groups: &[], claims: None,
            };
            let _ = expression.holds(&scene);
        }
    }
}
