//! From the routes of a configuration to the table, with every mistake in them.

use std::collections::BTreeMap;

use ahash::HashMap;
use http::{HeaderName, Method, header};

use super::{Capture, Detail, Entry, Site, Table};
use crate::{
    config::{
        problem::{Path, Problem},
        route::{Condition, Match},
    },
    name::RouteName,
    route::{
        conflict, host,
        pattern::{Misread, Pattern},
        predicate::{Conditions, Methods, Test},
        regex::{PathRegex, REGEX_HELP, ValueRegex},
    },
};

impl Table {
    /// Compiles routes. A route's index is its position in `routes`; problems stand at `routes.<name>.match`.
    ///
    /// A table with errors among its problems lacks the routes that have them.
    pub fn compile<'a>(routes: impl Iterator<Item = (&'a RouteName, &'a Match)>) -> (Self, Vec<Problem>) {
        let mut table = Self::default();
        let mut problems = Vec::new();
        for (name, matches) in routes {
            let (entry, detail) = read(name, matches, &mut problems);
            table.entries.push(entry);
            table.details.push(detail);
        }
        let order = table.order();
        table.fill(&order, &mut problems);
        problems.extend(conflict::find(&table, &order));
        (table, problems)
    }

    /// The routes that can take something; of two with the same host and path, the one that goes first in front.
    fn order(&self) -> Vec<u32> {
        let indexed = (0u32..).zip(self.details.iter().zip(&self.entries));
        let mut routes: Vec<_> = indexed.filter(|(_, (detail, _))| detail.path.is_some()).collect();
        routes.sort_by(|(_, one), (_, two)| {
            one.1.conditions.precedence(&two.1.conditions).then_with(|| one.0.name.cmp(&two.0.name))
        });
        routes.into_iter().map(|(index, _)| index).collect()
    }

    fn fill(&mut self, order: &[u32], problems: &mut Vec<Problem>) {
        let details = std::mem::take(&mut self.details);
        let mut regexes: HashMap<&host::Pattern, Vec<(&PathRegex, u32)>> = HashMap::default();
        for index in order {
            let Some(detail) = details.get(*index as usize) else { continue };
            for host in &detail.hosts {
                match &detail.path {
                    Some(Pattern::Regex(regex)) => regexes.entry(host).or_default().push((regex, *index)),
                    Some(path) => self.site(host).add(path, *index),
                    None => {}
                }
            }
        }
        let mut broken = Vec::new();
        for (host, regexes) in regexes {
            if let Err(why) = self.site(host).set(&regexes) {
                problems.extend(too_large(&regexes, &details, &why));
                broken.extend(regexes.iter().map(|(_, index)| *index));
            }
        }
        self.details = details;
        for index in broken {
            self.details.get_mut(index as usize).into_iter().for_each(|detail| detail.path = None);
        }
    }

    fn site(&mut self, host: &host::Pattern) -> &mut Site {
        match host {
            host::Pattern::Exact(name) => self.exact.entry(name.clone()).or_default(),
            host::Pattern::Under(parent) => {
                self.labels = self.labels.max(host::labels(parent));
                self.under.entry(parent.clone()).or_default()
            }
            host::Pattern::Any => &mut self.any,
        }
    }
}

/// Which regular expressions made a set fail: those that are too large alone, else all of them together.
fn too_large(regexes: &[(&PathRegex, u32)], details: &[Detail], why: &str) -> Vec<Problem> {
    let place = |index: u32| details.get(index as usize).map(|detail| place(&detail.name).key("path_regex"));
    let alone =
        |(regex, index): &(&PathRegex, u32)| Some(Problem::error(place(*index)?, regex.check_size().err()?).help(REGEX_HELP));
    let found: Vec<Problem> = regexes.iter().filter_map(alone).collect();
    if !found.is_empty() {
        return found;
    }
    let last = regexes.last().and_then(|(_, index)| place(*index));
    last.map(|place| Problem::error(place, format!("the regular expressions of this host together: {why}"))).into_iter().collect()
}

/// Where a route's match stands.
pub(in crate::route) fn place(name: &RouteName) -> Path {
    Path::root().key("routes").key(name.as_str()).key("match")
}

fn read(name: &RouteName, matches: &Match, problems: &mut Vec<Problem>) -> (Entry, Detail) {
    let mut reader = Reader { place: place(name), problems, broken: false };
    let hosts = reader.hosts(&matches.hosts);
    let path = reader.path(matches);
    let capture = path.as_ref().map_or(Capture::None, |path| reader.capture(path));
    let conditions = Conditions {
        methods: reader.methods(&matches.methods),
        scheme: matches.scheme,
        headers: reader.headers(&matches.headers),
        query: reader.tests("query", &matches.query),
        cookies: reader.cookies(&matches.cookies),
    };
    // Templates may still be read, so that of a route with several mistakes each is told.
    let captures = path.as_ref().map(Pattern::names).unwrap_or_default().into();
    let path = path.filter(|_| !reader.broken);
    (Entry { conditions, capture }, Detail { name: name.clone(), hosts, path, captures })
}

