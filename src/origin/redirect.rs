//! Redirects: a location made from a template.

use std::{borrow::Cow, fmt::Write as _, sync::Arc};

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header, uri::Authority};
use pingora_http::ResponseHeader;

use super::template::Template;
use crate::{
    config::{
        self,
        problem::{Path, Problem},
    },
    exchange::{Captures, Facts, Stop},
    reply::Reply,
};

/// The statuses that are redirects with a location.
const STATUSES: [u16; 5] = [301, 302, 303, 307, 308];

/// A redirect.
///
/// `{host}` is what the client sent: a route without `hosts` and with `{host}` in the location sends a client where it asked to be
/// sent. `:{port}` is left out where the port is the scheme's own, so `https://{host}{path}` and `https://{host}:{port}{path}` differ only
/// for clients that named another port.
#[derive(Clone, Debug)]
pub struct Redirect {
    status: StatusCode,
    location: Template,
    kind: Kind,
}

/// What the location begins with, which is what may not change by what is filled in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// A path on the same host.
    Path,
    /// Scheme and host.
    Absolute,
}

impl Redirect {
    /// # Errors
    /// Every mistake, at the keys of the redirect that stands at `at`.
    pub fn compile(config: &config::route::Redirect, capture_names: &[Arc<str>], at: &Path) -> Result<Self, Vec<Problem>> {
        let status = StatusCode::from_u16(config.status).ok().filter(|status| STATUSES.contains(&status.as_u16()));
        let status = status.ok_or_else(|| {
            let message = format!("`{}` is not the status of a redirect", config.status);
            Problem::error(at.key("status"), message).help("one of 301, 302, 303, 307, 308")
        });
        let location = location(&config.location, capture_names).map_err(|message| {
            Problem::error(at.key("location"), message)
                .help("such as `https://{host}{path}`, `https://shop.example/new` or `/new/{name}`")
        });
        match (status, location) {
            (Ok(status), Ok((location, kind))) => Ok(Self { status, location, kind }),
            (status, location) => Err(status.err().into_iter().chain(location.err()).collect()),
        }
    }

    /// The redirect for one request. The query is kept unless the location has its own.
    ///
    /// # Errors
    /// If the request has no host and the location needs it, or what was captured would send the client to another host.
    pub fn answer(&self, facts: &Facts, captures: &Captures) -> Result<Reply, Stop> {
        let location = self.location(facts, captures)?;
        let mut head = ResponseHeader::build(self.status, Some(8)).map_err(fault)?;
        head.insert_header(header::LOCATION, location).map_err(fault)?;
        Ok(Reply { head, body: Bytes::new() })
    }

    fn location(&self, facts: &Facts, captures: &Captures) -> Result<HeaderValue, Stop> {
        if facts.host.is_empty() && self.location.uses_host() {
            return Err(Stop::Malformed("a request without Host cannot be redirected by it"));
        }
        let text = self.location.render(facts, captures);
        if kind(&text) != Some(self.kind) {
            return Err(Stop::Malformed("the location of a redirect would leave its host"));
        }
        let text = if self.location.has_query() { text } else { with_query(text, facts.query.as_deref()) };
        HeaderValue::from_str(&ascii(&text)).map_err(|e| Stop::Fault(anyhow::Error::new(e).context("the location of a redirect")))
    }
}

fn fault(error: Box<pingora_core::Error>) -> Stop {
    Stop::Fault(anyhow::Error::from_boxed(error))
}

fn location(text: &str, capture_names: &[Arc<str>]) -> Result<(Template, Kind), String> {
    let template = Template::compile(text, capture_names)?;
    let anchored = template.begins_with_path() || template.begins_with_scheme() || !template.prefix().is_empty();
    let kind = Some(template.sample("x")).filter(|_| anchored).and_then(|sample| kind(&sample));
    let kind = kind
        .ok_or_else(|| format!("`{text}` begins neither with a single `/` nor with `http://`, `https://` or `{{scheme}}://`"))?;
    if kind == Kind::Absolute && authority(&template.sample("x")) != authority(&template.sample("y")) {
        return Err("a capture may not be part of the host, or clients could be sent anywhere".to_owned());
    }
    match HeaderValue::from_str(&template.sample("x")) {
        Ok(_) if !template.sample("x").contains(' ') => Ok((template, kind)),
        _ => Err(format!("`{text}` has characters that a location cannot carry")),
    }
}

/// What a location is, as browsers read it: they take `\` for a slash, and two slashes for a host to follow.
fn kind(location: &str) -> Option<Kind> {
    let slash = |c: char| c == '/' || c == '\\';
    if location.starts_with('/') {
        return (!location.get(1..).is_some_and(|rest| rest.starts_with(slash))).then_some(Kind::Path);
    }
    let host = authority(location)?;
    let valid = host.parse::<Authority>().is_ok_and(|authority| !authority.host().is_empty());
    (valid && !host.contains(['@', '\\'])).then_some(Kind::Absolute)
}

