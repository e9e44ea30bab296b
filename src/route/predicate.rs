//! Conditions on a request beyond host and path: methods, scheme, headers, query and cookies.
//!
//! Checked for each candidate of a request, so they read the request in place: nothing is collected or decoded to memory
//! but a query value with escapes that a regular expression is to see.

use std::cmp::Ordering;

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use smallvec::SmallVec;

use super::{explain::By, regex::ValueRegex};
use crate::{
    config::route::Scheme,
    exchange::Facts,
    query::{decoded, parameters},
};

/// Methods that have a bit. All others are compared by name.
const STANDARD: [Method; 9] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
    Method::OPTIONS,
    Method::TRACE,
    Method::CONNECT,
];

/// Methods that a route takes. GET includes HEAD, RFC 9110 §9.3.2.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Methods {
    bits: u16,
    others: Vec<Method>,
}

/// All conditions of a route on what is neither host nor path.
#[derive(Clone, Debug, Default)]
pub struct Conditions {
    /// None: every method.
    pub methods: Option<Methods>,
    pub scheme: Option<Scheme>,
    pub headers: Vec<(HeaderName, Test)>,
    pub query: Vec<(Box<str>, Test)>,
    pub cookies: Vec<(Box<str>, Test)>,
}

/// A condition on a value that may be there.
#[derive(Clone, Debug)]
pub enum Test {
    Exact(Box<[u8]>),
    Present,
    Absent,
    /// With its text, by which two are compared.
    Regex(Box<str>, ValueRegex),
}

/// The first condition that does not hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unmet<'a> {
    Scheme,
    Header(&'a HeaderName),
    Query(&'a str),
    Cookie(&'a str),
    Method,
}

/// What conditions see of a request.
#[derive(Clone, Copy)]
pub struct Seen<'a> {
    pub method: &'a Method,
    pub scheme: Scheme,
    pub query: &'a str,
    pub headers: &'a HeaderMap,
}

impl<'a> Seen<'a> {
    /// `preflight` holds the method that a CORS preflight asks for: it is routed as that.
    pub fn new(facts: &'a Facts, headers: &'a HeaderMap, preflight: &'a Option<Method>) -> Self {
        let method = preflight.as_ref().unwrap_or(&facts.method);
        Self { method, scheme: facts.scheme, query: facts.query.as_deref().unwrap_or_default(), headers }
    }
}

/// The method that a CORS preflight asks for. Source: Fetch, "CORS-preflight request".
pub fn preflight(method: &Method, headers: &HeaderMap) -> Option<Method> {
    if method != Method::OPTIONS || !headers.contains_key(header::ORIGIN) {
        return None;
    }
    let asked = headers.get(header::ACCESS_CONTROL_REQUEST_METHOD)?;
    Method::from_bytes(asked.as_bytes()).ok()
}

impl Methods {
    pub fn new(methods: impl IntoIterator<Item = Method>) -> Self {
        methods.into_iter().fold(Self::default(), |mut all, method| {
            all.add(&method);
            all
        })
    }

    fn add(&mut self, method: &Method) {
        match bit(method) {
            0 if !self.others.contains(method) => self.others.push(method.clone()),
            1 => self.bits |= 0b11,
            bit => self.bits |= bit,
        }
    }

    pub fn contains(&self, method: &Method) -> bool {
        match bit(method) {
            0 => self.others.contains(method),
            bit => self.bits & bit != 0,
        }
    }

    pub fn extend(&mut self, other: &Self) {
        self.bits |= other.bits;
        other.others.iter().for_each(|method| self.add(method));
    }

    pub fn is_subset(&self, other: &Self) -> bool {
        self.bits & !other.bits == 0 && self.others.iter().all(|method| other.others.contains(method))
    }

    pub fn overlaps(&self, other: &Self) -> bool {
        self.bits & other.bits != 0 || self.others.iter().any(|method| other.others.contains(method))
    }

    /// The value of an Allow header, RFC 9110 §10.2.1.
    pub fn allow(&self) -> HeaderValue {
        let standard = STANDARD.iter().filter(|method| self.contains(method));
        let names: Vec<&str> = standard.chain(&self.others).map(Method::as_str).collect();
        // Methods are tokens, which header values may hold.
        HeaderValue::from_str(&names.join(", ")).unwrap_or_else(|_| HeaderValue::from_static(""))
    }
}

/// The bit of a standard method; 0 for the others.
fn bit(method: &Method) -> u16 {
    match *method {
        Method::GET => 1,
        Method::HEAD => 1 << 1,
        Method::POST => 1 << 2,
        Method::PUT => 1 << 3,
        Method::PATCH => 1 << 4,
        Method::DELETE => 1 << 5,
        Method::OPTIONS => 1 << 6,
        Method::TRACE => 1 << 7,
        Method::CONNECT => 1 << 8,
        _ => 0,
    }
}

impl Conditions {
    /// The first condition that does not hold, the method's last: all else matching, another method would do.
    pub fn unmet<'a>(&'a self, seen: &Seen) -> Option<Unmet<'a>> {
        if self.scheme.is_some_and(|scheme| scheme != seen.scheme) {
            return Some(Unmet::Scheme);
        }
        if let Some((name, _)) = self.headers.iter().find(|(name, test)| !test.header(name, seen.headers)) {
            return Some(Unmet::Header(name));
        }
        if let Some((name, _)) = self.query.iter().find(|(name, test)| !test.query(name, seen.query)) {
            return Some(Unmet::Query(name));
        }
        if let Some((name, _)) = self.cookies.iter().find(|(name, test)| !test.cookie(name, seen.headers)) {
            return Some(Unmet::Cookie(name));
        }
        (!self.takes(seen.method)).then_some(Unmet::Method)
    }

    /// Whether all conditions hold. The method's first: it is the cheapest, and the one that fails most.
    pub fn hold(&self, seen: &Seen) -> bool {
        self.takes(seen.method) && self.unmet(seen).is_none()
    }

    /// The one that goes first in front: by methods, then the number of conditions on headers, query and cookies, then
    /// the scheme.
    pub fn precedence(&self, other: &Self) -> Ordering {
        self.steps(other).map(|(_, order)| order).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
    }

    /// Each step of the precedence with its outcome.
    pub fn steps(&self, other: &Self) -> impl Iterator<Item = (By, Ordering)> {
        let steps = [
            (By::Methods, other.methods.is_some().cmp(&self.methods.is_some())),
            (By::Headers, other.headers.len().cmp(&self.headers.len())),
            (By::Query, other.query.len().cmp(&self.query.len())),
            (By::Cookies, other.cookies.len().cmp(&self.cookies.len())),
            (By::Scheme, other.scheme.is_some().cmp(&self.scheme.is_some())),
        ];
        steps.into_iter()
    }

    fn takes(&self, method: &Method) -> bool {
        self.methods.as_ref().is_none_or(|methods| methods.contains(method))
    }
}

