//! `cors`: which pages of other origins may call, by the CORS protocol of the Fetch standard (§3.2).
//!
//! Edge ring. Inward: the origin is judged, and a preflight is answered here. Outward, on every answer: what the service says
//! about CORS is replaced by what the policy says, so there is one place to look.

use http::{
    HeaderMap, HeaderName, HeaderValue, Method,
    header::{
        ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
        ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
        ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
    },
};
use pingora_http::ResponseHeader;

use super::Policy;
use crate::{
    config::{
        policy::Cors as Config,
        problem::{Path, Problem},
    },
    exchange::{Facts, Inbound, Stop},
};

/// Every header by which a response speaks about CORS.
const SPOKEN: [HeaderName; 6] = [
    ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_ALLOW_CREDENTIALS,
    ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_HEADERS,
    ACCESS_CONTROL_EXPOSE_HEADERS,
    ACCESS_CONTROL_MAX_AGE,
];

/// What a preflight's answer depends on (Fetch §3.2.5; RFC 9110 §12.5.5).
const PREFLIGHT_VARY: HeaderValue =
    HeaderValue::from_static("Origin, Access-Control-Request-Method, Access-Control-Request-Headers");

const VARY_ORIGIN: HeaderValue = HeaderValue::from_static("Origin");
const ANY: HeaderValue = HeaderValue::from_static("*");

/// Who may call, and what a browser is told, ready to send.
#[derive(Debug)]
pub struct Cors {
    origins: Origins,
    /// Absent: the method that the preflight asks for.
    methods: Option<HeaderValue>,
    /// Absent: the headers that the preflight asks for.
    headers: Option<HeaderValue>,
    expose: Option<HeaderValue>,
    credentials: bool,
    max_age: Option<HeaderValue>,
}

#[derive(Debug)]
enum Origins {
    Any,
    Listed(Vec<Pattern>),
}

/// `https://shop.example`, or `https://*.shop.example` cut at the star.
#[derive(Debug)]
enum Pattern {
    Exact(String),
    Subdomains { scheme: String, suffix: String },
}

/// What was found out about one request.
#[derive(Default)]
pub struct Memo {
    /// The origin, if it may call, as the answer names it.
    allowed: Option<HeaderValue>,
    preflight: Option<Asked>,
}

/// What a preflight asks for.
struct Asked {
    method: HeaderValue,
    headers: Option<HeaderValue>,
}

impl Cors {
    /// # Errors
    /// Origins, methods or headers that are none; `*` together with credentials, which browsers refuse.
    pub fn compile(config: &Config, path: &Path) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let origins = origins(config, path, &mut problems);
        let methods = list(&config.methods, &path.key("methods"), "a method such as `GET`", &mut problems, |method| {
            Method::from_bytes(method.as_bytes()).is_ok()
        });
        let is_field = |name: &str| HeaderName::from_bytes(name.as_bytes()).is_ok();
        let headers = config.headers.as_deref().unwrap_or(&[]);
        let headers = list(headers, &path.key("headers"), "a header name", &mut problems, is_field);
        let expose = list(&config.expose, &path.key("expose"), "a header name", &mut problems, is_field);
        if config.max_age.is_some_and(|age| !age.is_zero() && age.as_std().as_secs() == 0) {
            problems.push(
                Problem::error(path.key("max_age"), "less than a second, and browsers count in whole seconds")
                    .help("write at least `1s`, or `0s` for none"),
            );
        }
        if config.credentials {
            refuse_star_with_credentials(config, path, &mut problems);
        }
        let named = |value: HeaderValue| (value != ANY && !value.is_empty()).then_some(value);
        let cors = Self {
            origins,
            methods: named(methods),
            headers: named(headers),
            expose: Some(expose).filter(|value| !value.is_empty()),
            credentials: config.credentials,
            max_age: config.max_age.map(|age| HeaderValue::from(age.as_std().as_secs())),
        };
        if problems.is_empty() { Ok(cors) } else { Err(problems) }
    }

    /// The value of Access-Control-Allow-Origin for a page of this origin, if it may call.
    fn allow(&self, origin: &HeaderValue) -> Option<HeaderValue> {
        match &self.origins {
            Origins::Any => Some(ANY),
            Origins::Listed(patterns) => {
                let text = origin.to_str().ok()?;
                patterns.iter().any(|pattern| pattern.matches(text)).then(|| origin.clone())
            }
        }
    }

    fn tell(&self, head: &mut ResponseHeader, allowed: &HeaderValue, preflight: Option<&Asked>) -> Result<(), Stop> {
        let mut put = |name, value: &HeaderValue| head.insert_header(name, value.clone());
        let told = (|| {
            put(ACCESS_CONTROL_ALLOW_ORIGIN, allowed)?;
            if self.credentials {
                put(ACCESS_CONTROL_ALLOW_CREDENTIALS, &HeaderValue::from_static("true"))?;
            }
            // On a preflight's answer too: browsers do not read it there, but the Gateway API's conformance asks for it.
            self.expose.iter().try_for_each(|expose| put(ACCESS_CONTROL_EXPOSE_HEADERS, expose))?;
            let Some(asked) = preflight else { return Ok(()) };
            put(ACCESS_CONTROL_ALLOW_METHODS, self.methods.as_ref().unwrap_or(&asked.method))?;
            if let Some(headers) = self.headers.as_ref().or(asked.headers.as_ref()) {
                put(ACCESS_CONTROL_ALLOW_HEADERS, headers)?;
            }
            self.max_age.iter().try_for_each(|age| put(ACCESS_CONTROL_MAX_AGE, age))
        })();
        told.map_err(|fault| Stop::Fault(anyhow::anyhow!("cors header: {fault}")))
    }
}

