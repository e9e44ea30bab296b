//! Secrets that stand in the file itself are not shown with the line around a mistake.
//!
//! The line may not be valid YAML, so it is not read as such: what follows a key that sounds like a secret's is masked.

use std::ops::Range;

use super::super::{secret::REDACTED, suggest::suggest};

/// Words that name a secret, or are part of a key that does.
const WORDS: [&str; 5] = ["token", "secret", "password", "passwd", "api_key"];

/// The line with its secrets replaced, and the marked part of it where it then stands.
pub fn masked(line: &str, marked: Range<usize>) -> (String, Range<usize>) {
    let (mut text, mut start, mut end) = (line.to_owned(), marked.start, marked.end);
    for secret in secrets(line).into_iter().rev() {
        text.replace_range(secret.clone(), REDACTED);
        start = moved(start, &secret);
        end = moved(end, &secret);
    }
    (text, start..end)
}

/// Whether a line goes on with a secret that a line above began: it has no key, and the last key above it sounds like a secret's.
pub fn goes_on_with_secret(line: &str, above: &str) -> bool {
    let last_key = || above.lines().rev().find_map(|line| line.rsplit_once(':')).map(|(before, _)| key(before));
    !line.contains(':') && last_key().is_some_and(is_secret_key)
}

/// Whether a key sounds like a secret's, slips of the pen included.
pub fn is_secret_key(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    WORDS.iter().any(|word| key.contains(word)) || suggest(&key, WORDS.into_iter()).is_some()
}

/// The values of the keys in the line that sound like a secret's.
fn secrets(line: &str) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    for (colon, _) in line.match_indices(':') {
        let within = found.last().is_some_and(|secret| colon < secret.end);
        let (before, after) = (line.get(..colon).unwrap_or_default(), line.get(colon + 1..).unwrap_or_default());
        if !within {
            let start = colon + 1 + after.len() - after.trim_start().len();
            let length = of_key(key(before), after.trim_start());
            found.extend((length > 0).then_some(start..start + length));
        }
    }
    let is_apart = |place: &Range<usize>| found.iter().all(|secret| place.end <= secret.start || secret.end <= place.start);
    let passwords: Vec<_> = passwords(line).filter(is_apart).collect();
    found.extend(passwords);
    found.sort_by_key(|secret| secret.start);
    found
}

/// Users and passwords in URLs, up to the last `@`: whoever does not encode a password may have any sign in it.
fn passwords(line: &str) -> impl Iterator<Item = Range<usize>> {
    line.match_indices("://").filter_map(|(at, slashes)| {
        let start = at + slashes.len();
        let url = line.get(start..)?.split(|c: char| c.is_whitespace() || c == '"' || c == '\'').next()?;
        Some(start..start + url.rfind('@')?)
    })
}

/// The word before a colon.
fn key(before: &str) -> &str {
    let word = before.trim_end().trim_end_matches(['"', '\'']);
    word.rsplit(|c: char| !(c.is_alphanumeric() || c == '_' || c == '-')).next().unwrap_or_default()
}

/// Length of the secret that a key has in the text behind it. `key` may have one, or the name of a file.
fn of_key(key: &str, text: &str) -> usize {
    let is_file = |value: &str| {
        let name = value.trim_matches(['"', '\'']).rsplit_once('.');
        name.is_some_and(|(_, kind)| !kind.is_empty() && kind.len() < 6 && kind.bytes().all(|b| b.is_ascii_alphanumeric()))
    };
    match is_secret_key(key) || key == "key" {
        true if key == "key" && is_counted(text) => 0,
        true if text.starts_with('[') => list(text),
        true => Some(value(text)).filter(|length| key != "key" || !text.get(..*length).is_some_and(is_file)).unwrap_or_default(),
        false => 0,
    }
}

/// What limits count, in their `key`: no secret.
const COUNTED: [&str; 6] = ["client_ip", "consumer", "credential", "plan", "route", "country"];

/// Whether a text begins with the key of a limit, or a list of such.
fn is_counted(text: &str) -> bool {
    let text = text.trim_start_matches('[').trim_start();
    let word = text.split(|c: char| c.is_whitespace() || matches!(c, ',' | ']' | '}')).next().unwrap_or_default();
    COUNTED.contains(&word)
}

