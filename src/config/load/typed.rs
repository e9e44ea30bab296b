//! The tree → [`Config`], with every mistake.
//!
//! A mistake is reported, its node passed over from then on, and the reading tried again. Each named body is read for itself, so that
//! a retry costs one body and not the file.

use std::collections::BTreeMap;

use serde::{Deserialize, de::DeserializeOwned};

use super::{
    super::{
        Config,
        problem::{Path, Problem},
        suggest::suggest,
    },
    fault::{Fault, Mistake},
    later,
    parse::MERGE,
    reader::{KeyReader, Pruned, Reader},
    tree::{Entry, Map, Node, Value},
    words,
};

/// Most mistakes that are reported in one run.
pub const PROBLEMS_MAX: usize = 200;

/// Reads the whole configuration. What has mistakes is in it as far as it could be understood.
pub fn read(root: &Node) -> (Config, Vec<Problem>) {
    let empty = Map::default();
    let mut sections = Sections { root: root.as_map().unwrap_or(&empty), known: Vec::new(), typed: Typed::default() };
    let config = Config {
        listeners: sections.named("listeners"),
        admin: sections.section("admin"),
        process: sections.section("process").unwrap_or_default(),
        trusted_proxies: sections.section("trusted_proxies").unwrap_or_default(),
        paths: sections.section("paths").unwrap_or_default(),
        observe: sections.section("observe").unwrap_or_default(),
        overload: sections.section("overload").unwrap_or_default(),
        upstreams: sections.named("upstreams"),
        identity: sections.named("identity"),
        plans: sections.named("plans"),
        consumers: sections.named("consumers"),
        policies: sections.section("policies").unwrap_or_default(),
        routes: sections.named("routes"),
    };
    sections.unknown();
    (config, sections.typed.problems)
}

/// The sections of a file. What was asked for is known; the rest is not.
struct Sections<'t> {
    root: &'t Map,
    known: Vec<&'static str>,
    typed: Typed,
}

impl<'t> Sections<'t> {
    fn section<T: DeserializeOwned>(&mut self, name: &'static str) -> Option<T> {
        let entry = self.entry(name)?;
        self.typed.read(&entry.value, &Path::root().key(name))
    }

    /// A map by name, read body by body.
    fn named<N: DeserializeOwned + Ord, T: DeserializeOwned>(&mut self, name: &'static str) -> BTreeMap<N, T> {
        let path = Path::root().key(name);
        let Some(entry) = self.entry(name) else { return BTreeMap::new() };
        let Value::Map(bodies) = &entry.value.value else {
            self.typed.read::<ByName>(&entry.value, &path);
            return BTreeMap::new();
        };
        bodies.entries().iter().filter_map(|body| self.typed.body(body, &path)).collect()
    }

    fn entry(&mut self, name: &'static str) -> Option<&'t Entry> {
        self.known.push(name);
        self.root.find(name).filter(|entry| !entry.value.is_lost())
    }

    fn unknown(&mut self) {
        for entry in self.root.entries().iter().filter(|entry| !self.known.contains(&entry.key.name.as_str())) {
            let path = Path::root().key(&entry.key.name);
            let problem = unknown_key(&path, &entry.key.name, &self.known);
            self.typed.problems.push(problem.at(entry.key.span));
        }
    }
}

/// Never read from anything: says what a section by name must be.
struct ByName;

impl<'de> Deserialize<'de> for ByName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl serde::de::Visitor<'_> for Names {
            type Value = ByName;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a map from names to what they stand for")
            }
        }
        deserializer.deserialize_map(Names)
    }
}

/// Reads nodes and gathers their mistakes.
#[derive(Default)]
struct Typed {
    problems: Vec<Problem>,
}

impl Typed {
    fn body<N: DeserializeOwned, T: DeserializeOwned>(&mut self, entry: &Entry, section: &Path) -> Option<(N, T)> {
        let path = section.key(&entry.key.name);
        let name = N::deserialize(KeyReader(&entry.key)).map_err(|mistake| {
            self.problems.push(describe(&mistake.on_key(entry), &path, &entry.value));
        });
        let body = (!entry.value.is_lost()).then(|| self.read(&entry.value, &path)).flatten();
        Some((name.ok()?, body?))
    }

    /// Reads a node until no mistake is left, or none of it.
    fn read<'t, T: Deserialize<'t>>(&mut self, node: &'t Node, path: &Path) -> Option<T> {
        let mut pruned = Pruned::default();
        while self.problems.len() <= PROBLEMS_MAX {
            let mistake = match T::deserialize(Reader::new(node, &pruned)) {
                Ok(value) => return Some(value),
                Err(mistake) => mistake,
            };
            let at = mistake.node.unwrap_or(node);
            let whole = mistake.path(path);
            if !is_consequence(&mistake.fault, at, &whole, &pruned) {
                self.problems.push(describe(&mistake, &whole, at));
            }
            if std::ptr::eq(at, node) {
                return None;
            }
            pruned.insert(at);
        }
        None
    }
}

