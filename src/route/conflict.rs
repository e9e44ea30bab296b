//! Routes that stand in each other's way: duplicates, routes that are never reached, ties that only a name decides.
//!
//! Precedence goes by specificity, so a route can be taken all its requests only by one of the same host, the same path and
//! as many conditions, whose name comes first; or, for a regular expression, by a more specific pattern around it. So routes
//! are compared within groups of one host and path, and only with those of equal precedence.

use ahash::{HashMap, HashSet};

use super::{
    host,
    pattern::{Pattern, Shape},
    predicate::{Conditions, Test},
    table::{Detail, Table, place},
};
use crate::config::problem::Problem;

/// With how many routes before it in its group a route is compared. Larger groups are split by their exact conditions
/// before, so only thousands of routes with one host, one path and nothing that tells them apart are not compared with all.
const COMPARED_MAX: usize = 128;

/// What one route takes of another's requests.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Cover {
    All,
    /// All, by the comparison of regular expressions.
    AllByRegex,
}

/// What is found out about a route.
#[derive(Default)]
struct Finding {
    /// The route that takes all its requests, for each of its hosts that has one.
    covered: Vec<(usize, u32, Cover)>,
    /// A route before it that only its name puts there.
    tied: Option<u32>,
    /// The route with the same match.
    twin: Option<u32>,
}

/// Finds all conflicts. `order` has the routes that take something, of two with one host and path the one that goes first in
/// front.
pub(super) fn find(table: &Table, order: &[u32]) -> Vec<Problem> {
    let mut search = Search { table, findings: HashMap::default() };
    for ((host, _), group) in groups(table, order) {
        let equal = |one: &u32, two: &u32| search.is_equal(*one, *two);
        let runs: Vec<Vec<u32>> = group.chunk_by(equal).map(<[u32]>::to_vec).collect();
        runs.into_iter().for_each(|run| search.compare(host, run, &mut HashSet::default()));
    }
    search.compare_regexes(order);
    search.report(order)
}

/// Routes of one host and path, in order.
fn groups<'a>(table: &'a Table, order: &[u32]) -> HashMap<(&'a host::Pattern, Shape), Vec<u32>> {
    let mut groups: HashMap<_, Vec<u32>> = HashMap::default();
    for index in order {
        let Some(detail) = table.detail(*index) else { continue };
        let Some(path) = &detail.path else { continue };
        for host in &detail.hosts {
            groups.entry((host, path.shape())).or_default().push(*index);
        }
    }
    groups
}

struct Search<'a> {
    table: &'a Table,
    findings: HashMap<u32, Finding>,
}

