//! What a signature can cover: fields and derived components (RFC 9421 §2.1, §2.2), and what they are worth in a request.

use std::borrow::Cow;

use http::HeaderName;
use sfv::{BareItem, Dictionary, FieldType, Item, List};

use super::{Message, Refusal, field};

/// One part of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Component {
    /// `@method`
    Method,
    /// `@authority`
    Authority,
    /// `@scheme`
    Scheme,
    /// `@target-uri`
    TargetUri,
    /// `@request-target`
    RequestTarget,
    /// `@path`
    Path,
    /// `@query`
    Query,
    /// `@query-param`, by its encoded name.
    QueryParam(String),
    Field(HeaderName, Form),
}

/// In which form a field is covered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Form {
    /// Its lines, combined.
    Plain,
    /// `sf`: the canonical form of a structured field.
    Structured,
    /// `key`: one member of a dictionary.
    Member(String),
    /// `bs`: each line as a byte sequence.
    Bytes,
}

/// Fields of requests whose structured type is known, which `sf` needs (RFC 9421 §2.1.1).
const DICTIONARIES: [&str; 9] = [
    "content-digest",
    "repr-digest",
    "want-content-digest",
    "want-repr-digest",
    "priority",
    "signature",
    "signature-input",
    "accept-signature",
    "cache-control",
];
const LISTS: [&str; 8] =
    ["accept", "accept-encoding", "accept-language", "connection", "te", "trailer", "transfer-encoding", "client-cert-chain"];

impl Component {
    /// Reads what a configuration names: `@method`, `date`, or as RFC 9421 writes it, `"@query-param";name="id"`.
    ///
    /// # Errors
    /// It cannot be covered in a request.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        match text.starts_with('"') {
            true => Self::of(&field::parse::<Item>(text)?),
            false => Self::named(text, Form::Plain),
        }
    }

    /// # Errors
    /// A name or a parameter that is unknown, or means nothing in a request.
    pub fn of(item: &Item) -> Result<Self, Refusal> {
        let BareItem::String(name) = &item.bare_item else { return Err(Refusal::Malformed("a component that is no text")) };
        let (mut form, mut query) = (Form::Plain, None);
        for (key, value) in &item.params {
            match (key.as_str(), value) {
                ("name", BareItem::String(name)) => query = Some(name.as_str()),
                // A second parameter of the form: either contradicts the first (`bs`) or says no more (`sf` beside `key`).
                _ if form != Form::Plain => return Err(Refusal::Component("two forms at once")),
                ("sf", BareItem::Boolean(true)) => form = Form::Structured,
                ("bs", BareItem::Boolean(true)) => form = Form::Bytes,
                ("key", BareItem::String(key)) => form = Form::Member(key.as_str().to_owned()),
                // `tr`: trailers come too late. `req`: there is no other request.
                _ => return Err(Refusal::Component("a parameter that is not understood")),
            }
        }
        match (name.as_str(), query) {
            ("@query-param", Some(query)) if form == Form::Plain => Ok(Self::QueryParam(query.to_owned())),
            ("@query-param", _) | (_, Some(_)) => Err(Refusal::Component("a query parameter without its name")),
            (name, None) => Self::named(name, form),
        }
    }

    fn named(name: &str, form: Form) -> Result<Self, Refusal> {
        let derived = match name {
            "@method" => Self::Method,
            "@authority" => Self::Authority,
            "@scheme" => Self::Scheme,
            "@target-uri" => Self::TargetUri,
            "@request-target" => Self::RequestTarget,
            "@path" => Self::Path,
            "@query" => Self::Query,
            _ => return Self::field(name, form),
        };
        if form == Form::Plain { Ok(derived) } else { Err(Refusal::Component("a form that only fields have")) }
    }

    fn field(name: &str, form: Form) -> Result<Self, Refusal> {
        let lower = !name.bytes().any(|b| b.is_ascii_uppercase());
        match HeaderName::from_bytes(name.as_bytes()) {
            Ok(field) if lower => Ok(Self::Field(field, form)),
            _ => Err(Refusal::Component("no component of a request")),
        }
    }

    /// Whether covering this one covers `due` too.
    pub fn covers(&self, due: &Self) -> bool {
        use Component as C;
        match (self, due) {
            (C::TargetUri, C::Scheme | C::Authority | C::Path | C::Query | C::QueryParam(_)) => true,
            (C::RequestTarget, C::Path | C::Query | C::QueryParam(_)) | (C::Query, C::QueryParam(_)) => true,
            (C::Field(have, Form::Plain | Form::Bytes), C::Field(due, _)) => have == due,
            _ => self == due,
        }
    }

    /// Its value in a request.
    ///
    /// # Errors
    /// The request does not have it, or more than one.
    pub fn value<'a>(&'a self, message: &Message<'a>) -> Result<Cow<'a, str>, Refusal> {
        Ok(match self {
            Self::Method => message.method.into(),
            Self::Authority => message.authority.into(),
            Self::Scheme => message.scheme.into(),
            Self::TargetUri => target_uri(message).into(),
            Self::RequestTarget => message.target.into(),
            Self::Path => path(message).into(),
            Self::Query => format!("?{}", message.query.unwrap_or_default()).into(),
            Self::QueryParam(name) => query_param(message.query, name)?.into(),
            Self::Field(name, form) => field_value(message, name, form)?.into(),
        })
    }
}

