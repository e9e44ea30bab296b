//! Patterns of paths: exact, by whole segments, or a regular expression.
//!
//! What a pattern spells out is brought into the same one form as requests are, so `/%61` and `/a` are one pattern.

use std::{cmp::Ordering, ops::Range, sync::Arc};

use super::{
    path::{self, EncodedSlashes},
    regex::{PathRegex, REGEX_HELP},
};
use crate::exchange::Captures;

/// Most segments of a pattern that has captures or `/**`.
pub const SEGMENTS_MAX: usize = 64;

/// Most captures of a pattern.
pub const CAPTURES_MAX: usize = 32;

/// Longest name of a capture.
const CAPTURE_NAME_MAX: usize = 32;

/// What templates call by these names is not a capture.
const RESERVED: [&str; 5] = ["scheme", "host", "port", "path", "query"];

/// The paths that a route takes.
#[derive(Clone, Debug)]
pub enum Pattern {
    /// This one.
    Exact(Box<str>),
    /// By whole segments.
    Segments(Segments),
    Regex(PathRegex),
}

/// A pattern with captures, an open end or both.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Segments {
    /// A last empty literal stands for a slash at the end.
    pub parts: Vec<Part>,
    /// Whether it ended in `/**`: any further segments, or none.
    pub open: bool,
}

/// One segment of a pattern.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Part {
    Literal(Box<str>),
    /// Any segment that is not empty, by this name.
    Capture(Arc<str>),
}

/// What makes two patterns take the same paths: all of a pattern but the names of its captures.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Shape {
    Exact(Box<str>),
    Segments(Vec<Option<Box<str>>>, bool),
    Regex(Box<str>),
}

/// How specific a pattern by segments is. More is more specific; two that are equal take the same paths or none in common.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Specificity {
    /// Segments spelled out.
    pub literals: u8,
    /// All segments before an open end.
    segments: u8,
    /// No open end.
    closed: bool,
    /// Which segments are spelled out, the first one highest.
    left: u64,
}

/// Why a pattern is none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Misread {
    pub message: String,
    pub help: Option<&'static str>,
}

impl Misread {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None }
    }

    fn help(self, help: &'static str) -> Self {
        Self { help: Some(help), ..self }
    }
}

impl Pattern {
    /// Reads `/exact`, `/with/{captures}` or `/open/**`.
    ///
    /// # Errors
    /// What is wrong with it, and what to write instead.
    pub fn parse(text: &str) -> Result<Self, Misread> {
        let Some(rest) = text.strip_prefix('/') else {
            return Err(Misread::new(format!("expected a path that starts with `/`, found `{text}`")));
        };
        if !rest.contains(['{', '}', '*']) {
            return Ok(Self::Exact(literal(text)?.into()));
        }
        segments(rest)
    }

    /// Reads a regular expression over whole paths.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn regex(text: &str) -> Result<Self, Misread> {
        let regex = PathRegex::parse(text).map_err(|e| Misread::new(e).help(REGEX_HELP))?;
        check_names(regex.names())?;
        Ok(Self::Regex(regex))
    }

    /// Takes every path, `*` too.
    pub fn any() -> Self {
        Self::Segments(Segments { parts: Vec::new(), open: true })
    }

    pub fn shape(&self) -> Shape {
        match self {
            Self::Exact(path) => Shape::Exact(path.clone()),
            Self::Segments(Segments { parts, open }) => Shape::Segments(parts.iter().map(Part::spelled).collect(), *open),
            Self::Regex(regex) => Shape::Regex(regex.text().into()),
        }
    }

    /// Names of its captures, in their order.
    pub fn names(&self) -> Vec<Arc<str>> {
        match self {
            Self::Exact(_) => Vec::new(),
            Self::Segments(segments) => segments.names().cloned().collect(),
            Self::Regex(regex) => regex.names().to_vec(),
        }
    }

    /// The more specific first: exact, by segments with at least one spelled out, regex, the others.
    pub fn precedence(&self, other: &Self) -> Ordering {
        other.level().cmp(&self.level()).then_with(|| match (self, other) {
            (Self::Segments(one), Self::Segments(two)) => two.specificity().cmp(&one.specificity()),
            _ => Ordering::Equal,
        })
    }

    fn level(&self) -> u8 {
        match self {
            Self::Exact(_) => 3,
            Self::Segments(segments) if segments.specificity().literals > 0 => 2,
            Self::Regex(_) => 1,
            Self::Segments(_) => 0,
        }
    }
}

impl Segments {
    pub fn specificity(&self) -> Specificity {
        let spelled = |part: &Part| matches!(part, Part::Literal(text) if !text.is_empty());
        let left = self.parts.iter().zip((0..64).rev()).filter(|(part, _)| spelled(part)).map(|(_, bit)| 1u64 << bit).sum();
        let count = |n: usize| u8::try_from(n).unwrap_or(u8::MAX);
        Specificity {
            literals: count(self.parts.iter().filter(|part| spelled(part)).count()),
            segments: count(self.parts.len()),
            closed: !self.open,
            left,
        }
    }

