//! Regular expressions: over whole paths and whole values, linear in time and bounded in size.

use std::{fmt, sync::Arc};

use regex_automata::MatchKind;
use regex_automata::{
    Anchored, Input, PatternID, PatternSet,
    meta::{BuildError, Config, Regex},
    nfa::thompson::WhichCaptures,
    util::{captures::GroupInfo, primitives::NonMaxUsize},
};
use regex_syntax::{
    ParserBuilder,
    hir::{Hir, HirKind, Look},
};
use smallvec::SmallVec;

use crate::exchange::Captures;

/// Longest regular expression, in bytes.
pub const PATH_REGEX_MAX: usize = 4096;

/// Most memory that the program of one regular expression takes, in bytes.
const SIZE_MAX: usize = 512 << 10;

/// What to do about one that cannot be used.
pub const REGEX_HELP: &str = "regular expressions here have no look-around and no back references, and a bounded size";

/// Deepest nesting of one regular expression. Source: regex-syntax parses by recursion and asks for a bound.
const NEST_MAX: u32 = 100;

/// A regular expression over whole paths.
#[derive(Clone)]
pub struct PathRegex {
    text: Arc<str>,
    hir: Hir,
    names: Arc<[Arc<str>]>,
}

/// The regular expressions of one host, searched in one pass.
#[derive(Debug)]
pub struct PathSet(Regex);

/// Finds the named groups of one regular expression.
#[derive(Debug)]
pub struct Groups {
    regex: Regex,
    /// Numbers of the named groups, in their order.
    numbers: Box<[usize]>,
}

/// A regular expression over whole values, which may be no UTF-8.
#[derive(Clone, Debug)]
pub struct ValueRegex(Regex);

impl PathRegex {
    /// Reads one. Paths are ASCII, so its classes are too.
    pub fn parse(text: &str) -> Result<Self, String> {
        let hir = parse(text, false)?;
        let mut names = Vec::new();
        collect_names(&hir, &mut names);
        Ok(Self { text: text.into(), hir, names: names.into() })
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn names(&self) -> &[Arc<str>] {
        &self.names
    }

    /// Whether its program stays in bounds.
    pub fn check_size(&self) -> Result<(), String> {
        build(std::slice::from_ref(&self.hir), MatchKind::LeftmostFirst, WhichCaptures::None).map(|_| ())
    }

    /// What every path that it takes starts with.
    pub fn prefix(&self) -> String {
        let mut prefix = Vec::new();
        collect_prefix(&self.hir, &mut prefix);
        String::from_utf8_lossy(&prefix).into_owned()
    }

    /// Its named groups, if it has any.
    pub fn groups(&self) -> Result<Option<Groups>, String> {
        if self.names.is_empty() {
            return Ok(None);
        }
        let regex = build(std::slice::from_ref(&self.hir), MatchKind::LeftmostFirst, WhichCaptures::All)?;
        let numbers = named(regex.group_info());
        Ok(Some(Groups { regex, numbers }))
    }
}

impl fmt::Debug for PathRegex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PathRegex").field(&self.text).finish()
    }
}

impl PathSet {
    pub fn new<'a>(regexes: impl Iterator<Item = &'a PathRegex>) -> Result<Self, String> {
        let hirs: Vec<Hir> = regexes.map(|regex| regex.hir.clone()).collect();
        build(&hirs, MatchKind::All, WhichCaptures::None).map(Self)
    }

    /// Which of them take a path, by their position in `new`.
    pub fn matches(&self, path: &str) -> SmallVec<[usize; 8]> {
        let mut found = PatternSet::new(self.0.pattern_len());
        self.0.which_overlapping_matches(&Input::new(path).anchored(Anchored::Yes), &mut found);
        found.iter().map(|pattern| pattern.as_usize()).collect()
    }
}

impl Groups {
    /// Where its named groups are in a path that it takes. A group that took no part is empty.
    pub fn captures(&self, path: &str) -> Captures {
        let mut slots: SmallVec<[Option<NonMaxUsize>; 16]> = SmallVec::from_elem(None, self.regex.group_info().slot_len());
        self.regex.search_slots(&Input::new(path).anchored(Anchored::Yes), &mut slots);
        let at = |slot: usize| slots.get(slot).copied().flatten().and_then(|at| u32::try_from(at.get()).ok());
        let range = |number: &usize| at(number * 2).zip(at(number * 2 + 1)).map_or(0..0, |(start, end)| start..end);
        self.numbers.iter().map(range).collect()
    }
}

impl ValueRegex {
    /// Reads one.
    pub fn parse(text: &str) -> Result<Self, String> {
        let hir = parse(text, true)?;
        build(&[hir], MatchKind::LeftmostFirst, WhichCaptures::None).map(Self)
    }

    pub fn matches(&self, value: &[u8]) -> bool {
        self.0.is_match(Input::new(value).anchored(Anchored::Yes))
    }
}

