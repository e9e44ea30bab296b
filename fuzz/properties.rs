//! What must hold for every input. Fuzzed by the targets beside, and checked on their corpora by the tests.

use std::{borrow::Cow, collections::BTreeMap};

use banyan::{
    config::{
        load::{self, Colour},
        paths::EncodedSlashes,
        route::Match,
    },
    edge::http1::{
        chunks::{BadChunk, Chunks, Progress},
        head::{self, Framing, Head, Limits, Version},
        refusal::Refusal,
        scan::Scan,
    },
    name::RouteName,
    proxy_protocol::{self, Parsed},
    route::{host, path, pattern::Pattern, table::Table},
};

#[path = "credentials.rs"]
pub mod credentials;

/// A path has one form, and below its prefix it stays, however a service reads it.
pub fn path(data: &[u8]) {
    for slashes in [EncodedSlashes::Refuse, EncodedSlashes::Keep] {
        settles(data, slashes);
        settles(&[b"/api", data].concat(), slashes);
    }
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(Pattern::Exact(literal)) = Pattern::parse(text)
    {
        assert_eq!(path::normalise(literal.as_bytes(), EncodedSlashes::Keep).as_deref(), Ok(&*literal));
    }
}

fn settles(raw: &[u8], slashes: EncodedSlashes) {
    let Ok(path) = path::normalise(raw, slashes) else { return };
    let again = path::normalise(path.as_bytes(), slashes);
    assert!(matches!(&again, Ok(Cow::Borrowed(text)) if *text == &*path), "{path} became {again:?}");
    assert!(path == "*" || path.starts_with('/'), "{path}");
    assert!(path.is_ascii() && !path.contains("//") && !path.contains(['\\', '?', '#', ' ']), "{path}");
    let prefix = |text: &str| text == "/api" || text.starts_with("/api/");
    if prefix(&path) {
        readings(&path).iter().for_each(|reading| assert!(prefix(reading), "{path} is read as {reading}"));
    }
}

/// What services may make of a path: as it is, decoded once more, with backslashes for slashes, without parameters, cut at a
/// query or fragment.
pub fn readings(path: &str) -> Vec<String> {
    let mut all = Vec::new();
    for text in [path.to_owned(), String::from_utf8_lossy(&decoded(path)).into_owned()] {
        let slashed = text.replace('\\', "/");
        let bare = slashed.split('/').map(|segment| segment.split(';').next().unwrap_or_default()).collect::<Vec<_>>().join("/");
        let cut = slashed.split(['?', '#']).next().unwrap_or_default().to_owned();
        all.extend([text, slashed, bare, cut].map(|text| without_dot_segments(&text)));
    }
    all
}

fn decoded(path: &str) -> Vec<u8> {
    let mut bytes = path.bytes();
    let mut all = Vec::new();
    while let Some(byte) = bytes.next() {
        let mut digit = || char::from(bytes.next().expect("a whole triplet")).to_digit(16).expect("a digit");
        all.push(if byte == b'%' { u8::try_from(digit() * 16 + digit()).expect("a byte") } else { byte });
    }
    all
}

/// RFC 3986 §5.2.4, to the letter.
fn without_dot_segments(path: &str) -> String {
    let (mut input, mut output) = (path.to_owned(), String::new());
    while !input.is_empty() {
        if let Some(rest) = input.strip_prefix("../").or_else(|| input.strip_prefix("./")) {
            input = rest.to_owned();
        } else if input.starts_with("/./") || input == "/." {
            input = format!("/{}", input.get(3..).unwrap_or_default());
        } else if input.starts_with("/../") || input == "/.." {
            input = format!("/{}", input.get(4..).unwrap_or_default());
            output.truncate(output.rfind('/').unwrap_or(0));
        } else if input == "." || input == ".." {
            input.clear();
        } else {
            let end = input.char_indices().skip(1).find(|(_, c)| *c == '/').map_or(input.len(), |(at, _)| at);
            output.extend(input.drain(..end));
        }
    }
    output
}

