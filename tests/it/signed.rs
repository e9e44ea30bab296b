//! Signed requests (RFC 9421), from outside: a signer of our own that knows nothing of the gateway's reader.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::{
    digest::{SHA256, digest},
    hmac,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::Request;

use crate::harness::{Gateway, Origin, Response, h2};

const SECRET: [u8; 32] = [7; 32];

/// A gateway before this service, whose callers sign as `partner`.
fn gateway(origin: &Origin, signature: &str) -> Gateway {
    Gateway::start(&config(origin, signature))
}

fn config(origin: &Origin, signature: &str) -> String {
    let secret = STANDARD.encode(SECRET);
    format!(
        r#"
upstreams: {{ one: {{ endpoints: ["{origin}"] }} }}
consumers:
  partner: {{ credentials: [{{ signature: {{ key_id: p-1, algorithm: hmac-sha256, key: "{secret}" }} }}] }}
policies:
  auth: {{ signature: {signature} }}
routes:
  all: {{ to: {{ upstream: one }} }}
"#
    )
}

/// A request as its sender signs it.
#[derive(Clone)]
struct Signer {
    method: &'static str,
    host: &'static str,
    target: &'static str,
    body: Option<Vec<u8>>,
    created: u64,
    nonce: u32,
}

impl Signer {
    fn get(target: &'static str) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        Self { method: "GET", host: "a.example", target, body: None, created: now, nonce: fastrand::u32(..) }
    }

    fn post(target: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Self { method: "POST", body: Some(body.into()), ..Self::get(target) }
    }

    /// The fields that make the request a signed one.
    fn fields(&self) -> Vec<(&'static str, String)> {
        let (path, query) = self.target.split_once('?').unwrap_or((self.target, ""));
        let digested = self.body.as_ref().map(|body| format!("sha-256=:{}:", STANDARD.encode(digest(&SHA256, body))));
        let mut base =
            format!("\"@method\": {}\n\"@authority\": {}\n\"@path\": {path}\n\"@query\": ?{query}\n", self.method, self.host);
        let mut covered = r#""@method" "@authority" "@path" "@query""#.to_owned();
        if let Some(digested) = &digested {
            base.push_str(&format!("\"content-digest\": {digested}\n"));
            covered.push_str(r#" "content-digest""#);
        }
        let input = format!("({covered});created={};keyid=\"p-1\";nonce=\"{}\"", self.created, self.nonce);
        base.push_str(&format!("\"@signature-params\": {input}"));
        let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &SECRET), base.as_bytes());
        let mut fields =
            vec![("signature-input", format!("sig={input}")), ("signature", format!("sig=:{}:", STANDARD.encode(signature)))];
        fields.extend(digested.map(|digested| ("content-digest", digested)));
        fields
    }

    /// Its head, with these lines too.
    fn head(&self, more: &str) -> String {
        let fields: String = self.fields().iter().map(|(name, value)| format!("\n{name}: {value}")).collect();
        format!("{} {} HTTP/1.1\nHost: {}{fields}{more}", self.method, self.target, self.host)
    }

    /// The answer to it, its body framed by its length.
    fn send(&self, gateway: &Gateway) -> Response {
        let body = self.body.clone().unwrap_or_default();
        let length = self.body.as_ref().map(|body| format!("\nContent-Length: {}", body.len())).unwrap_or_default();
        let mut connection = gateway.connect();
        connection.send_head(&self.head(&length)).send(body).response(self.method)
    }
}

fn refused(response: &Response) {
    assert_eq!(response.status, 401, "{}", response.text());
    assert_eq!(response.field("www-authenticate"), Some("Signature covered=\"@method @authority @path @query\""));
    assert_eq!(response.json()["code"], "unauthenticated");
}

#[test]
fn a_signed_request_says_who_calls() {
    let origin = Origin::echo();
    let gateway = gateway(&origin, "{}");
    assert_eq!(Signer::get("/a/b?c=d&e=%2F").send(&gateway).status, 200);
    let request = origin.last();
    assert_eq!(request.field("x-consumer"), Some("partner"));
    assert_eq!((request.field("signature"), request.field("signature-input")), (None, None));
    assert_eq!(gateway.logged_path("/a/b")["auth"], "signature");
}

#[test]
fn a_signed_body_reaches_the_service_as_it_was_sent() {
    let origin = Origin::echo();
    let gateway = gateway(&origin, "{}");
    for body in [b"x".to_vec(), b"{\"a\": 1}".repeat(100), vec![b'y'; 64 << 10], Vec::new()] {
        let signer = Signer::post("/whole", body.clone());
        assert_eq!(signer.send(&gateway).status, 200, "{} bytes", body.len());
        assert_eq!(origin.last().body, body);
        let signer = Signer::post("/chunked", body.clone());
        let mut connection = gateway.connect();
        connection.send_head(&signer.head("\nTransfer-Encoding: chunked"));
        for chunk in body.chunks(10_000) {
            connection.send(format!("{:x}\r\n", chunk.len())).send(chunk).send("\r\n");
        }
        assert_eq!(connection.send("0\r\n\r\n").response("POST").status, 200, "{} bytes in chunks", body.len());
        assert_eq!(origin.last().body, body);
        assert_eq!(connection.ask(&Signer::get("/after").head("")).status, 200, "the connection goes on");
    }
}

