//! The routing table: which route takes a request.
//!
//! Built once from all routes. A request asks, in the order of precedence: the sites of its host (exact, longer wildcard,
//! any); in a site the exact path, the patterns that take the path by falling specificity, the regular expressions; and
//! among the routes of one path those with more conditions first. The first route whose conditions hold takes the request.

mod compile;
mod site;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use ahash::HashMap;
use http::{HeaderMap, HeaderValue};

pub(super) use self::compile::place;
use self::site::Site;
use super::{
    host, pattern,
    predicate::{Conditions, Methods, Seen, Unmet, preflight},
    regex::Groups,
};
use crate::{
    exchange::{Captures, Facts},
    name::RouteName,
};

/// Which route takes which request. Immutable once compiled.
#[derive(Debug, Default)]
pub struct Table {
    /// Sites of exact hosts.
    exact: HashMap<Box<str>, Site>,
    /// Sites of wildcards, by what follows `*.`.
    under: HashMap<Box<str>, Site>,
    /// Most labels of a wildcard: longer ends of a host need no look.
    labels: usize,
    any: Site,
    entries: Vec<Entry>,
    /// Of each route, by index: what explanations and conflicts need.
    pub(super) details: Vec<Detail>,
}

/// What `find` reads of a route.
#[derive(Debug)]
struct Entry {
    conditions: Conditions,
    capture: Capture,
}

/// How the captures of a route are found in a path that it takes.
#[derive(Debug)]
enum Capture {
    None,
    /// These segments.
    Segments(Box<[u8]>),
    Groups(Groups),
}

/// What is known of a route besides.
#[derive(Debug)]
pub(super) struct Detail {
    pub name: RouteName,
    pub hosts: Vec<host::Pattern>,
    /// None: the route is broken and takes nothing.
    pub path: Option<pattern::Pattern>,
    pub captures: Box<[Arc<str>]>,
}

/// What the table knows of a request.
#[derive(Clone, PartialEq, Debug)]
pub enum Found {
    Route {
        index: u32,
        captures: Captures,
    },
    /// No route takes it, but some would with another method: the value of Allow.
    MethodNotAllowed(HeaderValue),
    None,
}

impl Table {
    /// The route that takes a request.
    pub fn find(&self, facts: &Facts, headers: &HeaderMap) -> Found {
        let asked = preflight(&facts.method, headers);
        let seen = Seen::new(facts, headers, &asked);
        let holds = |index: u32| self.entry(index).is_some_and(|entry| entry.conditions.hold(&seen));
        match self.sites(&facts.host).find_map(|site| site.find(&facts.path, holds)) {
            Some(index) => Found::Route { index, captures: self.captures(index, &facts.path) },
            None => self.allowed(facts, &seen),
        }
    }

    /// Names of a route's captures, in the order of `Found::Route::captures`.
    pub fn capture_names(&self, index: u32) -> &[Arc<str>] {
        self.detail(index).map_or(&[], |detail| &detail.captures)
    }

    /// What to say when no route takes a request.
    fn allowed(&self, facts: &Facts, seen: &Seen) -> Found {
        let mut methods = Methods::default();
        for site in self.sites(&facts.host) {
            // Never satisfied, so it sees all candidates.
            site.find(&facts.path, |index| {
                let conditions = self.entry(index).map(|entry| &entry.conditions);
                if let Some(conditions) = conditions.filter(|conditions| conditions.unmet(seen) == Some(Unmet::Method)) {
                    conditions.methods.iter().for_each(|more| methods.extend(more));
                }
                false
            });
        }
        if methods == Methods::default() { Found::None } else { Found::MethodNotAllowed(methods.allow()) }
    }

    /// The sites that a host has, the most specific first.
    fn sites(&self, host: &str) -> impl Iterator<Item = &Site> {
        let exact = self.exact.get(host);
        let under = self.ends(host).filter_map(|end| self.under.get(end));
        exact.into_iter().chain(under).chain([&self.any])
    }

    /// What follows each dot of a host, longest first, if a wildcard can be that long.
    fn ends<'a>(&self, host: &'a str) -> impl Iterator<Item = &'a str> {
        let host = if self.labels == 0 { "" } else { host };
        let excess = host::labels(host).saturating_sub(self.labels).max(1);
        host.match_indices('.').skip(excess - 1).filter_map(|(dot, _)| host.get(dot + 1..))
    }

    /// The routes whose regular expression takes the path of a request, at any of its host's sites.
    pub(super) fn by_regex(&self, facts: &Facts) -> Vec<u32> {
        self.sites(&facts.host).flat_map(|site| site.by_regex(&facts.path)).collect()
    }

    /// The routes of a host pattern that take every path below a literal prefix and go before regular expressions.
    pub(super) fn above_regexes(&self, host: &host::Pattern, prefix: &str) -> Vec<u32> {
        let site = match host {
            host::Pattern::Exact(name) => self.exact.get(name),
            host::Pattern::Under(parent) => self.under.get(parent),
            host::Pattern::Any => Some(&self.any),
        };
        site.map(|site| site.above_regexes(prefix)).unwrap_or_default()
    }

    pub(super) fn captures(&self, index: u32, path: &str) -> Captures {
        match self.entry(index).map(|entry| &entry.capture) {
            Some(Capture::Segments(segments)) => pattern::captures(path, segments),
            Some(Capture::Groups(groups)) => groups.captures(path),
            Some(Capture::None) | None => Captures::new(),
        }
    }

    pub(super) fn conditions(&self, index: u32) -> Option<&Conditions> {
        self.entry(index).map(|entry| &entry.conditions)
    }

    pub(super) fn detail(&self, index: u32) -> Option<&Detail> {
        usize::try_from(index).ok().and_then(|index| self.details.get(index))
    }

    fn entry(&self, index: u32) -> Option<&Entry> {
        usize::try_from(index).ok().and_then(|index| self.entries.get(index))
    }
}
