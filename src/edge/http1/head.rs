//! A request head, read strictly (RFC 9112 §2 to §6).
//!
//! Stricter than the grammar: one empty line before the request line, no target beyond ASCII, no obs-fold, no empty Host (an `http`
//! URI has none, RFC 9110 §4.2.1), a Host of unreserved characters or an address in brackets, one Content-Length without a list,
//! one Transfer-Encoding that is `chunked`. Which target fits which method and host is for `proxy` to say.

use super::{
    line::{self, is_tchar},
    refusal::Refusal,
};

/// How large a head may be.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of the request line without its end. More get 414.
    pub request_line: usize,
    /// Bytes of all field lines with their ends, without the empty line. More get 431.
    pub fields: usize,
    /// Fields. More get 431. Pingora reads at most 256.
    pub count: usize,
}

/// What the edge needs to know of a head.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head {
    pub version: Version,
    pub framing: Framing,
    /// Names protocols in Upgrade, and Connection lists `upgrade`; HTTP/1.1 only (RFC 9110 §7.8).
    pub upgrade: bool,
    /// `Expect: 100-continue`; HTTP/1.1 only (RFC 9110 §10.1.1).
    pub expects_continue: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Version {
    Http10,
    Http11,
}

/// Where the body ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Framing {
    /// There is none.
    None,
    /// After so many bytes, up to `i64::MAX`.
    Length(u64),
    /// See [`super::chunks::Chunks`].
    Chunked,
}

/// Reads exactly one head: one empty line at most, request line, fields, empty line.
///
/// # Errors
/// The first rule that it breaks; those on the head as a whole come last.
pub fn check(head: &[u8], limits: &Limits) -> Result<Head, Refusal> {
    let (version, mut rest) = request_line(head.strip_prefix(b"\r\n").unwrap_or(head), limits)?;
    let mut seen = Seen::new(version);
    let section = rest.len();
    for count in 0.. {
        if section - rest.len() > limits.fields {
            return Err(Refusal::FieldsTooLarge);
        }
        match rest {
            b"\r\n" => return seen.head(),
            [b'\r', b'\n', ..] => break,
            [b' ' | b'\t', ..] if count == 0 => return Err(Refusal::LeadingSpace),
            [b' ' | b'\t', ..] => return Err(Refusal::Folded),
            _ if count == limits.count => return Err(Refusal::TooManyFields),
            _ => {}
        }
        let (name, after_name) = name(rest)?;
        let (value, after_value) = value(after_name)?;
        seen.field(name, trimmed(value))?;
        rest = after_value;
    }
    Err(Refusal::NotWhole)
}

fn request_line<'a>(head: &'a [u8], limits: &Limits) -> Result<(Version, &'a [u8]), Refusal> {
    let at = line::unprintable(head).ok_or(Refusal::NotWhole)?;
    if at > limits.request_line {
        return Err(Refusal::LineTooLong);
    }
    let (line, rest) = ended(head, at)?;
    Ok((line::request(line)?, rest))
}

/// A line that ends here, and what follows it.
fn ended(bytes: &[u8], at: usize) -> Result<(&[u8], &[u8]), Refusal> {
    match bytes.split_at_checked(at) {
        Some((line, [b'\r', b'\n', rest @ ..])) => Ok((line, rest)),
        None | Some((_, [] | [b'\r'])) => Err(Refusal::NotWhole),
        Some((_, [byte, ..])) => Err(line::misplaced(*byte)),
    }
}

/// A field's name, and what follows its colon.
fn name(bytes: &[u8]) -> Result<(&[u8], &[u8]), Refusal> {
    let at = bytes.iter().position(|byte| !is_tchar(*byte)).ok_or(Refusal::NotWhole)?;
    match bytes.split_at_checked(at) {
        Some((name, [b':', rest @ ..])) if !name.is_empty() => Ok((name, rest)),
        Some((name, [b' ' | b'\t', ..])) if !name.is_empty() => Err(Refusal::SpaceBeforeColon),
        Some((_, [b'\r', b'\n', ..] | [b' '..=b'~' | b'\t' | 0x80.., ..])) => Err(Refusal::FieldName),
        None | Some((_, [] | [b'\r'])) => Err(Refusal::NotWhole),
        Some((_, [byte, ..])) => Err(line::misplaced(*byte)),
    }
}

/// A field's value with the whitespace around it, and what follows its line.
fn value(bytes: &[u8]) -> Result<(&[u8], &[u8]), Refusal> {
    let mut from = 0;
    loop {
        let found = line::control(bytes.get(from..).unwrap_or_default());
        let at = from + found.ok_or(Refusal::NotWhole)?;
        if bytes.get(at) != Some(&b'\t') {
            return ended(bytes, at);
        }
        from = at + 1;
    }
}

