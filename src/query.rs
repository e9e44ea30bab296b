//! The parts of a query, read in place.

use std::borrow::Cow;

/// Names and values of a query, not decoded. A name without `=` has an empty value.
pub fn parameters(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

/// The bytes of a query's name or value: `+` is a space, a triplet its byte. What is no triplet stays.
/// Source: URL Standard, "application/x-www-form-urlencoded parsing".
pub fn decoded(text: &str) -> impl Iterator<Item = u8> {
    let mut bytes = text.bytes();
    std::iter::from_fn(move || match bytes.next()? {
        b'+' => Some(b' '),
        b'%' => {
            let mut ahead = bytes.clone();
            match (hex(ahead.next()), hex(ahead.next())) {
                (Some(high), Some(low)) => {
                    bytes = ahead;
                    Some(high << 4 | low)
                }
                _ => Some(b'%'),
            }
        }
        byte => Some(byte),
    })
}

fn hex(byte: Option<u8>) -> Option<u8> {
    byte.and_then(|b| char::from(b).to_digit(16)).and_then(|digit| u8::try_from(digit).ok())
}

/// The query without the parameters of this name, however it is encoded. None: it has none.
pub fn without(query: &str, name: &str) -> Option<String> {
    let is_named = |pair: &&str| is_named(pair, name);
    query
        .split('&')
        .any(|pair| is_named(&pair))
        .then(|| query.split('&').filter(|pair| !is_named(pair)).collect::<Vec<_>>().join("&"))
}

/// The query with the values of these parameters hidden.
pub fn masked<'a>(query: &'a str, names: &[Box<str>]) -> Cow<'a, str> {
    let is_secret = |pair: &&str| names.iter().any(|name| is_named(pair, name));
    if !query.split('&').any(|pair| is_secret(&pair)) {
        return Cow::Borrowed(query);
    }
    let hidden = query.split('&').map(|pair| match pair.split_once('=') {
        Some((name, _)) if is_secret(&pair) => Cow::Owned(format!("{name}={HIDDEN}")),
        _ => Cow::Borrowed(pair),
    });
    Cow::Owned(hidden.collect::<Vec<_>>().join("&"))
}

/// What is shown in the place of a credential.
const HIDDEN: &str = "***";

fn is_named(pair: &str, name: &str) -> bool {
    let (other, _) = pair.split_once('=').unwrap_or((pair, ""));
    decoded(other).eq(name.bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_taken_out_however_it_is_written() {
        let check = |query: &str, expected: Option<&str>| assert_eq!(without(query, "api_key").as_deref(), expected, "{query}");
        check("a=1&b=2", None);
        check("api_key=x", Some(""));
        check("a=1&api_key=x&b=2&api%5Fkey=y&api_key", Some("a=1&b=2"));
        check("api_keys=x", None);
    }

    #[test]
    fn a_credential_is_hidden_and_the_rest_is_not() {
        let names = [Box::from("key")];
        assert_eq!(masked("a=1&key=secret&%6bey=secret&key", &names), "a=1&key=***&%6bey=***&key");
        assert!(matches!(masked("a=1", &names), Cow::Borrowed("a=1")));
    }
}
