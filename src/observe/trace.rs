//! W3C trace context: a request's place in a distributed trace, carried on or begun here.
//!
//! The gateway takes part as one span: it keeps the trace's id, puts its own span id in the caller's place and passes
//! `tracestate` on. It records nothing, so the caller's `sampled` flag stays as it is.
//! Specification: <https://www.w3.org/TR/trace-context-2/>.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};
use pingora_http::RequestHeader;

use super::digits;

static TRACEPARENT: HeaderName = HeaderName::from_static(PARENT);
static TRACESTATE: HeaderName = HeaderName::from_static(STATE);

/// Pingora takes a name to write as text: without a copy of it, if it is static.
const PARENT: &str = "traceparent";
const STATE: &str = "tracestate";

/// Length of a version 00 `traceparent`; later versions are at least as long.
const TRACEPARENT_LEN: usize = 55;

/// The flags that we know: `sampled` (1) and `random` (2). Unknown ones must go out as zero.
const KNOWN_FLAGS: u8 = 0b11;

/// Flags of a trace begun here: not sampled, because we record nothing, and a random id.
const NEW_FLAGS: u8 = 0b10;

/// Most members of a `tracestate`. Source: §3.3.1.1, `list`.
const MEMBERS_MAX: usize = 32;

/// Longest key, in bytes. Source: §3.3.1.3.1.
const KEY_MAX: usize = 256;

/// Longest value, in bytes. Source: §3.3.1.3.2.
const VALUE_MAX: usize = 256;

/// Longest `tracestate` that we pass on, in bytes; members are left out until it fits.
/// Source: §3.3.1.5 asks for at least 512.
const STATE_MAX: usize = 4096;

/// A member longer than this is the first to go. Source: §3.3.1.5.
const LONG_MEMBER: usize = 128;

/// The id of a whole trace; never zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TraceId(u128);

/// The id of one span of a trace; never zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SpanId(u64);

/// A request's place in its trace.
#[derive(Clone, Debug)]
pub struct Trace {
    pub trace_id: TraceId,
    /// The gateway's own span: the parent of whatever the upstream does.
    pub span_id: SpanId,
    /// The caller's span; none for a trace begun here.
    pub parent_id: Option<SpanId>,
    flags: u8,
    state: Option<HeaderValue>,
}

/// Carries on the trace of a request's headers, or begins one when they name none that is valid.
pub fn continue_or_start(headers: &HeaderMap) -> Trace {
    match parent(headers) {
        Some(parent) => Trace {
            trace_id: parent.trace_id,
            span_id: SpanId::random(),
            parent_id: Some(parent.span_id),
            flags: parent.flags & KNOWN_FLAGS,
            state: state(headers),
        },
        None => Trace { trace_id: TraceId::random(), span_id: SpanId::random(), parent_id: None, flags: NEW_FLAGS, state: None },
    }
}

impl Trace {
    /// Writes the trace into the head that goes to an upstream, in place of what the client sent.
    ///
    /// # Errors
    /// Never in practice: every value is made of printable ASCII. The proxy passes it on rather than panic.
    pub fn apply(&self, head: &mut RequestHeader) -> pingora_core::Result<()> {
        head.insert_header(PARENT, self.traceparent())?;
        match &self.state {
            Some(state) => head.insert_header(STATE, state.clone())?,
            None => drop(head.remove_header(&TRACESTATE)),
        }
        Ok(())
    }

    fn traceparent(&self) -> Vec<u8> {
        let mut text = Vec::with_capacity(TRACEPARENT_LEN);
        text.extend_from_slice(b"00-");
        text.extend_from_slice(&self.trace_id.hex());
        text.push(b'-');
        text.extend_from_slice(&digits::hex::<16>(self.span_id.0.into()));
        text.push(b'-');
        text.extend_from_slice(&digits::hex::<2>(self.flags.into()));
        text
    }
}

impl TraceId {
    fn random() -> Self {
        Self(fastrand::u128(1..))
    }