fn path<'a>(message: &Message<'a>) -> &'a str {
    if message.path.is_empty() { "/" } else { message.path }
}

fn target_uri(message: &Message<'_>) -> String {
    let (mark, query) = message.query.map_or(("", ""), |query| ("?", query));
    format!("{}://{}{}{mark}{query}", message.scheme, message.authority, path(message))
}

fn field_value(message: &Message<'_>, name: &HeaderName, form: &Form) -> Result<String, Refusal> {
    const ABSENT: Refusal = Refusal::Component("a field that the request does not have");
    if *form == Form::Bytes {
        return field::as_bytes(message.headers, name).ok_or(ABSENT);
    }
    let text = field::combined(message.headers, name)?.ok_or(ABSENT)?;
    match form {
        Form::Plain | Form::Bytes => Ok(text),
        Form::Structured => canonical(name, &text),
        Form::Member(key) => member(&text, key),
    }
}

fn canonical(name: &HeaderName, text: &str) -> Result<String, Refusal> {
    let empty = Refusal::Component("an empty structured field");
    match name.as_str() {
        name if DICTIONARIES.contains(&name) => field::parse::<Dictionary>(text)?.serialize().ok_or(empty),
        name if LISTS.contains(&name) => field::parse::<List>(text)?.serialize().ok_or(empty),
        "client-cert" => Ok(field::parse::<Item>(text)?.serialize()),
        _ => Err(Refusal::Component("a field whose structure is not known")),
    }
}

/// One member of a dictionary in its canonical form, without its key (RFC 9421 §2.1.2).
fn member(text: &str, key: &str) -> Result<String, Refusal> {
    let entry = field::parse::<Dictionary>(text)?.swap_remove(key).ok_or(Refusal::Component("a member that is not there"))?;
    vec![entry].serialize().ok_or(Refusal::Component("an empty member"))
}

/// The value of the one parameter of that name, encoded anew, for what encodes one byte in two ways would be signed in two ways
/// (RFC 9421 §2.2.8).
fn query_param(query: Option<&str>, name: &str) -> Result<String, Refusal> {
    let pairs = query.unwrap_or_default().split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let mut values = pairs.filter(|(key, _)| reencoded(key) == name).map(|(_, value)| reencoded(value));
    match (values.next(), values.next()) {
        (Some(value), None) => Ok(value),
        (Some(_), Some(_)) => Err(Refusal::Component("a query parameter that is there twice")),
        (None, _) => Err(Refusal::Component("a query parameter that is not there")),
    }
}

/// Decodes what a form encodes and encodes it again with the set of `application/x-www-form-urlencoded`, a space as `%20`.
fn reencoded(text: &str) -> String {
    use std::fmt::Write;
    let mut out = String::with_capacity(text.len());
    for byte in decoded(text) {
        match byte {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'*' | b'-' | b'.' | b'_' => out.push(char::from(byte)),
            _ => drop(write!(out, "%{byte:02X}")),
        }
    }
    out
}