/// Reads one route and notes what is wrong with it.
struct Reader<'a> {
    place: Path,
    problems: &'a mut Vec<Problem>,
    broken: bool,
}

impl Reader<'_> {
    fn error(&mut self, path: Path, message: impl Into<String>, help: Option<&str>) {
        let problem = Problem::error(path, message);
        self.problems.push(match help {
            Some(help) => problem.help(help),
            None => problem,
        });
        self.broken = true;
    }

    fn hosts(&mut self, texts: &[String]) -> Vec<host::Pattern> {
        let mut hosts = Vec::with_capacity(texts.len().max(1));
        for (at, text) in texts.iter().enumerate() {
            let place = self.place.key("hosts").index(at);
            match host::Pattern::parse(text) {
                Ok(host) if hosts.contains(&host) => {
                    self.problems.push(Problem::warning(place, format!("the host `{text}` is listed twice")));
                }
                Ok(host) => hosts.push(host),
                Err(rule) => self.error(
                    place,
                    format!("no request has the host `{text}`: it has {}", rule.trim_end_matches(" in the host")),
                    Some("write a name such as `shop.example`, a wildcard such as `*.shop.example`, or `*`; without a port"),
                ),
            }
        }
        if texts.is_empty() {
            hosts.push(host::Pattern::Any);
        }
        hosts
    }

    fn path(&mut self, matches: &Match) -> Option<Pattern> {
        let (key, read) = match (&matches.path, &matches.path_regex) {
            (Some(_), Some(_)) => {
                let help = "leave one of them out, or make two routes";
                self.error(self.place.key("path_regex"), "`path` and `path_regex` exclude each other", Some(help));
                return None;
            }
            (Some(path), None) => ("path", Pattern::parse(path)),
            (None, Some(regex)) => ("path_regex", Pattern::regex(regex)),
            (None, None) => return Some(Pattern::any()),
        };
        read.map_err(|Misread { message, help }| self.error(self.place.key(key), message, help)).ok()
    }

    fn capture(&mut self, path: &Pattern) -> Capture {
        match path {
            Pattern::Exact(_) => Capture::None,
            Pattern::Segments(segments) => match segments.captured() {
                none if none.is_empty() => Capture::None,
                captured => Capture::Segments(captured),
            },
            Pattern::Regex(regex) => match regex.groups() {
                Ok(groups) => groups.map_or(Capture::None, Capture::Groups),
                Err(message) => {
                    self.error(self.place.key("path_regex"), message, Some(REGEX_HELP));
                    Capture::None
                }
            },
        }
    }

    fn methods(&mut self, names: &[String]) -> Option<Methods> {
        let mut methods = Vec::with_capacity(names.len());
        for (at, name) in names.iter().enumerate() {
            match method(name) {
                Ok(method) => methods.push(method),
                Err(help) => self.error(self.place.key("methods").index(at), format!("`{name}` is not a method"), Some(&help)),
            }
        }
        (!names.is_empty()).then(|| Methods::new(methods))
    }

    fn headers(&mut self, conditions: &BTreeMap<String, Condition>) -> Vec<(HeaderName, Test)> {
        let mut headers: Vec<(HeaderName, Test)> = Vec::with_capacity(conditions.len());
        for (text, condition) in conditions {
            let place = self.place.key("headers").key(text);
            match HeaderName::from_bytes(text.as_bytes()) {
                Err(_) => self.error(place, format!("`{text}` is not a header name"), None),
                Ok(header::HOST) => {
                    self.error(place, "the Host header is not matched here", Some("use `hosts`, which HTTP/2 has too"))
                }
                Ok(name) if headers.iter().any(|(other, _)| *other == name) => {
                    self.error(
                        place,
                        format!("the header `{name}` is named twice"),
                        Some("the case of a header name does not matter"),
                    );
                }
                Ok(name) => {
                    if let Some(test) = self.test(place, condition) {
                        headers.push((name, test));
                    }
                }
            }
        }
        headers.sort_by(|one, two| one.0.as_str().cmp(two.0.as_str()));
        headers
    }

    fn cookies(&mut self, conditions: &BTreeMap<String, Condition>) -> Vec<(Box<str>, Test)> {
        // RFC 6265 §4.1.1: a cookie's name is a token, as a method is.
        for name in conditions.keys().filter(|name| Method::from_bytes(name.as_bytes()).is_err()) {
            self.error(self.place.key("cookies").key(name), format!("`{name}` is not a cookie name"), None);
        }
        self.tests("cookies", conditions)
    }

    fn tests(&mut self, key: &str, conditions: &BTreeMap<String, Condition>) -> Vec<(Box<str>, Test)> {
        let place = self.place.key(key);
        conditions
            .iter()
            .filter_map(|(name, condition)| Some((name.as_str().into(), self.test(place.key(name), condition)?)))
            .collect()
    }

    fn test(&mut self, place: Path, condition: &Condition) -> Option<Test> {
        match condition {
            Condition::Exact(value) => Some(Test::Exact(value.as_bytes().into())),
            Condition::Present(_) => Some(Test::Present),
            Condition::Absent(_) => Some(Test::Absent),
            Condition::Regex(text) => match ValueRegex::parse(text) {
                Ok(regex) => Some(Test::Regex(text.as_str().into(), regex)),
                Err(message) => {
                    self.error(place.key("regex"), message, Some(REGEX_HELP));
                    None
                }
            },
        }
    }
}

