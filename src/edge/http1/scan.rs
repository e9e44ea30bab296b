//! Where a request head ends, found while it comes.

use super::{head::Limits, line, refusal::Refusal};

/// Finds the end of a head as its bytes come in, each looked at once, however few at a time. What can be no head is refused at its
/// first byte that cannot be one, so garbage is not waited for; the request line is checked when it is whole.
///
/// A head it finds is not checked yet, but for that: see [`super::head::check`].
#[derive(Default, Debug)]
pub struct Scan {
    /// Bytes that need no further look.
    seen: usize,
    /// Where the line begins that is being read.
    line: usize,
    /// Where the fields begin, once the request line is whole.
    fields: Option<usize>,
    count: usize,
}

impl Scan {
    /// Looks at what is new in `bytes`, which are all that came so far. A head that is whole has this length, with its empty line
    /// and with the one empty line that may come before it: Pingora's parser skips that too, so the caller need not.
    ///
    /// # Errors
    /// What came is no head, or goes over a limit.
    pub fn advance(&mut self, bytes: &[u8], limits: &Limits) -> Result<Option<usize>, Refusal> {
        loop {
            let new = bytes.get(self.seen..).unwrap_or_default();
            let found = if self.fields.is_some() { line::control(new) } else { line::unprintable(new) };
            self.seen += found.unwrap_or(new.len());
            self.within(limits)?;
            match bytes.get(self.seen..).unwrap_or_default() {
                [] | [b'\r'] => return Ok(None),
                [b'\r', b'\n', ..] => {
                    let text = bytes.get(self.line..self.seen).unwrap_or_default();
                    self.seen += 2;
                    if self.end_line(text, limits)? {
                        return Ok(Some(self.seen));
                    }
                }
                [b'\t', ..] if self.fields.is_some() => self.seen += 1,
                [0x16, ..] if self.seen == 0 => return Err(Refusal::Tls),
                [byte, ..] => return Err(line::misplaced(*byte)),
            }
        }
    }

    /// Whether more than an empty line has come: an empty line alone is the end of nothing, and begins nothing.
    pub fn has_begun(&self) -> bool {
        self.seen > self.line || self.fields.is_some()
    }

    fn within(&self, limits: &Limits) -> Result<(), Refusal> {
        match self.fields {
            None if self.seen - self.line > limits.request_line => Err(Refusal::LineTooLong),
            Some(fields) if self.seen - fields > limits.fields => Err(Refusal::FieldsTooLarge),
            _ => Ok(()),
        }
    }

