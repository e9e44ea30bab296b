//! Answers of the admin listener, and the problems among them (RFC 9457).

use std::borrow::Cow;

use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};

/// A whole answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub status: StatusCode,
    pub media_type: &'static str,
    pub body: Vec<u8>,
    pub extra: Option<(HeaderName, HeaderValue)>,
}

/// Why something is not served.
#[derive(Debug)]
pub(super) struct Problem {
    pub status: StatusCode,
    /// A stable word for programs.
    pub code: &'static str,
    pub detail: Cow<'static, str>,
    extra: Option<(HeaderName, &'static str)>,
}

impl Answer {
    pub fn text(text: &str) -> Self {
        Self::new(StatusCode::OK, "text/plain; charset=utf-8", text)
    }

    pub fn metrics(text: String) -> Self {
        Self::new(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text)
    }

    pub fn json(status: StatusCode, value: &Value) -> Self {
        Self::new(status, "application/json", format!("{value:#}\n"))
    }

    fn new(status: StatusCode, media_type: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Self { status, media_type, body: body.into(), extra: None }
    }

    /// For HEAD all but the body.
    pub fn into_response(self, head: bool) -> Response<Vec<u8>> {
        let length = self.body.len();
        let mut response = Response::new(if head { Vec::new() } else { self.body });
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.media_type));
        headers.insert(header::CONTENT_LENGTH, length.into());
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.extend(self.extra);
        response
    }
}

impl Problem {
    pub const fn new(status: StatusCode, code: &'static str, detail: &'static str) -> Self {
        Self { status, code, detail: Cow::Borrowed(detail), extra: None }
    }

    /// A reload found mistakes; these.
    pub fn refused(mistakes: String) -> Self {
        Self { status: StatusCode::CONFLICT, code: "configuration_refused", detail: mistakes.into(), extra: None }
    }

    /// With one more header.
    pub fn with(self, name: HeaderName, value: &'static str) -> Self {
        Self { extra: Some((name, value)), ..self }
    }
}

impl From<Problem> for Answer {
    fn from(problem: Problem) -> Self {
        let body = json!({
            "type": "about:blank",
            "title": problem.status.canonical_reason().unwrap_or_default(),
            "status": problem.status.as_u16(),
            "code": problem.code,
            "detail": problem.detail,
        });
        let extra = problem.extra.map(|(name, value)| (name, HeaderValue::from_static(value)));
        Self { media_type: "application/problem+json", extra, ..Self::json(problem.status, &body) }
    }
}
