//! A line of the access log: written by our own serializer into one buffer, so that no byte a client sends can end a
//! line or a field early.

use std::{
    fmt::Display,
    io::Write,
    time::{Duration, SystemTime},
};

use http::Version;

use super::{Record, digits, time};
use crate::{caller::Refusal, config::observe::LogFormat, exchange::ByLimit};

/// Longest text of a client that a line shows, in bytes; longer is cut and ends in `...`.
const TEXT_MAX: usize = 4096;

/// Room for a usual line, so that it is allocated once.
const USUAL_LINE: usize = 768;

/// The record as a whole line with its end.
pub fn line(record: &Record<'_>, format: LogFormat) -> Vec<u8> {
    let mut out = Vec::with_capacity(USUAL_LINE);
    match format {
        LogFormat::Json => json(record, &mut out),
        LogFormat::Combined => combined(record, &mut out),
    }
    out.push(b'\n');
    out
}

/// One object. Keys and their order are fixed and documented in `docs/operations/access-log.md`; what is absent is `null`.
fn json(record: &Record<'_>, out: &mut Vec<u8>) {
    let mut object = Object { out };
    object.time(r#"{"time":"#, record.time);
    object.text(r#","request_id":"#, Some(record.request_id));
    object.word(r#","trace_id":"#, record.trace, |trace, out| out.extend_from_slice(&trace.hex()));
    object.word(r#","route":"#, record.route, word);
    object.word(r#","upstream":"#, record.upstream, word);
    object.word(r#","endpoint":"#, record.endpoint, digits::end);
    object.number(r#","tries":"#, record.tries.into());
    object.word(r#","method":"#, Some(record.method.as_str()), word);
    object.word(r#","scheme":"#, Some(record.scheme.as_str()), word);
    object.text(r#","host":"#, Some(record.host.as_bytes()));
    object.text(r#","path":"#, Some(record.path.as_bytes()));
    object.text(r#","query":"#, record.query.map(str::as_bytes));
    object.word(r#","protocol":"#, Some(protocol(record.version)), word);
    object.number(r#","status":"#, record.status.into());
    object.number(r#","bytes_received":"#, record.received);
    object.number(r#","bytes_sent":"#, record.sent);
    object.millis(r#","duration_ms":"#, Some(record.duration));
    object.millis(r#","upstream_connect_ms":"#, record.upstream_connect);
    object.millis(r#","upstream_first_byte_ms":"#, record.upstream_first_byte);
    object.text(r#","tls_version":"#, record.tls.map(|tls| tls.version.as_bytes()));
    object.text(r#","tls_cipher":"#, record.tls.map(|tls| tls.cipher.as_bytes()));
    object.word(r#","client":"#, Some(record.client), digits::address);
    object.word(r#","peer":"#, Some(record.peer), digits::end);
    object.text(r#","consumer":"#, record.consumer.map(str::as_bytes));
    object.text(r#","auth":"#, record.auth.map(str::as_bytes));
    object.word(r#","refusal":"#, record.refusal, refusal);
    object.word(r#","limit":"#, record.limit, limit);
    object.text(r#","user_agent":"#, record.user_agent);
    object.text(r#","referer":"#, record.referer);
    object.word(r#","flag":"#, Some(record.flag.code()), word);
    object.number(r#","generation":"#, record.generation);
    out.push(b'}');
}

/// The combined format of Apache and nginx, escaped as nginx escapes.
fn combined(record: &Record<'_>, out: &mut Vec<u8>) {
    display(record.client, out);
    out.extend_from_slice(b" - ");
    out.extend_from_slice(record.consumer.unwrap_or("-").as_bytes());
    out.extend_from_slice(b" [");
    time::write_clf(record.time, out);
    out.extend_from_slice(b"] \"");
    escape_combined(record.method.as_str().as_bytes(), out);
    out.push(b' ');
    escape_combined(record.path.as_bytes(), out);
    if let Some(query) = record.query {
        out.push(b'?');
        escape_combined(query.as_bytes(), out);
    }
    out.push(b' ');
    out.extend_from_slice(protocol(record.version).as_bytes());
    display(format_args!("\" {:03} {} ", record.status, record.sent), out);
    quoted_combined(record.referer, out);
    out.push(b' ');
    quoted_combined(record.user_agent, out);
}

/// `api_key unknown`, or `shadow authz scopes` in a trial: fixed words.
fn refusal(refusal: Refusal, out: &mut Vec<u8>) {
    let trial: &[u8] = if refusal.shadow { b"shadow " } else { b"" };
    [trial, refusal.by.as_bytes(), b" ", refusal.reason.as_bytes()].iter().for_each(|part| out.extend_from_slice(part));
}

/// `throttle`, `rate_limit per-plan`, or `shadow rate_limit per-plan` in a trial: fixed words and a name.
fn limit(limit: ByLimit<'_>, out: &mut Vec<u8>) {
    let trial: &[u8] = if limit.shadow { b"shadow " } else { b"" };
    [trial, limit.policy.as_bytes()].iter().for_each(|part| out.extend_from_slice(part));
    if let Some(name) = limit.limit {
        out.push(b' ');
        out.extend_from_slice(name.as_bytes());
    }
}

const fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "HTTP/0.9",
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_3 => "HTTP/3",
        _ => "HTTP/1.1",
    }
}

/// A JSON object being written. A key comes as it stands in the line, with what is between it and the value before.
struct Object<'a> {
    out: &'a mut Vec<u8>,
}

impl Object<'_> {
    fn text(&mut self, key: &'static str, value: Option<&[u8]>) {
        self.value(key, value, |text, out| {
            out.push(b'"');
            escape_json(text, out);
            out.push(b'"');
        });
    }

    /// A value whose text needs no escaping: ids and addresses, names, tokens.
    fn word<T>(&mut self, key: &'static str, value: Option<T>, write: impl FnOnce(T, &mut Vec<u8>)) {
        self.value(key, value, |value, out| {
            out.push(b'"');
            write(value, out);
            out.push(b'"');
        });
    }

    fn number(&mut self, key: &'static str, value: u64) {
        self.value(key, Some(value), digits::number);
    }

    fn millis(&mut self, key: &'static str, value: Option<Duration>) {
        self.value(key, value, digits::millis);
    }

    fn time(&mut self, key: &'static str, value: SystemTime) {
        self.word(key, Some(value), time::write_rfc3339);
    }

    fn value<T>(&mut self, key: &'static str, value: Option<T>, write: impl FnOnce(T, &mut Vec<u8>)) {
        self.out.extend_from_slice(key.as_bytes());
        match value {
            Some(value) => write(value, self.out),
            None => self.out.extend_from_slice(b"null"),
        }
    }
}

fn word(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(text.as_bytes());
}

fn display(value: impl Display, out: &mut Vec<u8>) {
    // Writing to a vector cannot fail.
    let _ = write!(out, "{value}");
}

/// Any bytes as the inside of a JSON string: control characters (C1 and DEL too, for terminals) as `\u`, bytes that are no
/// UTF-8 as the replacement character.
fn escape_json(text: &[u8], out: &mut Vec<u8>) {
    if text.len() <= TEXT_MAX && is_plain(text) {
        return out.extend_from_slice(text);
    }
    let (text, cut) = shortened(text);
    for chunk in text.utf8_chunks() {
        for part in chunk.valid().split_inclusive(needs_escape) {
            write_part(part, out);
        }
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
    out.extend_from_slice(cut);
}

/// Printable ASCII without what JSON escapes, as nearly all text is. Without an early end, so that many bytes are looked at at once.
fn is_plain(text: &[u8]) -> bool {
    text.iter().fold(true, |plain, byte| plain & (b' '..0x7f).contains(byte) & (*byte != b'"') & (*byte != b'\\'))
}

/// Plain text that ends in a character to escape, or not at all.
fn write_part(part: &str, out: &mut Vec<u8>) {
    match part.char_indices().next_back().filter(|(_, last)| needs_escape(*last)) {
        Some((at, last)) => {
            out.extend_from_slice(part.as_bytes().get(..at).unwrap_or_default());
            match last {
                '"' | '\\' => out.extend_from_slice(&[b'\\', last as u8]),
                _ => display(format_args!("\\u{:04x}", u32::from(last)), out),
            }
        }
        None => out.extend_from_slice(part.as_bytes()),
    }
}

/// Line and paragraph separators too: they end a line for some readers.
fn needs_escape(c: char) -> bool {
    c == '"' || c == '\\' || c.is_control() || c == '\u{2028}' || c == '\u{2029}'
}

fn quoted_combined(text: Option<&[u8]>, out: &mut Vec<u8>) {
    out.push(b'"');
    escape_combined(text.unwrap_or(b"-"), out);
    out.push(b'"');
}

/// As nginx's default: quotes, backslashes and whatever is not printable ASCII as `\xXX`.
fn escape_combined(text: &[u8], out: &mut Vec<u8>) {
    let (text, cut) = shortened(text);
    for byte in text {
        match byte {
            b'"' | b'\\' | 0..b' ' | 0x7f.. => display(format_args!("\\x{byte:02X}"), out),
            _ => out.push(*byte),
        }
    }
    out.extend_from_slice(cut);
}

/// The text within its bound, not cut inside a character, and what marks a cut.
fn shortened(text: &[u8]) -> (&[u8], &'static [u8]) {
    let Some(head) = text.get(..TEXT_MAX).filter(|_| text.len() > TEXT_MAX) else { return (text, b"") };
    let inside = |index: usize| text.get(index).is_some_and(|byte| byte & 0xc0 == 0x80);
    let end = (TEXT_MAX - 3..=TEXT_MAX).rev().find(|index| !inside(*index)).unwrap_or(TEXT_MAX);
    (head.get(..end).unwrap_or(head), b"...")
}

#[cfg(test)]
mod tests;
