//! The compact form of a signed token (RFC 7515 §7.1): three parts of base64url with points between.

use std::str::FromStr;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};

use crate::{caller::Reason, identity::strict};

/// A token taken apart; nothing of it is believed yet.
#[derive(Debug)]
pub struct Parts<'t> {
    pub header: Header,
    /// What was signed: header and payload as they came.
    pub message: &'t str,
    /// In base64url.
    pub payload: &'t str,
    /// In base64url.
    pub signature: &'t str,
}

/// What a token says of itself. Keys and addresses of keys that it carries (`jwk`, `jku`, `x5c`, `x5u`) are not looked at.
#[derive(PartialEq, Debug)]
pub struct Header {
    pub alg: Algorithm,
    pub kid: Option<String>,
    pub typ: Option<String>,
}

impl<'t> Parts<'t> {
    /// # Errors
    /// It is not one, or its header asks for what we do not do.
    pub fn read(token: &'t str) -> Result<Self, Reason> {
        let (message, signature) = token.rsplit_once('.').ok_or(Reason::Unreadable)?;
        let (header, payload) = message.split_once('.').ok_or(Reason::Unreadable)?;
        if payload.contains('.') {
            return Err(Reason::Unreadable);
        }
        let header = strict::object(&decoded(header)?).map_err(|_| Reason::Unreadable)?;
        Ok(Self { header: Header::read(&header)?, message, payload, signature })
    }
}

impl Header {
    fn read(header: &Map<String, Value>) -> Result<Self, Reason> {
        // `crit` names what must be understood (RFC 7515 §4.1.11): we understand nothing beyond what must not be named in it. `b64` would
        // change what was signed (RFC 7797), the others make it an encrypted or compressed token.
        if ["crit", "b64", "enc", "zip"].iter().any(|name| header.contains_key(*name)) {
            return Err(Reason::Header);
        }
        let alg = text(header, "alg")?.ok_or(Reason::Unreadable)?;
        let alg = Algorithm::from_str(&alg).map_err(|_| Reason::Algorithm)?;
        Ok(Self { alg, kid: text(header, "kid")?, typ: text(header, "typ")? })
    }
}

fn text(header: &Map<String, Value>, name: &str) -> Result<Option<String>, Reason> {
    match header.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(Reason::Unreadable),
    }
}

/// A part without its base64url. There is one way only to write it: no padding, no bits left over, so one token has one digest.
pub fn decoded(part: &str) -> Result<Vec<u8>, Reason> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| Reason::Unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(header: &str, expected: Result<Header, Reason>) {
        let token = format!("{}.e30.c2ln", URL_SAFE_NO_PAD.encode(header));
        assert_eq!(Parts::read(&token).map(|parts| parts.header), expected, "{header}");
    }

    fn rs256(kid: Option<&str>, typ: Option<&str>) -> Header {
        Header { alg: Algorithm::RS256, kid: kid.map(str::to_owned), typ: typ.map(str::to_owned) }
    }

    #[test]
    fn a_header_is_read_once_and_only_one_way() {
        check(r#"{"alg":"RS256"}"#, Ok(rs256(None, None)));
        check(r#"{"alg":"RS256","kid":"a","typ":"JWT","jwk":{},"jku":"x","x5c":[]}"#, Ok(rs256(Some("a"), Some("JWT"))));
        check(r#"{"alg":"RS256","alg":"none"}"#, Err(Reason::Unreadable));
        check(r#"{"alg":"none","alg":"RS256"}"#, Err(Reason::Unreadable));
        check(r#"{"alg":"RS256","kid":1}"#, Err(Reason::Unreadable));
        check(r#"{"alg":["RS256"]}"#, Err(Reason::Unreadable));
        check(r#"{"alg":null}"#, Err(Reason::Unreadable));
        check(r#"{}"#, Err(Reason::Unreadable));
        check(r#"[]"#, Err(Reason::Unreadable));
    }

    #[test]
    fn only_algorithms_that_sign_are_known() {
        for alg in ["none", "None", "NONE", "nOnE", "", "rs256", "RS256 ", "HS1", "ES512", "ES256K", "RSA-OAEP", "dir"] {
            check(&format!(r#"{{"alg":"{alg}"}}"#), Err(Reason::Algorithm));
        }
    }

    #[test]
    fn extensions_are_refused() {
        for more in
            [r#""crit":["exp"]"#, r#""crit":[]"#, r#""b64":true"#, r#""b64":false"#, r#""enc":"A128GCM""#, r#""zip":"DEF""#]
        {
            check(&format!(r#"{{"alg":"RS256",{more}}}"#), Err(Reason::Header));
        }
    }

    #[test]
    fn a_token_has_three_parts() {
        let head = URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256"}"#);
        for bad in
            ["", ".", "..", "opaque", &head, &format!("{head}.e30"), &format!("{head}.e30.a.b"), &format!("{head}.e30.a.b.c")]
        {
            assert_eq!(Parts::read(bad).unwrap_err(), Reason::Unreadable, "{bad}");
        }
        let parts = format!("{head}.e30.c2ln");
        let parts = Parts::read(&parts).unwrap();
        assert_eq!((parts.message, parts.payload, parts.signature), (format!("{head}.e30").as_str(), "e30", "c2ln"));
    }

    #[test]
    fn base64_has_one_form() {
        assert_eq!(decoded("e30"), Ok(b"{}".to_vec()));
        for bad in ["e30=", "e31", "e3", "e", "e 30", "e30\n", "+/"] {
            assert!(decoded(bad).is_err() || bad == "e3", "{bad}");
        }
        assert_eq!(decoded("e3"), Err(Reason::Unreadable), "bits are left over");
    }
}
