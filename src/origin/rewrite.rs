//! Changes to path and host on the way upstream.

use std::{borrow::Cow, sync::Arc};

use http::{HeaderValue, uri::PathAndQuery};

use super::template::Template;
use crate::{
    config::{
        self,
        problem::{Path, Problem},
    },
    exchange::{Captures, Facts},
};

/// What a route changes on path and host.
#[derive(Clone, Debug, Default)]
pub struct Rewrite {
    path: PathRewrite,
    host: HostRewrite,
}

/// The Host that goes upstream.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum HostRewrite {
    /// The client's.
    #[default]
    Preserve,
    /// The service's own name.
    Upstream,
    Literal(HeaderValue),
}

#[derive(Clone, Debug, Default)]
enum PathRewrite {
    #[default]
    Keep,
    /// Whole leading segments taken away, then others put in front. Neither ends in a slash.
    Prefix {
        strip: Box<str>,
        add: Box<str>,
    },
    Template(Template),
}

/// A rewritten path is not one that can be sent. The captures of a request made it so; the request is malformed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the rewritten path is not a valid path")]
pub struct BadPath;

impl Rewrite {
    /// # Errors
    /// Every mistake, at the keys of the rewrite that stands at `at`.
    pub fn compile(config: &config::route::Rewrite, capture_names: &[Arc<str>], at: &Path) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let path = path_rewrite(config, capture_names, at, &mut problems);
        let host = config.host.as_deref().map_or(Ok(HostRewrite::Preserve), host_rewrite);
        let host = host.unwrap_or_else(|message| {
            problems.push(
                Problem::error(at.key("host"), message).help("write `preserve`, `upstream` or a host such as `shop.internal`"),
            );
            HostRewrite::Preserve
        });
        if problems.is_empty() { Ok(Self { path, host }) } else { Err(problems) }
    }

    pub fn host(&self) -> &HostRewrite {
        &self.host
    }

    /// Path and query as they go upstream. The query is the client's unless the template brings its own.
    ///
    /// # Errors
    /// If what was captured does not make a path here: `/{rest}` with `/evil` would name a host.
    pub fn path_and_query<'a>(&self, facts: &'a Facts, captures: &Captures) -> Result<Cow<'a, str>, BadPath> {
        if facts.path == "*" {
            return Ok(Cow::Borrowed("*"));
        }
        match &self.path {
            PathRewrite::Keep => Ok(with_query(Cow::Borrowed(&facts.path), facts)),
            PathRewrite::Prefix { strip, add } => Ok(with_query(replace_prefix(&facts.path, strip, add), facts)),
            PathRewrite::Template(template) => {
                let path = template.render(facts, captures);
                let path = if template.has_query() { Cow::Owned(path) } else { with_query(Cow::Owned(path), facts) };
                if is_path(&path) { Ok(path) } else { Err(BadPath) }
            }
        }
    }
}

fn path_rewrite(
    config: &config::route::Rewrite,
    capture_names: &[Arc<str>],
    at: &Path,
    problems: &mut Vec<Problem>,
) -> PathRewrite {
    let mut refuse = |key: &str, message: String, help: &str| problems.push(Problem::error(at.key(key), message).help(help));
    let prefixes = [("strip_prefix", &config.strip_prefix), ("add_prefix", &config.add_prefix)];
    for (key, prefix) in prefixes {
        if let Some(prefix) = prefix.as_deref().filter(|prefix| !is_plain_path(prefix)) {
            refuse(
                key,
                format!("`{prefix}` is not a path of whole segments"),
                "write a path such as `/api`, without `.`, `..` and `?`",
            );
        }
    }
    let Some(template) = &config.path else {
        let [strip, add] = prefixes.map(|(_, prefix)| prefix.as_deref().unwrap_or_default().trim_end_matches('/').into());
        return if prefixes.iter().all(|(_, p)| p.is_none()) { PathRewrite::Keep } else { PathRewrite::Prefix { strip, add } };
    };
    for (key, _) in prefixes.iter().filter(|(_, prefix)| prefix.is_some()) {
        refuse("path", format!("`path` and `{key}` exclude each other"), "write the whole new path, or change its prefix");
    }
    match path_template(template, capture_names) {
        Ok(template) => PathRewrite::Template(template),
        Err(message) => {
            refuse("path", message, "write a path such as `/items/{name}`, with captures of the route's own `path`");
            PathRewrite::Keep
        }
    }
}

fn path_template(text: &str, capture_names: &[Arc<str>]) -> Result<Template, String> {
    let template = Template::compile(text, capture_names)?;
    if !template.prefix().starts_with('/') && !template.begins_with_path() {
        return Err(format!("`{text}` does not begin with `/`"));
    }
    if template.has_bare_query() {
        return Err("`{query}` belongs behind a `?`".to_owned());
    }
    if text.contains('#') || !is_path(&template.sample("x")) {
        return Err(format!("`{text}` does not make a valid path"));
    }
    Ok(template)
}

