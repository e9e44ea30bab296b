//! Why a route takes a request, and why the others do not.

use std::{cmp::Reverse, fmt};

use ahash::HashSet;
use http::{HeaderMap, HeaderName, Method};

use super::{
    pattern::Pattern,
    predicate::{Seen, Unmet, preflight},
    table::{Detail, Table},
};
use crate::{
    exchange::{Captures, Facts},
    name::RouteName,
};

/// What one route has to do with a request.
#[derive(Clone, PartialEq, Debug)]
pub struct Verdict {
    pub index: u32,
    pub outcome: Outcome,
}

/// Whether a route takes a request.
#[derive(Clone, PartialEq, Debug)]
pub enum Outcome {
    Takes(Captures),
    Loses(Why),
}

/// Why a route does not take a request. In the order in which conditions are looked at.
#[derive(Clone, PartialEq, Debug)]
pub enum Why {
    Host,
    Path,
    Scheme,
    Header(HeaderName),
    Query(Box<str>),
    Cookie(Box<str>),
    /// All else matches.
    Method(Method),
    /// It matches, but another one does better.
    LessSpecific {
        than: RouteName,
        by: By,
    },
}

/// What decides between two routes that match.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum By {
    Host,
    Path,
    Methods,
    Headers,
    Query,
    Cookies,
    Scheme,
    Name,
}

impl Table {
    /// What each route has to do with a request: the one that takes it first, then those that match less specifically, by
    /// precedence, then the others, those that came furthest first. Looks at every route.
    pub fn explain(&self, facts: &Facts, headers: &HeaderMap) -> Vec<Verdict> {
        let asked = preflight(&facts.method, headers);
        let seen = Seen::new(facts, headers, &asked);
        let by_regex: HashSet<u32> = self.by_regex(facts).into_iter().collect();
        let (mut matching, mut losing) = (Vec::new(), Vec::new());
        for (index, detail) in (0u32..).zip(&self.details) {
            match self.unmet(index, detail, facts, &seen, &by_regex) {
                Some(why) => losing.push((index, why)),
                None => matching.push(index),
            }
        }
        matching.sort_by(|one, two| self.precedence(*one, *two, &facts.host).1);
        losing.sort_by_key(|(_, why)| Reverse(why.stage()));
        let winner = matching.first().copied();
        let verdict = |(index, why)| Verdict { index, outcome: Outcome::Loses(why) };
        let matching = matching.into_iter().map(|index| self.verdict(index, winner, facts));
        matching.chain(losing.into_iter().map(verdict)).collect()
    }

    fn verdict(&self, index: u32, winner: Option<u32>, facts: &Facts) -> Verdict {
        let outcome = match winner.filter(|winner| *winner != index).and_then(|winner| Some((winner, self.detail(winner)?))) {
            None => Outcome::Takes(self.captures(index, &facts.path)),
            Some((winner, detail)) => {
                let (by, _) = self.precedence(winner, index, &facts.host);
                Outcome::Loses(Why::LessSpecific { than: detail.name.clone(), by })
            }
        };
        Verdict { index, outcome }
    }

    /// The first thing in a route that does not match.
    fn unmet(&self, index: u32, detail: &Detail, facts: &Facts, seen: &Seen, by_regex: &HashSet<u32>) -> Option<Why> {
        if !detail.hosts.iter().any(|host| host.matches(&facts.host)) {
            return Some(Why::Host);
        }
        let takes = match &detail.path {
            Some(Pattern::Exact(path)) => **path == *facts.path,
            Some(Pattern::Segments(segments)) => segments.matches(&facts.path),
            Some(Pattern::Regex(_)) => by_regex.contains(&index),
            None => false,
        };
        if !takes {
            return Some(Why::Path);
        }
        self.conditions(index)?.unmet(seen).map(|unmet| Why::of(unmet, seen.method))
    }

    /// Which of two routes that match goes first for a host, and by what.
    fn precedence(&self, one: u32, two: u32, host: &str) -> (By, std::cmp::Ordering) {
        let (Some(first), Some(second)) = (self.detail(one), self.detail(two)) else { return (By::Name, one.cmp(&two)) };
        let (Some(left), Some(right)) = (self.conditions(one), self.conditions(two)) else { return (By::Name, one.cmp(&two)) };
        let by_path = match (&first.path, &second.path) {
            (Some(one), Some(two)) => one.precedence(two),
            _ => std::cmp::Ordering::Equal,
        };
        let steps = [(By::Host, second.rank(host).cmp(&first.rank(host))), (By::Path, by_path)];
        let steps = steps.into_iter().chain(left.steps(right)).chain([(By::Name, first.name.cmp(&second.name))]);
        steps.into_iter().find(|(_, order)| order.is_ne()).unwrap_or((By::Name, std::cmp::Ordering::Equal))
    }
}

impl Detail {
    /// How specifically it names a host.
    fn rank(&self, host: &str) -> Option<usize> {
        self.hosts.iter().filter(|pattern| pattern.matches(host)).map(|pattern| pattern.rank()).max()
    }
}

impl Why {
    fn of(unmet: Unmet, method: &Method) -> Self {
        match unmet {
            Unmet::Scheme => Self::Scheme,
            Unmet::Header(name) => Self::Header(name.clone()),
            Unmet::Query(name) => Self::Query(name.into()),
            Unmet::Cookie(name) => Self::Cookie(name.into()),
            Unmet::Method => Self::Method(method.clone()),
        }
    }

    /// How far the route came.
    fn stage(&self) -> u8 {
        match self {
            Self::Host => 0,
            Self::Path => 1,
            Self::Scheme => 2,
            Self::Header(_) => 3,
            Self::Query(_) => 4,
            Self::Cookie(_) => 5,
            Self::Method(_) => 6,
            Self::LessSpecific { .. } => 7,
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("the host does not match"),
            Self::Path => f.write_str("the path does not match"),
            Self::Scheme => f.write_str("the scheme does not match"),
            Self::Header(name) => write!(f, "the condition on header `{name}` does not hold"),
            Self::Query(name) => write!(f, "the condition on query parameter `{name}` does not hold"),
            Self::Cookie(name) => write!(f, "the condition on cookie `{name}` does not hold"),
            Self::Method(method) => write!(f, "the method {method} does not match, all else does"),
            Self::LessSpecific { than, by } => write!(f, "less specific than `{than}`, which {by}"),
        }
    }
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "names the host more closely",
            Self::Path => "names the path more closely",
            Self::Methods => "names its methods",
            Self::Headers => "has more conditions on headers",
            Self::Query => "has more conditions on the query",
            Self::Cookies => "has more conditions on cookies",
            Self::Scheme => "names its scheme",
            Self::Name => "comes first by its name",
        })
    }
}
