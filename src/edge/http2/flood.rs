//! The ways of being too much.

use super::frames::Code;

/// What a client sent too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flood {
    /// A header block in too many parts (CVE-2024-27316, CVE-2024-31309).
    Continuation,
    /// SETTINGS, each to be acknowledged (CVE-2019-9515), or of many entries (CVE-2020-11080).
    Settings,
    /// PING, each to be answered (CVE-2019-9512).
    Ping,
    /// Streams opened and cancelled at once (rapid reset, CVE-2023-44487), or misused so that we reset them
    /// (MadeYouReset, CVE-2025-8671; CVE-2019-9514).
    Reset,
    /// PRIORITY (resource loop, CVE-2019-9513).
    Priority,
    /// WINDOW_UPDATE beyond what our DATA asks for (RFC 9113 §10.5; with CVE-2019-9511 and CVE-2019-9517).
    WindowUpdate,
    /// DATA without data that does not end the stream (CVE-2019-9518).
    EmptyData,
    /// HEADERS or CONTINUATION without a header that do not end the block or the stream (CVE-2019-9518).
    EmptyHeaders,
    /// A frame longer than we allow (RFC 9113 §4.2).
    OversizedFrame,
    /// Frames that we ignore (RFC 9113 §5.5 and §10.5).
    UnknownFrame,
}

impl Flood {
    /// For a metric.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Continuation => "continuation",
            Self::Settings => "settings",
            Self::Ping => "ping",
            Self::Reset => "reset",
            Self::Priority => "priority",
            Self::WindowUpdate => "window_update",
            Self::EmptyData => "empty_data",
            Self::EmptyHeaders => "empty_headers",
            Self::OversizedFrame => "oversized_frame",
            Self::UnknownFrame => "unknown_frame",
        }
    }

    /// What a GOAWAY says of it.
    pub const fn code(self) -> Code {
        match self {
            Self::OversizedFrame => Code::FRAME_SIZE_ERROR,
            _ => Code::ENHANCE_YOUR_CALM,
        }
    }
}