fn host_rewrite(text: &str) -> Result<HostRewrite, String> {
    match text {
        "preserve" => return Ok(HostRewrite::Preserve),
        "upstream" => return Ok(HostRewrite::Upstream),
        _ => {}
    }
    let slip = |word: &&str| match strsim::damerau_levenshtein(word, &text.to_lowercase()) {
        0 => true,
        distance => distance == 1 && !text.contains(|c: char| c.is_ascii_digit() || c == '.'),
    };
    if let Some(word) = ["preserve", "upstream"].iter().find(|word| slip(word)) {
        return Err(format!("`{text}` looks like a slip of the pen; did you mean `{word}`?"));
    }
    let authority = text.parse::<http::uri::Authority>().ok().filter(|authority| !authority.as_str().contains('@'));
    let value = authority.and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    value.map(HostRewrite::Literal).ok_or_else(|| format!("`{text}` is not a host"))
}

/// Takes whole leading segments away and puts others in front.
fn replace_prefix<'a>(path: &'a str, strip: &str, add: &str) -> Cow<'a, str> {
    let rest = path.strip_prefix(strip).filter(|rest| rest.is_empty() || rest.starts_with('/')).unwrap_or(path);
    match (add, rest) {
        ("", "") => Cow::Borrowed("/"),
        ("", rest) => Cow::Borrowed(rest),
        // `/base` in front of `/` is `/base`, unless the client asked for the folder's slash.
        (add, "/") if path == "/" => Cow::Owned(add.to_owned()),
        (add, rest) => Cow::Owned(format!("{add}{rest}")),
    }
}

fn with_query<'a>(path: Cow<'a, str>, facts: &Facts) -> Cow<'a, str> {
    match &facts.query {
        Some(query) => Cow::Owned(format!("{path}?{query}")),
        None => path,
    }
}

/// Whether a text is the path of a request, with or without a query, and stays where it says: no empty first segment, which
/// would name a host, and no dot segments.
fn is_path(text: &str) -> bool {
    let path = text.split(['?', '#']).next().unwrap_or_default();
    path.starts_with('/')
        && !path.starts_with("//")
        && !path.contains('\\')
        && path.split('/').all(|segment| !is_dots(segment))
        && path.is_ascii()
        && path.parse::<PathAndQuery>().is_ok()
}

/// Whether a segment is `.` or `..`, in whatever spelling.
fn is_dots(segment: &str) -> bool {
    let plain = segment.to_ascii_lowercase().replace("%2e", ".");
    plain == "." || plain == ".."
}

/// Whether a text is a path without a query, in the one form that request paths have been brought into: only then can they begin
/// with it.
fn is_plain_path(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@[]%".contains(&b);
    is_path(text) && !text.contains("//") && text.bytes().all(allowed) && text.split('%').skip(1).all(is_needed_triplet)
}

