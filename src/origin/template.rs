//! Texts with `{names}` in them, filled from a request: the new path of a rewrite, the location of a redirect.

use std::{fmt::Write as _, sync::Arc};

use crate::{
    config::route::Scheme,
    exchange::{Captures, Facts},
};

/// A template, compiled.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Template {
    parts: Box<[Part]>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Part {
    Text(Box<str>),
    Fact(Fact),
    /// By position among the names of the route's pattern.
    Capture(usize),
}

/// What a request says of itself. A capture of the same name goes before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fact {
    /// The normalised path before rewriting.
    Path,
    /// `http` or `https`, as the client used it.
    Scheme,
    /// The host without its port, in lower case. The client chose it: match `hosts` where that matters.
    Host,
    /// The port that the client named, else the scheme's own.
    Port,
    /// `:{port}` as one: nothing where the port is the scheme's own.
    PortIfNamed,
    /// The query without `?`; empty if there is none.
    Query,
}

/// The facts by name.
const FACTS: [(&str, Fact); 5] =
    [("path", Fact::Path), ("scheme", Fact::Scheme), ("host", Fact::Host), ("port", Fact::Port), ("query", Fact::Query)];

/// Writes what stood in a path into a query: `&`, `=`, `+` and their like would make other parameters of it. Triplets stay.
fn push_encoded(text: &mut String, path: &str) {
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' | b'%' => text.push(char::from(byte)),
            // Writing to a String cannot fail.
            _ => drop(write!(text, "%{byte:02X}")),
        }
    }
}

impl Template {
    /// Reads a template. `{{` and `}}` stand for the braces themselves.
    ///
    /// # Errors
    /// What is wrong with it, naming what could have been meant.
    pub fn compile(text: &str, capture_names: &[Arc<str>]) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some((before, brace, after)) = split_at_brace(rest) {
            literal.push_str(before);
            rest = match (brace, after.strip_prefix(brace)) {
                (_, Some(after)) => {
                    literal.push(brace);
                    after
                }
                ('{', None) => {
                    let (name, after) = after.split_once('}').ok_or("a `{` is never closed; write `{{` for the brace itself")?;
                    let part = part(name, capture_names)?.after(&mut literal);
                    push_text(&mut parts, &mut literal);
                    parts.push(part);
                    after
                }
                _ => return Err("a `}` closes nothing; write `}}` for the brace itself".to_owned()),
            };
        }
        literal.push_str(rest);
        push_text(&mut parts, &mut literal);
        Ok(Self { parts: parts.into() })
    }

    /// Fills the template in.
    pub fn render(&self, facts: &Facts, captures: &Captures) -> String {
        let mut text = String::with_capacity(self.parts.len() * 16);
        let mut in_query = false;
        for part in &self.parts {
            match part {
                Part::Text(literal) => {
                    in_query |= literal.contains('?');
                    text.push_str(literal);
                }
                Part::Fact(Fact::Path) if in_query => push_encoded(&mut text, &facts.path),
                Part::Fact(fact) => fact.write(facts, &mut text),
                Part::Capture(position) if in_query => push_encoded(&mut text, captured(*position, facts, captures)),
                Part::Capture(position) => text.push_str(captured(*position, facts, captures)),
            }
        }
        text
    }

    /// The literal text that it begins with.
    pub fn prefix(&self) -> &str {
        match self.parts.first() {
            Some(Part::Text(literal)) => literal,
            _ => "",
        }
    }

    /// Whether what it renders brings its own query.
    pub fn has_query(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Text(text) if text.contains('?'))) || self.uses(Fact::Query)
    }

    /// Whether the query stands where no query can: before any `?`.
    pub fn has_bare_query(&self) -> bool {
        let before = self.parts.iter().take_while(|part| !matches!(part, Part::Text(text) if text.contains('?')));
        before.into_iter().any(|part| *part == Part::Fact(Fact::Query))
    }

    /// Whether it begins with the path, and so with a slash.
    pub fn begins_with_path(&self) -> bool {
        matches!(self.parts.first(), Some(Part::Fact(Fact::Path)))
    }

    /// Whether it begins with the client's scheme.
    pub fn begins_with_scheme(&self) -> bool {
        matches!(self.parts.first(), Some(Part::Fact(Fact::Scheme)))
    }

    /// Whether it names the host that the client asked for.
    pub fn uses_host(&self) -> bool {
        self.uses(Fact::Host)
    }

    /// What it renders for a request that has a plain word everywhere: a valid target if the template makes one. `captured` stands
    /// for each capture.
    pub fn sample(&self, captured: &str) -> String {
        let word = |part: &Part| match part {
            Part::Text(literal) => literal.to_string(),
            Part::Capture(_) => captured.to_owned(),
            Part::Fact(Fact::Path) => "/x".to_owned(),
            Part::Fact(Fact::Scheme) => Scheme::Https.as_str().to_owned(),
            Part::Fact(Fact::Port) => "1".to_owned(),
            Part::Fact(Fact::PortIfNamed) => String::new(),
            Part::Fact(Fact::Host | Fact::Query) => "x".to_owned(),
        };
        self.parts.iter().map(word).collect()
    }

    fn uses(&self, fact: Fact) -> bool {
        self.parts.contains(&Part::Fact(fact))
    }
}

