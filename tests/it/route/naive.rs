//! The routing rules, written down a second time in the plainest way: every route tried in the order of precedence.
//!
//! The oracle of the property tests and the yardstick of the bench. It shares nothing with `banyan::route` but the types
//! of the configuration and of a request.

use std::{
    cmp::Reverse,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Instant,
};

use banyan::{
    config::route::{Condition, Match, Scheme},
    exchange::Facts,
    name::RouteName,
};
use http::{HeaderMap, HeaderValue, Method, Version};
use regex::bytes::Regex;

/// All routes, once for each of their hosts, the one to try first in front.
pub struct Naive(Vec<Candidate>);

struct Candidate {
    index: u32,
    host: String,
    path: Path,
    matches: Match,
    rank: Rank,
}

enum Path {
    Any,
    Pattern(String),
    Regex(Regex),
}

/// Smaller goes first: host, path, methods, headers, query, cookies, scheme, name.
type Rank = (Reverse<usize>, Reverse<PathRank>, Reverse<[usize; 5]>, RouteName);

/// Kind, literal segments, segments, closed, literals further left.
type PathRank = (u8, usize, usize, bool, Vec<bool>);

/// What the oracle says of a request.
#[derive(Debug, PartialEq)]
pub enum Answer {
    Route(u32, Vec<String>),
    Allow(Vec<String>),
    None,
}

impl Naive {
    pub fn new<'a>(routes: impl Iterator<Item = (&'a RouteName, &'a Match)>) -> Self {
        let mut all = Vec::new();
        for ((name, matches), index) in routes.zip(0..) {
            let any = vec!["*".to_owned()];
            for host in if matches.hosts.is_empty() { &any } else { &matches.hosts } {
                let path = match (&matches.path, &matches.path_regex) {
                    (Some(path), _) => Path::Pattern(path.clone()),
                    (_, Some(regex)) => Path::Regex(Regex::new(&format!("^(?:{regex})$")).unwrap()),
                    _ => Path::Any,
                };
                let rank = (Reverse(host_rank(host)), Reverse(path.rank()), Reverse(conditions(matches)), name.clone());
                all.push(Candidate { index, host: host.clone(), path, matches: matches.clone(), rank });
            }
        }
        all.sort_by(|one, two| one.rank.cmp(&two.rank));
        Self(all)
    }

    pub fn find(&self, facts: &Facts, headers: &HeaderMap) -> Answer {
        let method = asked(facts, headers);
        let mut allowed = Vec::new();
        for candidate in &self.0 {
            if !candidate.takes_all_but_method(facts, headers) {
                continue;
            }
            let methods = with_head(&candidate.matches.methods);
            if methods.is_empty() || methods.iter().any(|m| m == method.as_str()) {
                return Answer::Route(candidate.index, candidate.path.captures(&facts.path));
            }
            allowed.extend(methods);
        }
        allowed.sort();
        allowed.dedup();
        if allowed.is_empty() { Answer::None } else { Answer::Allow(allowed) }
    }
}

impl Candidate {
    fn takes_all_but_method(&self, facts: &Facts, headers: &HeaderMap) -> bool {
        let header = |name: &str| headers.get_all(name).iter().map(|v| v.as_bytes().to_vec()).collect::<Vec<_>>();
        let query = |name: &str| {
            let pairs = form(facts.query.as_deref().unwrap_or_default());
            pairs.into_iter().filter(|(n, _)| n == name.as_bytes()).map(|(_, v)| v).collect::<Vec<_>>()
        };
        let cookie = |name: &str| {
            let text: Vec<String> = headers.get_all("cookie").iter().map(|v| v.to_str().unwrap_or_default().to_owned()).collect();
            let text = text.join(";");
            let pairs = text.split(';').filter_map(|pair| pair.split_once('='));
            pairs.filter(|(n, _)| n.trim() == name).map(|(_, v)| v.trim().as_bytes().to_vec()).collect::<Vec<_>>()
        };
        takes_host(&self.host, &facts.host)
            && self.path.takes(&facts.path)
            && self.matches.scheme.is_none_or(|scheme| scheme == facts.scheme)
            && self.matches.headers.iter().all(|(name, condition)| holds(condition, header(name)))
            && self.matches.query.iter().all(|(name, condition)| holds(condition, query(name)))
            && self.matches.cookies.iter().all(|(name, condition)| holds(condition, cookie(name)))
    }
}