    /// Whether it takes a path in its one form.
    pub fn matches(&self, path: &str) -> bool {
        // `*` has no segments: only `/**` takes it.
        let Some(rest) = path.strip_prefix('/') else { return self.open && self.parts.is_empty() };
        let mut segments = rest.split('/');
        let fits = |part: &Part| match (part, segments.next()) {
            (Part::Literal(text), Some(segment)) => **text == *segment,
            (Part::Capture(_), Some(segment)) => !segment.is_empty(),
            (_, None) => false,
        };
        self.parts.iter().all(fits) && (self.open || segments.next().is_none())
    }

    fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.parts.iter().filter_map(|part| match part {
            Part::Capture(name) => Some(name),
            Part::Literal(_) => None,
        })
    }

    /// Which segments the captures take, counted from 0.
    pub fn captured(&self) -> Box<[u8]> {
        let captured = (0u8..).zip(&self.parts).filter(|(_, part)| matches!(part, Part::Capture(_)));
        captured.map(|(at, _)| at).collect()
    }
}

impl Specificity {
    pub fn is_open(&self) -> bool {
        !self.closed
    }
}

impl Part {
    fn spelled(&self) -> Option<Box<str>> {
        match self {
            Self::Literal(text) => Some(text.clone()),
            Self::Capture(_) => None,
        }
    }
}

/// The ranges of these segments of a path. The path has them all: its pattern took it.
pub fn captures(path: &str, captured: &[u8]) -> Captures {
    let mut segments = ranges(path).enumerate();
    let range = |at: &u8| segments.find(|(n, _)| *n == usize::from(*at)).map_or(0..0, |(_, range)| range);
    captured.iter().map(range).collect()
}

/// Where each segment of a path is.
fn ranges(path: &str) -> impl Iterator<Item = Range<u32>> {
    let mut start = 1u32;
    path.strip_prefix('/').unwrap_or_default().split('/').map(move |segment| {
        let end = start.saturating_add(u32::try_from(segment.len()).unwrap_or(u32::MAX));
        let range = start..end;
        start = end.saturating_add(1);
        range
    })
}

fn literal(text: &str) -> Result<String, Misread> {
    // Whether requests keep encoded slashes is the gateway's setting; a pattern may always spell them.
    let path = path::normalise(text.as_bytes(), EncodedSlashes::Keep);
    path.map(String::from).map_err(|rule| {
        let found = rule.replacen(" in the path", "", 1);
        Misread::new(format!("no request has the path `{text}`: it has {found}")).help(remedy(rule))
    })
}

/// What to write instead of a path that breaks a rule.
fn remedy(rule: &str) -> &'static str {
    match rule {
        rule if rule.contains("dot segment") => "write the path without it",
        rule if rule.contains("query") => "a path ends before `?` and `#`; for the query there are conditions under `query`",
        rule if rule.contains("control character") => "requests with one are refused before any route is looked for",
        rule if rule.contains("broken") => "write `%25` for a percent sign itself",
        _ => "write it percent-encoded, as requests carry it",
    }
}

fn segments(rest: &str) -> Result<Pattern, Misread> {
    let mut pattern = Segments::default();
    let mut words = rest.split('/').peekable();
    while let Some(word) = words.next() {
        match (word, words.peek()) {
            ("**", None) => pattern.open = true,
            ("**", Some(_)) => {
                return Err(Misread::new("`**` stands before the end of the pattern").help("`/**` can only end a pattern"));
            }
            // Slashes are merged, as in requests.
            ("", Some(_)) => {}
            _ => pattern.parts.push(part(word)?),
        }
    }
    if pattern.parts.len() > SEGMENTS_MAX {
        return Err(Misread::new(format!("the pattern has more than {SEGMENTS_MAX} segments")));
    }
    let names: Vec<_> = pattern.names().cloned().collect();
    check_names(&names)?;
    if names.is_empty() && !pattern.open {
        return Ok(Pattern::Exact(literal(&format!("/{rest}"))?.into()));
    }
    Ok(Pattern::Segments(pattern))
}

fn part(word: &str) -> Result<Part, Misread> {
    if let Some(name) = word.strip_prefix('{').and_then(|word| word.strip_suffix('}')) {
        return capture(name);
    }
    if word.contains(['{', '}']) {
        return Err(Misread::new(format!("`{word}` captures a part of a segment"))
            .help("a capture takes one whole segment: `/{name}/`; for a part of one use `path_regex`"));
    }
    match word {
        "*" => {
            Err(Misread::new("`*` does not stand for a segment")
                .help("write `{name}` for one segment, a last `/**` for any rest"))
        }
        word if word.contains("**") => Err(Misread::new(format!("`**` stands within the segment `{word}`"))
            .help("`/**` stands for whole segments, at the end of a pattern")),
        word => {
            let path = literal(&format!("/{word}"))?;
            match path.strip_prefix('/') {
                Some(text) if word.is_empty() || !text.is_empty() => Ok(Part::Literal(text.into())),
                _ => Err(Misread::new(format!("no request has the dot segment `{word}`")).help("write the path without it")),
            }
        }
    }
}