impl Policy for Cors {
    type Memo = Memo;

    fn look(&self, inbound: &Inbound<'_>, memo: &mut Memo) {
        let headers = &inbound.head.headers;
        let Some(origin) = headers.get(ORIGIN) else { return };
        memo.allowed = self.allow(origin);
        memo.preflight = asked(&inbound.facts.method, headers);
    }

    async fn request(&self, _: &mut Inbound<'_>, memo: &mut Memo) -> Result<(), Stop> {
        if memo.preflight.is_some() { Err(Stop::Preflight) } else { Ok(()) }
    }

    fn response(&self, head: &mut ResponseHeader, _: &Facts, memo: &mut Memo) -> Result<(), Stop> {
        for name in &SPOKEN {
            head.remove_header(name);
        }
        if memo.preflight.is_some() {
            vary(head, PREFLIGHT_VARY)?;
        } else if matches!(self.origins, Origins::Listed(_)) {
            vary(head, VARY_ORIGIN)?;
        }
        match &memo.allowed {
            Some(allowed) => self.tell(head, allowed, memo.preflight.as_ref()),
            None => Ok(()),
        }
    }
}

impl Pattern {
    fn parse(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        let (scheme, authority) = text.split_once("://")?;
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
        let (star, name) = authority.strip_prefix("*.").map_or((false, authority), |rest| (true, rest));
        if scheme.is_empty()
            || name.is_empty()
            || !name.chars().all(plain)
            || !scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
        {
            return None;
        }
        Some(match star {
            true => Self::Subdomains { scheme: format!("{scheme}://"), suffix: format!(".{name}") },
            false => Self::Exact(text),
        })
    }

    /// Browsers send origins in lower case (the serialisation of an origin, HTML standard).
    fn matches(&self, origin: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == origin,
            Self::Subdomains { scheme, suffix } => {
                origin.strip_prefix(scheme.as_str()).and_then(|host| host.strip_suffix(suffix.as_str())).is_some_and(|label| {
                    !label.is_empty() && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '.')
                })
            }
        }
    }
}

/// A preflight is an OPTIONS request with Origin and Access-Control-Request-Method (Fetch §3.2.2).
fn asked(method: &Method, headers: &HeaderMap) -> Option<Asked> {
    if *method != Method::OPTIONS {
        return None;
    }
    let method = headers.get(ACCESS_CONTROL_REQUEST_METHOD)?.clone();
    Some(Asked { method, headers: headers.get(ACCESS_CONTROL_REQUEST_HEADERS).cloned() })
}

/// Adds to Vary what is not in it yet.
fn vary(head: &mut ResponseHeader, what: HeaderValue) -> Result<(), Stop> {
    let has = |value: &HeaderValue| {
        value
            .to_str()
            .is_ok_and(|list| list.split(',').any(|item| item.trim() == "*" || item.trim().eq_ignore_ascii_case("origin")))
    };
    if what == VARY_ORIGIN && head.headers.get_all(VARY).iter().any(has) {
        return Ok(());
    }
    head.append_header(VARY, what).map(drop).map_err(|fault| Stop::Fault(anyhow::anyhow!("vary header: {fault}")))
}

fn origins(config: &Config, path: &Path, problems: &mut Vec<Problem>) -> Origins {
    let path = path.key("origins");
    if config.origins.is_empty() {
        problems.push(Problem::error(path, "no origin may call").help("list the origins, or switch the policy `off`"));
        return Origins::Listed(Vec::new());
    }
    if config.origins.iter().any(|origin| origin == "*") {
        return Origins::Any;
    }
    let mut listed = Vec::new();
    for (at, origin) in config.origins.iter().enumerate() {
        match Pattern::parse(origin) {
            Some(pattern) => listed.push(pattern),
            None => problems.push(Problem::error(path.index(at), format!("`{origin}` is not an origin")).help(
                "expected scheme, host and maybe port, without a path: `https://shop.example`, `https://*.shop.example`, or `*`",
            )),
        }
    }
    Origins::Listed(listed)
}

fn list(
    items: &[String],
    path: &Path,
    expected: &str,
    problems: &mut Vec<Problem>,
    is_one: impl Fn(&str) -> bool,
) -> HeaderValue {
    for (at, item) in items.iter().enumerate().filter(|(_, item)| *item != "*" && !is_one(item)) {
        problems.push(Problem::error(path.index(at), format!("expected {expected}, found `{item}`")));
    }
    let joined = if items.iter().any(|item| item == "*") { "*".to_owned() } else { items.join(", ") };
    HeaderValue::from_str(&joined).unwrap_or(ANY)
}

