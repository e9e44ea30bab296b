//! How we say who we are to an issuer, and which token we mean.

use base64::{Engine, engine::general_purpose::STANDARD};
use http::HeaderValue;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// What stands for itself in a form (the URL standard's `application/x-www-form-urlencoded`), but for the space, which is `+` there and `%20`
/// here: every reader takes both.
const FORM: &AsciiSet = &NON_ALPHANUMERIC.remove(b'*').remove(b'-').remove(b'.').remove(b'_');

/// `client_secret_basic` (RFC 6749 §2.3.1): name and secret are written as in a form, then joined. Never shown.
pub fn credentials(id: &str, secret: &str) -> HeaderValue {
    let joined = format!("{}:{}", utf8_percent_encode(id, FORM), utf8_percent_encode(secret, FORM));
    let value = format!("Basic {}", STANDARD.encode(joined));
    let mut value = HeaderValue::from_str(&value).expect("base64 is ASCII");
    value.set_sensitive(true);
    value
}

/// The form of a question (RFC 7662 §2.1).
pub fn fields(token: &str) -> String {
    format!("token={}&token_type_hint=access_token", utf8_percent_encode(token, FORM))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_those_of_rfc_6749() {
        let value = credentials("s6BhdRkqt3", "7Fjfp0ZBr1KtDRbnfVdmIw");
        assert_eq!(value, "Basic czZCaGRSa3F0Mzo3RmpmcDBaQnIxS3REUmJuZlZkbUl3", "RFC 6749 §2.3.1");
        assert!(value.is_sensitive() && !format!("{value:?}").contains("Basic"));
        assert_eq!(credentials("a:b", "p w+é"), format!("Basic {}", STANDARD.encode("a%3Ab:p%20w%2B%C3%A9")));
    }

    #[test]
    fn a_token_cannot_add_a_field() {
        assert_eq!(fields("mF_9.B5f-4.1JqM"), "token=mF_9.B5f-4.1JqM&token_type_hint=access_token");
        assert_eq!(fields("a+b/c=~"), "token=a%2Bb%2Fc%3D%7E&token_type_hint=access_token");
    }
}
