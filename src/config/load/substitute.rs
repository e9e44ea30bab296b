//! `${env:NAME}` and `${file:path}`: values that stand elsewhere, most often secrets.
//!
//! They are resolved on parsed scalars, so what they stand for can never become structure.

use std::path::{Path as FilePath, PathBuf};

use super::{
    super::problem::{Path, Problem, Step},
    files,
    tree::{Node, Scalar, Value},
};

/// Where the values come from.
pub struct Origins<'a> {
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// The directory that paths in the file are relative to.
    pub directory: PathBuf,
}

/// What was put in the place of placeholders.
#[derive(Debug, Default)]
pub struct Substituted {
    pub values: Vec<Hidden>,
    /// Files that values were read from.
    pub files: Vec<PathBuf>,
    pub problems: Vec<Problem>,
}

/// A value that is not shown, and what is shown instead.
#[derive(Clone)]
pub struct Hidden {
    pub value: String,
    pub placeholder: String,
}

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.placeholder)
    }
}

/// Replaces every placeholder of a tree. One that stands for nothing is reported and its node lost.
pub fn substitute(root: &mut Node, origins: &Origins<'_>) -> Substituted {
    let mut walk = Walk { origins, path: Vec::new(), done: Substituted::default() };
    walk.node(root);
    walk.done
}

struct Walk<'a> {
    origins: &'a Origins<'a>,
    path: Vec<Step>,
    done: Substituted,
}

impl Walk<'_> {
    fn node(&mut self, node: &mut Node) {
        match &mut node.value {
            Value::Scalar(scalar) if scalar.text.contains("${") => {
                if let Err(fault) = self.scalar(scalar) {
                    self.done.problems.push(self.problem(&fault).at(node.span));
                    node.value = Value::Lost;
                }
            }
            Value::Scalar(_) | Value::Lost => {}
            Value::List(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    self.child(Step::Index(index), item);
                }
            }
            Value::Map(map) => {
                for (key, value) in map.values_mut() {
                    self.child(Step::Key(key.to_owned()), value);
                }
            }
        }
    }

    fn child(&mut self, step: Step, node: &mut Node) {
        self.path.push(step);
        self.node(node);
        self.path.pop();
    }

    fn scalar(&mut self, scalar: &mut Scalar) -> Result<(), Fault> {
        let value = match Placeholder::read(&scalar.text)? {
            None => return Ok(()),
            Some(Placeholder::Env(name)) => (self.origins.env)(name).ok_or_else(|| {
                Fault::new(format!("the environment has no variable `{name}`"), "set it for the process, as UTF-8 text")
            })?,
            Some(Placeholder::File(path)) => self.file(&self.origins.directory.join(path))?,
        };
        let placeholder = std::mem::replace(&mut scalar.text, value.clone());
        self.done.values.push(Hidden { value, placeholder: placeholder.clone() });
        scalar.placeholder = Some(placeholder);
        Ok(())
    }

    fn file(&mut self, path: &FilePath) -> Result<String, Fault> {
        self.done.files.push(path.to_owned());
        files::secret(path).map_err(|error| {
            let message = format!("cannot read `{}`: {error}", path.display());
            Fault::new(message, "a relative path starts at the directory of the file that names it")
        })
    }

    fn problem(&self, fault: &Fault) -> Problem {
        let path: Path = self.path.iter().cloned().collect();
        Problem::error(path, &fault.message).help(&fault.help)
    }
}

/// Why a placeholder stands for nothing.
struct Fault {
    message: String,
    help: String,
}

impl Fault {
    fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: help.into() }
    }
}

enum Placeholder<'t> {
    Env(&'t str),
    File(&'t str),
}

impl<'t> Placeholder<'t> {
    /// `None`: the text is only text. `Err`: it was surely meant to be a placeholder, but is none.
    fn read(text: &'t str) -> Result<Option<Self>, Fault> {
        let inner = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')).filter(|inner| !inner.contains('}'));
        match inner.map(|inner| inner.split_once(':').unwrap_or(("", inner))) {
            Some(("env" | "file", "")) => {
                Err(Fault::new(format!("`{text}` names nothing"), "write `${env:NAME}` or `${file:path}`"))
            }
            Some(("env", name)) => Ok(Some(Self::Env(name))),
            Some(("file", path)) => Ok(Some(Self::File(path))),
            Some((_, name)) => Err(Fault::new(
                format!("`{text}` is neither `${{env:NAME}}` nor `${{file:path}}`"),
                format!("did you mean `${{env:{name}}}`?"),
            )),
            None if text.contains("${env:") || text.contains("${file:") => Err(Fault::new(
                "a placeholder inside other text",
                "`${…}` must be the whole value; put the whole text into the variable or file",
            )),
            None => Ok(None),
        }
    }
}
