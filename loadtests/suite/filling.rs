//! The configurations of the contestants: those of `loadtests/peers`, with what the scenario wants in the places of the names in angle brackets.

use std::{fmt::Write as _, fs, net::SocketAddr, path::Path};

use sha2::{Digest, Sha256};

use super::party::{Contestant, Kind, Limit, Setup, api_key};

const BANYAN: &str = include_str!("../peers/banyan.yaml");
const NGINX: &str = include_str!("../peers/nginx.conf");
const HAPROXY: &str = include_str!("../peers/haproxy.cfg");

/// Banyan's part about tokens.
const CALLERS: &str = r#"identity:
  idp:
    jwt:
      issuer: https://idp.example/
      audience: [api]
      algorithms: [RS256]
      keys: { file: issuer.pem }
      forward: { sub: X-User-Id }
policies: { auth: { jwt: idp } }"#;

/// The same about tokens of which the issuer is asked.
const ASKED: &str = r#"identity:
  idp:
    introspection:
      url: "http://<origin>/introspect"
      client_id: banyan
      client_secret: a-secret-of-the-load-tests
      cache: 5m
policies: { auth: { introspection: idp } }"#;

/// The field that names a caller where limits are measured.
pub const CALLER: &str = "X-Caller";

/// nginx's limit: a leaky bucket.
const NGINX_AMPLE: &str = "    limit_req_zone $http_x_caller zone=callers:32m rate=1000000r/s;
    limit_req zone=callers burst=1000000 nodelay;
    limit_req_status 429;";
const NGINX_SPENT: &str = "    limit_req_zone $http_x_caller zone=callers:32m rate=1r/m;
    limit_req zone=callers;
    limit_req_status 429;";

/// HAProxy's: the same rules.
const TOKENS: &str = r#"    http-request set-var(txn.bearer) http_auth_bearer
    http-request set-var(txn.alg) var(txn.bearer),jwt_header_query('$.alg')
    http-request deny deny_status 401 unless { var(txn.alg) -m str RS256 }
    http-request deny deny_status 401 unless { var(txn.bearer),jwt_verify(txn.alg,"<dir>/issuer.pem") -m int 1 }
    http-request deny deny_status 401 unless { var(txn.bearer),jwt_payload_query('$.iss') -m str https://idp.example/ }
    http-request deny deny_status 401 unless { var(txn.bearer),jwt_payload_query('$.aud') -m str api }
    http-request set-var(txn.now) date()
    http-request set-var(txn.exp) var(txn.bearer),jwt_payload_query('$.exp','int'),sub(txn.now)
    http-request deny deny_status 401 if { var(txn.exp) -m int lt 0 }
    http-request set-header X-User-Id %[var(txn.bearer),jwt_payload_query('$.sub')]
    http-request del-header Authorization"#;

/// What stands in the places of the names in angle brackets.
pub struct Filling<'a> {
    pub who: &'a Contestant,
    pub setup: &'a Setup,
    pub origins: &'a [SocketAddr],
    pub plain: SocketAddr,
    pub tls: SocketAddr,
    pub admin: SocketAddr,
    pub store: SocketAddr,
    pub folder: &'a Path,
}

