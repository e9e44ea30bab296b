//! What must hold for every input. Fuzzed by the targets beside, and checked on their corpora by the tests.

use std::{borrow::Cow, collections::BTreeMap};

use banyan::{
    config::{
        load::{self, Colour},
        paths::EncodedSlashes,
        route::Match,
    },
    name::RouteName,
    proxy_protocol::{self, Parsed},
    route::{host, path, pattern::Pattern, table::Table},
};

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

/// A host has one form, which a route can name.
pub fn host(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = host::Pattern::parse(text);
    let Ok((host, _)) = host::parse(text) else { return };
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