    /// Takes a line that is whole. True if it ends the head.
    fn end_line(&mut self, text: &[u8], limits: &Limits) -> Result<bool, Refusal> {
        let is_first = self.line == 0;
        self.line = self.seen;
        match self.fields {
            None if text.is_empty() && is_first => Ok(false),
            None => {
                line::request(text)?;
                self.fields = Some(self.seen);
                Ok(false)
            }
            Some(_) if text.is_empty() => Ok(true),
            Some(_) => {
                self.count += 1;
                self.within(limits)?;
                if self.count > limits.count { Err(Refusal::TooManyFields) } else { Ok(false) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::edge::http1::testing::{LIMITS, heads};

    type Found = Result<Option<usize>, Refusal>;

    /// Fed in parts of these lengths, then the rest.
    fn fed(bytes: &[u8], parts: &[usize], limits: &Limits) -> Found {
        let mut scan = Scan::default();
        let mut end = 0_usize;
        for part in parts.iter().chain([&usize::MAX]) {
            end = bytes.len().min(end.saturating_add(*part));
            match scan.advance(&bytes[..end], limits) {
                Ok(None) => {}
                found => return found,
            }
        }
        Ok(None)
    }

    fn check(bytes: impl AsRef<[u8]>, expected: Found) {
        let bytes = bytes.as_ref();
        assert_eq!(fed(bytes, &[], &LIMITS), expected, "{}", bytes.escape_ascii());
        assert_eq!(fed(bytes, &vec![1; bytes.len()], &LIMITS), expected, "{} by the byte", bytes.escape_ascii());
    }

    #[test]
    fn the_end_of_a_head_is_found() {
        check("GET / HTTP/1.1\r\n\r\n", Ok(Some(18)));
        check("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /2", Ok(Some(27)));
        check("\r\nGET / HTTP/1.1\r\n\r\n", Ok(Some(20)));
        check("GET / HTTP/1.1\r\nA:\tb\u{fc}\r\n\r\n", Ok(Some(26)));
    }

    #[test]
    fn what_is_not_whole_is_waited_for() {
        for bytes in ["", "\r", "\r\n", "G", "GET / HTTP/1.1", "GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\nA: b\r\n\r"] {
            check(bytes, Ok(None));
        }
    }

    #[test]
    fn garbage_is_not_waited_for() {
        check("\x16\x03\x01", Err(Refusal::Tls));
        check("\0", Err(Refusal::Control));
        check(b"\x80", Err(Refusal::Target));
        check("GET\t/", Err(Refusal::Control));
        check("GET / HTTP/1.1\n", Err(Refusal::BareLf));
        check("GET / HTTP/1.1\rX", Err(Refusal::BareCr));
        check("GET / HTTP/1.1\r\r", Err(Refusal::BareCr));
        check("\n", Err(Refusal::BareLf));
        check("\r\n\r\n", Err(Refusal::EmptyLines));
        check("GET /\r\n", Err(Refusal::SimpleRequest));
        check("PRI * HTTP/2.0\r\n", Err(Refusal::VersionNotSupported));
        check("GET / HTTP/1.1\r\nA: b\0", Err(Refusal::Control));
        check("GET / HTTP/1.1\r\nA: b\n", Err(Refusal::BareLf));
        check("GET / HTTP/1.1\r\n\n", Err(Refusal::BareLf));
    }

    #[test]
    fn a_request_line_is_as_long_as_its_limit() {
        let line = |length: usize| format!("GET /{} HTTP/1.1", "a".repeat(length - 14));
        check(line(LIMITS.request_line), Ok(None));
        check(line(LIMITS.request_line) + "\r\n\r\n", Ok(Some(LIMITS.request_line + 4)));
        check(line(LIMITS.request_line + 1), Err(Refusal::LineTooLong));
        check("a".repeat(LIMITS.request_line + 1), Err(Refusal::LineTooLong));
        check(format!("\r\n{}", "a".repeat(LIMITS.request_line)), Ok(None));
    }

    #[test]
    fn the_fields_are_as_large_as_their_limit() {
        let head = |length: usize| format!("GET / HTTP/1.1\r\nA: {}\r\n", "a".repeat(length - 5));
        check(head(LIMITS.fields) + "\r\n", Ok(Some(LIMITS.fields + 18)));
        check(head(LIMITS.fields + 1), Err(Refusal::FieldsTooLarge));
        check(head(LIMITS.fields + 9), Err(Refusal::FieldsTooLarge));
    }

    #[test]
    fn there_are_as_many_fields_as_their_limit() {
        let head = |count: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "A:\r\n".repeat(count));
        check(head(LIMITS.count), Ok(Some(18 + 4 * LIMITS.count)));
        check(head(LIMITS.count + 1), Err(Refusal::TooManyFields));
    }

    #[test]
    fn an_empty_line_begins_nothing() {
        for (bytes, begun) in
            [("", false), ("\r", false), ("\r\n", false), ("\r\nG", true), ("G", true), ("GET / HTTP/1.1\r\n", true)]
        {
            let mut scan = Scan::default();
            scan.advance(bytes.as_bytes(), &LIMITS).unwrap();
            assert_eq!(scan.has_begun(), begun, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same(bytes in heads(), parts in proptest::collection::vec(0_usize..40, 0..30)) {
            let limits = Limits { request_line: 60, fields: 120, count: 5 };
            let whole = fed(&bytes, &[], &limits);
            prop_assert_eq!(fed(&bytes, &parts, &limits), whole);
            prop_assert_eq!(fed(&bytes, &vec![1; bytes.len()], &limits), whole);
        }
    }
}