/// Reads an expression and anchors it at both ends: by its tree, so that nothing in its text can close the anchors.
fn parse(text: &str, unicode: bool) -> Result<Hir, String> {
    if text.len() > PATH_REGEX_MAX {
        return Err(format!("the regular expression is longer than {PATH_REGEX_MAX} bytes"));
    }
    let hir = ParserBuilder::new().unicode(unicode).utf8(false).nest_limit(NEST_MAX).build().parse(text);
    let hir = hir.map_err(|e| format!("the regular expression cannot be read: {}", reason(&e)))?;
    Ok(Hir::concat(vec![Hir::look(Look::Start), hir, Hir::look(Look::End)]))
}

/// The reason alone: the full text draws the expression over several lines.
fn reason(error: &regex_syntax::Error) -> String {
    match error {
        regex_syntax::Error::Parse(e) => e.kind().to_string(),
        regex_syntax::Error::Translate(e) => e.kind().to_string(),
        e => e.to_string(),
    }
}

fn build(hirs: &[Hir], kind: MatchKind, captures: WhichCaptures) -> Result<Regex, String> {
    let size = SIZE_MAX.saturating_mul(hirs.len().max(1));
    let config = Config::new()
        .match_kind(kind)
        .utf8_empty(false)
        .which_captures(captures)
        .nfa_size_limit(Some(size))
        .onepass_size_limit(Some(SIZE_MAX));
    Regex::builder().configure(config).build_many_from_hir(hirs).map_err(|e| too_large(&e))
}

fn too_large(error: &BuildError) -> String {
    match error.size_limit() {
        Some(_) => format!("the program of the regular expression is larger than {} KiB", SIZE_MAX >> 10),
        None => format!("the regular expression cannot be compiled: {error}"),
    }
}

fn named(info: &GroupInfo) -> Box<[usize]> {
    info.pattern_names(PatternID::ZERO).enumerate().filter(|(_, name)| name.is_some()).map(|(number, _)| number).collect()
}

fn collect_names(hir: &Hir, names: &mut Vec<Arc<str>>) {
    match hir.kind() {
        HirKind::Capture(capture) => {
            names.extend(capture.name.as_deref().map(Arc::from));
            collect_names(&capture.sub, names);
        }
        HirKind::Repetition(repetition) => collect_names(&repetition.sub, names),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => parts.iter().for_each(|part| collect_names(part, names)),
        _ => {}
    }
}

/// Collects the literal that `hir` starts with; true if all of it is that.
fn collect_prefix(hir: &Hir, prefix: &mut Vec<u8>) -> bool {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => true,
        HirKind::Literal(literal) => {
            prefix.extend_from_slice(&literal.0);
            true
        }
        HirKind::Capture(capture) => collect_prefix(&capture.sub, prefix),
        HirKind::Concat(parts) => parts.iter().all(|part| collect_prefix(part, prefix)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_path_must_match() {
        let set = |text: &str| PathSet::new([PathRegex::parse(text).unwrap()].iter()).unwrap();
        for text in ["/a|/ab", "^/ab$", "/(a|ab)", "(?x) /ab # comment", "/\\w+"] {
            assert!(!set(text).matches("/ab").is_empty(), "{text}");
            assert!(set(text).matches("/ab/c").is_empty(), "{text}");
            assert!(set(text).matches("x/ab").is_empty(), "{text}");
        }
    }

    #[test]
    fn anchors_cannot_be_closed_from_within() {
        assert!(PathRegex::parse("a)|(?:b").is_err());
    }

    #[test]
    fn size_is_bounded() {
        assert!(PathRegex::parse(&"a".repeat(5000)).is_err());
        let large = PathRegex::parse("((a{100}){100}){100}").unwrap();
        assert!(large.check_size().unwrap_err().contains("larger"));
        assert!(PathRegex::parse(&"(".repeat(200)).is_err());
    }

    #[test]
    fn named_groups_are_captures() {
        let regex = PathRegex::parse("/(?<year>[0-9]+)(-x)?/(?<name>[a-z]+)?").unwrap();
        let groups = regex.groups().unwrap().unwrap();
        assert_eq!(regex.names().iter().map(|n| &**n).collect::<Vec<_>>(), ["year", "name"]);
        assert_eq!(groups.captures("/2026-x/may").to_vec(), [1..5, 8..11]);
        assert_eq!(groups.captures("/1/").to_vec(), [1..2, 0..0]);
    }

    #[test]
    fn the_prefix_is_what_all_matches_start_with() {
        for (text, prefix) in
            [("^/reports/[0-9]+$", "/reports/"), ("/a(b)c", "/abc"), ("/a|/b", "/"), ("(?i)/a", "/"), (".*", "")]
        {
            assert!(prefix.starts_with(&PathRegex::parse(text).unwrap().prefix()), "{text}");
        }
        assert_eq!(PathRegex::parse("^/reports/[0-9]+$").unwrap().prefix(), "/reports/");
    }
}