impl<'a> Search<'a> {
    fn conditions(&self, index: u32) -> &'a Conditions {
        self.table.conditions(index).expect("`order` has indexes of the table")
    }

    fn detail(&self, index: u32) -> &'a Detail {
        self.table.detail(index).expect("`order` has indexes of the table")
    }

    fn is_equal(&self, one: u32, two: u32) -> bool {
        self.conditions(one).precedence(self.conditions(two)).is_eq()
    }

    /// Compares routes of one host, path and precedence. Large groups are split by a condition on which they cannot meet.
    fn compare(&mut self, host: &host::Pattern, run: Vec<u32>, split: &mut HashSet<String>) {
        if run.len() > COMPARED_MAX
            && let Some((key, parts)) = self.split(&run, split)
        {
            split.insert(key.clone());
            parts.into_iter().for_each(|part| self.compare(host, part, split));
            split.remove(&key);
            return;
        }
        for (at, later) in run.iter().enumerate() {
            for earlier in run.iter().take(at).skip(at.saturating_sub(COMPARED_MAX)) {
                self.note(host, *earlier, *later);
            }
        }
    }

    /// The parts of a group by the value of a condition that all of them have, exactly.
    fn split(&self, run: &[u32], done: &HashSet<String>) -> Option<(String, Vec<Vec<u32>>)> {
        let keys: Vec<String> =
            self.conditions(*run.first()?).exact().map(|(key, _)| key).filter(|key| !done.contains(key)).collect();
        keys.into_iter().find_map(|key| {
            let mut parts: HashMap<&[u8], Vec<u32>> = HashMap::default();
            for route in run {
                let (_, value) = self.conditions(*route).exact().find(|(other, _)| *other == key)?;
                parts.entry(value).or_default().push(*route);
            }
            Some((key, parts.into_values().collect()))
        })
    }

    /// Notes what a route means for one that comes after it by name alone.
    fn note(&mut self, host: &host::Pattern, earlier: u32, later: u32) {
        let (one, two) = (self.conditions(earlier), self.conditions(later));
        let (first, second) = (self.detail(earlier), self.detail(later));
        let regex = matches!(second.path, Some(Pattern::Regex(_)));
        let covers = one.covers(two).map(|by_regex| if by_regex || regex { Cover::AllByRegex } else { Cover::All });
        let is_twin =
            one.is_same(two) && first.hosts.len() == second.hosts.len() && first.hosts.iter().all(|h| second.hosts.contains(h));
        let overlaps = one.overlaps(two);
        let finding = self.findings.entry(later).or_default();
        match covers {
            _ if is_twin => finding.twin = lower(finding.twin, earlier),
            Some(cover) => {
                finding.cover(second.hosts.iter().position(|h| h == host), earlier, cover);
                finding.tied = lower(finding.tied, earlier);
            }
            None if overlaps => finding.tied = lower(finding.tied, earlier),
            None => {}
        }
    }

    /// Regular expressions that a more specific pattern around them keeps from everything.
    fn compare_regexes(&mut self, order: &[u32]) {
        for index in order {
            let Some(Pattern::Regex(regex)) = &self.detail(*index).path else { continue };
            let prefix = regex.prefix();
            for (at, host) in self.detail(*index).hosts.iter().enumerate() {
                let around = self.table.above_regexes(host, &prefix);
                let taker = around.into_iter().find(|other| self.conditions(*other).covers(self.conditions(*index)).is_some());
                if let Some(taker) = taker {
                    self.findings.entry(*index).or_default().cover(Some(at), taker, Cover::AllByRegex);
                }
            }
        }
    }

    fn report(&self, order: &[u32]) -> Vec<Problem> {
        let mut found: Vec<u32> = order.iter().copied().filter(|index| self.findings.contains_key(index)).collect();
        found.sort_unstable();
        found.into_iter().filter_map(|index| self.problem(index, self.findings.get(&index)?)).collect()
    }

    fn problem(&self, index: u32, finding: &Finding) -> Option<Problem> {
        let detail = self.detail(index);
        let place_of = |other: u32| place(&self.detail(other).name);
        let name = |other: u32| &self.detail(other).name;
        if let Some(twin) = finding.twin {
            let problem = Problem::error(
                place(&detail.name),
                format!("route `{}` has the same match as route `{}`", detail.name, name(twin)),
            );
            return Some(problem.help("remove one of them, or add a condition").also(place_of(twin), "the other route"));
        }
        if let Some((takers, cover)) = finding.unreachable(detail.hosts.len()) {
            let names: Vec<String> = takers.iter().map(|taker| format!("`{}`", name(*taker))).collect();
            let verb = if takers.len() == 1 { "takes" } else { "take" };
            let text = format!("route `{}` is never reached: {} {verb} all its requests", detail.name, names.join(" and "));
            let problem = match cover {
                Cover::All => Problem::error(place(&detail.name), text),
                Cover::AllByRegex => Problem::warning(place(&detail.name), text),
            };
            let problem = problem.help("remove it, or add a condition that makes it more specific");
            return Some(takers.into_iter().fold(problem, |problem, taker| problem.also(place_of(taker), "takes its requests")));
        }
        let tied = finding.tied?;
        let text = format!("some requests match this route and `{0}` equally well; `{0}` takes them, by its name", name(tied));
        let problem = Problem::warning(place(&detail.name), text).help("add a condition to the one that should take them");
        Some(problem.also(place_of(tied), "the other route"))
    }
}

impl Finding {
    fn cover(&mut self, host: Option<usize>, taker: u32, cover: Cover) {
        let Some(host) = host else { return };
        match self.covered.iter_mut().find(|(other, ..)| *other == host) {
            Some(known) if known.2 <= cover => {}
            Some(known) => *known = (host, taker, cover),
            None => self.covered.push((host, taker, cover)),
        }
    }

    /// The routes that take everything, if all hosts are covered, and how surely.
    fn unreachable(&self, hosts: usize) -> Option<(Vec<u32>, Cover)> {
        let cover = self.covered.iter().map(|(.., cover)| *cover).max()?;
        let mut takers: Vec<u32> = self.covered.iter().map(|(_, taker, _)| *taker).collect();
        takers.sort_unstable();
        takers.dedup();
        (self.covered.len() == hosts).then_some((takers, cover))
    }
}

/// The lower index: groups are looked at in no order, what is said has one.
fn lower(known: Option<u32>, other: u32) -> Option<u32> {
    Some(known.map_or(other, |known| known.min(other)))
}

