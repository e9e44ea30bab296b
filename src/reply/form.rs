//! The forms of an answer of our own: problem+json (RFC 9457), HTML for browsers, gRPC in trailers-only form.

use std::fmt::Write;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};
use pingora_http::{RequestHeader, ResponseHeader};
use serde::Serialize;

use super::{Reply, Told};

/// How an answer of our own is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// `application/problem+json`, RFC 9457: whoever asks for nothing else.
    Problem,
    /// A page, for browsers.
    Html,
    /// Status 200 and the gRPC status in the head, by the gRPC protocol over HTTP/2 ("Trailers-Only"): its calls, and those of gRPC-Web,
    /// which may come over HTTP/1 (PROTOCOL-WEB.md).
    Grpc,
}

/// The members of a problem document. `code` and `request_id` are ours.
#[derive(Serialize)]
struct Document<'a> {
    #[serde(rename = "type")]
    kind: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    code: &'a str,
    request_id: &'a str,
}

impl Form {
    /// The form that the request asks for.
    pub fn wanted_by(request: &RequestHeader) -> Self {
        match () {
            () if reads_grpc(request) => Self::Grpc,
            () if prefers_html(&request.headers) => Self::Html,
            () => Self::Problem,
        }
    }

    pub(super) fn write(self, told: &Told, request_id: &HeaderValue) -> pingora_core::Result<Reply> {
        let id = request_id.to_str().unwrap_or_default();
        match self {
            Self::Problem => with_body(told, "application/problem+json", problem(told, id)),
            Self::Html => with_body(told, "text/html; charset=utf-8", page(told, id)),
            Self::Grpc => trailers_only(told),
        }
    }
}

/// Whether a request is a gRPC call: `application/grpc`, with `+proto` and the like, or `application/grpc-web`.
pub fn is_grpc(request: &HeaderMap) -> bool {
    let rest = request.get(header::CONTENT_TYPE).and_then(|value| value.as_bytes().strip_prefix(b"application/grpc"));
    matches!(rest, Some([] | [b'+' | b';' | b'-', ..]))
}

/// Whether the client can be told in gRPC's form: a call is a POST, over HTTP/2 unless it is gRPC-Web. Whoever else sends such a content
/// type would take our refusal for a success.
fn reads_grpc(request: &RequestHeader) -> bool {
    let is_web =
        || request.headers.get(header::CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc-web"));
    request.method == Method::POST && is_grpc(&request.headers) && (request.version == Version::HTTP_2 || is_web())
}

/// Whether the head already carries its trailers, so that nothing may follow.
pub fn is_trailers_only(head: &ResponseHeader) -> bool {
    head.headers.contains_key("grpc-status")
}

fn with_body(told: &Told, content_type: &'static str, body: Bytes) -> pingora_core::Result<Reply> {
    let mut head = ResponseHeader::build(told.status, Some(8))?;
    head.insert_header(header::CONTENT_TYPE, content_type)?;
    head.insert_header(header::CACHE_CONTROL, "no-store")?;
    head.insert_header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")?;
    Ok(Reply { head, body })
}

fn trailers_only(told: &Told) -> pingora_core::Result<Reply> {
    let mut head = ResponseHeader::build(StatusCode::OK, Some(6))?;
    head.insert_header(header::CONTENT_TYPE, "application/grpc")?;
    head.insert_header("grpc-status", told.grpc.to_string())?;
    head.insert_header("grpc-message", percent_encoded(told.detail))?;
    Ok(Reply { head, body: Bytes::new() })
}

/// A `grpc-message`: printable ASCII but `%` stands for itself, each other byte is written as `%XX`.
fn percent_encoded(message: &str) -> String {
    let mut encoded = String::with_capacity(message.len());
    for byte in message.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
            _ => drop(write!(encoded, "%{byte:02X}")),
        }
    }
    encoded
}

pub(super) fn problem(told: &Told, request_id: &str) -> Bytes {
    let document = Document {
        kind: format!("urn:banyan:problem:{}", told.code),
        title: told.title,
        status: told.status.as_u16(),
        detail: told.detail,
        code: told.code,
        request_id,
    };
    serde_json::to_vec(&document).unwrap_or_default().into()
}

