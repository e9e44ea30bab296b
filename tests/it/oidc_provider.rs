//! Tokens of a real identity provider: the certified `oidc-provider`, which `.ci/setup tests` installs.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Stdio},
};

use serde_json::Value;

use crate::harness::{Connection, Gateway, Origin, Response, tool::tool};

/// The provider's process. It ends when dropped.
struct Provider {
    child: Child,
    issuer: String,
}

impl Provider {
    /// `None`: it is not installed, and the test is left out.
    fn start() -> Option<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let modules: PathBuf = root.join("target/tools/oidc-provider");
        if !modules.join("node_modules/oidc-provider").is_dir() {
            assert!(std::env::var_os("CI").is_none(), "no oidc-provider: run .ci/setup tests");
            eprintln!("left out: no oidc-provider in {} (.ci/setup tests installs it)", modules.display());
            return None;
        }
        let mut node = tool("node")?;
        let node = node.arg(root.join("tests/suites/oidc-provider/provider.mjs")).env("MODULES", &modules);
        let mut child = node.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let issuer = lines.find_map(|line| line.ok().filter(|line| line.starts_with("http://"))).expect("it says its issuer");
        Some(Self { child, issuer })
    }

    fn address(&self) -> SocketAddr {
        self.issuer.strip_prefix("http://").unwrap().parse().unwrap()
    }

    fn post(&self, path: &str, form: &str) -> Response {
        let mut connection = Connection::open(self.address());
        // service:service-secret
        let fields = "Authorization: Basic c2VydmljZTpzZXJ2aWNlLXNlY3JldA==\nContent-Type: application/x-www-form-urlencoded";
        connection.send_head(&format!(
            "POST {path} HTTP/1.1\nHost: {}\n{fields}\nContent-Length: {}",
            self.address(),
            form.len()
        ));
        connection.send(form);
        connection.response("POST")
    }

    /// An access token: a JWT if there is a `resource`, else one that says nothing.
    fn token(&self, more: &str) -> String {
        let answer = self.post("/token", &format!("grant_type=client_credentials{more}"));
        assert_eq!(answer.status, 200, "{}", answer.text());
        match &answer.json()["access_token"] {
            Value::String(token) => token.clone(),
            other => panic!("{other}"),
        }
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn gateway(provider: &Provider, origin: &Origin) -> Gateway {
    let issuer = &provider.issuer;
    Gateway::start(&format!(
        r#"
upstreams: {{ one: {{ endpoints: ["{origin}"] }} }}
identity:
  signed:
    jwt:
      issuer: "{issuer}"
      audience: ["urn:api"]
      algorithms: [RS256]
      typ: at+jwt
      keys: {{ discovery: "{issuer}/.well-known/openid-configuration" }}
      forward: {{ client_id: X-Client, scope: X-Scope }}
  opaque:
    introspection:
      url: "{issuer}/token/introspection"
      client_id: gateway
      client_secret: "gateway secret+%"
      issuer: "{issuer}"
      cache: 0s
      forward: {{ client_id: X-Client }}
routes:
  signed: {{ match: {{ path: /signed }}, policies: {{ auth: {{ jwt: signed }} }}, to: {{ upstream: one }} }}
  opaque: {{ match: {{ path: /opaque }}, policies: {{ auth: {{ introspection: opaque }} }}, to: {{ upstream: one }} }}
  either:
    match: {{ path: /either }}
    policies: {{ auth: {{ any_of: [{{ jwt: signed }}, {{ introspection: opaque }}] }} }}
    to: {{ upstream: one }}
"#
    ))
}

#[test]
fn tokens_of_a_real_provider_are_judged_as_it_means_them() {
    let Some(provider) = Provider::start() else { return };
    let origin = Origin::echo();
    let gateway = gateway(&provider, &origin);
    let status =
        |path: &str, token: &str| gateway.ask(&format!("GET {path} HTTP/1.1\nHost: a\nAuthorization: Bearer {token}")).status;
    let good = provider.token("&resource=urn:api&scope=orders");
    let other = provider.token("&resource=urn:other&scope=orders");
    let opaque = provider.token("");
    for path in ["/signed", "/either", "/signed"] {
        assert_eq!(status(path, &good), 200, "{path}");
        assert_eq!(origin.last().field("x-client"), Some("service"));
        assert_eq!(origin.last().field("x-scope"), Some("orders"));
    }
    for path in ["/opaque", "/either"] {
        assert_eq!(status(path, &opaque), 200, "{path}");
        assert_eq!((origin.last().field("x-client"), origin.last().field("authorization")), (Some("service"), None));
    }
    assert_eq!((status("/signed", &other), status("/signed", &opaque), status("/opaque", "junk")), (401, 401, 401));
    assert_eq!(provider.post("/token/revocation", &format!("token={opaque}")).status, 200);
    assert_eq!((status("/opaque", &opaque), status("/either", &opaque)), (401, 401), "revoked");
    let count = origin.count();
    assert_eq!(gateway.get("/either").head.all("www-authenticate"), ["Bearer"], "two schemes that ask for the same ask once");
    assert_eq!(origin.count(), count);
}