impl Fact {
    fn write(self, facts: &Facts, text: &mut String) {
        match self {
            Self::Path => text.push_str(&facts.path),
            Self::Scheme => text.push_str(facts.scheme.as_str()),
            Self::Host if facts.host.contains(':') && !facts.host.starts_with('[') => drop(write!(text, "[{}]", facts.host)),
            Self::Host => text.push_str(&facts.host),
            Self::Query => text.push_str(facts.query.as_deref().unwrap_or_default()),
            // Writing to a String does not fail.
            Self::PortIfNamed => match facts.port {
                Some(port) if port != default_port(facts.scheme) => drop(write!(text, ":{port}")),
                _ => {}
            },
            Self::Port => drop(write!(text, "{}", facts.port.unwrap_or(default_port(facts.scheme)))),
        }
    }
}

impl Part {
    /// Takes a colon before the port into the port, so that both can be left out.
    fn after(self, literal: &mut String) -> Self {
        match self {
            Self::Fact(Fact::Port) if literal.ends_with(':') => {
                literal.pop();
                Self::Fact(Fact::PortIfNamed)
            }
            part => part,
        }
    }
}

const fn default_port(scheme: Scheme) -> u16 {
    match scheme {
        Scheme::Http => 80,
        Scheme::Https => 443,
    }
}

fn captured<'a>(position: usize, facts: &'a Facts, captures: &Captures) -> &'a str {
    let range = captures.get(position).and_then(|range| Some((range.start.try_into().ok()?, range.end.try_into().ok()?)));
    range.and_then(|(start, end): (usize, usize)| facts.path.get(start..end)).unwrap_or_default()
}

fn split_at_brace(text: &str) -> Option<(&str, char, &str)> {
    let at = text.find(['{', '}'])?;
    let (before, from) = text.split_at_checked(at)?;
    let mut after = from.chars();
    let brace = after.next()?;
    Some((before, brace, after.as_str()))
}

fn push_text(parts: &mut Vec<Part>, literal: &mut String) {
    if !literal.is_empty() {
        parts.push(Part::Text(std::mem::take(literal).into()));
    }
}

fn part(name: &str, capture_names: &[Arc<str>]) -> Result<Part, String> {
    if let Some(position) = capture_names.iter().position(|capture| &**capture == name) {
        return Ok(Part::Capture(position));
    }
    let fact = FACTS.iter().find(|(fact, _)| *fact == name).map(|(_, fact)| Part::Fact(*fact));
    fact.ok_or_else(|| unknown(name, capture_names))
}

fn unknown(name: &str, capture_names: &[Arc<str>]) -> String {
    let known = || capture_names.iter().map(|name| &**name).chain(FACTS.iter().map(|(name, _)| *name));
    let near = known().map(|known| (strsim::damerau_levenshtein(known, name), known)).min();
    let names = known().map(|known| format!("`{{{known}}}`")).collect::<Vec<_>>().join(", ");
    match near {
        Some((distance, near)) if distance <= 2 && distance < near.len() && near.len() > 2 => {
            format!("nothing is named `{{{name}}}` here; did you mean `{{{near}}}`?")
        }
        _ => format!("nothing is named `{{{name}}}` here; there are {names}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::origin::example::{captures, facts};

    fn names(names: &[&str]) -> Vec<Arc<str>> {
        names.iter().map(|name| Arc::from(*name)).collect()
    }

    fn check(template: &str, expected: &str) {
        let template = Template::compile(template, &names(&["sku", "none"])).unwrap();
        let facts = facts("https://Shop.Example:8443/catalogue/a-1?x=y");
        let mut captures = captures(&facts, &["a-1"]);
        captures.push(0..0);
        assert_eq!(template.render(&facts, &captures), expected);
    }

    fn refuse(template: &str, expected: &str) {
        let error = Template::compile(template, &names(&["sku"])).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn names_are_filled_in() {
        check("/items/{sku}", "/items/a-1");
        check("{scheme}://{host}:{port}{path}?{query}", "https://shop.example:8443/catalogue/a-1?x=y");
        check("/{none}/x", "//x");
        check("/{{sku}}", "/{sku}");
        check("", "");
    }

    #[test]
    fn port_is_the_schemes_own_where_none_was_named() {
        let check = |url: &str, port: &str, behind_host: &str| {
            let render = |text| Template::compile(text, &[]).unwrap().render(&facts(url), &Captures::new());
            assert_eq!((render("{port}"), render("a:{port}/")), (port.to_owned(), format!("a{behind_host}/")), "{url}");
        };
        check("http://a/", "80", "");
        check("https://a/", "443", "");
        check("https://a:443/", "443", "");
        check("http://a:8080/", "8080", ":8080");
    }

    #[test]
    fn mistakes_are_named() {
        refuse("/{skU}", "did you mean `{sku}`?");
        refuse("/{hots}", "did you mean `{host}`?");
        refuse("/{customer}", "there are `{sku}`, `{path}`, `{scheme}`");
        refuse("/{sku", "never closed");
        refuse("/sku}", "closes nothing");
    }
}
