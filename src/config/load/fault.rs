//! What serde finds wrong, kept apart until it is put into the user's words.

use std::fmt;

use serde::de::{Expected, Unexpected};

use super::{
    super::problem::{Path, Step},
    tree::{Entry, Key, Node},
};

/// One mistake of typed reading and the node it stands at.
#[derive(Debug)]
pub struct Mistake<'t> {
    pub fault: Fault,
    /// The node at fault; `None`: the one that was read as a whole.
    pub node: Option<&'t Node>,
    /// The node's key, if that is what is wrong.
    pub key: Option<&'t Key>,
    /// Steps from the root of the reading to the node, innermost first.
    steps: Vec<Step>,
}

#[derive(Debug)]
pub enum Fault {
    /// A message of a type's own.
    Custom(String),
    /// Found this, expected that.
    Unlike { found: String, expected: String },
    /// A key that the map does not have.
    UnknownKey { key: String, known: &'static [&'static str] },
    /// A word that is none of the choices.
    UnknownWord { word: String, known: &'static [&'static str] },
    /// A key that must be there.
    MissingKey(&'static str),
}

impl<'t> Mistake<'t> {
    pub fn new(fault: Fault) -> Self {
        Self { fault, node: None, key: None, steps: Vec::new() }
    }

    /// Blames the node, unless one further in is blamed already.
    pub fn at(mut self, node: &'t Node) -> Self {
        self.node.get_or_insert(node);
        self
    }

    /// Blames the key of the entry.
    pub fn on_key(self, entry: &'t Entry) -> Self {
        Self { node: Some(&entry.value), key: Some(&entry.key), ..self }
    }

    /// Takes out what was found: it is a secret, or close to one.
    pub fn veiled(mut self) -> Self {
        match &mut self.fault {
            Fault::Unlike { found, .. } if found == "``" => "an empty text".clone_into(found),
            Fault::Unlike { found, .. } if found.starts_with(['t', '`']) => "a number or a word".clone_into(found),
            Fault::Custom(message) => "not a valid secret".clone_into(message),
            _ => {}
        }
        self
    }

    /// Notes a step on the way out.
    pub fn step(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// The path of the node, for a reading that began at `base`.
    pub fn path(&self, base: &Path) -> Path {
        self.steps.iter().rev().fold(base.clone(), |path, step| path.with(step.clone()))
    }
}

impl serde::de::Error for Mistake<'_> {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(Fault::Custom(message.to_string()))
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(Fault::Unlike { found: self::found(found), expected: wanted(expected) })
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn unknown_variant(word: &str, known: &'static [&'static str]) -> Self {
        Self::new(Fault::UnknownWord { word: word.to_owned(), known })
    }

    fn unknown_field(key: &str, known: &'static [&'static str]) -> Self {
        Self::new(Fault::UnknownKey { key: key.to_owned(), known })
    }

    fn missing_field(key: &'static str) -> Self {
        Self::new(Fault::MissingKey(key))
    }
}

impl std::error::Error for Mistake<'_> {}

impl fmt::Display for Mistake<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.fault)
    }
}

/// Longest text that is quoted in a message, in characters.
const QUOTED_MAX: usize = 60;

fn found(found: Unexpected<'_>) -> String {
    match found {
        Unexpected::Bool(word) => format!("the word `{word}`"),
        Unexpected::Unsigned(number) => format!("the number {number}"),
        Unexpected::Signed(number) => format!("the number {number}"),
        Unexpected::Float(number) => format!("the number {number}"),
        Unexpected::Str(text) => quoted(text),
        Unexpected::Unit | Unexpected::Option => "no value".to_owned(),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map => "a map".to_owned(),
        other => other.to_string(),
    }
}

/// Text in backticks, on one line and cut to a length that fits a message.
pub fn quoted(text: &str) -> String {
    let mut shown: String = text.chars().take(QUOTED_MAX).collect::<String>().escape_debug().collect();
    if text.chars().nth(QUOTED_MAX).is_some() {
        shown.push('…');
    }
    format!("`{}`", shown.replace("\\\"", "\"").replace("\\'", "'").replace("\\\\", "\\"))
}

/// Rust's words for a type in the user's.
fn wanted(expected: &dyn Expected) -> String {
    let text = expected.to_string();
    match text.as_str() {
        "a string" | "string" | "str" => "text",
        "path string" => "a path of a file",
        "a boolean" => "`true` or `false`",
        "a sequence" => "a list",
        "i64" => "a whole number",
        "u64" | "usize" | "u32" => "a whole number, not negative",
        "u16" => "a whole number from 0 to 65535",
        "a nonzero u16" => "a whole number from 1 to 65535",
        "f64" => "a number",
        text if text.starts_with("struct ") => "a map",
        text if text.starts_with("enum ") => "one word",
        text => text,
    }
    .to_owned()
}