    /// Its text.
    pub fn hex(self) -> [u8; 32] {
        digits::hex(self.0)
    }
}

impl SpanId {
    fn random() -> Self {
        Self(fastrand::u64(1..))
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What a valid `traceparent` says.
struct Parent {
    trace_id: TraceId,
    span_id: SpanId,
    flags: u8,
}

/// The caller, if exactly one valid header names it.
fn parent(headers: &HeaderMap) -> Option<Parent> {
    let mut values = headers.get_all(&TRACEPARENT).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => parse_parent(trim(value.as_bytes())),
        _ => None,
    }
}

/// Reads `version-traceid-parentid-flags`; a later version may have more after another dash.
fn parse_parent(value: &[u8]) -> Option<Parent> {
    let known = value.get(..TRACEPARENT_LEN)?;
    let rest = value.get(TRACEPARENT_LEN..)?;
    let mut fields = known.split(|b| *b == b'-');
    let version = hex(fields.next()?, 2)?;
    let trace_id = hex(fields.next()?, 32)?;
    let span_id = hex(fields.next()?, 16)?;
    let flags = hex(fields.next()?, 2)?;
    let whole = match version {
        0xff => false,
        0 => rest.is_empty(),
        _ => rest.is_empty() || rest.starts_with(b"-"),
    };
    (whole && fields.next().is_none() && trace_id != 0 && span_id != 0).then_some(Parent {
        trace_id: TraceId(trace_id),
        span_id: SpanId(u64::try_from(span_id).ok()?),
        flags: u8::try_from(flags).ok()?,
    })
}

/// A number of exactly `digits` lower-case hex digits.
fn hex(text: &[u8], digits: usize) -> Option<u128> {
    let lower = |b: &u8| b.is_ascii_digit() || (b'a'..=b'f').contains(b);
    let valid = text.len() == digits && text.iter().all(lower);
    std::str::from_utf8(text).ok().filter(|_| valid).and_then(|text| u128::from_str_radix(text, 16).ok())
}

/// All `tracestate` headers as one, without empty members. Nothing if a member is invalid or there are too many:
/// what we cannot read in one way only we do not pass on.
fn state(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut members = Vec::new();
    for value in headers.get_all(&TRACESTATE) {
        for member in value.as_bytes().split(|b| *b == b',').map(trim).filter(|member| !member.is_empty()) {
            if members.len() == MEMBERS_MAX || !is_member(member) {
                return None;
            }
            members.push(member);
        }
    }
    shorten(&mut members);
    (!members.is_empty()).then(|| HeaderValue::from_bytes(&members.join(&b','))).and_then(Result::ok)
}

/// Leaves out members until the rest fits: long ones first, then from the end.
fn shorten(members: &mut Vec<&[u8]>) {
    let length = |members: &[&[u8]]| members.iter().map(|member| member.len() + 1).sum::<usize>();
    while length(members) > STATE_MAX + 1 {
        let last_long = members.iter().rposition(|member| member.len() > LONG_MEMBER);
        members.remove(last_long.unwrap_or(members.len() - 1));
    }
}

/// `key=value`, both by the grammar.
fn is_member(member: &[u8]) -> bool {
    let mut parts = member.splitn(2, |b| *b == b'=');
    parts.next().is_some_and(is_key) && parts.next().is_some_and(is_value)
}

fn is_key(key: &[u8]) -> bool {
    let first = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    key.len() <= KEY_MAX && key.first().is_some_and(first) && key.iter().all(|b| first(b) || b"_-*/@".contains(b))
}

/// Its last byte is no space, because members come here trimmed.
fn is_value(value: &[u8]) -> bool {
    let printable = |b: &u8| (b' '..=b'~').contains(b) && *b != b',' && *b != b'=';
    (1..=VALUE_MAX).contains(&value.len()) && value.iter().all(printable)
}

/// Without optional white space around: spaces and tabs.
fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

#[cfg(test)]
mod tests;
