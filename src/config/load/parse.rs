//! The text of one file → its tree.
//!
//! Only the plain part of YAML is taken: no anchors, tags, merge keys or second documents. What they would say can be said without
//! them, and without them a small file cannot grow large in memory.

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span as Marks, StrInput};

use super::{
    super::problem::{Path, Problem, Span, Step},
    tree::{Entry, Key, Map, Node, Scalar, Value},
};

/// Deepest nesting of maps and lists. The language itself needs a dozen.
const DEPTH_MAX: usize = 64;

/// The key that would merge another map into this one.
pub const MERGE: &str = "<<";

/// Every how many characters the offset in bytes is noted.
const STRIDE: usize = 64;

/// Reads a file. The tree holds what could be read; each thing that could not is a problem. `None`: nothing could.
pub fn parse(file: u32, text: &str) -> (Option<Node>, Vec<Problem>) {
    let mut reading =
        Reading { parser: Parser::new_from_str(text), marks: Offsets::new(file, text), path: Vec::new(), problems: Vec::new() };
    let root = match nul(file, text) {
        Some(problem) => Err(Box::new(problem)),
        None => reading.document(),
    };
    let mut problems = reading.problems;
    let root = root.map_err(|fatal| problems.push(*fatal)).ok();
    (root, problems)
}

/// A NUL character ends the text for the parser; what follows would be passed over in silence.
fn nul(file: u32, text: &str) -> Option<Problem> {
    let (line, before) = text.split('\n').zip(1..).find_map(|(line, number)| Some((number, line.find('\0')?)))?;
    let start = text.find('\0')? as u32;
    let span = Span { file, line, column: before as u32 + 1, start, end: start + 1 };
    Some(Problem::error(Path::root(), "a NUL character, which text cannot hold").at(span))
}

/// A mistake after which the rest of the file cannot be understood.
type Fatal = Box<Problem>;

struct Reading<'t> {
    parser: Parser<'t, StrInput<'t>>,
    marks: Offsets<'t>,
    path: Vec<Step>,
    problems: Vec<Problem>,
}

impl<'t> Reading<'t> {
    fn document(&mut self) -> Result<Node, Fatal> {
        let root = loop {
            match self.next()? {
                (Event::StreamStart | Event::DocumentStart(_) | Event::Nothing, _) => {}
                (Event::StreamEnd | Event::DocumentEnd, marks) => {
                    return Ok(Node { span: self.marks.span(marks), value: Value::Map(Map::default()) });
                }
                event => break self.node(event)?,
            }
        };
        loop {
            match self.next()? {
                (Event::StreamEnd, _) => return Ok(root),
                (Event::DocumentStart(_), marks) => {
                    let message = "a second document in the file, expected one";
                    self.report(marks, message, "put its sections into the first, or into a file of its own in a directory");
                    return Ok(root);
                }
                _ => {}
            }
        }
    }

