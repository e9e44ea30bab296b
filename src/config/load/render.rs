//! Problems as a person reads them, and as a program does.

use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde_json::{Value as Json, json};

use super::{
    super::{
        problem::{Path, Problem, Severity, Span},
        secret::REDACTED,
    },
    mask::{goes_on_with_secret, masked},
    sources::Sources,
};

/// Whether the text carries colours for a terminal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Colour {
    Never,
    Always,
}

impl Sources {
    /// The problems as annotated snippets and a last line that counts them; empty if there are none.
    pub fn render(&self, problems: &[Problem], colour: Colour) -> String {
        let renderer = match colour {
            Colour::Never => Renderer::plain(),
            Colour::Always => Renderer::styled(),
        };
        let mut text = String::new();
        for problem in problems {
            text.push_str(&self.snippet(problem, &renderer));
            text.push_str("\n\n");
        }
        if let Some(summary) = summary(problems) {
            text.push_str(&summary);
            text.push('\n');
        }
        text
    }

    /// The problems as a list of `{severity, file, line, column, path, message, help, also}`.
    pub fn to_json(&self, problems: &[Problem]) -> Json {
        problems.iter().map(|problem| self.object(problem)).collect()
    }

    fn object(&self, problem: &Problem) -> Json {
        let mut object = self.point(self.span(problem), &problem.path, &problem.message);
        let also = problem.also.iter().map(|(path, part)| self.point(self.root.locate(path), path, part));
        let also: Vec<Json> = also.collect();
        if let Json::Object(object) = &mut object {
            object.insert("severity".to_owned(), json!(word(problem.severity)));
            object.insert("help".to_owned(), json!(problem.help.as_deref().map(|help| self.scrub(help))));
            object.insert("also".to_owned(), json!(also));
        }
        object
    }

    fn point(&self, span: Option<Span>, path: &Path, message: &str) -> Json {
        let place = span.and_then(|span| self.place(span));
        json!({
            "file": place.as_ref().map(|place| place.file.display().to_string()),
            "line": place.as_ref().map(|place| place.line),
            "column": place.as_ref().map(|place| place.column),
            "path": path.to_string(),
            "message": self.scrub(message),
        })
    }

    fn snippet(&self, problem: &Problem, renderer: &Renderer) -> String {
        let level = match problem.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let path = label(&problem.path);
        let mut group = Group::with_title(level.primary_title(self.title(problem)));
        if let Some(line) = self.span(problem).and_then(|span| self.line(span)) {
            group = line.annotate(group, AnnotationKind::Primary, path);
        }
        for (path, part) in &problem.also {
            if let Some(line) = self.root.locate(path).and_then(|span| self.line(span)) {
                group = line.annotate(group, AnnotationKind::Context, self.scrub(part));
            }
        }
        if let Some(help) = &problem.help {
            group = group.element(Level::HELP.message(self.scrub(help)));
        }
        renderer.render(&[group])
    }

    /// The message; with its key where no snippet can show it.
    fn title(&self, problem: &Problem) -> String {
        let message = self.scrub(&problem.message);
        if self.span(problem).is_some() || problem.path.steps().is_empty() {
            message
        } else {
            format!("{}: {message}", problem.path)
        }
    }

    /// The line that a span begins in, with what must not be shown masked.
    fn line(&self, span: Span) -> Option<Line> {
        let source = self.texts.get(span.file as usize)?;
        let start = span.start as usize;
        let before = source.text.get(..start)?.rfind(LINE_ENDS).map_or(0, |at| at + 1);
        let rest = source.text.get(before..)?;
        let text = rest.split(LINE_ENDS).next().unwrap_or_default();
        let end = (span.end as usize - before).clamp(start - before, text.len().max(start - before));
        if goes_on_with_secret(text, source.text.get(..before).unwrap_or_default()) {
            let file = source.name.display().to_string();
            return Some(Line { file, number: span.line as usize, text: REDACTED.to_owned(), marked: 0..REDACTED.len() });
        }
        let end = end.min(start - before + text.get(start - before..).map_or(0, |rest| rest.trim_end().len()));
        let (text, marked) = masked(text, start - before..end);
        Some(Line { file: source.name.display().to_string(), number: span.line as usize, text, marked })
    }
}

struct Line {
    file: String,
    number: usize,
    text: String,
    marked: Range<usize>,
}

impl Line {
    fn annotate(self, group: Group<'static>, kind: AnnotationKind, label: String) -> Group<'static> {
        let marked = kind.span(self.marked);
        let marked = if label.is_empty() { marked } else { marked.label(label) };
        group.element(Snippet::source(self.text).line_start(self.number).path(self.file).annotation(marked))
    }
}

/// What ends a line. Source: YAML 1.2.2 §5.4, for which a lone carriage return does too.
const LINE_ENDS: [char; 2] = ['\n', '\r'];

/// Longest path that is shown whole, in characters.
const LABEL_MAX: usize = 120;

fn label(path: &Path) -> String {
    let mut label = path.to_string();
    if let Some((cut, _)) = label.char_indices().nth(LABEL_MAX) {
        label.truncate(cut);
        label.push('…');
    }
    label
}

const fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    }
}

fn summary(problems: &[Problem]) -> Option<String> {
    let errors = problems.iter().filter(|problem| problem.is_error()).count();
    let counts = [(errors, "error"), (problems.len() - errors, "warning")];
    let counts = counts.iter().filter(|(count, _)| *count > 0);
    let parts: Vec<String> =
        counts.map(|(count, word)| format!("{count} {word}{}", if *count == 1 { "" } else { "s" })).collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}
