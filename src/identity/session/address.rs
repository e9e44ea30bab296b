//! Addresses that we send browsers to, and what comes back in them.

use std::fmt::Write;

use reqwest::Url;

/// Longest address that a browser is sent back to, in bytes. A longer one is forgotten.
const RETURN_MAX: usize = 2_048;

/// An address with these in its query.
pub fn with_query(base: &Url, pairs: &[(&str, &str)]) -> String {
    let mut url = base.clone();
    url.query_pairs_mut().extend_pairs(pairs);
    url.into()
}

/// `application/x-www-form-urlencoded`.
pub fn form(pairs: &[(&str, &str)]) -> String {
    let mut out = String::new();
    for (name, value) in pairs {
        let mark = if out.is_empty() { "" } else { "&" };
        let _ = write!(out, "{mark}{}={}", encoded(name), encoded(value));
    }
    out
}

/// Text in which nothing but letters, digits and `*-._` stands for itself.
pub fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'*' | b'-' | b'.' | b'_' => out.push(char::from(byte)),
            _ => drop(write!(out, "%{byte:02X}")),
        }
    }
    out
}

/// The only value of a name in a query or form, decoded. `Err`: it is there twice, and who knows which one another would take.
pub fn only(query: &str, name: &str) -> Result<Option<String>, Twice> {
    let base = Url::parse("http://query/").map_err(|_| Twice)?;
    let mut url = base;
    url.set_query(Some(query));
    let mut found = url.query_pairs().filter(|(found, _)| found == name).map(|(_, value)| value.into_owned());
    match (found.next(), found.next()) {
        (one, None) => Ok(one),
        (_, Some(_)) => Err(Twice),
    }
}

/// A parameter that may be there once is there twice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Twice;

/// Where a browser goes back to after it signed in: the target that it asked for, or `/` if that could lead to another host.
pub fn way_back(target: &str) -> &str {
    let mut bytes = target.bytes();
    let from_root = bytes.next() == Some(b'/') && !matches!(bytes.next(), Some(b'/' | b'\\'));
    let plain = target.bytes().all(|b| b.is_ascii_graphic() && b != b'\\');
    if from_root && plain && target.len() <= RETURN_MAX { target } else { "/" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_back_stays_on_the_host() {
        for good in ["/", "/a/b?c=d&e=//x", "/?next=https://evil.example/", "/%2F%2Fevil.example"] {
            assert_eq!(way_back(good), good);
        }
        let long = format!("/{}", "x".repeat(RETURN_MAX));
        for bad in [
            "",
            "*",
            "//evil.example",
            "/\\evil.example",
            "/a\\b",
            "https://evil.example/",
            "/a\r\nb",
            "/a b",
            "/ä",
            "\t/a",
            &long,
        ] {
            assert_eq!(way_back(bad), "/", "{bad}");
        }
    }

    #[test]
    fn a_parameter_is_there_once() {
        assert_eq!(only("code=a%20b+c&state=x", "code"), Ok(Some("a b c".to_owned())));
        assert_eq!(only("code=a", "state"), Ok(None));
        assert_eq!(only("code=a&c%6fde=b", "code"), Err(Twice));
    }

    #[test]
    fn queries_and_forms_are_encoded() {
        let base = Url::parse("https://idp.example/auth?tenant=1").unwrap();
        let url = with_query(&base, &[("scope", "openid profile"), ("redirect_uri", "https://a.example/cb?x=y&z")]);
        assert_eq!(
            url,
            "https://idp.example/auth?tenant=1&scope=openid+profile&redirect_uri=https%3A%2F%2Fa.example%2Fcb%3Fx%3Dy%26z"
        );
        assert_eq!(form(&[("a", "b c"), ("d", "ä&")]), "a=b%20c&d=%C3%A4%26");
    }
}
