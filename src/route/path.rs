//! The one form of a request path: what is matched, authorised and forwarded.
//!
//! Two spellings of one resource must not be two paths, or a rule on one of them is passed by writing the other. So the
//! path is brought into one form before anything looks at it, by RFC 3986 §6.2.2 (case of triplets, unreserved characters,
//! dot segments) and by merging slashes, which services do too. What services read in different ways is refused.
//!
//! Refused: an encoded slash or backslash (unless kept by configuration), a raw backslash, control characters, raw or
//! encoded, spaces, raw non-ASCII, `?` and `#`, broken triplets, `..` above the root (RFC 3986 §5.2.4 would drop it: no
//! honest client sends it), and dot segments in disguise: `..;x` is `..` to a service that strips path parameters.
//! Characters that a URI may not contain but clients send (`"<>^{|}` and the backtick) become triplets.

use std::borrow::Cow;

pub use crate::config::paths::EncodedSlashes;

/// The part that bytes play in a path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Unreserved, RFC 3986 §2.3: the same with and without encoding.
    Unreserved,
    /// Another character of a path, RFC 3986 §3.3: encoding it makes a difference. `[` and `]` are of no path, but are sent.
    Reserved,
    /// May not stand in a URI, yet clients send it: becomes a triplet.
    Unwise,
    Slash,
    Percent,
    Refused(&'static str),
}

const fn class(byte: u8) -> Class {
    match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => Class::Unreserved,
        b'!' | b'$' | b'&'..=b'*' | b'+' | b',' | b';' | b'=' | b':' | b'@' | b'[' | b']' => Class::Reserved,
        b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'|' | b'}' => Class::Unwise,
        b'/' => Class::Slash,
        b'%' => Class::Percent,
        b'\\' => Class::Refused("a backslash in the path"),
        b' ' => Class::Refused("a space in the path"),
        b'?' | b'#' => Class::Refused("a query or fragment in the path"),
        0..=31 | 127 => Class::Refused("a control character in the path"),
        128.. => Class::Refused("a character beyond ASCII in the path, not percent-encoded"),
    }
}

/// Brings a path into its one form: borrowed if it is in it already. `*` (RFC 9112 §3.2.4) stays as it is.
///
/// Normalising twice is the same as once. A slash at the end is kept: it makes another path.
///
/// # Errors
/// The rule that the path breaks; never the path itself.
pub fn normalise(raw: &[u8], slashes: EncodedSlashes) -> Result<Cow<'_, str>, &'static str> {
    let text = str::from_utf8(raw).map_err(|_| "a character beyond ASCII in the path, not percent-encoded")?;
    if text == "*" || is_plain(raw) {
        return Ok(Cow::Borrowed(text));
    }
    let Some(rest) = text.strip_prefix('/') else { return Err("no slash at the start of the path") };
    let path = join(rest, slashes)?;
    Ok(if path == text { Cow::Borrowed(text) } else { Cow::Owned(path) })
}

/// Whether a path is surely in its one form. The common case: one look at each byte.
fn is_plain(raw: &[u8]) -> bool {
    let mut before = 0;
    let fits = |byte: &u8| {
        let open = before == b'/';
        before = *byte;
        match byte {
            b'/' | b'.' => !open,
            byte => matches!(class(*byte), Class::Unreserved | Class::Reserved),
        }
    };
    raw.first() == Some(&b'/') && raw.iter().all(fits)
}

/// The segments in their one form, without those that mean nothing.
fn join(rest: &str, slashes: EncodedSlashes) -> Result<String, &'static str> {
    let mut path = String::with_capacity(rest.len() + 16);
    let mut open = true;
    for raw in rest.split('/') {
        let start = path.len();
        path.push('/');
        segment(raw, slashes, &mut path)?;
        open = match path.get(start + 1..).unwrap_or_default() {
            "" | "." => {
                path.truncate(start);
                true
            }
            ".." => {
                path.truncate(start);
                let parent = path.rfind('/').ok_or("a dot segment above the root in the path")?;
                path.truncate(parent);
                true
            }
            segment if is_dots_in_disguise(segment) => return Err("a dot segment in disguise in the path"),
            _ => false,
        };
    }
    if open {
        path.push('/');
    }
    Ok(path)
}