impl Test {
    fn takes(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(expected) => **expected == *value,
            Self::Present => true,
            Self::Absent => false,
            Self::Regex(_, regex) => regex.matches(value),
        }
    }

    /// Whether it holds for one of these values, or for there being none.
    fn holds<'a>(&self, mut values: impl Iterator<Item = &'a [u8]>) -> bool {
        match self {
            Self::Absent => values.next().is_none(),
            test => values.any(|value| test.takes(value)),
        }
    }

    fn header(&self, name: &HeaderName, headers: &HeaderMap) -> bool {
        self.holds(headers.get_all(name).iter().map(HeaderValue::as_bytes))
    }

    fn cookie(&self, name: &str, headers: &HeaderMap) -> bool {
        self.holds(cookies(headers).filter(|(other, _)| *other == name.as_bytes()).map(|(_, value)| value))
    }

    fn query(&self, name: &str, query: &str) -> bool {
        let mut values = parameters(query).filter(|(other, _)| decoded(other).eq(name.bytes())).map(|(_, value)| value);
        match self {
            Self::Exact(expected) => values.any(|value| decoded(value).eq(expected.iter().copied())),
            Self::Present => values.next().is_some(),
            Self::Absent => values.next().is_none(),
            Self::Regex(_, regex) => values.any(|value| matches_decoded(regex, value)),
        }
    }
}

/// Cookies of a request, RFC 6265 §4.2.1: names and values as they came, quotes included.
fn cookies(headers: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    let pairs = headers.get_all(header::COOKIE).iter().flat_map(|line| line.as_bytes().split(|b| *b == b';'));
    pairs.filter_map(|pair| {
        let mut halves = pair.trim_ascii().splitn(2, |b| *b == b'=');
        halves.next().zip(halves.next()).map(|(name, value)| (name.trim_ascii(), value.trim_ascii()))
    })
}