impl Conditions {
    /// Whether they take all that `other` takes. `Some(true)` if that took a look at regular expressions.
    fn covers(&self, other: &Self) -> Option<bool> {
        let methods = match (&self.methods, &other.methods) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(all), Some(some)) => some.is_subset(all),
        };
        if !methods || self.scheme.is_some_and(|scheme| other.scheme != Some(scheme)) {
            return None;
        }
        let headers = all_implied(&self.headers, &other.headers)?;
        let query = all_implied(&self.query, &other.query)?;
        let cookies = all_implied(&self.cookies, &other.cookies)?;
        Some(headers || query || cookies)
    }

    /// Whether they are the same, written the same way.
    fn is_same(&self, other: &Self) -> bool {
        self.methods == other.methods
            && self.scheme == other.scheme
            && same(&self.headers, &other.headers)
            && same(&self.query, &other.query)
            && same(&self.cookies, &other.cookies)
    }

    /// Whether one request can meet both, as far as that can be told.
    fn overlaps(&self, other: &Self) -> bool {
        let methods = match (&self.methods, &other.methods) {
            (Some(one), Some(two)) => one.overlaps(two),
            _ => true,
        };
        let schemes = self.scheme.is_none() || other.scheme.is_none() || self.scheme == other.scheme;
        methods
            && schemes
            && may_meet(&self.headers, &other.headers)
            && may_meet(&self.query, &other.query)
            && may_meet(&self.cookies, &other.cookies)
    }

    /// Its exact conditions, by a key that tells headers, query and cookies apart.
    fn exact(&self) -> impl Iterator<Item = (String, &[u8])> {
        let headers = self.headers.iter().map(|(name, test)| ('h', name.as_str(), test));
        let query = self.query.iter().map(|(name, test)| ('q', &**name, test));
        let cookies = self.cookies.iter().map(|(name, test)| ('c', &**name, test));
        headers.chain(query).chain(cookies).filter_map(|(kind, name, test)| match test {
            Test::Exact(value) => Some((format!("{kind}{name}"), &**value)),
            _ => None,
        })
    }
}

fn all_implied<N: PartialEq>(tests: &[(N, Test)], given: &[(N, Test)]) -> Option<bool> {
    tests.iter().try_fold(false, |by_regex, (name, test)| {
        let (_, given) = given.iter().find(|(other, _)| other == name)?;
        Some(by_regex | test.implied(given)?)
    })
}

fn same<N: PartialEq>(one: &[(N, Test)], two: &[(N, Test)]) -> bool {
    one.len() == two.len() && one.iter().zip(two).all(|((name, test), (other, given))| name == other && test.is_same(given))
}

fn may_meet<N: PartialEq>(one: &[(N, Test)], two: &[(N, Test)]) -> bool {
    one.iter().all(|(name, test)| two.iter().filter(|(other, _)| other == name).all(|(_, other)| test.may_meet(other)))
}

