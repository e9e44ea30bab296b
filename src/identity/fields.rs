//! Claims as header fields for the service.
//!
//! What a claim says may have come from a user: it must neither end a field nor add an item to a list. So everything that is not printable
//! ASCII is percent-encoded as UTF-8, `%` too, and in the items of a list `,` as well: percent-decoding gives back exactly what was signed.

use http::{HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde_json::{Map, Value};

use crate::caller::{ClaimPath, Fields};

/// Longest field that is sent, in bytes. A claim that gives a longer one is not sent.
const FIELD_MAX: usize = 4 << 10;

/// What cannot stand in a field as it is. Whatever is not ASCII is encoded always.
const TEXT: &AsciiSet = &CONTROLS.add(b'%');

/// The same in an item of a list.
const ITEM: &AsciiSet = &TEXT.add(b',');

/// Which claims a service is told, and in which fields.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Forward(Box<[(ClaimPath, HeaderName)]>);

impl Forward {
    pub fn new(claims: impl IntoIterator<Item = (ClaimPath, HeaderName)>) -> Self {
        Self(claims.into_iter().collect())
    }

    /// The fields that are ours: what a client sends in them is dropped.
    pub fn names(&self) -> impl Iterator<Item = &HeaderName> {
        self.0.iter().map(|(_, name)| name)
    }

    /// `None`: nothing to tell.
    pub fn fields(&self, claims: &Map<String, Value>) -> Option<Fields> {
        let field = |(claim, name): &(ClaimPath, HeaderName)| Some((name.clone(), value(claim.find(claims)?)?));
        let fields: Fields = self.0.iter().filter_map(field).collect();
        (!fields.is_empty()).then_some(fields)
    }
}

/// A claim as a field's value; a list's items are joined by `,`. `None`: null, empty or too long.
fn value(claim: &Value) -> Option<HeaderValue> {
    let text = match claim {
        Value::Array(items) => items.iter().filter_map(|item| encoded(item, ITEM)).collect::<Vec<_>>().join(","),
        one => encoded(one, TEXT)?,
    };
    let value = (!text.is_empty() && text.len() <= FIELD_MAX).then(|| HeaderValue::try_from(text).ok()).flatten();
    value.map(|mut value| {
        // It is about a person: kept out of what libraries log.
        value.set_sensitive(true);
        value
    })
}

fn encoded(value: &Value, set: &'static AsciiSet) -> Option<String> {
    let text = match value {
        Value::Null => return None,
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    Some(edges(utf8_percent_encode(&text, set).to_string()))
}

/// Spaces at the edges would be lost on the way.
fn edges(text: String) -> String {
    let inner = text.trim_matches(' ');
    if inner.len() == text.len() {
        return text;
    }
    let before = text.len() - text.trim_start_matches(' ').len();
    let after = text.len() - inner.len() - before;
    format!("{}{inner}{}", "%20".repeat(before), "%20".repeat(after))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(claim: Value, expected: Option<&str>) {
        let found = value(&claim);
        assert_eq!(found.as_ref().map(|value| value.to_str().unwrap()), expected, "{claim}");
    }

    #[test]
    fn claims_are_sent_as_they_read() {
        check(json!("ada@shop.example"), Some("ada@shop.example"));
        check(json!("Lovelace, Ada"), Some("Lovelace, Ada"));
        check(json!(7), Some("7"));
        check(json!(true), Some("true"));
        check(json!({ "tier": "gold" }), Some(r#"{"tier":"gold"}"#));
        for nothing in [json!(null), json!(""), json!([]), json!([null]), json!("x".repeat(FIELD_MAX + 1))] {
            check(nothing, None);
        }
    }

    #[test]
    fn no_claim_ends_its_field() {
        check(json!("ada\r\nX-Admin: yes"), Some("ada%0D%0AX-Admin: yes"));
        check(json!("a\0b\tc\u{7f}"), Some("a%00b%09c%7F"));
        check(json!("Zoë"), Some("Zo%C3%AB"));
        check(json!("100%0d"), Some("100%250d"));
        check(json!("  a b "), Some("%20%20a b%20"));
        check(json!("  "), Some("%20%20"));
        check(json!({ "a\r\n": "\r\n" }), Some(r#"{"a\r\n":"\r\n"}"#));
    }

    #[test]
    fn no_item_becomes_two() {
        check(json!(["a", "b,admin", 3]), Some("a,b%2Cadmin,3"));
        check(json!([["a", "b"]]), Some(r#"["a"%2C"b"]"#));
    }

    #[test]
    fn chosen_claims_alone_are_sent() {
        let forward = Forward::new([
            (ClaimPath::new("sub"), HeaderName::from_static("x-user")),
            (ClaimPath::new("org.id"), HeaderName::from_static("x-org")),
            (ClaimPath::new("email"), HeaderName::from_static("x-email")),
        ]);
        let claims = json!({ "sub": "ada", "org": { "id": 7 }, "other": "secret" });
        let fields = forward.fields(claims.as_object().unwrap()).unwrap();
        let told: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(told, [("x-user", "ada"), ("x-org", "7")]);
        assert_eq!(forward.fields(&Map::new()), None);
    }
}