impl Filling<'_> {
    /// The configuration of the contestant; empty if it has none.
    pub fn config(&self) -> String {
        let (template, own) = match self.who.kind {
            Kind::Banyan | Kind::Open => (BANYAN, self.banyan()),
            Kind::Nginx { is_logging } => (NGINX, self.nginx(is_logging)),
            Kind::Haproxy => (HAPROXY, self.haproxy()),
            Kind::Floor | Kind::Direct => return String::new(),
        };
        let common = [
            ("plain", self.plain.port().to_string()),
            ("tls", self.tls.port().to_string()),
            ("admin", self.admin.port().to_string()),
            ("threads", self.who.threads.to_string()),
            ("dir", self.folder.display().to_string()),
        ];
        let fill = |text: String, (name, value): &(&str, String)| text.replace(&format!("<{name}>"), value);
        let text = own.iter().fold(template.to_owned(), fill);
        common.iter().fold(text, fill)
    }

    fn lines(&self, line: impl Fn(usize) -> String) -> String {
        (0..self.setup.routes).map(line).collect::<Vec<_>>().join("\n")
    }

    fn banyan(&self) -> Vec<(&'static str, String)> {
        let endpoints: Vec<String> = self.origins.iter().map(|origin| format!("\"{origin}\"")).collect();
        let health = ", health: { tcp: { interval: 1s, timeout: 500ms, healthy_after: 1 } }";
        let routes = match self.setup.routes {
            0 => "  all: { to: { upstream: origin } }".to_owned(),
            _ => self.lines(|n| format!("  r{n}: {{ match: {{ path: \"/r{n}/**\" }}, to: {{ upstream: origin }} }}")),
        };
        let callers = match (&self.setup.issuer, self.setup.is_introspecting) {
            (Some(_), _) => CALLERS,
            (None, true) => ASKED,
            (None, false) => "",
        };
        vec![
            ("endpoints", endpoints.join(", ")),
            ("callers", format!("{callers}{}", self.limit())),
            ("origin", self.origins.first().map(SocketAddr::to_string).unwrap_or_default()),
            ("health", if self.setup.is_watching { health } else { "" }.to_owned()),
            ("routes", routes),
            ("consumers", self.consumers()),
        ]
    }

    fn limit(&self) -> String {
        let limit = |more: &str| format!("policies: {{ rate_limit: {{ hop: {{ key: {{ header: {CALLER} }}, {more} }} }} }}");
        let store = format!("\nstores: {{ fleet: {{ redis: {{ url: \"redis://{}\" }} }} }}", self.store);
        match self.setup.limit {
            Limit::None => String::new(),
            Limit::Ample => limit("limit: 1000000/1s"),
            Limit::Leased => limit("limit: 1000000/1s, store: fleet, sync: leased") + &store,
            Limit::Exact => limit("limit: 1000000/1s, store: fleet, sync: exact") + &store,
            Limit::Spent => limit("limit: 1/1h"),
        }
    }

    fn consumers(&self) -> String {
        if self.setup.consumers == 0 {
            return String::new();
        }
        let mut text = "policies: { auth: { api_key: { header: X-Api-Key } } }\nconsumers:\n".to_owned();
        for number in 0..self.setup.consumers {
            let digest = Sha256::digest(api_key(number));
            let _ = writeln!(
                text,
                "  c{number}: {{ groups: [g{}], credentials: [{{ api_key: {{ sha256: \"{digest:x}\" }} }}] }}",
                number % 10
            );
        }
        text
    }

    fn nginx(&self, is_logging: bool) -> Vec<(&'static str, String)> {
        let watch = if self.setup.is_watching { " max_fails=1 fail_timeout=1s" } else { " max_fails=0" };
        let servers = self.origins.iter().map(|origin| format!("        server {origin}{watch};")).collect::<Vec<_>>().join("\n");
        let log = if is_logging { "<dir>/access.log json buffer=64k flush=1s" } else { "off" };
        let routes = match self.setup.routes {
            0 => "        location / { proxy_pass http://origin; }".to_owned(),
            _ => {
                let routes = self.lines(|n| format!("        location /r{n}/ {{ proxy_pass http://origin; }}"));
                format!("{routes}\n        location / {{ return 404; }}")
            }
        };
        let limits = match self.setup.limit {
            Limit::None => "",
            Limit::Spent => NGINX_SPENT,
            Limit::Ample | Limit::Leased | Limit::Exact => NGINX_AMPLE,
        };
        vec![("servers", servers), ("access_log", log.to_owned()), ("limits", limits.to_owned()), ("routes", routes)]
    }

    fn haproxy(&self) -> Vec<(&'static str, String)> {
        let watch = if self.setup.is_watching { " check inter 1s fall 2 rise 1" } else { "" };
        let mut servers = String::new();
        for (number, origin) in self.origins.iter().enumerate() {
            let _ = writeln!(servers, "    server s{number} {origin} pool-max-conn 128{watch}");
        }
        let mut routes = String::new();
        if self.setup.routes > 0 {
            let map = self.folder.join("routes.map");
            let _ = fs::write(&map, self.lines(|n| format!("/r{n}/ origin")));
            let map = map.display();
            let _ = write!(
                routes,
                "    http-request return status 404 unless {{ path,map_beg({map}) -m found }}\n    use_backend %[path,map_beg({map})]"
            );
        }
        if self.setup.consumers > 0 {
            let map = self.folder.join("keys.map");
            let keys = (0..self.setup.consumers).map(|number| format!("{:X} c{number}", Sha256::digest(api_key(number))));
            let _ = fs::write(&map, keys.collect::<Vec<_>>().join("\n"));
            let found = format!("req.hdr(X-Api-Key),sha2(256),hex,map_str({})", map.display());
            let _ = write!(
                routes,
                "    http-request return status 401 unless {{ {found} -m found }}\n    http-request set-header X-Consumer %[{found}]\n    http-request del-header X-Api-Key"
            );
        }
        let tokens = if self.setup.issuer.is_some() { TOKENS } else { "" }.to_owned();
        let most = if self.setup.limit == Limit::Spent { 1 } else { 1_000_000 };
        if self.setup.limit != Limit::None {
            let _ = write!(
                routes,
                "    stick-table type string len 32 size 1m expire 1h store http_req_rate(1h)\n    http-request track-sc0 req.hdr({CALLER})\n    http-request deny deny_status 429 if {{ sc_http_req_rate(0) gt {most} }}"
            );
        }
        vec![("servers", servers), ("tokens", tokens), ("routes", routes)]
    }
}