fn matches_decoded(regex: &ValueRegex, value: &str) -> bool {
    if value.contains(['%', '+']) {
        regex.matches(&decoded(value).collect::<SmallVec<[u8; 64]>>())
    } else {
        regex.matches(value.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exact(value: &str) -> Test {
        Test::Exact(value.as_bytes().into())
    }

    fn regex(text: &str) -> Test {
        Test::Regex(text.into(), ValueRegex::parse(text).unwrap())
    }

    fn headers(lines: &[(&'static str, &[u8])]) -> HeaderMap {
        let line =
            |(name, value): &(&'static str, &[u8])| (HeaderName::from_static(name), HeaderValue::from_bytes(value).unwrap());
        let mut map = HeaderMap::new();
        lines.iter().map(line).for_each(|(name, value)| {
            map.append(name, value);
        });
        map
    }

    #[test]
    fn a_repeated_header_holds_if_one_value_does() {
        let map = headers(&[("x-v", b"1"), ("x-v", b"2"), ("x-bin", b"\xff\xfe")]);
        let check = |name: &'static str, test: Test, holds: bool| {
            assert_eq!(test.header(&HeaderName::from_static(name), &map), holds, "{name} {test:?}");
        };
        check("x-v", exact("2"), true);
        check("x-v", exact("3"), false);
        check("x-v", exact("1, 2"), false);
        check("x-v", Test::Present, true);
        check("x-v", Test::Absent, false);
        check("x-v", regex("[2-9]"), true);
        check("x-none", Test::Absent, true);
        check("x-none", Test::Present, false);
        check("x-none", regex(".*"), false);
        check("x-bin", exact("2"), false);
        check("x-bin", regex(".*"), false);
        check("x-bin", regex("(?s-u:.*)"), true);
        check("x-bin", Test::Present, true);
    }

    #[test]
    fn query_names_and_values_are_decoded() {
        let check = |query: &str, name: &str, test: Test, holds: bool| {
            assert_eq!(test.query(name, query), holds, "{query} {name} {test:?}");
        };
        check("a=1&b=2", "b", exact("2"), true);
        check("a=1&a=2", "a", exact("2"), true);
        check("a=1", "A", Test::Present, false);
        check("a=b+c", "a", exact("b c"), true);
        check("a=b%20c", "a", exact("b c"), true);
        check("%61=%C3%BC", "a", exact("ü"), true);
        check("%61=%C3%BC", "a", regex("\\w"), true);
        check("a=%zz%", "a", exact("%zz%"), true);
        check("a", "a", exact(""), true);
        check("a", "a", Test::Present, true);
        check("", "a", Test::Absent, true);
        check("", "", Test::Present, false);
        check("a=1=2", "a", exact("1=2"), true);
        check("preview", "preview", Test::Absent, false);
    }

    #[test]
    fn cookies_come_from_all_headers() {
        let map = headers(&[("cookie", b"a=1; b=\"2\"; c"), ("cookie", b" session = x=y ;d=")]);
        let check = |name: &str, test: Test, holds: bool| assert_eq!(test.cookie(name, &map), holds, "{name} {test:?}");
        check("a", exact("1"), true);
        check("b", exact("\"2\""), true);
        check("c", Test::Absent, true);
        check("session", exact("x=y"), true);
        check("d", exact(""), true);
        check("A", Test::Present, false);
    }

    #[test]
    fn get_includes_head() {
        let methods = Methods::new([Method::GET, Method::from_bytes(b"PURGE").unwrap()]);
        assert!(methods.contains(&Method::HEAD));
        assert!(!methods.contains(&Method::POST));
        assert_eq!(methods.allow(), "GET, HEAD, PURGE");
        assert!(!Methods::new([Method::HEAD]).contains(&Method::GET));
    }

    #[test]
    fn a_preflight_asks_for_a_method() {
        let ask = headers(&[("origin", b"https://a"), ("access-control-request-method", b"PUT")]);
        assert_eq!(preflight(&Method::OPTIONS, &ask), Some(Method::PUT));
        assert_eq!(preflight(&Method::GET, &ask), None);
        assert_eq!(preflight(&Method::OPTIONS, &headers(&[("origin", b"https://a")])), None);
        let broken = headers(&[("origin", b"https://a"), ("access-control-request-method", b"a b")]);
        assert_eq!(preflight(&Method::OPTIONS, &broken), None);
    }
}