/// Length of a list of texts up to and with its closing bracket, or to the end; 0 of an empty one, and of one of maps, whose keys are
/// looked at themselves.
fn list(text: &str) -> usize {
    if text.trim_start_matches('[').trim_start().starts_with([']', '{']) {
        return 0;
    }
    let (mut quote, mut escaped) = (None, false);
    let closing = text.char_indices().find(|(_, c)| {
        let was_escaped = escaped;
        escaped = *c == '\\' && quote == Some('"') && !was_escaped;
        match quote {
            None => quote = matches!(c, '"' | '\'').then_some(*c),
            Some(open) if open == *c && !was_escaped => quote = None,
            Some(_) => return false,
        }
        *c == ']'
    });
    closing.map_or(text.len(), |(at, _)| at + 1)
}

/// Length of the value that a text begins with; 0 of a placeholder, which is no secret, and of a map or list, whose keys are looked at
/// themselves.
fn value(text: &str) -> usize {
    if text.trim_start_matches(['"', '\'']).starts_with("${") || text.starts_with(['{', '[']) {
        return 0;
    }
    match text.chars().next() {
        Some('"') => quoted(text, '"'),
        Some('\'') => quoted(text, '\''),
        _ => text.split([',', '}', '#']).next().unwrap_or_default().trim_end().len(),
    }
}

/// Length up to and with the closing quote, or to the end.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    let closing = text.char_indices().skip(1).find(|(_, c)| {
        let closes = *c == quote && !escaped;
        escaped = *c == '\\' && quote == '"' && !escaped;
        closes
    });
    closing.map_or(text.len(), |(at, _)| at + 1)
}

fn moved(at: usize, secret: &Range<usize>) -> usize {
    if at >= secret.end {
        at - secret.len() + REDACTED.len()
    } else if at > secret.start {
        secret.start + REDACTED.len()
    } else {
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: &str) {
        assert_eq!(masked(line, 0..0).0, expected);
    }

    #[test]
    fn what_sounds_like_a_secret_is_masked() {
        check("admin: { token: hunter2, adress: x }", "admin: { token: [redacted], adress: x }");
        check(r#"  token: "hun\"ter2" # mine"#, "  token: [redacted] # mine");
        check("  tokn: hunter2", "  tokn: [redacted]");
        check(r#"  "client_secret": 'hunter2"#, r#"  "client_secret": [redacted]"#);
        check("  Password: hunter two  # mine", "  Password: [redacted]  # mine");
        check("{ token: hunter2 }", "{ token: [redacted] }");
        check(r#"  token: "${env:TOKEN}""#, r#"  token: "${env:TOKEN}""#);
        check("  secret: 'a: b', x: y", "  secret: [redacted], x: y");
        check("  url: https://shop.example/a?token: x", "  url: https://shop.example/a?token: [redacted]");
        check("  jwks_url: https://a:hunter2@idp.example/", "  jwks_url: https://[redacted]@idp.example/");
        check("  url: 'https://a:hunt@/er2@idp.example/', x: y@z", "  url: 'https://[redacted]@idp.example/', x: y@z");
        check("  token_url: https://a:hunter2@idp.example/", "  token_url: [redacted]");
        check("  url: https://idp.example/", "  url: https://idp.example/");
        check("  token:", "  token:");
        check(r#"{ cookie_secrets: ["hun\"]ter2", 'a]'], x: [y] }"#, "{ cookie_secrets: [redacted], x: [y] }");
        check("  cookie_secrets: [\"${env:A}\", hunter2", "  cookie_secrets: [redacted]");
        check("  cookie_secrets: []", "  cookie_secrets: []");
        check("  tokens: [{ secret: hunter2 }]", "  tokens: [{ secret: [redacted] }]");
        check(r#"{ key_id: a, key: "BwcH/BwcH+a=" }"#, "{ key_id: a, key: [redacted] }");
        check("{ cert: web.pem, key: tls/web.key }", "{ cert: web.pem, key: tls/web.key }");
        check("  key: ${file:keys/acme.pem}", "  key: ${file:keys/acme.pem}");
        check("{ key: [consumer, { header: x }], limit: 1/1s }", "{ key: [consumer, { header: x }], limit: 1/1s }");
        check("  key: client_ip", "  key: client_ip");
        check("  key: plan+BwcH/BwcH+a=", "  key: [redacted]");
        check("  address: 127.0.0.1:80", "  address: 127.0.0.1:80");
    }

    #[test]
    fn the_mark_moves_along() {
        let line = "{ token: x, adress: y }";
        let at = line.find("adress").unwrap();
        let (text, marked) = masked(line, at..at + 6);
        assert_eq!(&text[marked], "adress");
        let (text, marked) = masked("token: 12345", 7..12);
        assert_eq!(&text[marked], REDACTED);
    }
}