/// Reads a method. What is a known one but for its case is a slip, not another method (RFC 9110 §9.1).
fn method(name: &str) -> Result<Method, String> {
    const KNOWN: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"];
    if let Some(known) = KNOWN.iter().find(|known| known.eq_ignore_ascii_case(name) && **known != name) {
        return Err(format!("did you mean `{known}`? Methods are in upper case"));
    }
    Method::from_bytes(name.as_bytes()).map_err(|_| "a method is a word such as `GET` or `PURGE`".to_owned())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// A route with these conditions has exactly this problem: where below its match, and words of what it says.
    fn check(yaml: &str, place: &str, words: &str) {
        let matches: Match = serde_yaml::from_str(yaml).unwrap();
        let name = RouteName::new("r");
        let (table, problems) = Table::compile([(&name, &matches)].into_iter());
        let [problem] = &*problems else { panic!("{yaml}: {problems:?}") };
        assert_eq!(problem.path.to_string(), format!("routes.r.match.{place}"), "{yaml}");
        let text = format!("{} {}", problem.message, problem.help.as_deref().unwrap_or_default());
        assert!(text.contains(words), "{yaml}: {text}");
        assert_eq!(table.details[0].path.is_none(), problem.is_error(), "{yaml}");
    }

    #[test]
    fn mistakes_stand_where_they_were_made() {
        check("{hosts: [a.x, 'b x']}", "hosts[1]", "no request has the host `b x`");
        check("{hosts: [a.x:80]}", "hosts[0]", "without a port");
        check("{hosts: [a.x, A.X.]}", "hosts[1]", "listed twice");
        check("{path: api}", "path", "starts with `/`");
        check("{path: '/{a}/{a}'}", "path", "named twice");
        check("{path: '/a/../..'}", "path", "above the root");
        check("{path_regex: '['}", "path_regex", "cannot be read");
        check("{path_regex: '((a{100}){100}){100}'}", "path_regex", "larger than");
        check("{path_regex: '(?<n>(a{100}){100}){100}'}", "path_regex", "larger than");
        check("{path_regex: '(?<host>a)'}", "path_regex", "named `host`");
        check("{path: /a, path_regex: /b}", "path_regex", "exclude each other");
        check("{methods: [GET, post]}", "methods[1]", "did you mean `POST`");
        check("{methods: ['G T']}", "methods[0]", "not a method");
        check("{headers: {'a b': '1'}}", "headers.a b", "not a header name");
        check("{headers: {Host: a}}", "headers.Host", "use `hosts`");
        check("{headers: {X-A: '1', x-a: '2'}}", "headers.x-a", "named twice");
        check("{headers: {x: {regex: '('}}}", "headers.x.regex", "cannot be read");
        check("{query: {x: {regex: '(?=a)'}}}", "query.x.regex", "cannot be read");
        check("{cookies: {'a=b': '1'}}", "cookies.a=b", "not a cookie name");
    }

    #[test]
    fn every_mistake_of_a_route_is_reported() {
        let matches: Match = serde_yaml::from_str("{hosts: ['*a'], path: a, methods: [get], headers: {'': a}}").unwrap();
        let (_, problems) = Table::compile(BTreeMap::from([(RouteName::new("r"), matches)]).iter());
        assert_eq!(problems.len(), 4, "{problems:?}");
    }

    #[test]
    fn a_broken_route_takes_nothing_and_meets_no_other() {
        let routes: BTreeMap<RouteName, Match> = serde_yaml::from_str("{a: {methods: [get]}, b: {}, c: {path: '/x'}}").unwrap();
        let (table, problems) = Table::compile(routes.iter());
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(table.any.find("/", |_| true), Some(1));
    }
}