/// The bytes behind `+` and `%XX`; a `%` that encodes nothing stands for itself. Invalid UTF-8 becomes U+FFFD, as forms are read.
fn decoded(text: &str) -> Vec<u8> {
    let mut rest = text.as_bytes();
    let mut out = Vec::with_capacity(rest.len());
    while let [byte, tail @ ..] = rest {
        rest = tail;
        match (byte, tail) {
            (b'+', _) => out.push(b' '),
            (b'%', [high, low, after @ ..]) => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => {
                    out.push(high << 4 | low);
                    rest = after;
                }
                _ => out.push(b'%'),
            },
            _ => out.push(*byte),
        }
    }
    match String::from_utf8_lossy(&out) {
        Cow::Borrowed(_) => out,
        Cow::Owned(text) => text.into_bytes(),
    }
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::*;

    /// The value of a component of a request like those of RFC 9421 §2.
    fn check(component: &str, target: &str, fields: &[(&'static str, &'static str)], expected: Result<&str, &str>) {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let message = Message {
            method: "POST",
            scheme: "https",
            authority: "www.example.com",
            target,
            path,
            query,
            headers: &headers,
            has_body: false,
        };
        let found = Component::parse(component).and_then(|found| found.value(&message).map(Cow::into_owned));
        match (found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{component}"),
            (Err(refusal), Err(expected)) => assert!(refusal.to_string().contains(expected), "{component}: {refusal}"),
            (found, expected) => panic!("{component}: {found:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn derived_components_are_those_of_the_rfc() {
        check("@method", "/path?param=value", &[], Ok("POST"));
        check("@authority", "/", &[], Ok("www.example.com"));
        check("@scheme", "/", &[], Ok("https"));
        check("@target-uri", "/path?param=value", &[], Ok("https://www.example.com/path?param=value"));
        check("@request-target", "/path?param=value", &[], Ok("/path?param=value"));
        check("@path", "/path?param=value", &[], Ok("/path"));
        check("@path", "", &[], Ok("/"));
        check("@query", "/path?param=value&foo=bar&baz=bat%2Dman", &[], Ok("?param=value&foo=bar&baz=bat%2Dman"));
        check("@query", "/path?queryString", &[], Ok("?queryString"));
        check("@query", "/path", &[], Ok("?"));
        check("@query", "/path?", &[], Ok("?"));
    }

    #[test]
    fn query_parameters_are_those_of_the_rfc() {
        let target = "/path?param=value&foo=bar&baz=batman&qux=";
        check(r#""@query-param";name="baz""#, target, &[], Ok("batman"));
        check(r#""@query-param";name="qux""#, target, &[], Ok(""));
        check(r#""@query-param";name="none""#, target, &[], Err("not there"));
        let target =
            "/parameters?var=this%20is%20a%20big%0Amultiline%20value&bar=with+plus+whitespace&fa%C3%A7ade%22%3A%20=something";
        check(r#""@query-param";name="var""#, target, &[], Ok("this%20is%20a%20big%0Amultiline%20value"));
        check(r#""@query-param";name="bar""#, target, &[], Ok("with%20plus%20whitespace"));
        check(r#""@query-param";name="fa%C3%A7ade%22%3A%20""#, target, &[], Ok("something"));
    }

    #[test]
    fn a_query_parameter_that_is_there_twice_is_refused() {
        check(r#""@query-param";name="a""#, "/?a=1&a=2", &[], Err("twice"));
        check(r#""@query-param";name="a""#, "/?a=1&%61=2", &[], Err("twice"));
        check(r#""@query-param""#, "/?a=1", &[], Err("without its name"));
        check("@query-param", "/?a=1", &[], Err("no component"));
    }

    #[test]
    fn fields_are_those_of_the_rfc() {
        let fields = &[
            ("host", "www.example.com"),
            ("date", "Tue, 20 Apr 2021 02:07:56 GMT"),
            ("x-ows-header", "   Leading and trailing whitespace.   "),
            ("cache-control", "max-age=60"),
            ("cache-control", "   must-revalidate"),
            ("example-dict", "  a=1,    b=2;x=1;y=2,   c=(a   b   c), d"),
            ("x-empty-header", ""),
            ("example-header", "value, with, lots"),
            ("example-header", "of, commas"),
        ];
        check("host", "/", fields, Ok("www.example.com"));
        check("x-ows-header", "/", fields, Ok("Leading and trailing whitespace."));
        check("cache-control", "/", fields, Ok("max-age=60, must-revalidate"));
        check("x-empty-header", "/", fields, Ok(""));
        check("example-dict", "/", fields, Ok("a=1,    b=2;x=1;y=2,   c=(a   b   c), d"));
        check(r#""example-dict";key="a""#, "/", fields, Ok("1"));
        check(r#""example-dict";key="d""#, "/", fields, Ok("?1"));
        check(r#""example-dict";key="b""#, "/", fields, Ok("2;x=1;y=2"));
        check(r#""example-dict";key="c""#, "/", fields, Ok("(a b c)"));
        check(r#""example-dict";key="e""#, "/", fields, Err("not there"));
        check(r#""example-dict";sf"#, "/", fields, Err("structure is not known"));
        check(r#""cache-control";sf"#, "/", fields, Ok("max-age=60, must-revalidate"));
        check(r#""example-header";bs"#, "/", fields, Ok(":dmFsdWUsIHdpdGgsIGxvdHM=:, :b2YsIGNvbW1hcw==:"));
        check("absent", "/", fields, Err("does not have"));
    }

    #[test]
    fn what_a_request_cannot_have_is_refused() {
        for (component, why) in [
            ("@status", "no component"),
            ("@signature-params", "no component"),
            ("@unknown", "no component"),
            ("Date", "no component"),
            (r#""date";req"#, "not understood"),
            (r#""date";tr"#, "not understood"),
            (r#""date";sf=?0"#, "not understood"),
            (r#""date";sf;bs"#, "two forms"),
            (r#""date";name="a""#, "without its name"),
            (r#""@method";sf"#, "only fields"),
            ("\"date", "no structured field"),
            (r#""date" x"#, "no structured field"),
        ] {
            check(component, "/", &[("date", "x")], Err(why));
        }
    }

    #[test]
    fn the_whole_covers_its_parts() {
        let covers = |have: &str, due: &str| Component::parse(have).unwrap().covers(&Component::parse(due).unwrap());
        assert!(covers("@target-uri", "@authority") && covers("@target-uri", "@query") && covers("@request-target", "@path"));
        assert!(covers("@query", r#""@query-param";name="a""#) && covers("digest", r#""digest";key="a""#));
        assert!(
            !covers("@path", "@query") && !covers("@request-target", "@authority") && !covers(r#""digest";key="a""#, "digest")
        );
        assert!(!covers(r#""@query-param";name="a""#, r#""@query-param";name="b""#) && !covers("date", "host"));
    }
}