/// Appends a segment: triplets of unreserved characters decoded, all others in upper case.
fn segment(raw: &str, slashes: EncodedSlashes, path: &mut String) -> Result<(), &'static str> {
    let mut bytes = raw.bytes();
    while let Some(byte) = bytes.next() {
        match class(byte) {
            Class::Refused(rule) => return Err(rule),
            Class::Percent => {
                let encoded = triplet(bytes.next(), bytes.next())?;
                decoded(encoded, slashes, path)?;
            }
            Class::Unwise => push_triplet(byte, path),
            Class::Unreserved | Class::Reserved | Class::Slash => path.push(char::from(byte)),
        }
    }
    Ok(())
}

/// Appends what a triplet stands for, or the triplet where that makes a difference.
fn decoded(byte: u8, slashes: EncodedSlashes, path: &mut String) -> Result<(), &'static str> {
    match class(byte) {
        Class::Unreserved => path.push(char::from(byte)),
        Class::Slash | Class::Refused(_) if matches!(byte, b'/' | b'\\') && slashes == EncodedSlashes::Refuse => {
            return Err("an encoded slash or backslash in the path");
        }
        Class::Refused(_) if byte.is_ascii_control() => return Err("an encoded control character in the path"),
        _ => push_triplet(byte, path),
    }
    Ok(())
}

fn triplet(high: Option<u8>, low: Option<u8>) -> Result<u8, &'static str> {
    let digit = |byte: Option<u8>| byte.and_then(|b| char::from(b).to_digit(16)).and_then(|d| u8::try_from(d).ok());
    match (digit(high), digit(low)) {
        (Some(high), Some(low)) => Ok(high << 4 | low),
        _ => Err("a broken percent-encoding in the path"),
    }
}

fn push_triplet(byte: u8, path: &mut String) {
    let digit = |value: u8| char::from_digit(value.into(), 16).unwrap_or('0').to_ascii_uppercase();
    path.extend(['%', digit(byte >> 4), digit(byte & 15)]);
}

/// What ends a segment's name for services that strip path parameters, or decode once more: then `..;x` is `..`.
const ENDS: [&str; 6] = [";", "%3B", "%2F", "%5C", "%3F", "%23"];