/// Without spaces and tabs around it (OWS): no other whitespace means nothing.
fn trimmed(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// What the fields have said so far.
struct Seen {
    version: Version,
    host: bool,
    length: Option<u64>,
    chunked: bool,
    upgrade: bool,
    connection_upgrade: bool,
    expects_continue: bool,
}

impl Seen {
    const fn new(version: Version) -> Self {
        Self {
            version,
            host: false,
            length: None,
            chunked: false,
            upgrade: false,
            connection_upgrade: false,
            expects_continue: false,
        }
    }

    /// Takes note of a field. By the length first: few have one of these.
    fn field(&mut self, name: &[u8], value: &[u8]) -> Result<(), Refusal> {
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        match name.len() {
            4 if is(b"host") => return self.host(value),
            6 if is(b"expect") => self.expects_continue |= value.eq_ignore_ascii_case(b"100-continue"),
            7 if is(b"upgrade") => self.upgrade |= !value.is_empty(),
            10 if is(b"connection") => self.connection_upgrade |= lists_upgrade(value),
            14 if is(b"content-length") => return self.length(value),
            17 if is(b"transfer-encoding") => return self.coding(value),
            _ => {}
        }
        Ok(())
    }

    fn host(&mut self, value: &[u8]) -> Result<(), Refusal> {
        match (std::mem::replace(&mut self.host, true), is_host(value)) {
            (true, _) => Err(Refusal::Hosts),
            (false, true) => Ok(()),
            (false, false) => Err(Refusal::Host),
        }
    }

    fn length(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if self.length.is_some() {
            return Err(Refusal::Lengths);
        }
        self.length = Some(length(value).ok_or(Refusal::Length)?);
        Ok(())
    }

    fn coding(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if self.version == Version::Http10 {
            return Err(Refusal::CodingInHttp10);
        }
        if std::mem::replace(&mut self.chunked, true) {
            return Err(Refusal::Codings);
        }
        coding(value)
    }

    fn head(self) -> Result<Head, Refusal> {
        let is_http11 = self.version == Version::Http11;
        let framing = match (self.length, self.chunked) {
            (Some(_), true) => return Err(Refusal::LengthAndCoding),
            (None, true) => Framing::Chunked,
            (Some(length), false) => Framing::Length(length),
            (None, false) => Framing::None,
        };
        if is_http11 && !self.host {
            return Err(Refusal::NoHost);
        }
        Ok(Head {
            version: self.version,
            framing,
            upgrade: is_http11 && self.upgrade && self.connection_upgrade,
            expects_continue: is_http11 && self.expects_continue,
        })
    }
}

fn lists_upgrade(value: &[u8]) -> bool {
    value.split(|byte| *byte == b',').any(|option| trimmed(option).eq_ignore_ascii_case(b"upgrade"))
}

/// Digits only: no sign, no list. The largest is `i64::MAX`, since services and Pingora read it into that.
fn length(value: &[u8]) -> Option<u64> {
    let digit = |total: i64, byte: &u8| {
        let digit = byte.is_ascii_digit().then(|| i64::from(byte - b'0'))?;
        total.checked_mul(10)?.checked_add(digit)
    };
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0, digit)?.try_into().ok()
}

/// `chunked` alone passes. RFC 9112 §6.3 has 400 if it is not the last, §6.1 has 501 for those that we do not know.
fn coding(value: &[u8]) -> Result<(), Refusal> {
    let is_chunked = |coding: &[u8]| trimmed(coding).eq_ignore_ascii_case(b"chunked");
    if is_chunked(value) {
        return Ok(());
    }
    let mut codings = value.rsplit(|byte| *byte == b',');
    let is_last = codings.next().is_some_and(is_chunked);
    let are_others = codings.all(|coding| !trimmed(coding).is_empty() && !is_chunked(coding));
    Err(if is_last && are_others { Refusal::CodingNotImplemented } else { Refusal::Coding })
}

/// A name or address, with a port or without, as `route::host` reads them more closely.
fn is_host(value: &[u8]) -> bool {
    let (host, port) = match value {
        [b'[', inner @ ..] => match split_after(inner, is_of_address) {
            (address, [b']', port @ ..]) => (address, port),
            _ => return false,
        },
        _ => split_after(value, is_of_name),
    };
    !host.is_empty() && matches!(port, [] | [b':', ..]) && port.iter().skip(1).all(u8::is_ascii_digit)
}

fn split_after(value: &[u8], is_part: fn(u8) -> bool) -> (&[u8], &[u8]) {
    let at = value.iter().position(|byte| !is_part(*byte)).unwrap_or(value.len());
    value.split_at(at)
}

const fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

const fn is_of_address(byte: u8) -> bool {
    byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.')
}

#[cfg(test)]
mod tests;
