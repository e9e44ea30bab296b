//! Files → [`Config`], with every mistake and its place in one run.
//!
//! Text becomes a tree that knows where each part stands (`parse`, `tree`), placeholders get their values (`substitute`), the files of
//! a directory become one tree (`merge`), and the tree is read into the types of the language (`typed`, `reader`). [`Sources`] keeps
//! what later stages need to point at a place.

use std::{
    borrow::Cow,
    path::{Path as FilePath, PathBuf},
};

pub use self::{
    render::Colour,
    sources::{Place, Sources},
};
use self::{
    sources::Text,
    substitute::{Origins, Substituted},
    tree::Node,
};
use super::{
    Config,
    problem::{Path, Problem},
};

mod fault;
mod files;
mod later;
mod mask;
mod merge;
mod parse;
mod paths;
mod reader;
mod render;
mod scalar;
mod sources;
mod substitute;
mod tree;
mod typed;
mod words;

#[cfg(test)]
mod tests;

/// A configuration as far as it could be read, with all that is wrong with it.
#[derive(Debug)]
pub struct Loaded {
    /// Not to be used while a problem is an error, other than to look for more.
    pub config: Config,
    pub problems: Vec<Problem>,
    pub sources: Sources,
}

/// Reads a file, or all `*.yaml` and `*.yml` files of a directory. What cannot be read is a problem too.
pub fn load(path: &FilePath) -> Loaded {
    load_with(path, &|name| std::env::var(name).ok())
}

/// Like [`load`], with another environment.
pub fn load_with(path: &FilePath, env: &dyn Fn(&str) -> Option<String>) -> Loaded {
    let mut loading = Loading::new(env);
    match files::list(path) {
        Ok(files) => {
            if path.is_dir() {
                loading.files.push(path.to_owned());
            }
            if files.is_empty() {
                let message = format!("no `*.yaml` file in the directory `{}`", path.display());
                loading.problems.push(Problem::error(Path::root(), message));
            }
            files.iter().for_each(|file| loading.file(file));
        }
        Err(error) => {
            loading.files.push(path.to_owned());
            loading.unreadable(path, &error);
        }
    }
    loading.finish()
}

/// Reads a text. Files that it names are relative to the working directory; `name` stands for the file in problems.
pub fn from_text(name: &str, text: &str) -> Loaded {
    let env = |name: &str| std::env::var(name).ok();
    let mut loading = Loading::new(&env);
    loading.text(FilePath::new(name), text.to_owned(), PathBuf::new());
    loading.finish()
}

impl Loaded {
    /// Whether the configuration can be used.
    pub fn is_usable(&self) -> bool {
        self.errors().next().is_none()
    }

    /// What stays in memory of a configuration that is in force: nothing can be pointed at in it any more.
    pub fn slimmed(&self) -> Self {
        Self { config: self.config.clone(), problems: Vec::new(), sources: self.sources.slimmed() }
    }

    /// Whether what the key says is not known, because a mistake stands at it, in it or around it: nothing should be concluded from
    /// its value. A key that is not written counts if something beside it is wrong, as it may have been meant by that. While a file
    /// could not be read at all, nothing is known.
    pub fn broken(&self, path: &Path) -> bool {
        let written = self.sources.root.find(path).is_some();
        let around: Path = path.steps().split_last().map(|(_, around)| around.iter().cloned().collect()).unwrap_or_default();
        let beside = |problem: &Problem| {
            !written && around.contains(&problem.path) && problem.path.steps().len() == around.steps().len() + 1
        };
        self.errors().any(|problem| problem.path.contains(path) || path.contains(&problem.path) || beside(problem))
    }

    /// Whether a section may declare this name: it is written, if perhaps with mistakes in it, or the section as a whole could not be
    /// read.
    pub fn may_declare(&self, section: &str, name: &str) -> bool {
        let names = self.declared(section);
        let section = Path::root().key(section);
        let written = self.sources.root.find(&section).is_some();
        let unread = |problem: &Problem| problem.path.contains(&section) || (!written && problem.path.steps().len() == 1);
        names.into_iter().any(|declared| declared == name) || self.errors().any(unread)
    }