/// Whether a segment has a part that is `.` or `..` to some service. Takes a segment in its one form, not `.` or `..`.
fn is_dots_in_disguise(mut segment: &str) -> bool {
    if !segment.contains([';', '%']) {
        return false;
    }
    loop {
        let end = ENDS.iter().filter_map(|end| segment.find(end).map(|at| (at, end.len()))).min();
        let (part, rest) = match end {
            Some((at, len)) => (segment.get(..at), segment.get(at + len..)),
            None => (Some(segment), None),
        };
        match (part, rest) {
            (Some("." | ".."), _) => return true,
            (_, Some(rest)) => segment = rest,
            (_, None) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(raw: &str, expected: &str) {
        let path = normalise(raw.as_bytes(), EncodedSlashes::Refuse);
        assert_eq!(path.as_deref(), Ok(expected), "{raw}");
        let again = normalise(expected.as_bytes(), EncodedSlashes::Refuse);
        assert!(matches!(again, Ok(Cow::Borrowed(path)) if path == expected), "{raw} is not settled");
    }

    fn refused(raw: impl AsRef<[u8]>, rule: &str) {
        let raw = raw.as_ref();
        let text = String::from_utf8_lossy(raw);
        match normalise(raw, EncodedSlashes::Refuse) {
            Ok(path) => panic!("{text} became {path}"),
            Err(broken) => assert!(broken.contains(rule), "{text}: {broken}"),
        }
    }

    #[test]
    fn a_path_in_its_one_form_is_borrowed() {
        for path in ["/", "*", "/a", "/a/", "/a.b/c..d/e.", "/a;v=1/b", "/~u/!$&'()*+,;=:@", "/a%20b", "/[1]"] {
            check(path, path);
        }
    }

    #[test]
    fn triplets_of_unreserved_characters_are_decoded() {
        check("/%61%2Dz%7e%5f", "/a-z~_");
        check("/%c3%bc", "/%C3%BC");
        check("/%2525", "/%2525");
        check("/a%3bb", "/a%3Bb");
    }

    #[test]
    fn dot_segments_are_removed() {
        check("/a/./b", "/a/b");
        check("/a/b/../c", "/a/c");
        check("/a/b/..", "/a/");
        check("/a/.", "/a/");
        check("/.", "/");
        check("/a/%2e%2E/b", "/b");
        check("/a/.%2e/", "/");
        check("/...", "/...");
        check("/.a/..b", "/.a/..b");
    }

    #[test]
    fn slashes_are_merged() {
        check("//", "/");
        check("//a///b//", "/a/b/");
        check("/a//../b", "/b");
    }

    #[test]
    fn characters_of_no_uri_become_triplets() {
        check("/{a}|\"<>^`", "/%7Ba%7D%7C%22%3C%3E%5E%60");
    }

    #[test]
    fn what_does_not_start_with_a_slash_is_refused() {
        for raw in ["", "a", "**", "http://x/", "%2Fa"] {
            refused(raw, "slash");
        }
    }

    #[test]
    fn paths_above_the_root_are_refused() {
        for raw in ["/..", "/../a", "/a/../..", "/a/..//../b", "/%2e%2e/", "/./.."] {
            refused(raw, "above the root");
        }
    }

    #[test]
    fn encoded_slashes_are_refused_by_default() {
        for raw in ["/a%2fb", "/a%2Fb", "/a%5cb", "/%2F", "/..%2f"] {
            refused(raw, "encoded slash");
        }
    }

    #[test]
    fn kept_encoded_slashes_hide_no_dot_segment() {
        let keep = |raw: &'static str| normalise(raw.as_bytes(), EncodedSlashes::Keep);
        assert_eq!(keep("/a%2fb").as_deref(), Ok("/a%2Fb"));
        assert_eq!(keep("/a%5cb").as_deref(), Ok("/a%5Cb"));
        for raw in ["/a/..%2fb", "/a%2F..%2fb", "/a%2f..", "/a%5C..%5Cb", "/.%2Fa", "/a%2f%2e%2e"] {
            assert!(keep(raw).is_err(), "{raw}");
        }
    }

    #[test]
    fn dot_segments_in_disguise_are_refused() {
        for raw in ["/a/..;/b", "/a/.;x=1/b", "/a/..;", "/..%3b/x", "/a/%2e%2e;v/b", "/a/..%3F", "/a/..%23x"] {
            refused(raw, "disguise");
        }
        check("/a/...;x", "/a/...;x");
        check("/a/b..;x", "/a/b..;x");
    }

    #[test]
    fn characters_that_services_disagree_on_are_refused() {
        refused("/a\\b", "backslash");
        refused("/a b", "space");
        refused("/a?b", "query");
        refused("/a#b", "fragment");
        refused("/a\tb", "control");
        refused("/a\x7f", "control");
        refused("/%00", "encoded control");
        refused("/a%0d%0ab", "encoded control");
        refused("/%7F", "encoded control");
        refused("/ü", "ASCII");
        refused(b"/\xff", "ASCII");
    }

    #[test]
    fn broken_triplets_are_refused() {
        for raw in ["/%", "/%a", "/%g0", "/%0g", "/a%/b", "/%+1", "/% 1"] {
            refused(raw, "percent-encoding");
        }
    }
}