/// A host has one form, which a route can name; the edge lets it pass.
pub fn host(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = host::Pattern::parse(text);
    let Ok((host, _)) = host::parse(text) else { return };
    let head = format!("GET / HTTP/1.1\r\nHost: {text}\r\n\r\n");
    let limits = Limits { request_line: 8000, fields: 65536, count: 256 };
    assert_eq!(head::check(head.as_bytes(), &limits).err(), None, "{text}");
    assert_eq!(host::parse(&host), Ok((host.clone(), None)));
    assert!(host.is_ascii() && !host.is_empty() && !host.ends_with('.') && *host == host.to_ascii_lowercase(), "{host}");
    assert_eq!(host::parse(&format!("{host}:81")), Ok((host.clone(), Some(81))));
    let pattern = host::Pattern::parse(&host).expect("a route can name every host");
    assert!(pattern.matches(&host), "{host}");
}

/// A configuration is read or refused with what is wrong with it, and what is wrong can be shown; so can its routes.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // Nothing of this machine is read.
    if text.contains("${") {
        return;
    }
    let loaded = load::from_text("fuzzed.yaml", text);
    let rendered = loaded.sources.render(&loaded.problems, Colour::Never);
    assert_eq!(rendered.is_empty(), loaded.problems.is_empty());
    let routes: BTreeMap<&RouteName, &Match> = loaded.config.routes.iter().map(|(name, route)| (name, &route.matches)).collect();
    let (_, problems) = Table::compile(routes.into_iter());
    loaded.sources.render(&problems, Colour::Never);
    loaded.sources.to_json(&problems);
}

/// What a connection begins with is found as soon as it can be, stands whatever follows, and is read back as it is written.
pub fn proxy_protocol(data: &[u8]) {
    let verdict = proxy_protocol::parse(data);
    let prefixes = (0..=data.len()).filter_map(|end| data.get(..end));
    let found =
        prefixes.map(|prefix| (prefix.len(), proxy_protocol::parse(prefix))).find(|(_, parsed)| *parsed != Parsed::Partial);
    assert_eq!(found.map_or(Parsed::Partial, |(_, parsed)| parsed), verdict);
    assert!(verdict != Parsed::Partial || data.len() < 4096, "{} bytes are not enough", data.len());
    let Parsed::Done { length, source } = verdict else { return };
    assert_eq!(found.map(|(end, _)| end), Some(length), "no byte of another's is waited for, and none of ours is left");
    for written in [proxy_protocol::write_v1(source), proxy_protocol::write_v2(source)] {
        let Parsed::Done { length, source: again } = proxy_protocol::parse(&written) else {
            panic!("{}", written.escape_ascii())
        };
        assert_eq!((length, again.map(|a| a.source)), (written.len(), source.map(|a| a.source)));
    }
}

/// A head ends at one place whatever parts it comes in, and what is accepted is read by httparse in the same way.
pub fn head(data: &[u8]) {
    for limits in [Limits { request_line: 8000, fields: 65536, count: 256 }, Limits { request_line: 30, fields: 60, count: 3 }] {
        let found = scanned(data, data.len().max(1), &limits);
        for part in [1, 7] {
            assert_eq!(scanned(data, part, &limits), found, "in parts of {part}: {}", data.escape_ascii());
        }
        let whole = match found {
            Ok(Some(end)) => data.get(..end).expect("a head ends within what came"),
            _ => data,
        };
        match (found, head::check(whole, &limits)) {
            (Ok(Some(_)), Ok(head)) => assert_eq!(head, read_again(whole), "{}", whole.escape_ascii()),
            (Ok(Some(_)), Err(refusal)) => assert_ne!(refusal, Refusal::NotWhole, "{}", whole.escape_ascii()),
            (_, read) => assert!(read.is_err(), "{} is accepted, yet has no end", data.escape_ascii()),
        }
    }
}

fn scanned(data: &[u8], part: usize, limits: &Limits) -> Result<Option<usize>, Refusal> {
    let mut scan = Scan::default();
    let ends = (part..data.len()).step_by(part).chain([data.len()]);
    let mut found = ends.map(|end| scan.advance(data.get(..end).unwrap_or_default(), limits));
    found.find(|found| *found != Ok(None)).unwrap_or(Ok(None))
}