/// Host and port of an absolute location.
fn authority(location: &str) -> Option<&str> {
    let rest = location.strip_prefix("https://").or_else(|| location.strip_prefix("http://"))?;
    rest.split(['/', '?', '#']).next()
}

/// A location as a URI may be written: what a client sent beyond ASCII in its query becomes triplets.
fn ascii(location: &str) -> Cow<'_, str> {
    if location.is_ascii() {
        return Cow::Borrowed(location);
    }
    let mut encoded = String::with_capacity(location.len() + 16);
    for byte in location.bytes() {
        match byte {
            0..=127 => encoded.push(char::from(byte)),
            // Writing to a String does not fail.
            byte => drop(write!(encoded, "%{byte:02X}")),
        }
    }
    Cow::Owned(encoded)
}

/// Puts the query in, before a fragment.
fn with_query(location: String, query: Option<&str>) -> String {
    match (query, location.split_once('#')) {
        (None, _) => location,
        (Some(query), None) => format!("{location}?{query}"),
        (Some(query), Some((before, fragment))) => format!("{before}?{query}#{fragment}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::origin::example::{captures, facts};

    fn compile(status: u16, location: &str) -> Result<Redirect, Vec<Problem>> {
        let names: Vec<Arc<str>> = vec!["a".into()];
        Redirect::compile(&config::route::Redirect { status, location: location.into() }, &names, &Path::root())
    }

    fn check(location: &str, url: &str, captured: &[&str], expected: &str) {
        let (redirect, facts) = (compile(308, location).unwrap(), facts(url));
        let answer = redirect.answer(&facts, &captures(&facts, captured)).unwrap();
        assert_eq!(answer.head.headers.get(header::LOCATION).unwrap(), expected);
        assert_eq!(answer.head.status, StatusCode::PERMANENT_REDIRECT);
    }

    #[test]
    fn http_becomes_https_without_the_old_port() {
        check("https://{host}{path}", "http://shop.example:8080/a?b=c", &[], "https://shop.example/a?b=c");
        check("https://{host}:{port}{path}", "http://shop.example/a", &[], "https://shop.example/a");
        check("https://{host}:{port}{path}", "http://shop.example:80/a", &[], "https://shop.example/a");
        check("{scheme}://www.{host}:{port}{path}", "http://shop.example:81/a", &[], "http://www.shop.example:81/a");
        check("https://{host}:8443{path}", "http://[::1]/a", &[], "https://[::1]:8443/a");
    }

    #[test]
    fn query_is_kept_unless_the_location_has_its_own() {
        check("/new", "http://a/old?x=1", &[], "/new?x=1");
        check("/new?y=2", "http://a/old?x=1", &[], "/new?y=2");
        check("/new?from={path}&{query}", "http://a/old?x=1", &[], "/new?from=/old&x=1");
        check("/new", "http://a/old?x=\u{fc}", &[], "/new?x=%C3%BC");
        check("/new#top", "http://a/old?x=1", &[], "/new?x=1#top");
        check("https://blog.example{path}", "http://a/old", &[], "https://blog.example/old");
        check("/new/{a}", "http://a/old/x%2Fy", &["x%2Fy"], "/new/x%2Fy");
    }

    #[test]
    fn captures_cannot_send_a_client_elsewhere() {
        let check = |location: &str, url: &str, captured: &[&str]| {
            let (redirect, facts) = (compile(302, location).unwrap(), facts(url));
            let stop = redirect.answer(&facts, &captures(&facts, captured)).unwrap_err();
            assert!(matches!(stop, Stop::Malformed(_)), "{stop:?}");
        };
        check("/{a}", "http://a/go/evil.example", &["/evil.example"]);
        check("/{a}", "http://a/go\\evil.example", &["\\evil.example"]);
        check("https://{host}/", "/", &[]);
    }

    #[test]
    fn mistakes_are_found_at_their_keys() {
        let check = |status: u16, location: &str, key: &str, expected: &str| {
            let problems = compile(status, location).unwrap_err();
            let found = problems.iter().any(|p| p.path == Path::root().key(key) && p.message.contains(expected));
            assert!(found, "{problems:?}");
        };
        check(300, "/x", "status", "`300` is not the status of a redirect");
        check(200, "/x", "status", "not the status");
        check(308, "", "location", "begins neither");
        check(308, "{a}", "location", "begins neither");
        check(308, "javascript:alert(1)", "location", "begins neither");
        check(308, "//evil.example", "location", "begins neither");
        check(308, "https://", "location", "begins neither");
        check(308, "https://shop.example{a}", "location", "part of the host");
        check(308, "https://{a}.shop.example/", "location", "part of the host");
        check(308, "/x y", "location", "cannot carry");
        check(308, "/x\r\nSet-Cookie: a=b", "location", "cannot carry");
        check(308, "/{hots}", "location", "did you mean `{host}`?");
    }
}