impl Path {
    fn rank(&self) -> PathRank {
        match self {
            Self::Any => Self::Pattern("/**".into()).rank(),
            Self::Regex(_) => (1, 0, 0, false, vec![]),
            Self::Pattern(text) if !text.contains(['{', '*']) => (3, 0, 0, false, vec![]),
            Self::Pattern(text) => {
                let (text, closed) = text.strip_suffix("/**").map_or((text.as_str(), true), |text| (text, false));
                let literal: Vec<bool> = text.split('/').skip(1).map(|s| !s.is_empty() && !s.starts_with('{')).collect();
                let literals = literal.iter().filter(|l| **l).count();
                (if literals > 0 { 2 } else { 0 }, literals, literal.len(), closed, literal)
            }
        }
    }

    fn takes(&self, path: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Regex(regex) => path.starts_with('/') && regex.is_match(path.as_bytes()),
            Self::Pattern(text) if text == "/**" => true,
            Self::Pattern(text) => {
                let (text, open) = text.strip_suffix("/**").map_or((text.as_str(), false), |text| (text, true));
                let (pattern, path) = (text.split('/').collect::<Vec<_>>(), path.split('/').collect::<Vec<_>>());
                let fits = |(p, s): (&&str, &&str)| if p.starts_with('{') { !s.is_empty() } else { p == s };
                path.len() >= pattern.len() && (open || path.len() == pattern.len()) && pattern.iter().zip(&path).all(fits)
            }
        }
    }

    fn captures(&self, path: &str) -> Vec<String> {
        match self {
            Self::Any => vec![],
            Self::Pattern(text) => {
                text.split('/').zip(path.split('/')).filter(|(p, _)| p.starts_with('{')).map(|(_, s)| s.to_owned()).collect()
            }
            Self::Regex(regex) => {
                let found = regex.captures(path.as_bytes()).unwrap();
                let text = |name| found.name(name).map_or(String::new(), |m| String::from_utf8(m.as_bytes().to_vec()).unwrap());
                regex.capture_names().flatten().map(text).collect()
            }
        }
    }
}

fn host_rank(host: &str) -> usize {
    match host.strip_prefix("*.") {
        None if host == "*" => 0,
        None => usize::MAX,
        Some(parent) => parent.split('.').count(),
    }
}

fn takes_host(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(end) => host.ends_with(end) && (end.is_empty() || host.len() > end.len()),
        None => pattern == host,
    }
}

fn conditions(matches: &Match) -> [usize; 5] {
    [
        usize::from(!matches.methods.is_empty()),
        matches.headers.len(),
        matches.query.len(),
        matches.cookies.len(),
        usize::from(matches.scheme.is_some()),
    ]
}

fn with_head(methods: &[String]) -> Vec<String> {
    let mut all = methods.to_vec();
    if all.iter().any(|m| m == "GET") {
        all.push("HEAD".into());
    }
    all
}

fn asked(facts: &Facts, headers: &HeaderMap) -> Method {
    let asked = headers.get("access-control-request-method").and_then(|m| Method::from_bytes(m.as_bytes()).ok());
    match asked {
        Some(method) if facts.method == Method::OPTIONS && headers.contains_key("origin") => method,
        _ => facts.method.clone(),
    }
}

fn holds(condition: &Condition, values: Vec<Vec<u8>>) -> bool {
    match condition {
        Condition::Absent(_) => values.is_empty(),
        Condition::Present(_) => !values.is_empty(),
        Condition::Exact(expected) => values.iter().any(|v| v == expected.as_bytes()),
        Condition::Regex(text) => {
            let regex = Regex::new(&format!("^(?:{text})$")).unwrap();
            values.iter().any(|v| regex.is_match(v))
        }
    }
}

fn form(query: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).map(|(name, value)| (unescape(name), unescape(value))).collect()
}

fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let triplet = rest.strip_prefix('%').and_then(|r| r.get(..2)).and_then(|r| u8::from_str_radix(r, 16).ok());
        match (c, triplet) {
            (_, Some(byte)) => {
                bytes.push(byte);
                rest = &rest[3..];
                continue;
            }
            ('+', _) => bytes.push(b' '),
            (c, _) => bytes.extend(c.to_string().bytes()),
        }
        rest = &rest[c.len_utf8()..];
    }
    bytes
}

/// A request of a test.
pub fn facts(method: &str, host: &str, path: &str, query: Option<&str>) -> Facts {
    Facts {
        method: method.parse().unwrap(),
        scheme: Scheme::Http,
        host: host.into(),
        port: None,
        path: path.into(),
        query: query.map(Into::into),
        version: Version::HTTP_11,
        client: IpAddr::V4(Ipv4Addr::LOCALHOST),
        peer: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
        request_id: HeaderValue::from_static("test"),
        started: Instant::now(),
    }
}
