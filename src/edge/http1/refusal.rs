//! Why a request head is refused.

/// The kind of answer to a head that is refused. The connection ends with it: what follows cannot be trusted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// 400.
    BadRequest,
    /// 414.
    UriTooLong,
    /// 431.
    FieldsTooLarge,
    /// 501.
    NotImplemented,
    /// 505.
    VersionNotSupported,
}

/// The rule that a request head breaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// The first byte of a TLS record, where plain HTTP is spoken.
    Tls,
    BareCr,
    BareLf,
    /// A control character where none may stand: everywhere, but for a tab in a value.
    Control,
    /// More than the one empty line before a request line that RFC 9112 §2.2 has us ignore.
    EmptyLines,
    LineTooLong,
    /// Not two single spaces in the request line.
    RequestLine,
    Method,
    /// A byte beyond ASCII in the request line; other bytes that no target has are [`Self::Control`].
    Target,
    /// `GET /`, as HTTP/0.9 had it.
    SimpleRequest,
    Version,
    VersionNotSupported,
    FieldsTooLarge,
    TooManyFields,
    /// Whitespace before the first field.
    LeadingSpace,
    /// A value that goes on in the next line (obs-fold).
    Folded,
    SpaceBeforeColon,
    /// No name, no colon, or a name that is no token.
    FieldName,
    NoHost,
    Hosts,
    Host,
    Lengths,
    Length,
    LengthAndCoding,
    CodingInHttp10,
    Codings,
    /// The last transfer coding is not `chunked`, or `chunked` is applied twice.
    Coding,
    /// Another transfer coding below `chunked`.
    CodingNotImplemented,
    /// Bytes that are not exactly one head.
    NotWhole,
}

impl Refusal {
    /// Every refusal, in the order of declaration.
    pub const ALL: [Self; 29] = [
        Self::Tls,
        Self::BareCr,
        Self::BareLf,
        Self::Control,
        Self::EmptyLines,
        Self::LineTooLong,
        Self::RequestLine,
        Self::Method,
        Self::Target,
        Self::SimpleRequest,
        Self::Version,
        Self::VersionNotSupported,
        Self::FieldsTooLarge,
        Self::TooManyFields,
        Self::LeadingSpace,
        Self::Folded,
        Self::SpaceBeforeColon,
        Self::FieldName,
        Self::NoHost,
        Self::Hosts,
        Self::Host,
        Self::Lengths,
        Self::Length,
        Self::LengthAndCoding,
        Self::CodingInHttp10,
        Self::Codings,
        Self::Coding,
        Self::CodingNotImplemented,
        Self::NotWhole,
    ];

    pub const fn class(self) -> Class {
        match self {
            Self::LineTooLong => Class::UriTooLong,
            Self::FieldsTooLarge | Self::TooManyFields => Class::FieldsTooLarge,
            Self::CodingNotImplemented => Class::NotImplemented,
            Self::VersionNotSupported => Class::VersionNotSupported,
            _ => Class::BadRequest,
        }
    }

    /// A word for metrics, which never changes.
    pub const fn reason(self) -> &'static str {
        self.told().0
    }

    /// A sentence for the client. It names the rule, never the data.
    pub const fn detail(self) -> &'static str {
        self.told().1
    }

    const fn told(self) -> (&'static str, &'static str) {
        match self {
            Self::Tls => ("tls", "The connection is TLS, and this port speaks plain HTTP."),
            Self::BareCr => ("bare_cr", "The request head has a carriage return without a line feed."),
            Self::BareLf => ("bare_lf", "The request head has a line feed without a carriage return."),
            Self::Control => ("control", "The request head has a control character."),
            Self::EmptyLines => ("empty_lines", "More than one empty line comes before the request line."),
            Self::LineTooLong => ("line_too_long", "The request line is too long."),
            Self::RequestLine => {
                ("request_line", "The request line is not a method, a target and a version, one space between them.")
            }
            Self::Method => ("method", "The method is not a token."),
            Self::Target => ("target", "The request target has a character beyond ASCII, not percent-encoded."),
            Self::SimpleRequest => ("simple_request", "The request line has no version."),
            Self::Version => ("version", "The request line does not end in an HTTP version."),
            Self::VersionNotSupported => ("version_not_supported", "On this connection HTTP/1.0 and HTTP/1.1 are spoken."),
            Self::FieldsTooLarge => ("fields_too_large", "The header section is too large."),
            Self::TooManyFields => ("too_many_fields", "The request has too many header fields."),
            Self::LeadingSpace => ("leading_space", "Whitespace comes before the first header field."),
            Self::Folded => ("folded", "A header field goes on in a second line."),
            Self::SpaceBeforeColon => ("space_before_colon", "A header field has whitespace before its colon."),
            Self::FieldName => ("field_name", "A header field has no name that is a token, followed by a colon."),
            Self::NoHost => ("no_host", "The request has no Host."),
            Self::Hosts => ("hosts", "The request has more than one Host."),
            Self::Host => ("host", "The Host is not a host, with or without a port."),
            Self::Lengths => ("lengths", "The request has more than one Content-Length."),
            Self::Length => ("length", "The Content-Length is not one decimal number that a body can have."),
            Self::LengthAndCoding => ("length_and_coding", "The request has both Transfer-Encoding and Content-Length."),
            Self::CodingInHttp10 => ("coding_in_http10", "The request is HTTP/1.0 and has a Transfer-Encoding."),
            Self::Codings => ("codings", "The request has more than one Transfer-Encoding."),
            Self::Coding => ("coding", "The Transfer-Encoding is not chunked."),
            Self::CodingNotImplemented => ("coding_not_implemented", "The only transfer coding that is understood is chunked."),
            Self::NotWhole => ("not_whole", "The request head is not whole."),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_refusal_has_words_of_its_own() {
        for (at, refusal) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(refusal as usize, at, "{refusal:?}");
        }
        assert_eq!(Refusal::ALL.map(Refusal::reason).iter().collect::<BTreeSet<_>>().len(), Refusal::ALL.len());
        assert_eq!(Refusal::ALL.map(Refusal::detail).iter().collect::<BTreeSet<_>>().len(), Refusal::ALL.len());
    }
}
