//! Secrets that stand in the file itself are not shown with the line around a mistake.

use std::ops::Range;

use regex::Regex;

use super::super::secret::REDACTED;

/// Finds secrets in a line that may not be valid YAML, and so is not read as such.
pub struct Mask(Regex);

impl Mask {
    pub fn new() -> Self {
        let key = r#"(?i)[\w-]*(?:to?ke?n|secret|passw|api_?key)[\w-]*["']?\s*:\s*"#;
        let value = r#"("(?:[^"\\]|\\.)*"?|'[^']*'?|[^\s,}#](?:[^,}#]*[^\s,}#])?)"#;
        Self(Regex::new(&format!("{key}{value}")).expect("a constant expression, tested below"))
    }

    /// The line with its secrets replaced, and the marked part of it where it then stands. A secret is the value of a key that sounds
    /// like one's.
    pub fn apply(&self, line: &str, marked: Range<usize>) -> (String, Range<usize>) {
        let (mut text, mut start, mut end) = (line.to_owned(), marked.start, marked.end);
        let values = self.0.captures_iter(line).filter_map(|found| found.get(1));
        let secrets: Vec<Range<usize>> = values.filter(|value| is_secret(value.as_str())).map(|value| value.range()).collect();
        for secret in secrets.into_iter().rev() {
            text.replace_range(secret.clone(), REDACTED);
            start = moved(start, &secret);
            end = moved(end, &secret);
        }
        (text, start..end)
    }
}

/// A placeholder is no secret, and a map that begins here is not a value.
fn is_secret(value: &str) -> bool {
    !value.trim_matches(['"', '\'']).starts_with("${") && !value.starts_with(['{', '['])
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
        assert_eq!(Mask::new().apply(line, 0..0).0, expected);
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
        check("  address: 127.0.0.1:80", "  address: 127.0.0.1:80");
    }

    #[test]
    fn the_mark_moves_along() {
        let line = "{ token: x, adress: y }";
        let at = line.find("adress").unwrap();
        let (text, marked) = Mask::new().apply(line, at..at + 6);
        assert_eq!(&text[marked], "adress");
        let (text, marked) = Mask::new().apply("token: 12345", 7..12);
        assert_eq!(&text[marked], REDACTED);
    }
}