/// What httparse reads, if that is what the lines say and `http` can hold it.
fn read_again(head: &[u8]) -> Head {
    let mut fields = [httparse::EMPTY_HEADER; 256];
    let mut request = httparse::Request::new(&mut fields);
    assert_eq!(request.parse(head), Ok(httparse::Status::Complete(head.len())), "{}", head.escape_ascii());
    let (method, target) = (request.method.expect("a method"), request.path.expect("a target"));
    http::Method::from_bytes(method.as_bytes()).expect("a method that can be held");
    let mut lines = vec![format!("{method} {target} HTTP/1.{}", request.version.expect("a version")).into_bytes()];
    for field in &*request.headers {
        http::HeaderName::from_bytes(field.name.as_bytes()).expect("a name that can be held");
        http::HeaderValue::from_bytes(field.value).expect("a value that can be held");
        lines.push([field.name.as_bytes(), b":", field.value].concat());
    }
    assert_eq!(lines, lines_of(head), "{}", head.escape_ascii());
    judged(&request)
}

/// Each line up to the empty one, without whitespace around a value.
fn lines_of(head: &[u8]) -> Vec<Vec<u8>> {
    let head = head.strip_prefix(b"\r\n").unwrap_or(head);
    let lines = head.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").expect("lines end in CRLF"));
    let without_space = |line: &[u8]| match line.iter().position(|byte| *byte == b':') {
        Some(colon) => {
            [line.get(..=colon), line.get(colon + 1..).map(<[u8]>::trim_ascii)].map(Option::unwrap_or_default).concat()
        }
        None => line.to_vec(),
    };
    let mut all: Vec<_> = lines.take_while(|line| !line.is_empty()).map(<[u8]>::to_vec).collect();
    all.iter_mut().skip(1).for_each(|line| *line = without_space(line));
    all
}

/// What a reader of fields that does not doubt them makes of a request.
fn judged(request: &httparse::Request<'_, '_>) -> Head {
    let all = |name: &str| -> Vec<String> {
        let named = request.headers.iter().filter(|field| field.name.eq_ignore_ascii_case(name));
        named.map(|field| String::from_utf8_lossy(field.value).to_ascii_lowercase()).collect()
    };
    let is_http11 = request.version == Some(1);
    let framing = match (&*all("content-length"), &*all("transfer-encoding")) {
        ([], []) => Framing::None,
        ([length], []) => Framing::Length(length.parse().expect("a length")),
        ([], [coding]) if coding == "chunked" => Framing::Chunked,
        doubtful => panic!("the framing is {doubtful:?}"),
    };
    assert!(all("host").len() == 1 || !is_http11 && all("host").is_empty());
    let is_upgrade = |options: &String| options.split(',').any(|option| option.trim_matches([' ', '\t']) == "upgrade");
    Head {
        version: if is_http11 { Version::Http11 } else { Version::Http10 },
        framing,
        upgrade: is_http11 && all("upgrade").iter().any(|names| !names.is_empty()) && all("connection").iter().any(is_upgrade),
        expects_continue: is_http11 && all("expect").iter().any(|value| value == "100-continue"),
    }
}

/// A chunked body ends at one place whatever parts it comes in, and there httparse sees its end too.
pub fn chunks(data: &[u8]) {
    let walked = walked(data, data.len().max(1));
    for part in [1, 7] {
        assert_eq!(self::walked(data, part), walked, "in parts of {part}: {}", data.escape_ascii());
    }
    if let Ok(Progress { taken, whole: true }) = walked {
        assert_eq!(body_end(data), Some(taken), "{}", data.escape_ascii());
    }
}

fn walked(data: &[u8], part: usize) -> Result<Progress, BadChunk> {
    let mut chunks = Chunks::default();
    let mut taken = 0;
    for part in data.chunks(part) {
        let progress = chunks.advance(part)?;
        taken += progress.taken;
        if progress.whole {
            return Ok(Progress { taken, whole: true });
        }
        assert_eq!(progress.taken, part.len(), "all are the body's until its end");
    }
    Ok(Progress { taken, whole: false })
}

/// Where a chunked body ends by httparse, which looks at sizes and trailers only.
fn body_end(body: &[u8]) -> Option<usize> {
    let mut rest = body;
    loop {
        let (begin, size) = httparse::parse_chunk_size(rest).ok()?.unwrap();
        rest = rest.get(begin..)?;
        if size == 0 {
            let mut trailers = vec![httparse::EMPTY_HEADER; 4096];
            let (length, _) = httparse::parse_headers(rest, &mut trailers).ok()?.unwrap();
            return Some(body.len() - rest.len() + length);
        }
        rest = rest.get(usize::try_from(size).ok()?..)?.strip_prefix(b"\r\n")?;
    }
}
