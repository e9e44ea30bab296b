//! A configuration file as a tree whose every part knows where it stands.

use std::collections::HashSet;

use super::{
    super::problem::{Path, Span, Step},
    mask,
};

/// A value and where it stands.
#[derive(Debug)]
pub struct Node {
    pub span: Span,
    pub value: Value,
}

#[derive(Debug)]
pub enum Value {
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Map),
    /// Its mistake is reported already; whoever reads the tree passes over it.
    Lost,
}

#[derive(Debug)]
pub struct Scalar {
    /// What it says; after substitution what its placeholder stands for.
    pub text: String,
    /// Written without quotes, so that it may be a number or a word with a meaning.
    pub plain: bool,
    /// The `${…}` that stood here.
    pub placeholder: Option<String>,
}

/// Values by key, in the order of the file.
#[derive(Debug, Default)]
pub struct Map {
    entries: Vec<Entry>,
    /// Positions in `entries`, sorted by key.
    sorted: Vec<u32>,
}

#[derive(Debug)]
pub struct Entry {
    pub key: Key,
    pub value: Node,
}

#[derive(Debug)]
pub struct Key {
    pub name: String,
    pub span: Span,
}

impl Node {
    /// The node at the end of the path, if all of it exists.
    pub fn find(&self, path: &Path) -> Option<&Self> {
        path.steps().iter().try_fold(self, |node, step| node.child(step).map(|(child, _)| child))
    }

    /// Where the path ends, or the nearest thing around it that exists; `None` if not even its first step does.
    pub fn locate(&self, path: &Path) -> Option<Span> {
        let mut at = None;
        let mut node = self;
        for step in path.steps() {
            let Some((child, span)) = node.child(step) else { break };
            (node, at) = (child, Some(span));
        }
        at
    }

    /// The child that a step leads to, and where to point for it.
    fn child(&self, step: &Step) -> Option<(&Self, Span)> {
        match (&self.value, step) {
            (Value::Map(map), Step::Key(key)) => map.find(key).map(|entry| (&entry.value, entry.pointer())),
            (Value::List(items), Step::Index(index)) => items.get(*index).map(|item| (item, item.span)),
            _ => None,
        }
    }

    /// The `${…}` that stood here, in backticks.
    pub fn placeholder(&self) -> Option<String> {
        match &self.value {
            Value::Scalar(scalar) => scalar.placeholder.as_ref().map(|placeholder| format!("`{placeholder}`")),
            _ => None,
        }
    }

    pub fn as_map(&self) -> Option<&Map> {
        match &self.value {
            Value::Map(map) => Some(map),
            _ => None,
        }
    }

    /// The items of a list; none of anything else.
    pub fn items(&self) -> &[Self] {
        match &self.value {
            Value::List(items) => items,
            _ => &[],
        }
    }

    pub fn is_lost(&self) -> bool {
        matches!(self.value, Value::Lost)
    }
}

impl Entry {
    /// Where to point for the value: at a scalar itself, at the key of anything larger or empty, and of what may be a secret: that is
    /// masked on the line of its key, but it may go on over others.
    pub fn pointer(&self) -> Span {
        match &self.value.value {
            Value::Scalar(_) if !self.value.span.is_empty() && !mask::is_secret_key(&self.key.name) => self.value.span,
            _ => self.key.span,
        }
    }
}

impl Map {
    /// Takes the entries in the order of the file; of those with the same key the first stays, the others are given
    /// back.
    pub fn new(entries: Vec<Entry>) -> (Self, Vec<Entry>) {
        let sorted = sorted(&entries);
        let name = |at: u32| entries.get(at as usize).map(|entry| entry.key.name.as_str());
        let doubles: HashSet<usize> = sorted
            .windows(2)
            .filter_map(|pair| match pair {
                [a, b] if name(*a) == name(*b) => Some(*b as usize),
                _ => None,
            })
            .collect();
        if doubles.is_empty() {
            return (Self { entries, sorted }, Vec::new());
        }
        let (mut kept, mut refused) = (Vec::new(), Vec::new());
        for (at, entry) in entries.into_iter().enumerate() {
            if doubles.contains(&at) { refused.push(entry) } else { kept.push(entry) }
        }
        let sorted = self::sorted(&kept);
        (Self { entries: kept, sorted }, refused)
    }

    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub fn values_mut(&mut self) -> impl Iterator<Item = (&str, &mut Node)> {
        self.entries.iter_mut().map(|entry| (entry.key.name.as_str(), &mut entry.value))
    }

    /// Adds entries that [`Map::find`] does not see: make a new map of them all at the end.
    pub fn append(&mut self, more: Self) {
        self.entries.extend(more.entries);
    }

    pub fn into_entries(self) -> Vec<Entry> {
        self.entries
    }

    pub fn find(&self, key: &str) -> Option<&Entry> {
        let at = self.sorted.binary_search_by(|at| self.name(*at).cmp(key)).ok()?;
        self.sorted.get(at).and_then(|at| self.entries.get(*at as usize))
    }

    pub fn in_order_of_keys(&self) -> impl Iterator<Item = &Entry> {
        self.sorted.iter().filter_map(|at| self.entries.get(*at as usize))
    }

    fn name(&self, at: u32) -> &str {
        self.entries.get(at as usize).map_or("", |entry| &entry.key.name)
    }
}

/// Positions by key; equal keys in the order of the file.
fn sorted(entries: &[Entry]) -> Vec<u32> {
    let mut keys: Vec<(&str, u32)> = entries.iter().map(|entry| entry.key.name.as_str()).zip(0..).collect();
    keys.sort_unstable();
    keys.into_iter().map(|(_, at)| at).collect()
}