/// A page without scripts, styles of others or anything of the request but its id, which is printable and has no markup.
fn page(told: &Told, request_id: &str) -> Bytes {
    let (status, title, detail, code) = (told.status.as_u16(), told.title, told.detail, told.code);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>{status} {title}</title>\n\
         <style>body{{font:16px/1.5 system-ui,sans-serif;max-width:36em;margin:15vh auto;padding:0 1em}}small{{color:#666}}</style>\n\
         <h1>{title}</h1>\n<p>{detail}</p>\n<p><small>{status} {code} &middot; request {request_id}</small></p>\n</html>\n"
    )
    .into()
}

/// Whether the Accept header names HTML with at least the weight of JSON (RFC 9110 §12.5.1). `*/*` names neither.
fn prefers_html(request: &HeaderMap) -> bool {
    let mut html = 0_u16;
    let mut json = 0_u16;
    let ranges = request.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).flat_map(|list| list.split(','));
    for range in ranges {
        let (kind, parameters) = range.split_once(';').unwrap_or((range, ""));
        let weight = parameters.split(';').find_map(|parameter| parameter.trim().strip_prefix("q=")).map_or(1000, milli);
        let is = |name: &str| kind.trim().eq_ignore_ascii_case(name);
        if is("text/html") || is("application/xhtml+xml") {
            html = html.max(weight);
        } else if is("application/json") || is("application/problem+json") {
            json = json.max(weight);
        }
    }
    html > 0 && html >= json
}

/// A quality value in thousandths; one that cannot be read counts as nothing.
fn milli(quality: &str) -> u16 {
    quality.parse::<f32>().ok().filter(|q| (0.0..=1.0).contains(q)).map_or(0, |q| (q * 1000.0) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::{Stop, testing};

    fn check(headers: &[(&'static str, &str)], expected: Form) {
        assert_eq!(Form::wanted_by(&testing::head("GET", "/", headers)), expected, "{headers:?}");
    }

    fn call(method: &str, version: Version, content_type: &str) -> Form {
        let mut head = testing::head(method, "/", &[("content-type", content_type), ("accept", "text/html")]);
        head.set_version(version);
        Form::wanted_by(&head)
    }

    #[test]
    fn only_a_grpc_client_is_told_in_grpcs_form() {
        assert_eq!(call("POST", Version::HTTP_2, "application/grpc"), Form::Grpc);
        assert_eq!(call("POST", Version::HTTP_2, "application/grpc+proto"), Form::Grpc);
        assert_eq!(call("POST", Version::HTTP_11, "application/grpc-web+proto"), Form::Grpc);
        assert_eq!(call("POST", Version::HTTP_11, "application/grpc"), Form::Html);
        assert_eq!(call("GET", Version::HTTP_2, "application/grpc"), Form::Html);
        assert_eq!(call("HEAD", Version::HTTP_2, "application/grpc"), Form::Html);
    }

    #[test]
    fn a_grpc_message_is_printable_whatever_it_says() {
        assert_eq!(percent_encoded("100% of ä\n"), "100%25 of %C3%A4%0A");
        assert_eq!(percent_encoded(" ~plain"), " ~plain");
    }

    #[test]
    fn each_client_gets_the_form_it_understands() {
        check(&[], Form::Problem);
        check(&[("accept", "*/*")], Form::Problem);
        check(&[("accept", "application/json")], Form::Problem);
        check(&[("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8")], Form::Html);
        check(&[("accept", "text/html;q=0.1, application/json")], Form::Problem);
        check(&[("accept", "text/html;q=0")], Form::Problem);
    }

    #[test]
    fn a_problem_has_its_members() {
        let told = super::super::told(&Stop::NoRoute);
        let reply = Form::Problem.write(&told, &HeaderValue::from_static("abc")).unwrap();
        assert_eq!(
            String::from_utf8(reply.body.to_vec()).unwrap(),
            r#"{"type":"urn:banyan:problem:no_route","title":"Not found","status":404,"detail":"Nothing is served at this address.","code":"no_route","request_id":"abc"}"#
        );
    }

    #[test]
    fn grpc_gets_a_status_in_the_head_and_no_body() {
        let reply = Form::Grpc.write(&super::super::told(&Stop::BodyTooLarge), &HeaderValue::from_static("abc")).unwrap();
        assert_eq!(reply.head.status, 200);
        assert_eq!(reply.head.headers.get("grpc-status").unwrap(), "8");
        assert!(reply.body.is_empty());
        assert!(is_trailers_only(&reply.head));
    }
}
