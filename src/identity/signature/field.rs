//! Header fields as signatures read them: combined, or as structured fields (RFC 8941).

use http::{HeaderMap, HeaderName};
use sfv::{BareItem, Dictionary, FieldType, ListEntry, Parser, Version};

use super::Refusal;

/// Longest structured field that is parsed, in bytes, all its lines together.
const FIELD_MAX: usize = 16 << 10;

/// All lines of a field in one, joined by a comma, each without the spaces around it (RFC 9421 §2.1). `None` if there is none.
///
/// # Errors
/// It holds what is not ASCII text.
pub fn combined(headers: &HeaderMap, name: &HeaderName) -> Result<Option<String>, Refusal> {
    let mut lines = headers.get_all(name).iter().map(|line| line.to_str().map(|text| text.trim_matches([' ', '\t'])));
    let Some(first) = lines.next() else { return Ok(None) };
    let not_text = |_| Refusal::Component("a field that is not ASCII");
    let mut all = first.map_err(not_text)?.to_owned();
    for line in lines {
        all.push_str(", ");
        all.push_str(line.map_err(not_text)?);
    }
    Ok(Some(all))
}

/// Each line of a field as a byte sequence, for fields that must not be combined (RFC 9421 §2.1.3).
pub fn as_bytes(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let line = |line: &http::HeaderValue| sfv::Item::new(line.as_bytes().trim_ascii().to_vec()).serialize();
    let lines: Vec<String> = headers.get_all(name).iter().map(line).collect();
    (!lines.is_empty()).then(|| lines.join(", "))
}

/// A field that is a dictionary. `None` if there is none.
///
/// # Errors
/// It is not one, or too long.
pub fn dictionary(headers: &HeaderMap, name: &'static str) -> Result<Option<Dictionary>, Refusal> {
    combined(headers, &HeaderName::from_static(name))?.map(|text| parse(&text)).transpose()
}

/// Parses a structured field strictly, all of it.
///
/// # Errors
/// It is not one of that type, or too long.
pub fn parse<T: FieldType>(text: &str) -> Result<T, Refusal> {
    if text.len() > FIELD_MAX {
        return Err(Refusal::Malformed("a field that is too long"));
    }
    Parser::new(text).with_version(Version::Rfc8941).parse().map_err(|_| Refusal::Malformed("no structured field"))
}

/// The bytes that a member of `Signature` or `Content-Digest` is.
pub fn bytes(entry: Option<&ListEntry>) -> Result<&[u8], Refusal> {
    match entry {
        Some(ListEntry::Item(item)) if item.params.is_empty() => match &item.bare_item {
            BareItem::ByteSequence(bytes) => Ok(bytes),
            _ => Err(Refusal::Malformed("no byte sequence")),
        },
        Some(_) => Err(Refusal::Malformed("no byte sequence")),
        None => Err(Refusal::Malformed("a signature without its value")),
    }
}