/// With credentials a browser takes `*` literally (Fetch §3.2.5), so it would allow nothing that was meant.
fn refuse_star_with_credentials(config: &Config, path: &Path, problems: &mut Vec<Problem>) {
    let lists = [
        ("origins", config.origins.as_slice()),
        ("methods", config.methods.as_slice()),
        ("headers", config.headers.as_deref().unwrap_or(&[])),
        ("expose", config.expose.as_slice()),
    ];
    for (key, _) in lists.iter().filter(|(_, items)| items.iter().any(|item| item == "*")) {
        problems.push(
            Problem::error(path.key(key), "`*` cannot stand beside `credentials: true`")
                .help("browsers refuse it; list what is allowed"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{caller::Caller, exchange::testing};

    fn cors(yaml: &str) -> Result<Cors, String> {
        let config: Config = serde_yaml::from_str(yaml).unwrap();
        Cors::compile(&config, &Path::root().key("cors"))
            .map_err(|problems| problems.iter().map(|p| format!("{}: {}", p.path, p.message)).collect::<Vec<_>>().join("; "))
    }

    /// The CORS headers and Vary of the answer to a request, or of a preflight's.
    fn check(yaml: &str, method: &str, request: &[(&'static str, &str)], expected: &str) {
        let cors = cors(yaml).unwrap();
        let mut head = testing::head(method, "/", request);
        let facts = testing::facts(method, "/");
        let mut memo = Memo::default();
        let mut inbound = Inbound { head: &mut head, facts: &facts, tls: None, caller: &mut Caller::default() };
        cors.look(&inbound, &mut memo);
        let stopped = testing::now(cors.request(&mut inbound, &mut memo));
        let mut answer = ResponseHeader::build(200, None).unwrap();
        answer.insert_header("access-control-allow-origin", "https://of-the-service.example").unwrap();
        answer.insert_header("vary", "accept").unwrap();
        cors.response(&mut answer, &facts, &mut memo).unwrap();
        let mut lines: Vec<String> =
            answer.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        lines.sort();
        let flow = if stopped.is_err() { "preflight" } else { "passes" };
        assert_eq!(format!("{flow} | {}", lines.join(" | ")), expected);
    }

    const SHOP: &str = "{ origins: ['https://shop.example', 'https://*.shop.example'], methods: [GET, PUT], credentials: true, max_age: 10m, expose: [x-total] }";

    #[test]
    fn a_listed_origin_is_named_and_the_services_word_is_replaced() {
        check(
            SHOP,
            "GET",
            &[("origin", "https://shop.example")],
            "passes | access-control-allow-credentials: true | access-control-allow-origin: https://shop.example | access-control-expose-headers: x-total | vary: Origin | vary: accept",
        );
    }

    #[test]
    fn an_unlisted_origin_is_told_nothing_but_caches_are_told_to_vary() {
        for origin in [
            "https://evil.example",
            "https://shop.example.evil.example",
            "https://evilshop.example",
            "http://shop.example",
            "null",
            "https://a/.shop.example",
        ] {
            check(SHOP, "GET", &[("origin", origin)], "passes | vary: Origin | vary: accept");
        }
        check(SHOP, "GET", &[], "passes | vary: Origin | vary: accept");
    }

    #[test]
    fn a_preflight_is_answered_here() {
        check(
            SHOP,
            "OPTIONS",
            &[
                ("origin", "https://a.shop.example"),
                ("access-control-request-method", "PUT"),
                ("access-control-request-headers", "x-a"),
            ],
            "preflight | access-control-allow-credentials: true | access-control-allow-headers: x-a | access-control-allow-methods: GET, PUT | access-control-allow-origin: https://a.shop.example | access-control-expose-headers: x-total | access-control-max-age: 600 | vary: Origin, Access-Control-Request-Method, Access-Control-Request-Headers | vary: accept",
        );
    }

    #[test]
    fn a_plain_options_request_passes() {
        check(SHOP, "OPTIONS", &[], "passes | vary: Origin | vary: accept");
    }

    #[test]
    fn any_origin_needs_no_vary() {
        check(
            "{ origins: ['*'] }",
            "GET",
            &[("origin", "https://x.example")],
            "passes | access-control-allow-origin: * | vary: accept",
        );
    }

    #[test]
    fn settings_that_browsers_refuse_are_refused_here() {
        let refused = |yaml: &str, expected: &str| assert_eq!(cors(yaml).map(|_| ()).unwrap_err(), expected);
        refused("{ origins: ['*'], credentials: true }", "cors.origins: `*` cannot stand beside `credentials: true`");
        refused("{ origins: [] }", "cors.origins: no origin may call");
        refused("{ origins: ['shop.example'] }", "cors.origins[0]: `shop.example` is not an origin");
        refused("{ origins: ['https://x.example/'] }", "cors.origins[0]: `https://x.example/` is not an origin");
        refused("{ origins: ['*'], methods: ['G T'] }", "cors.methods[0]: expected a method such as `GET`, found `G T`");
    }
}