    fn errors(&self) -> impl Iterator<Item = &Problem> {
        self.problems.iter().filter(|problem| problem.is_error())
    }

    /// The names that are written in a section, those with mistakes in them too.
    pub fn declared<'a>(&'a self, section: &'a str) -> impl Iterator<Item = &'a str> {
        self.sources.names(section)
    }
}

/// Files on their way into one configuration.
struct Loading<'a> {
    env: &'a dyn Fn(&str) -> Option<String>,
    texts: Vec<Text>,
    /// The directory of each text.
    directories: Vec<PathBuf>,
    roots: Vec<Node>,
    files: Vec<PathBuf>,
    substituted: Substituted,
    problems: Vec<Problem>,
}

impl<'a> Loading<'a> {
    fn new(env: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self {
            env,
            texts: Vec::new(),
            directories: Vec::new(),
            roots: Vec::new(),
            files: Vec::new(),
            substituted: Substituted::default(),
            problems: Vec::new(),
        }
    }

    fn file(&mut self, path: &FilePath) {
        self.files.push(path.to_owned());
        let absolute = std::path::absolute(path).map_or_else(|_| Cow::Borrowed(path), Cow::Owned);
        let directory = absolute.parent().unwrap_or(path).to_owned();
        match files::configuration(path) {
            Ok(text) => self.text(path, text, directory),
            Err(error) => self.unreadable(path, &error),
        }
    }

    fn text(&mut self, name: &FilePath, text: String, directory: PathBuf) {
        let file = self.texts.len() as u32;
        let (root, problems) = parse::parse(file, &text);
        self.problems.extend(problems);
        let origins = Origins { env: self.env, directory: directory.clone() };
        self.texts.push(Text { name: name.to_owned(), text });
        self.directories.push(directory);
        self.roots.extend(root.map(|mut root| {
            self.substituted.append(substitute::substitute(&mut root, &origins));
            root
        }));
    }

    fn unreadable(&mut self, path: &FilePath, error: &dyn std::fmt::Display) {
        self.problems.push(Problem::error(Path::root(), format!("cannot read `{}`: {error}", path.display())));
    }

    fn finish(self) -> Loaded {
        let Self { texts, directories, roots, mut files, substituted, mut problems, .. } = self;
        let (mut root, merging) = merge::merge(roots);
        let hash = sources::hash(&root);
        paths::absolute(&mut root, &directories);
        let (config, typing) = typed::read(&root);
        problems.extend(substituted.problems.into_iter().chain(merging).chain(typing));
        files.extend(substituted.files);
        let mut hidden = substituted.values;
        // The longest first: one value may be part of another.
        hidden.sort_by_key(|hidden| std::cmp::Reverse(hidden.value.len()));
        let sources = Sources { texts, files, root, hidden, hash };
        let problems = tidy(problems, &sources);
        Loaded { config, problems, sources }
    }
}

impl Substituted {
    fn append(&mut self, more: Self) {
        self.values.extend(more.values);
        self.files.extend(more.files);
        self.problems.extend(more.problems);
    }
}

/// In the order of the files, without secrets, and not more than anybody reads.
fn tidy(mut problems: Vec<Problem>, sources: &Sources) -> Vec<Problem> {
    problems.sort_by_key(|problem| sources.span(problem).map(|span| (span.file, span.start)));
    let more = problems.len().saturating_sub(typed::PROBLEMS_MAX);
    problems.truncate(typed::PROBLEMS_MAX);
    for problem in &mut problems {
        problem.message = sources.scrub(&problem.message);
        problem.help = problem.help.take().map(|help| sources.scrub(&help));
    }
    if more > 0 {
        let message = format!("more than {} mistakes; those that follow are not shown", typed::PROBLEMS_MAX);
        problems.push(Problem::error(Path::root(), message));
    }
    problems
}