    fn node(&mut self, (event, marks): (Event<'t>, Marks)) -> Result<Node, Fatal> {
        if self.path.len() > DEPTH_MAX {
            let message = format!("nested deeper than {DEPTH_MAX} levels");
            return Err(Box::new(Problem::error(Path::root(), message).at(self.marks.span(marks))));
        }
        let span = self.marks.span(marks);
        let (anchor, tag) = match &event {
            Event::Scalar(_, _, anchor, tag) | Event::SequenceStart(anchor, tag) | Event::MappingStart(anchor, tag) => {
                (*anchor, tag.is_some())
            }
            _ => (0, false),
        };
        if anchor > 0 {
            self.report(marks, "an anchor (`&`), which is not supported", "write the value out at each place");
        }
        let mut span = span;
        let value = match event {
            Event::Scalar(text, style, ..) => {
                Value::Scalar(Scalar { text: text.into_owned(), plain: style == ScalarStyle::Plain, placeholder: None })
            }
            Event::SequenceStart(..) => self.list(&mut span)?,
            Event::MappingStart(..) => self.map(&mut span)?,
            Event::Alias(_) => {
                self.report(
                    marks,
                    "an alias (`*`), which is not supported",
                    "write the value out; text that starts with `*` needs quotes",
                );
                Value::Lost
            }
            _ => Value::Lost,
        };
        if tag {
            self.report(marks, "a tag (`!`), which is not supported", "text that starts with `!` needs quotes");
            return Ok(Node { span, value: Value::Lost });
        }
        Ok(Node { span, value })
    }

    fn list(&mut self, span: &mut Span) -> Result<Value, Fatal> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd | Event::StreamEnd, marks) => {
                    span.end = self.marks.span(marks).end;
                    return Ok(Value::List(items));
                }
                event => {
                    self.path.push(Step::Index(items.len()));
                    items.push(self.node(event)?);
                    self.path.pop();
                }
            }
        }
    }

    fn map(&mut self, span: &mut Span) -> Result<Value, Fatal> {
        let mut entries = Vec::new();
        loop {
            let (event, marks) = self.next()?;
            if matches!(event, Event::MappingEnd | Event::StreamEnd) {
                span.end = self.marks.span(marks).end;
                return Ok(self.unique(entries));
            }
            let key = self.key(event, marks)?;
            let before = self.problems.len();
            self.path.push(Step::Key(key.as_ref().map_or(MERGE, |key| key.name.as_str()).to_owned()));
            let event = self.next()?;
            let mut value = self.node(event)?;
            self.path.pop();
            if key.as_ref().is_none_or(|key| key.name == MERGE) {
                // The key is reported; what is wrong with a value that goes with it is no news.
                self.problems.truncate(before);
                value.value = Value::Lost;
            }
            entries.extend(key.map(|key| Entry { key, value }));
        }
    }

    /// A key that can be one. Others are reported, and their value is dropped.
    fn key(&mut self, event: Event<'t>, marks: Marks) -> Result<Option<Key>, Fatal> {
        match event {
            Event::Scalar(text, style, 0, None) => {
                let name = text.into_owned();
                if name == MERGE {
                    self.report(marks, "a merge key (`<<`), which is not supported", "write the keys out at each place");
                }
                if style != ScalarStyle::Plain || super::scalar::is_text(&name) {
                    return Ok(Some(Key { name, span: self.marks.span(marks) }));
                }
                let help = format!("write it in quotes: `\"{name}\"`");
                self.report(marks, format!("the key `{name}` is not text"), &help);
            }
            Event::Scalar(..) => self.report(marks, "an anchor or a tag on a key, which is not supported", "write the key alone"),
            other => {
                self.path.push(Step::Key(String::new()));
                self.node((other, marks))?;
                self.path.pop();
                self.report(marks, "a key that is not text", "a key is one word, or text in quotes");
            }
        }
        Ok(None)
    }

    fn unique(&mut self, entries: Vec<Entry>) -> Value {
        let (map, refused) = Map::new(entries);
        for Entry { key, .. } in refused {
            let path = self.here().key(&key.name);
            let problem = Problem::error(path.clone(), format!("the key `{}` stands here twice", key.name)).at(key.span);
            self.problems.push(problem.also(path, "first here"));
        }
        Value::Map(map)
    }

    fn next(&mut self) -> Result<(Event<'t>, Marks), Fatal> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(self.syntax(&error)),
            None => Ok((Event::StreamEnd, Marks::default())),
        }
    }

    fn syntax(&self, error: &ScanError) -> Fatal {
        let span = self.marks.span(Marks::empty(*error.marker()));
        Box::new(Problem::error(Path::root(), format!("not valid YAML: {}", error.info())).at(span))
    }

    fn report(&mut self, marks: Marks, message: impl Into<String>, help: &str) {
        let problem = self.problem(marks, message).help(help);
        self.problems.push(problem);
    }

    fn problem(&mut self, marks: Marks, message: impl Into<String>) -> Problem {
        Problem::error(self.here(), message).at(self.marks.span(marks))
    }

    fn here(&self) -> Path {
        self.path.iter().cloned().collect()
    }
}

/// Turns the parser's marks, which count characters, into spans in bytes.
struct Offsets<'t> {
    file: u32,
    text: &'t str,
    /// The offset of every [`STRIDE`]th character; empty if each character is one byte.
    noted: Vec<usize>,
}

impl<'t> Offsets<'t> {
    fn new(file: u32, text: &'t str) -> Self {
        let noted = if text.is_ascii() { Vec::new() } else { text.char_indices().step_by(STRIDE).map(|(at, _)| at).collect() };
        Self { file, text, noted }
    }

    fn span(&self, marks: Marks) -> Span {
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Span {
            file: self.file,
            line: number(marks.start.line()),
            column: number(marks.start.col()).saturating_add(1),
            start: number(self.byte(marks.start.index())),
            end: number(self.byte(marks.end.index())),
        }
    }

    fn byte(&self, index: usize) -> usize {
        if self.noted.is_empty() {
            return index.min(self.text.len());
        }
        let Some(start) = self.noted.get(index / STRIDE) else { return self.text.len() };
        let rest = self.text.get(*start..).unwrap_or_default();
        rest.char_indices().nth(index % STRIDE).map_or(self.text.len(), |(at, _)| start + at)
    }
}