fn capture(name: &str) -> Result<Part, Misread> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    if !name.bytes().all(word) || name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(Misread::new(format!("`{{{name}}}` is not a capture"))
            .help("a capture's name is letters, digits and `_`, not starting with a digit"));
    }
    Ok(Part::Capture(name.into()))
}

fn check_names(names: &[Arc<str>]) -> Result<(), Misread> {
    if names.len() > CAPTURES_MAX {
        return Err(Misread::new(format!("there are more than {CAPTURES_MAX} captures")));
    }
    for (at, name) in names.iter().enumerate() {
        if name.len() > CAPTURE_NAME_MAX {
            return Err(Misread::new(format!("the name of the capture `{name}` is longer than {CAPTURE_NAME_MAX} characters")));
        }
        if RESERVED.contains(&&**name) {
            return Err(Misread::new(format!("no capture can be named `{name}`"))
                .help("templates have `{scheme}`, `{host}`, `{port}`, `{path}` and `{query}` already: choose another name"));
        }
        if names.iter().take(at).any(|earlier| earlier == name) {
            return Err(Misread::new(format!("the capture `{name}` is named twice")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, spelled: &[Option<&str>], open: bool) {
        let shape = Shape::Segments(spelled.iter().map(|part| part.map(Into::into)).collect(), open);
        assert_eq!(Pattern::parse(text).unwrap().shape(), shape, "{text}");
    }

    fn refused(text: &str, why: &str) {
        let misread = Pattern::parse(text).expect_err(text);
        assert!(misread.message.contains(why), "{text}: {}", misread.message);
    }

    #[test]
    fn patterns_are_read_by_segments() {
        check("/**", &[], true);
        check("/api/**", &[Some("api")], true);
        check("/{a}/b/{c}", &[None, Some("b"), None], false);
        check("/a/{b}/", &[Some("a"), None, Some("")], false);
        check("//a//{b}", &[Some("a"), None], false);
        check("/%61/{b}/%c3%bc", &[Some("a"), None, Some("%C3%BC")], false);
        check("/a*b/{c}", &[Some("a*b"), None], false);
    }

    #[test]
    fn literals_have_the_one_form_of_paths() {
        for (text, path) in
            [("/", "/"), ("/a*b", "/a*b"), ("/a/../b", "/b"), ("/%7e", "/~"), ("/a%2fb", "/a%2Fb"), ("//a/", "/a/")]
        {
            assert_eq!(Pattern::parse(text).unwrap().shape(), Shape::Exact(path.into()), "{text}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        refused("", "starts with `/`");
        refused("a", "starts with `/`");
        refused("*", "starts with `/`");
        refused("/ü", "ASCII");
        refused("/a?b", "query");
        refused("/..", "above the root");
        refused("/%", "percent-encoding");
        refused("/**/a", "before the end");
        refused("/**/", "before the end");
        refused("/a**", "within");
        refused("/*", "stand for a segment");
        refused("/{a}b", "part of a segment");
        refused("/{a", "part of a segment");
        refused("/{}", "not a capture");
        refused("/{a-b}", "not a capture");
        refused("/{1}", "not a capture");
        refused("/{a}/{a}", "twice");
        refused("/{path}", "named `path`");
        refused("/{a}/../b", "above the root");
        refused("/{a}/./b", "dot segment");
        refused(&format!("/{{a}}{}", "/a".repeat(64)), "segments");
    }

    #[test]
    fn precedence_is_total_but_for_patterns_of_one_kind() {
        let ranked = [
            "/a/b",
            "/a/b/{c}/d",
            "/a/b/{c}",
            "/a/b/**",
            "/a/{b}/{c}",
            "/{a}/{b}/c",
            "/a/{b}",
            "/{a}/b",
            "/a/{b}/**",
            "/{a}/b/**",
            "/a/**",
            "/{a}/{b}",
            "/{a}",
            "/{a}/**",
            "/**",
        ];
        let read = |text: &&str| Pattern::parse(text).unwrap();
        let mut sorted: Vec<_> = ranked.iter().rev().map(|text| (read(text), *text)).collect();
        sorted.sort_by(|one, two| one.0.precedence(&two.0));
        assert_eq!(sorted.iter().map(|(_, text)| *text).collect::<Vec<_>>(), ranked);
    }

    #[test]
    fn regexes_come_before_patterns_that_spell_nothing() {
        let regex = Pattern::regex("/[0-9]+").unwrap();
        assert_eq!(regex.precedence(&Pattern::parse("/a/**").unwrap()), Ordering::Greater);
        assert_eq!(regex.precedence(&Pattern::parse("/{a}").unwrap()), Ordering::Less);
    }
}