/// Whether a mistake is there only because of another that is reported already.
fn is_consequence(fault: &Fault, node: &Node, path: &Path, pruned: &Pruned) -> bool {
    let mut passed = node.as_map().into_iter().flat_map(Map::entries).filter(|entry| pruned.has(&entry.value)).peekable();
    match fault {
        Fault::MissingKey(missing) => passed.any(|entry| {
            let name = &entry.key.name;
            name == missing
                || name == MERGE
                || later::brings_key(&path.key(name))
                || suggest(name, [*missing].into_iter()).is_some()
        }),
        Fault::Custom(_) => passed.peek().is_some() || node.items().iter().any(|item| pruned.has(item)),
        _ => false,
    }
}

/// The mistake in the user's words.
fn describe(mistake: &Mistake<'_>, path: &Path, node: &Node) -> Problem {
    if let Some(key) = mistake.key {
        return faulty(mistake, path, node).at(key.span);
    }
    match later_key(node, path) {
        Some(entry) => not_yet(path.key(&entry.key.name), &entry.key.name).at(entry.key.span),
        None => faulty(mistake, path, node),
    }
}

fn faulty(mistake: &Mistake<'_>, path: &Path, node: &Node) -> Problem {
    let error = |message: String| Problem::error(path.clone(), message);
    match &mistake.fault {
        Fault::Custom(message) if message.starts_with(ONE_OF) => error(format!("found {}, {message}", keys(node))),
        Fault::Custom(message) => error(message.clone()),
        Fault::Unlike { found, expected } => unlike(path, node.placeholder().as_ref().unwrap_or(found), expected),
        Fault::UnknownKey { key, known } => unknown_key(path, key, known),
        Fault::UnknownWord { word, known } => match node.placeholder() {
            Some(placeholder) => unlike(path, &placeholder, &words::one_of(known)),
            None => unknown_word(path, word, known),
        },
        Fault::MissingKey(key) => error(format!("the key `{key}` is missing")),
    }
}

/// How the messages begin that a choice between kinds gives.
const ONE_OF: &str = "expected exactly one of";

fn keys(node: &Node) -> String {
    let keys: Vec<&str> = node.as_map().into_iter().flat_map(Map::entries).map(|entry| entry.key.name.as_str()).collect();
    if keys.is_empty() { "none".to_owned() } else { words::list(keys.into_iter()) }
}

fn unlike(path: &Path, found: &str, expected: &str) -> Problem {
    let problem = Problem::error(path.clone(), format!("found {found}, expected {expected}"));
    match (found, expected) {
        ("no value", _) => problem.help("give the key a value, or remove it"),
        ("a list" | "a map", _) => problem,
        (_, "text") => problem.help("put it in quotes if it is meant as text"),
        (_, "a list") => problem.help("a list of one has brackets around it: `[…]`"),
        _ => problem,
    }
}

/// The first key in the node that a later version brings, for a node that today takes no such map.
fn later_key<'t>(node: &'t Node, path: &Path) -> Option<&'t Entry> {
    node.as_map()?.entries().iter().find(|entry| later::brings_key(&path.key(&entry.key.name)))
}

fn not_yet(path: Path, what: &str) -> Problem {
    Problem::error(path, format!("`{what}` is not supported yet"))
        .help("remove it: what this version cannot do it refuses, rather than ignore it")
}

fn unknown_key(path: &Path, key: &str, known: &[&str]) -> Problem {
    if later::brings_key(path) {
        return not_yet(path.clone(), key);
    }
    let problem = Problem::error(path.clone(), format!("unknown key {}", super::fault::quoted(key)));
    problem.help(choices(key, known))
}

fn unknown_word(path: &Path, word: &str, known: &[&str]) -> Problem {
    if later::brings_word(path, word) {
        return not_yet(path.clone(), word);
    }
    let problem = unlike(path, &super::fault::quoted(word), &words::one_of(known));
    match suggest(word, known.iter().copied()).filter(|_| known.len() > 1) {
        Some(name) => problem.help(format!("did you mean `{name}`?")),
        None => problem,
    }
}

fn choices(wrong: &str, known: &[&str]) -> String {
    let list = words::list(known.iter().copied());
    match suggest(wrong, known.iter().copied()) {
        Some(name) => format!("did you mean `{name}`? Known here: {list}"),
        None => format!("known here: {list}"),
    }
}
