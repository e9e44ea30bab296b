//! What was read, for all who must point into it later.

use std::path::PathBuf;

use serde_json::Value as Json;
use sha2::{Digest, Sha256};

use super::{
    super::{
        Config,
        problem::{Path, Problem, Span},
    },
    scalar,
    substitute::Hidden,
    tree::{Entry, Key, Map, Node, Scalar, Value},
};

/// The files that a configuration was read from, with the place of every key in them.
#[derive(Debug)]
pub struct Sources {
    pub(super) texts: Vec<Text>,
    pub(super) files: Vec<PathBuf>,
    pub(super) root: Node,
    pub(super) hidden: Vec<Hidden>,
    pub(super) hash: String,
}

/// One configuration file.
#[derive(Debug)]
pub struct Text {
    pub name: PathBuf,
    pub text: String,
}

/// A place to point at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    pub file: PathBuf,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
}

impl Sources {
    /// Where the key stands, or the nearest thing around it that is written somewhere.
    pub fn locate(&self, path: &Path) -> Option<Place> {
        self.place(self.root.locate(path)?)
    }

    /// Content hash of the effective configuration in hexadecimal digits. Values that placeholders stand for count; the order of keys,
    /// comments and the names of the files do not.
    pub fn hash(&self) -> String {
        self.hash.clone()
    }

    /// The files to watch: those of the configuration, in a directory the directory itself first, and those that `${file:…}` names.
    /// Certificates are not among them.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// The configuration with its defaults, fit to be shown: what a placeholder stands for is shown as the placeholder, a secret not at
    /// all.
    pub fn redacted(&self, config: &Config) -> Json {
        let mut shown = serde_json::to_value(config).unwrap_or_default();
        hide(&self.root, &mut shown);
        shown
    }

    /// What is needed once the configuration is in force, to show it: the placeholders and where they stand. The texts and their tree take
    /// many times the room of what they say.
    pub(super) fn slimmed(&self) -> Self {
        let nothing = || Node { span: self.root.span, value: Value::Lost };
        Self {
            texts: Vec::new(),
            files: self.files.clone(),
            root: placeholders(&self.root).unwrap_or_else(nothing),
            hidden: Vec::new(),
            hash: self.hash.clone(),
        }
    }

    /// The text without any value that a placeholder stands for.
    pub fn scrub(&self, text: &str) -> String {
        scrub(text, &self.hidden)
    }

    pub(super) fn span(&self, problem: &Problem) -> Option<Span> {
        problem.span.or_else(|| self.root.locate(&problem.path))
    }

    pub(super) fn place(&self, span: Span) -> Option<Place> {
        let text = self.texts.get(span.file as usize)?;
        Some(Place { file: text.name.clone(), line: span.line as usize, column: span.column as usize })
    }

    /// The names that a section declares, whether or not their bodies could be read.
    pub(super) fn names(&self, section: &str) -> impl Iterator<Item = &str> {
        let section = self.root.as_map().and_then(|root| root.find(section));
        let names = section.and_then(|section| section.value.as_map());
        names.into_iter().flat_map(|names| names.entries()).map(|entry| entry.key.name.as_str())
    }
}

/// Shortest value that is looked for inside words. A shorter one is taken out only where it stands in backticks: taken out everywhere it
/// would garble the message, and tell by the garbling what it is.
const SCRUBBED_MIN: usize = 4;

pub(super) fn scrub(text: &str, hidden: &[Hidden]) -> String {
    let mut scrubbed = text.to_owned();
    for Hidden { value, placeholder } in hidden.iter().filter(|hidden| !hidden.value.is_empty()) {
        let shown = super::fault::quoted(value);
        scrubbed = scrubbed.replace(&shown, &format!("`{placeholder}`"));
        for part in std::iter::once(value.as_str()).chain(value.lines()).map(str::trim) {
            if part.len() >= SCRUBBED_MIN {
                scrubbed = scrubbed.replace(part, placeholder).replace(&part.escape_debug().to_string(), placeholder);
            }
        }
    }
    scrubbed
}

/// Shows the placeholder wherever one stood.
fn hide(node: &Node, shown: &mut Json) {
    match (&node.value, shown) {
        (Value::Scalar(scalar), shown) => {
            if let Some(placeholder) = &scalar.placeholder {
                *shown = Json::String(placeholder.clone());
            }
        }
        (Value::Map(map), Json::Object(object)) => {
            for (key, shown) in object.iter_mut() {
                if let Some(entry) = map.find(key) {
                    hide(&entry.value, shown);
                }
            }
        }
        (Value::List(items), Json::Array(array)) => items.iter().zip(array).for_each(|(item, shown)| hide(item, shown)),
        _ => {}
    }
}

/// The part of a tree that has placeholders. Items of a list keep their positions.
fn placeholders(node: &Node) -> Option<Node> {
    let nothing = |item: &Node| Node { span: item.span, value: Value::Lost };
    let value = match &node.value {
        Value::Scalar(scalar) => {
            let placeholder = scalar.placeholder.clone()?;
            Value::Scalar(Scalar { text: String::new(), plain: scalar.plain, placeholder: Some(placeholder) })
        }
        Value::List(items) => {
            let slim: Vec<_> = items.iter().map(placeholders).collect();
            slim.iter().any(Option::is_some).then_some(())?;
            Value::List(slim.into_iter().zip(items).map(|(slim, item)| slim.unwrap_or_else(|| nothing(item))).collect())
        }
        Value::Map(map) => {
            let slim = map.entries().iter().filter_map(|entry| {
                let key = Key { name: entry.key.name.clone(), span: entry.key.span };
                placeholders(&entry.value).map(|value| Entry { key, value })
            });
            let (slim, _) = Map::new(slim.collect());
            (!slim.entries().is_empty()).then_some(())?;
            Value::Map(slim)
        }
        Value::Lost => return None,
    };
    Some(Node { span: node.span, value })
}

/// Hash of what the tree says.
pub(super) fn hash(root: &Node) -> String {
    let mut hasher = Sha256::new();
    feed(&mut hasher, root);
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Each part is preceded by its kind and length, so no two trees feed the same bytes.
fn feed(hasher: &mut Sha256, node: &Node) {
    match &node.value {
        Value::Scalar(scalar) => {
            let text = !scalar.plain || scalar.placeholder.is_some() || scalar::is_text(&scalar.text);
            part(hasher, if text { b't' } else { b'p' }, scalar.text.len());
            hasher.update(&scalar.text);
        }
        Value::List(items) => {
            part(hasher, b'l', items.len());
            items.iter().for_each(|item| feed(hasher, item));
        }
        Value::Map(map) => {
            part(hasher, b'm', map.entries().len());
            for entry in map.in_order_of_keys() {
                part(hasher, b'k', entry.key.name.len());
                hasher.update(&entry.key.name);
                feed(hasher, &entry.value);
            }
        }
        Value::Lost => part(hasher, b'x', 0),
    }
}

fn part(hasher: &mut Sha256, kind: u8, length: usize) {
    hasher.update([kind]);
    hasher.update((length as u64).to_le_bytes());
}