#[test]
fn who_waits_for_a_word_may_send_a_signed_body() {
    let origin = Origin::echo();
    let gateway = gateway(&origin, "{}");
    let mut connection = gateway.connect();
    connection.send_head(&Signer::post("/", "body").head("\nContent-Length: 4\nExpect: 100-continue"));
    let word = connection.0.head().unwrap().unwrap();
    assert_eq!(word.status().unwrap(), 100);
    assert_eq!(connection.send("body").response("POST").status, 200);
    assert_eq!(origin.last().body, b"body");
}

#[test]
fn a_changed_body_reaches_nobody() {
    let origin = Origin::echo();
    let gateway = gateway(&origin, "{}");
    let signer = Signer::post("/", "pay 1 to me");
    let mut connection = gateway.connect();
    refused(&connection.send_head(&signer.head("\nContent-Length: 11")).send("pay 9 to me").response("POST"));
    let line = gateway.logged_path("/");
    assert_eq!(line["refusal"], "signature digest");
    let bare = Signer { method: "POST", ..Signer::get("/bare") };
    refused(&connection.send_head(&bare.head("\nContent-Length: 4")).send("body").response("POST"));
    assert_eq!(origin.connections(), 0);
}

#[test]
fn a_signed_body_that_is_too_long_to_be_held_is_told() {
    let origin = Origin::echo();
    let gateway = gateway(&origin, "{}");
    let long = vec![b'z'; (64 << 10) + 1];
    let response = Signer::post("/declared", long.clone()).send(&gateway);
    assert_eq!((response.status, &response.json()["code"]), (413, &"body_too_large".into()));
    let mut connection = gateway.connect();
    connection.send_head(&Signer::post("/chunked", long.clone()).head("\nTransfer-Encoding: chunked"));
    let response = connection.send(format!("{:x}\r\n", long.len())).send(&long).send("\r\n0\r\n\r\n").response("POST");
    assert_eq!(response.status, 413);
    assert_eq!(origin.connections(), 0);
    let unsigned = format!("POST / HTTP/1.1\nHost: a.example\nContent-Length: {}", long.len());
    refused(&gateway.connect().send_head(&unsigned).send(&long).response("POST"));
}

#[test]
fn a_body_of_nobody_known_is_not_waited_for() {
    let origin = Origin::echo();
    let gateway = gateway(&origin, "{}");
    let wrong = Signer::post("/", "body").head("\nContent-Length: 4").replace("keyid=\"p-1\"", "keyid=\"p-2\"");
    refused(&gateway.connect().ask(&wrong));
}

#[test]
fn a_signature_is_good_once() {
    let origin = Origin::echo();
    let mut gateway = gateway(&origin, "{}");
    let signer = Signer::post("/pay", "1");
    assert_eq!(signer.send(&gateway).status, 200);
    refused(&signer.send(&gateway));
    gateway.reload(&config(&origin, "{ leeway: 1m }"));
    refused(&signer.send(&gateway));
    assert_eq!(gateway.logged(|entry| entry["status"] == 401)["refusal"], "signature replayed");
    assert_eq!(origin.count(), 1);
}

#[test]
fn there_is_no_way_around_a_signature() {
    let origin = Origin::shouting();
    let gateway = gateway(&origin, "{}");
    let cases = [
        ("HEAD", "GET", "HEAD"),
        ("OPTIONS", "GET", "OPTIONS"),
        ("an odd method", "GET", "get"),
        ("another path", "/a?", "/b?"),
        ("an encoded path", "/a?", "/%61?"),
        ("a longer path", "/a?", "/./a?"),
        ("another query", "b=c", "b=c&d"),
        ("no query", "?b=c", ""),
        ("another host", "a.example", "b.example"),
        ("another port", "a.example", "a.example:8443"),
        ("another time", "created=1", "created=2"),
    ];
    for (what, from, to) in cases {
        let response = gateway.connect().ask(&Signer::get("/a?b=c").head("").replacen(from, to, 1));
        assert_eq!(response.status, 401, "{what}");
    }
    let upgrade = "GET /a HTTP/1.1\nHost: a.example\nConnection: Upgrade\nUpgrade: websocket";
    assert_eq!(gateway.connect().ask(upgrade).status, 401);
    assert_eq!(origin.connections(), 0);
}

#[test]
fn a_signature_is_good_in_its_time() {
    let origin = Origin::echo();
    let gateway = gateway(&origin, "{ max_age: 60s, leeway: 10s }");
    let at = |offset: i64| {
        let signer = Signer::get("/");
        Signer { created: signer.created.checked_add_signed(offset).unwrap(), ..signer }.send(&gateway).status
    };
    assert_eq!([at(-65), at(0), at(5)], [200; 3]);
    assert_eq!([at(-90), at(60)], [401; 2]);
}

#[test]
fn signatures_pass_over_http2() {
    let origin = Origin::echo();
    let gateway = gateway(&origin, "{}");
    let statuses = h2::play(async {
        let mut sender = h2::h2c(gateway.web()).await;
        let mut statuses = Vec::new();
        for body in ["body", "BODY"] {
            let signer = Signer::post("/", "body");
            let mut request = Request::post("http://a.example/");
            for (name, value) in signer.fields() {
                request = request.header(name, value);
            }
            statuses.push(h2::ask(&mut sender, request.body(h2::full(body)).unwrap()).await.head.status.as_u16());
        }
        statuses
    });
    assert_eq!(statuses, [200, 401]);
    assert_eq!(origin.last().body, b"body");
}