impl Test {
    /// Whether it holds whenever `given` does. `Some(true)` if that took a look at regular expressions.
    fn implied(&self, given: &Self) -> Option<bool> {
        match (self, given) {
            (Self::Present, Self::Present | Self::Exact(_)) | (Self::Absent, Self::Absent) => Some(false),
            (Self::Exact(one), Self::Exact(two)) if one == two => Some(false),
            (Self::Present, Self::Regex(..)) => Some(false),
            (Self::Regex(one, _), Self::Regex(two, _)) if one == two => Some(true),
            (Self::Regex(_, regex), Self::Exact(value)) if regex.matches(value) => Some(true),
            _ => None,
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(one), Self::Exact(two)) => one == two,
            (Self::Regex(one, _), Self::Regex(two, _)) => one == two,
            (Self::Present, Self::Present) | (Self::Absent, Self::Absent) => true,
            _ => false,
        }
    }

    /// Two exact values can meet in a repeated header only; that is left out of account.
    fn may_meet(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Absent, Self::Absent) => true,
            (Self::Absent, _) | (_, Self::Absent) => false,
            (Self::Exact(one), Self::Exact(two)) => one == two,
            (Self::Exact(value), Self::Regex(_, regex)) | (Self::Regex(_, regex), Self::Exact(value)) => regex.matches(value),
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::table::Table;
    use crate::{config::route::Match, name::RouteName};

    /// What is said about the routes of a YAML text: a line each, `E` for errors, `W` for warnings.
    fn check(yaml: &str, expected: &[&str]) {
        let routes: BTreeMap<RouteName, Match> = serde_yaml::from_str(yaml).unwrap();
        let (_, problems) = Table::compile(routes.iter());
        let kind = |error| if error { 'E' } else { 'W' };
        let said: Vec<String> = problems.iter().map(|p| format!("{} {}: {}", kind(p.is_error()), p.path, p.message)).collect();
        assert_eq!(said, expected, "{yaml}");
    }

    #[test]
    fn duplicates_name_both() {
        let text = ["E routes.b.match: route `b` has the same match as route `a`"];
        check("{a: {path: /x}, b: {path: /x}}", &text);
        check("{a: {}, b: {path: /**}}", &text);
        check("{a: {path: '/x/{one}'}, b: {path: '/%78/{two}'}}", &text);
        check("{a: {hosts: [A.x, b.x]}, b: {hosts: [b.x., a.x]}}", &text);
        check("{a: {methods: [GET, HEAD], headers: {X-A: '1'}}, b: {methods: [GET], headers: {x-a: '1'}}}", &text);
        check("{a: {path_regex: /x+}, b: {path_regex: /x+}}", &text);
    }

    #[test]
    fn a_route_that_another_takes_everything_from_is_an_error() {
        let text = ["E routes.b.match: route `b` is never reached: `a` takes all its requests"];
        check("{a: {path: /x, methods: [GET, POST]}, b: {path: /x, methods: [GET]}}", &text);
        check("{a: {path: /x, methods: [GET]}, b: {path: /x, methods: [HEAD]}}", &text);
        check("{a: {headers: {x: {present: true}}}, b: {headers: {x: '1'}}}", &text);
        check("{a: {hosts: [a.x, b.x]}, b: {hosts: [a.x]}}", &text);
        check(
            "{a: {hosts: [a.x]}, b: {hosts: [b.x]}, c: {hosts: [a.x, b.x]}}",
            &["E routes.c.match: route `c` is never reached: `a` and `b` take all its requests"],
        );
    }

    #[test]
    fn what_takes_a_look_at_regular_expressions_is_a_warning() {
        let text = ["W routes.b.match: route `b` is never reached: `a` takes all its requests"];
        check("{a: {path: '/x/**'}, b: {path_regex: '/x/[0-9]+'}}", &text);
        check("{a: {path: '/{any}/y/**'}, b: {path_regex: '/x/y/[0-9]+'}}", &text);
        check("{a: {path_regex: '/x+', methods: [GET, POST]}, b: {path_regex: '/x+', methods: [GET]}}", &text);
        check("{a: {headers: {x: {regex: '[0-9]'}}}, b: {headers: {x: '1'}}}", &text);
    }

    #[test]
    fn a_last_tie_by_name_is_a_warning() {
        let text = ["W routes.b.match: some requests match this route and `a` equally well; `a` takes them, by its name"];
        check("{a: {headers: {x: '1'}}, b: {headers: {y: '1'}}}", &text);
        check("{a: {path: /x, methods: [GET, POST]}, b: {path: /x, methods: [GET, PUT]}}", &text);
        check("{a: {headers: {x: '1'}}, b: {headers: {x: {present: true}}}}", &text);
        check("{a: {hosts: [a.x]}, b: {hosts: [a.x, b.x]}}", &text);
    }

    #[test]
    fn routes_that_do_not_meet_or_are_told_apart_are_fine() {
        check("{a: {path: /x}, b: {path: /y}}", &[]);
        check("{a: {path: '/{x}/y'}, b: {path: '/x/{y}'}}", &[]);
        check("{a: {path: '/x/**'}, b: {path: '/x/{y}'}}", &[]);
        check("{a: {methods: [GET]}, b: {methods: [POST]}, c: {}}", &[]);
        check("{a: {headers: {x: '1'}}, b: {headers: {x: '2'}}, c: {headers: {x: {absent: true}}}}", &[]);
        check("{a: {headers: {x: {present: true}}}, b: {headers: {x: {absent: true}}}}", &[]);
        check("{a: {scheme: http}, b: {scheme: https}, c: {}}", &[]);
        check("{a: {hosts: ['*.x']}, b: {hosts: [a.x]}, c: {hosts: ['*']}}", &[]);
        check("{a: {path_regex: '/x+'}, b: {path_regex: '/y+'}}", &[]);
        check("{a: {path: '/xy/**'}, b: {path_regex: '/xyz[0-9]+'}}", &[]);
        check("{a: {path: '/**'}, b: {path_regex: '/x/[0-9]+'}}", &[]);
        check("{a: {path: '/x/**', methods: [GET]}, b: {path_regex: '/x/[0-9]+'}}", &[]);
        check("{a: {hosts: [a.x], path: '/x/**'}, b: {hosts: [a.x, b.x], path_regex: '/x/[0-9]+'}}", &[]);
    }

    #[test]
    fn large_groups_are_told_apart_by_their_exact_conditions() {
        let mut routes: BTreeMap<RouteName, Match> = BTreeMap::new();
        for n in 0..1000 {
            let route = format!("{{path: /x, headers: {{x-tenant: 't{}', x-shard: 's{}'}}}}", n % 999, n % 999 / 10);
            routes.insert(RouteName::new(&format!("r{n:04}")), serde_yaml::from_str(&route).unwrap());
        }
        let (_, problems) = Table::compile(routes.iter());
        let said: Vec<String> = problems.iter().map(|p| p.path.to_string()).collect();
        assert_eq!(said, ["routes.r0999.match"]);
    }
}
