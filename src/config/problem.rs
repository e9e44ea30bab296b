//! A mistake in the configuration, and the key it stands at.

use std::fmt;

/// The way to a value in the configuration: `routes.orders.to.split[1].weight`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Path(Vec<Step>);

/// One step into a value.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Step {
    /// Into a map, by key.
    Key(String),
    /// Into a list, by position from 0.
    Index(usize),
}

/// Whether the configuration can be used in spite of the problem.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Severity {
    Error,
    Warning,
}

/// A stretch of one of the files that were read. `Sources` knows the files.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Span {
    /// Which of the files, by the order of reading.
    pub(super) file: u32,
    /// Line, from 1.
    pub(super) line: u32,
    /// Column in characters, from 1.
    pub(super) column: u32,
    /// Bytes from here …
    pub(super) start: u32,
    /// … to before here.
    pub(super) end: u32,
}

impl Span {
    pub(super) const fn is_empty(self) -> bool {
        self.start >= self.end
    }
}

/// One mistake.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    pub severity: Severity,
    /// The key it stands at.
    pub path: Path,
    /// Where it stands, if not where the path leads: the second of two equal keys, a line that is not YAML.
    pub span: Option<Span>,
    /// What is wrong, with what was found: lower case, no full stop.
    pub message: String,
    /// What was expected, or what to do instead.
    pub help: Option<String>,
    /// Other places that belong to it, each with its part in it.
    pub also: Vec<(Path, String)>,
}

impl Path {
    pub fn root() -> Self {
        Self::default()
    }

    /// The path of a key of this map.
    pub fn key(&self, key: impl AsRef<str>) -> Self {
        self.with(Step::Key(key.as_ref().to_owned()))
    }

    /// The path of an item of this list.
    pub fn index(&self, index: usize) -> Self {
        self.with(Step::Index(index))
    }

    pub fn with(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }

    pub fn steps(&self) -> &[Step] {
        &self.0
    }

    /// Whether this path leads to `other` or to something it stands in.
    pub fn contains(&self, other: &Self) -> bool {
        other.0.starts_with(&self.0)
    }
}

impl FromIterator<Step> for Path {
    fn from_iter<I: IntoIterator<Item = Step>>(steps: I) -> Self {
        Self(steps.into_iter().collect())
    }
}

impl Problem {
    pub fn error(path: Path, message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, path, span: None, message: message.into(), help: None, also: Vec::new() }
    }

    pub fn warning(path: Path, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(path, message) }
    }

    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// States the place that the path alone would miss.
    #[must_use]
    pub(super) fn at(mut self, span: Span) -> Self {
        self.span = Some(span);
        self
    }

    #[must_use]
    pub fn also(mut self, path: Path, part: impl Into<String>) -> Self {
        self.also.push((path, part.into()));
        self
    }

    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(key) if at == 0 => f.write_str(key)?,
                Step::Key(key) => write!(f, ".{key}")?,
            }
        }
        Ok(())
    }
}
