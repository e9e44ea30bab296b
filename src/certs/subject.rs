//! Distinguished names as people write them (RFC 4514 §3), brought into the form in which those of certificates are written.

use super::client::{escaped, keywords};

/// A name in our form: keywords in capitals, no space around parts, values escaped where they must be. `None`: it is no such name.
pub fn normal(text: &str) -> Option<String> {
    let mut parts = Vec::new();
    for part in split(text, b',') {
        let attributes: Option<Vec<String>> = split(part, b'+').into_iter().map(attribute).collect();
        parts.push(attributes?.join("+"));
    }
    Some(parts.join(","))
}

fn attribute(text: &str) -> Option<String> {
    let (kind, value) = text.split_once('=')?;
    let (kind, value) = (kind.trim(), trimmed(value));
    let kind = kind.to_ascii_uppercase();
    let is_keyword = keywords().iter().any(|(_, keyword)| **keyword == *kind);
    let is_number = !kind.is_empty() && kind.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    match value.strip_prefix('#') {
        // A value by its bytes stays as it is (RFC 4514 §2.4).
        Some(bytes) if is_keyword || is_number => is_hex(bytes).then(|| format!("{kind}=#{}", bytes.to_ascii_lowercase())),
        None if is_keyword => unescaped(value).map(|value| format!("{kind}={}", escaped(&value))),
        // Of a type without a keyword the names of certificates have the bytes: a text would match none.
        _ => None,
    }
}

fn is_hex(text: &str) -> bool {
    !text.is_empty() && text.len().is_multiple_of(2) && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Cuts at each of these signs that is not escaped.
fn split(text: &str, at: u8) -> Vec<&str> {
    let (mut parts, mut start, mut is_escaped) = (Vec::new(), 0, false);
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            byte if byte == at => {
                parts.extend(text.get(start..index));
                start = index + 1;
            }
            _ => {}
        }
    }
    parts.extend(text.get(start..));
    parts
}

/// Without the spaces around it; one that is escaped belongs to the value.
fn trimmed(value: &str) -> &str {
    let value = value.trim_start_matches(' ');
    let bare = value.trim_end_matches(' ');
    let backslashes = bare.bytes().rev().take_while(|byte| *byte == b'\\').count();
    match backslashes % 2 {
        1 => value.get(..=bare.len()).unwrap_or(value),
        _ => bare,
    }
}

/// The value that is meant (RFC 4514 §3): `\,` is a comma, `\C3\BC` the bytes.
fn unescaped(value: &str) -> Option<String> {
    let mut meant = Vec::with_capacity(value.len());
    let mut bytes = value.bytes();
    while let Some(byte) = bytes.next() {
        meant.push(match byte {
            b'\\' => match bytes.next()? {
                sign @ (b' ' | b'"' | b'#' | b'+' | b',' | b';' | b'<' | b'=' | b'>' | b'\\') => sign,
                high => u8::try_from(char::from(high).to_digit(16)? << 4 | char::from(bytes.next()?).to_digit(16)?).ok()?,
            },
            b'"' | b';' | b'<' | b'>' | 0 => return None,
            byte => byte,
        });
    }
    String::from_utf8(meant).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_brought_into_the_form_of_certificates() {
        let check = |text: &str, expected: Option<&str>| assert_eq!(normal(text).as_deref(), expected, "{text}");
        check("CN=acme,O=Acme Ltd", Some("CN=acme,O=Acme Ltd"));
        check("cn = acme , o=Acme Ltd", Some("CN=acme,O=Acme Ltd"));
        check("CN=a\\2CO\\3DShop,O=x", Some("CN=a\\,O=Shop,O=x"));
        check("CN=a\\,b+UID=1", Some("CN=a\\,b+UID=1"));
        check("CN=\\ a\\ ,O=x", Some("CN=\\ a\\ ,O=x"));
        check("CN=M\\C3\\BCller", Some("CN=Müller"));
        check("1.2.3.4=#0C0178", Some("1.2.3.4=#0c0178"));
        for wrong in
            ["", "acme", "CN=a,", "CN=a\\", "CN=a;O=b", "=a", "=#00", "C N=a", "CN=a\\zz", "CN=#xy", "CN=#", "CN=#0", "CN=\\FF"]
        {
            check(wrong, None);
        }
        for no_keyword in ["emailAddress=a@shop.example", "1.2.3.4=x", "X=#00"] {
            check(no_keyword, None);
        }
    }
}