/// Whether what follows a percent sign are two digits in upper case, of a character that must be encoded.
fn is_needed_triplet(text: &str) -> bool {
    let digits = text.get(..2).filter(|digits| digits.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b)));
    let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
    byte.is_some_and(|b| !b.is_ascii_alphanumeric() && !b"-._~".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::origin::example::{captures, facts};

    fn compile(config: config::route::Rewrite) -> Result<Rewrite, Vec<Problem>> {
        let names: Vec<Arc<str>> = vec!["a".into(), "b".into()];
        Rewrite::compile(&config, &names, &Path::root())
    }

    fn prefixes(strip: Option<&str>, add: Option<&str>) -> config::route::Rewrite {
        config::route::Rewrite { strip_prefix: strip.map(Into::into), add_prefix: add.map(Into::into), ..Default::default() }
    }

    fn template(path: &str) -> config::route::Rewrite {
        config::route::Rewrite { path: Some(path.into()), ..Default::default() }
    }

    fn check(config: config::route::Rewrite, path: &str, expected: &str) {
        let (rewrite, facts) = (compile(config).unwrap(), facts(&format!("http://a{path}")));
        assert_eq!(rewrite.path_and_query(&facts, &Captures::new()).unwrap(), expected, "{path}");
    }

    #[test]
    fn whole_segments_are_stripped() {
        let strip = || prefixes(Some("/api"), None);
        check(strip(), "/api/orders/1", "/orders/1");
        check(strip(), "/api", "/");
        check(strip(), "/api/", "/");
        check(strip(), "/apix/1", "/apix/1");
        check(strip(), "/other", "/other");
        check(strip(), "/api?x=1", "/?x=1");
        check(prefixes(Some("/api/"), None), "/api/orders", "/orders");
        check(prefixes(Some("/"), None), "/orders", "/orders");
        check(prefixes(Some("/caf%C3%A9"), None), "/caf%C3%A9/x", "/x");
    }

    #[test]
    fn segments_are_put_in_front() {
        check(prefixes(None, Some("/v2")), "/orders?x", "/v2/orders?x");
        check(prefixes(None, Some("/v2/")), "/", "/v2");
        check(prefixes(Some("/api"), Some("/v2")), "/api/orders", "/v2/orders");
        check(prefixes(Some("/api"), Some("/v2")), "/api", "/v2");
        check(prefixes(Some("/api"), Some("/v2")), "/api/", "/v2/");
        check(Default::default(), "/a/b?c", "/a/b?c");
    }

    #[test]
    fn template_keeps_the_query_unless_it_has_its_own() {
        check(template("/items/x"), "/a?q=1", "/items/x?q=1");
        check(template("/items/x?fixed=1"), "/a?q=1", "/items/x?fixed=1");
        check(template("/search?path={path}&{query}"), "/a?q=1", "/search?path=/a&q=1");
        check(template("{path}/more"), "/a", "/a/more");
        check(template("/x"), "/a?q=\u{fc}", "/x?q=\u{fc}");
    }

    #[test]
    fn server_wide_options_stay_so() {
        check(prefixes(None, Some("/v2")), "*", "*");
    }

    #[test]
    fn captures_cannot_climb_or_name_a_host() {
        let check = |text: &str, path: &str, captured: &[&str], expected: Result<&str, BadPath>| {
            let (rewrite, facts) = (compile(template(text)).unwrap(), facts(&format!("http://a{path}")));
            let result = rewrite.path_and_query(&facts, &captures(&facts, captured));
            assert_eq!(result.as_deref().map_err(|e| *e), expected, "{text} {captured:?}");
        };
        check("/files/{a}{b}/secret", "/..x", &[".", "."], Err(BadPath));
        check("/{a}", "/go/evil.example", &["/evil.example"], Err(BadPath));
        check("/{a}", "/%2E%2Ex", &["%2E%2E"], Err(BadPath));
        check("/items/{a}", "/c/x%2Fy", &["x%2Fy"], Ok("/items/x%2Fy"));
    }

    /// The segments of a path as a service may resolve them, dots decoded; `None` if they climb above the root.
    fn resolved(path: &str) -> Option<Vec<String>> {
        let mut segments = Vec::new();
        for segment in path.split('?').next()?.split('/').skip(1) {
            match segment.to_lowercase().replace("%2e", ".").as_str() {
                "." => {}
                ".." => drop(segments.pop()?),
                segment => segments.push(segment.to_owned()),
            }
        }
        Some(segments)
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(2000))]
        #[test]
        fn captures_never_leave_the_prefix(path in r"/(/|\.|\.|%2e|%2E|a|;|-){0,6}", cuts in proptest::array::uniform4(0_usize..13)) {
            let rewrite = compile(template("/files/{a}{b}")).unwrap();
            let facts = Facts { path: path.clone(), ..facts("http://a/") };
            let range = |from: usize, to: usize| from.min(path.len()) as u32..to.min(path.len()) as u32;
            let captures: Captures = [range(cuts[0], cuts[1]), range(cuts[2], cuts[3])].into_iter().collect();
            if let Ok(path) = rewrite.path_and_query(&facts, &captures) {
                let resolved = resolved(&path);
                proptest::prop_assert_eq!(resolved.as_ref().and_then(|segments| segments.first()).map(String::as_str), Some("files"));
            }
        }
    }

    #[test]
    fn mistakes_are_found_at_their_keys() {
        let check = |config: config::route::Rewrite, key: &str, expected: &str| {
            let problems = compile(config).unwrap_err();
            let found = problems.iter().any(|p| p.path == Path::root().key(key) && p.message.contains(expected));
            assert!(found, "{problems:?}");
        };
        check(prefixes(Some("api"), None), "strip_prefix", "not a path");
        check(prefixes(None, Some("/a/../b")), "add_prefix", "not a path");
        for bad in ["/a b", "/a?b", "/a#b", "//a", "/a//b", "/caf%c3%a9", "/%61", "/a%2", "/{a}", "/café"] {
            check(prefixes(Some(bad), None), "strip_prefix", "not a path");
        }
        check(config::route::Rewrite { add_prefix: Some("/x".into()), ..template("/y") }, "path", "exclude each other");
        check(template("items/{a}"), "path", "does not begin with `/`");
        check(template("{a}"), "path", "does not begin with `/`");
        check(template("/x/{query}"), "path", "behind a `?`");
        check(template("/x y"), "path", "valid path");
        check(template("/x#y"), "path", "valid path");
        check(template("/x/../{a}"), "path", "valid path");
        check(template("/{c}"), "path", "nothing is named `{c}`");
        check(config::route::Rewrite { host: Some("Upstream".into()), ..Default::default() }, "host", "did you mean `upstream`");
        check(config::route::Rewrite { host: Some("a b".into()), ..Default::default() }, "host", "not a host");
    }

    #[test]
    fn host_is_one_of_three() {
        let check = |text: &str, expected: HostRewrite| {
            let config = config::route::Rewrite { host: Some(text.into()), ..Default::default() };
            assert_eq!(*compile(config).unwrap().host(), expected);
        };
        check("preserve", HostRewrite::Preserve);
        check("upstream", HostRewrite::Upstream);
        check("upstream1", HostRewrite::Literal(HeaderValue::from_static("upstream1")));
        check("shop.internal:8080", HostRewrite::Literal(HeaderValue::from_static("shop.internal:8080")));
        assert_eq!(*compile(Default::default()).unwrap().host(), HostRewrite::Preserve);
    }
}
