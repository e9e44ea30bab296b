//! The routes of one host pattern, by path.

use std::cmp::Reverse;

use ahash::HashMap;
use smallvec::SmallVec;

use crate::route::{
    pattern::{Part, Pattern, Segments, Specificity},
    regex::{PathRegex, PathSet},
};

/// Routes by index, the one that goes first in front.
pub(super) type Ranked = SmallVec<[u32; 4]>;

/// The routes of one host pattern.
#[derive(Debug, Default)]
pub(super) struct Site {
    exact: HashMap<Box<str>, Ranked>,
    nodes: Vec<Node>,
    regexes: Option<Regexes>,
}

/// A place in the tree of patterns by segments. The first node is the root.
#[derive(Debug, Default)]
struct Node {
    literals: HashMap<Box<str>, u32>,
    capture: Option<u32>,
    /// Patterns that end here.
    closed: Option<Leaf>,
    /// Patterns that go on with `/**` here.
    open: Option<Leaf>,
}

/// The routes of one pattern.
#[derive(Debug)]
struct Leaf {
    specificity: Specificity,
    routes: Ranked,
}

/// The regular expressions of a site, searched in one pass.
#[derive(Debug)]
struct Regexes {
    set: PathSet,
    /// By position in the set.
    routes: Box<[u32]>,
}

/// Patterns that take a path.
type Leaves<'a> = SmallVec<[&'a Leaf; 8]>;

impl Site {
    /// Adds a route. Those that go first must be added first. Regular expressions come by `set`.
    pub fn add(&mut self, path: &Pattern, route: u32) {
        match path {
            Pattern::Exact(path) => self.exact.entry(path.clone()).or_default().push(route),
            Pattern::Segments(segments) => self.leaf(segments).routes.push(route),
            Pattern::Regex(_) => {}
        }
    }

    /// Sets the regular expressions, in order of precedence.
    pub fn set(&mut self, regexes: &[(&PathRegex, u32)]) -> Result<(), String> {
        if !regexes.is_empty() {
            let set = PathSet::new(regexes.iter().map(|(regex, _)| *regex))?;
            self.regexes = Some(Regexes { set, routes: regexes.iter().map(|(_, route)| *route).collect() });
        }
        Ok(())
    }

    /// The first route that takes the path and `holds`.
    pub fn find(&self, path: &str, mut holds: impl FnMut(u32) -> bool) -> Option<u32> {
        let exact = self.exact.get(path).into_iter().flatten().copied().find(|route| holds(*route));
        if exact.is_some() {
            return exact;
        }
        let leaves = self.leaves(path);
        let named = leaves.iter().take_while(|leaf| leaf.specificity.literals > 0).count();
        let (named, bare) = leaves.split_at_checked(named).unwrap_or_default();
        first(named, &mut holds)
            .or_else(|| self.regexes.as_ref().and_then(|regexes| regexes.find(path, &mut holds)))
            .or_else(|| first(bare, &mut holds))
    }

    /// The routes whose regular expression takes the path, in order of precedence.
    pub fn by_regex(&self, path: &str) -> Vec<u32> {
        if !path.starts_with('/') {
            return Vec::new();
        }
        self.regexes.as_ref().map(|regexes| regexes.takers(path).collect()).unwrap_or_default()
    }

    /// Routes that take every path below a literal prefix and go before regular expressions, by falling specificity.
    pub fn above_regexes(&self, prefix: &str) -> Vec<u32> {
        // What follows the last slash may be a part of a segment only.
        let Some((whole, _)) = prefix.rsplit_once('/') else { return Vec::new() };
        let leaves = self.leaves(whole);
        let open = leaves.iter().filter(|leaf| leaf.specificity.literals > 0 && leaf.specificity.is_open());
        open.flat_map(|leaf| &leaf.routes).copied().collect()
    }

    /// The patterns by segments that take a path, the most specific first.
    fn leaves(&self, path: &str) -> Leaves<'_> {
        let mut leaves = Leaves::new();
        if let Some(root) = self.nodes.first() {
            match path.strip_prefix('/') {
                Some(rest) => self.collect(root, Some(rest), &mut leaves),
                // `*` has no segments: only `/**` takes it.
                None => leaves.extend(&root.open),
            }
            leaves.sort_unstable_by_key(|leaf| Reverse(leaf.specificity));
        }
        leaves
    }

    /// Recursion is bounded by the depth of the patterns, not of the path.
    fn collect<'a>(&'a self, node: &'a Node, rest: Option<&str>, leaves: &mut Leaves<'a>) {
        leaves.extend(&node.open);
        let Some(rest) = rest else {
            leaves.extend(&node.closed);
            return;
        };
        let (segment, rest) = match rest.split_once('/') {
            Some((segment, rest)) => (segment, Some(rest)),
            None => (rest, None),
        };
        let capture = node.capture.filter(|_| !segment.is_empty());
        for next in [node.literals.get(segment).copied(), capture].into_iter().flatten() {
            if let Some(next) = self.node(next) {
                self.collect(next, rest, leaves);
            }
        }
    }

    fn node(&self, at: u32) -> Option<&Node> {
        usize::try_from(at).ok().and_then(|at| self.nodes.get(at))
    }

    /// The leaf of a pattern, grown if it is not there.
    fn leaf(&mut self, segments: &Segments) -> &mut Leaf {
        if self.nodes.is_empty() {
            self.nodes.push(Node::default());
        }
        let end = segments.parts.iter().fold(0, |at, part| self.step(at, part));
        let node = self.nodes.get_mut(end as usize).expect("`step` gives nodes that are there");
        let leaf = if segments.open { &mut node.open } else { &mut node.closed };
        leaf.get_or_insert_with(|| Leaf { specificity: segments.specificity(), routes: Ranked::new() })
    }

    /// The node after a segment, grown if it is not there.
    fn step(&mut self, at: u32, part: &Part) -> u32 {
        let new = u32::try_from(self.nodes.len()).expect("fewer nodes than 2^32: each takes a segment of the configuration");
        let node = self.nodes.get_mut(at as usize).expect("`step` gives nodes that are there");
        let next = match part {
            Part::Literal(text) => *node.literals.entry(text.clone()).or_insert(new),
            Part::Capture(_) => *node.capture.get_or_insert(new),
        };
        if next == new {
            self.nodes.push(Node::default());
        }
        next
    }
}

fn first(leaves: &[&Leaf], mut holds: impl FnMut(u32) -> bool) -> Option<u32> {
    leaves.iter().flat_map(|leaf| &leaf.routes).copied().find(|route| holds(*route))
}

impl Regexes {
    fn find(&self, path: &str, holds: &mut impl FnMut(u32) -> bool) -> Option<u32> {
        // `*` is no path: only `/**` takes it.
        if path.starts_with('/') { self.takers(path).find(|route| holds(*route)) } else { None }
    }

    fn takers(&self, path: &str) -> impl Iterator<Item = u32> {
        self.set.matches(path).into_iter().filter_map(|at| self.routes.get(at).copied())
    }
}
