//! Fixed responses, made once.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};
use pingora_http::ResponseHeader;

use crate::config::{
    self,
    problem::{Path, Problem},
};
use crate::reply::Reply;

/// Headers that say how a message is framed or what a connection is for. They are the gateway's own.
const FRAMING: [HeaderName; 7] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::TRAILER,
    header::TE,
    HeaderName::from_static("keep-alive"),
];

/// A fixed response.
#[derive(Clone, Debug)]
pub struct Respond {
    answer: Box<Reply>,
}

impl Respond {
    /// # Errors
    /// Every mistake, at the keys of the response that stands at `at`.
    pub fn compile(config: &config::route::Respond, at: &Path) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let status = status(config, at).unwrap_or_else(|problem| {
            problems.push(problem);
            StatusCode::OK
        });
        let mut headers = headers(config, at, &mut problems);
        if !config.body.is_empty() && !headers.iter().any(|(name, _)| *name == header::CONTENT_TYPE) {
            headers.push((header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8")));
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let head = head(status, headers).map_err(|e| vec![Problem::error(at.clone(), e.to_string())])?;
        Ok(Self { answer: Box::new(Reply { head, body: Bytes::from(config.body.clone()) }) })
    }

    /// Public keys as a JSON Web Key Set (RFC 7517 §8.5). A key that is new is published before it signs, so it may be kept for a while.
    ///
    /// # Errors
    /// None that these fields have.
    pub fn keys(set: Bytes) -> pingora_core::Result<Self> {
        let fields = [(header::CONTENT_TYPE, "application/jwk-set+json"), (header::CACHE_CONTROL, "public, max-age=300")];
        let fields = fields.map(|(name, value)| (name, HeaderValue::from_static(value)));
        Ok(Self { answer: Box::new(Reply { head: head(StatusCode::OK, fields.into())?, body: set }) })
    }

    pub fn answer(&self) -> &Reply {
        &self.answer
    }
}

fn status(config: &config::route::Respond, at: &Path) -> Result<StatusCode, Problem> {
    let at = at.key("status");
    let status = Some(config.status).filter(|status| (200..600).contains(status)).and_then(|s| StatusCode::from_u16(s).ok());
    match status {
        None => Err(Problem::error(at, format!("`{}` is not a status from 200 to 599", config.status))),
        Some(StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED) if !config.body.is_empty() => {
            Err(Problem::error(at, format!("a response with status {} has no body", config.status)).help("leave `body` out"))
        }
        Some(status) => Ok(status),
    }
}

fn headers(config: &config::route::Respond, at: &Path, problems: &mut Vec<Problem>) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers: Vec<(HeaderName, HeaderValue)> = Vec::new();
    for (name, value) in &config.headers {
        let checked = checked(name, value).and_then(|header| match headers.iter().any(|(known, _)| *known == header.0) {
            true => Err(format!("the header `{name}` is written twice, in different case")),
            false => Ok(header),
        });
        match checked {
            Ok(header) => headers.push(header),
            Err(message) => problems.push(Problem::error(at.key("headers").key(name), message)),
        }
    }
    headers
}

fn checked(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), String> {
    let checked = name.parse::<HeaderName>().map_err(|_| format!("`{name}` is not a header name"))?;
    if FRAMING.contains(&checked) {
        return Err(format!("`{name}` is the gateway's own: it depends on the connection"));
    }
    // The value may be a secret, so it is not shown.
    let value = HeaderValue::from_str(value).map_err(|_| "the value has characters that a header cannot carry".to_owned())?;
    Ok((checked, value))
}

fn head(status: StatusCode, headers: Vec<(HeaderName, HeaderValue)>) -> pingora_core::Result<ResponseHeader> {
    let mut head = ResponseHeader::build(status, Some(headers.len() + 4))?;
    headers.into_iter().try_for_each(|(name, value)| head.insert_header(name, value))?;
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compile(status: u16, headers: &[(&str, &str)], body: &str) -> Result<Respond, Vec<Problem>> {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Respond::compile(&config::route::Respond { status, headers, body: body.to_owned() }, &Path::root())
    }

    #[test]
    fn text_is_the_type_unless_another_is_given() {
        let check = |headers: &[(&str, &str)], body: &str, expected: Option<&str>| {
            let respond = compile(200, headers, body).unwrap();
            let value = respond.answer().head.headers.get(header::CONTENT_TYPE);
            assert_eq!(value.map(|value| value.to_str().unwrap()), expected);
        };
        check(&[], "hello", Some("text/plain; charset=utf-8"));
        check(&[("Content-Type", "application/json")], "{}", Some("application/json"));
        check(&[], "", None);
    }

    #[test]
    fn answer_is_what_was_written() {
        let respond = compile(418, &[("X-Tea", "yes")], "short and stout").unwrap();
        let answer = respond.answer();
        assert_eq!(answer.head.status, StatusCode::IM_A_TEAPOT);
        assert_eq!(answer.head.headers.get("x-tea").unwrap(), "yes");
        assert_eq!(answer.body, "short and stout");
    }

    #[test]
    fn mistakes_are_found_at_their_keys() {
        let check = |status: u16, headers: &[(&str, &str)], body: &str, key: Path, expected: &str| {
            let problems = compile(status, headers, body).unwrap_err();
            let found = problems.iter().any(|p| p.path == key && p.message.contains(expected));
            assert!(found, "{problems:?}");
        };
        let (status, headers) = (Path::root().key("status"), Path::root().key("headers"));
        check(199, &[], "", status.clone(), "not a status");
        check(600, &[], "", status.clone(), "not a status");
        check(204, &[], "x", status.clone(), "has no body");
        check(304, &[], "x", status, "has no body");
        check(200, &[("Content-Length", "1")], "x", headers.key("Content-Length"), "gateway's own");
        check(200, &[("connection", "close")], "x", headers.key("connection"), "gateway's own");
        check(200, &[("a b", "1")], "x", headers.key("a b"), "not a header name");
        check(200, &[("a", "1\r\nb: 2")], "x", headers.key("a"), "cannot carry");
        check(200, &[("A", "1"), ("a", "2")], "x", headers.key("a"), "twice");
    }
}
