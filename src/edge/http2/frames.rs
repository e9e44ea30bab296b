//! Frames in a stream of bytes that may be cut anywhere (RFC 9113 §4.1).

/// Length of the client's preface (RFC 9113 §3.4), in bytes.
const PREFACE: u32 = 24;

/// Length of a frame's head, in bytes (RFC 9113 §4.1).
const HEAD: usize = 9;

/// The most that is read of a payload, in bytes: a GOAWAY's last stream and error code.
const PEEK_MAX: usize = 8;

const END_STREAM: u8 = 0x1;
const ACK: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// A frame's type (RFC 9113 §6, RFC 9218 §7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Data,
    Headers,
    Priority,
    RstStream,
    Settings,
    PushPromise,
    Ping,
    GoAway,
    WindowUpdate,
    Continuation,
    PriorityUpdate,
    Unknown(u8),
}

impl Kind {
    const fn new(byte: u8) -> Self {
        match byte {
            0x0 => Self::Data,
            0x1 => Self::Headers,
            0x2 => Self::Priority,
            0x3 => Self::RstStream,
            0x4 => Self::Settings,
            0x5 => Self::PushPromise,
            0x6 => Self::Ping,
            0x7 => Self::GoAway,
            0x8 => Self::WindowUpdate,
            0x9 => Self::Continuation,
            0x10 => Self::PriorityUpdate,
            other => Self::Unknown(other),
        }
    }
}

/// An error code (RFC 9113 §7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code(pub u32);

impl Code {
    pub const NO_ERROR: Self = Self(0x0);
    pub const PROTOCOL_ERROR: Self = Self(0x1);
    pub const FLOW_CONTROL_ERROR: Self = Self(0x3);
    pub const FRAME_SIZE_ERROR: Self = Self(0x6);
    pub const ENHANCE_YOUR_CALM: Self = Self(0xb);

    /// The name in RFC 9113 §7, in lower case. `unknown` for any other, so that a peer cannot make label values.
    pub const fn label(self) -> &'static str {
        match self.0 {
            0x0 => "no_error",
            0x1 => "protocol_error",
            0x2 => "internal_error",
            0x3 => "flow_control_error",
            0x4 => "settings_timeout",
            0x5 => "stream_closed",
            0x6 => "frame_size_error",
            0x7 => "refused_stream",
            0x8 => "cancel",
            0x9 => "compression_error",
            0xa => "connect_error",
            0xb => "enhance_your_calm",
            0xc => "inadequate_security",
            0xd => "http_1_1_required",
            _ => "unknown",
        }
    }
}

/// What a frame's head says, and the few bytes of payload that matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: Kind,
    pub flags: u8,
    /// Of the payload, in bytes, padding included.
    pub length: u32,
    /// 0 is the connection itself.
    pub stream: u32,
    /// The payload's first bytes, as far as they are read.
    peeked: [u8; PEEK_MAX],
}

impl Frame {
    /// The last of its sender's on this stream. Only DATA and HEADERS can be.
    pub const fn ends_stream(&self) -> bool {
        matches!(self.kind, Kind::Data | Kind::Headers) && self.flags & END_STREAM != 0
    }

    pub const fn ends_headers(&self) -> bool {
        self.flags & END_HEADERS != 0
    }

    /// The answer to a SETTINGS or a PING.
    pub const fn is_ack(&self) -> bool {
        matches!(self.kind, Kind::Settings | Kind::Ping) && self.flags & ACK != 0
    }

    /// Length of the data or of the part of a header block, in bytes: without padding and priority (RFC 9113 §6.1, §6.2).
    pub const fn content(&self) -> u32 {
        let [pad, ..] = self.peeked;
        let padding = if self.is_padded() { 1 + pad as u32 } else { 0 };
        let priority = if matches!(self.kind, Kind::Headers) && self.flags & PRIORITY != 0 { 5 } else { 0 };
        self.length.saturating_sub(padding + priority)
    }

    /// Why a stream or the connection ended. None of other frames and where the payload is too short to say.
    pub const fn code(&self) -> Option<Code> {
        let [a, b, c, d, e, f, g, h] = self.peeked;
        match self.kind {
            Kind::RstStream if self.length >= 4 => Some(Code(u32::from_be_bytes([a, b, c, d]))),
            Kind::GoAway if self.length >= 8 => Some(Code(u32::from_be_bytes([e, f, g, h]))),
            _ => None,
        }
    }

    const fn new([a, b, c, kind, flags, d, e, f, g]: [u8; HEAD]) -> Self {
        let length = u32::from_be_bytes([0, a, b, c]);
        let stream = u32::from_be_bytes([d, e, f, g]) & 0x7fff_ffff;
        Self { kind: Kind::new(kind), flags, length, stream, peeked: [0; PEEK_MAX] }
    }

    const fn is_padded(&self) -> bool {
        matches!(self.kind, Kind::Data | Kind::Headers) && self.flags & PADDED != 0
    }

    /// Bytes of the payload to read before the frame is told.
    const fn peek(&self) -> usize {
        let wanted = match self.kind {
            Kind::RstStream => 4,
            Kind::GoAway => 8,
            _ if self.is_padded() => 1,
            _ => return 0,
        };
        if self.length < wanted { 0 } else { wanted as usize }
    }
}

/// A walk over the frames of one direction of a connection.
///
/// Costs by the frame, not by the byte. Judges nothing: any bytes are frames.
#[derive(Clone, Debug)]
pub struct Frames {
    /// Bytes still to pass over, before the next head.
    left: u32,
    /// A head that is not yet whole, and what is read of the payload after it.
    known: [u8; HEAD + PEEK_MAX],
    count: usize,
}

impl Frames {
    /// From the first byte of a client, which sends its preface first.
    pub const fn received() -> Self {
        Self { left: PREFACE, known: [0; HEAD + PEEK_MAX], count: 0 }
    }

    /// From the first byte of a server.
    pub const fn sent() -> Self {
        Self { left: 0, known: [0; HEAD + PEEK_MAX], count: 0 }
    }

    /// Everything so far was whole frames: the next byte begins one.
    pub const fn at_boundary(&self) -> bool {
        self.left == 0 && self.count == 0
    }

    /// Where in these bytes, which come next, the first frame begins that they hold from its start.
    pub fn boundary_in(&self, bytes: &[u8]) -> Option<usize> {
        let (mut ahead, mut rest) = (self.clone(), bytes);
        if self.count > 0 {
            ahead.next(&mut rest)?;
        }
        ahead.pass(&mut rest);
        ahead.at_boundary().then_some(bytes.len() - rest.len())
    }

    /// Takes bytes up to and with the next frame's head. None once they are used up.
    pub fn next(&mut self, bytes: &mut &[u8]) -> Option<Frame> {
        self.pass(bytes);
        if self.left > 0 || !self.gather(bytes, HEAD) {
            return None;
        }
        let mut frame = Frame::new(*self.known.first_chunk()?);
        if !self.gather(bytes, HEAD + frame.peek()) {
            return None;
        }
        frame.peeked = *self.known.last_chunk()?;
        *self = Self { left: frame.length.saturating_sub(frame.peek() as u32), ..Self::sent() };
        Some(frame)
    }

    /// Passes over payload.
    fn pass(&mut self, bytes: &mut &[u8]) {
        let length = u32::try_from(bytes.len()).map_or(self.left, |length| length.min(self.left));
        *bytes = bytes.get(length as usize..).unwrap_or_default();
        self.left -= length;
    }

    /// Knows `whole` bytes from the head's first on, if there are as many.
    fn gather(&mut self, bytes: &mut &[u8], whole: usize) -> bool {
        let wanted = whole.saturating_sub(self.count);
        let (taken, rest) = bytes.split_at_checked(wanted).unwrap_or((bytes, &[]));
        self.known.iter_mut().skip(self.count).zip(taken).for_each(|(known, byte)| *known = *byte);
        self.count += taken.len();
        *bytes = rest;
        self.count >= whole
    }
}

/// A GOAWAY frame without debug data (RFC 9113 §6.8).
///
/// May be written only where what was sent ends at a frame's boundary, and nothing after it.
pub const fn goaway(last_stream: u32, code: Code) -> [u8; HEAD + PEEK_MAX] {
    let [a, b, c, d] = last_stream.to_be_bytes();
    let [e, f, g, h] = code.0.to_be_bytes();
    [0, 0, PEEK_MAX as u8, 0x7, 0, 0, 0, 0, 0, a & 0x7f, b, c, d, e, f, g, h]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As (type, content, stream, error code), whatever the cut.
    fn check(bytes: &[u8], expected: &[(Kind, u32, u32, Option<&str>)]) {
        for size in 1..=bytes.len() {
            let mut frames = Frames::sent();
            let found: Vec<_> = bytes.chunks(size).flat_map(|part| walk(&mut frames, part)).collect();
            assert_eq!(found.iter().map(told).collect::<Vec<_>>(), expected, "in parts of {size}");
            assert!(frames.at_boundary());
        }
    }

    fn told(frame: &Frame) -> (Kind, u32, u32, Option<&'static str>) {
        (frame.kind, frame.content(), frame.stream, frame.code().map(Code::label))
    }

    fn walk(frames: &mut Frames, mut bytes: &[u8]) -> Vec<Frame> {
        std::iter::from_fn(|| frames.next(&mut bytes)).collect()
    }

    #[test]
    fn heads_are_read_and_payloads_passed_over() {
        check(
            b"\0\0\x03\0\x01\0\0\0\x05abc\0\0\0\x04\x01\0\0\0\0\0\0\x01\xfa\0\x80\0\0\x07x",
            &[(Kind::Data, 3, 5, None), (Kind::Settings, 0, 0, None), (Kind::Unknown(0xfa), 1, 7, None)],
        );
    }

    #[test]
    fn the_code_of_a_goaway_and_of_a_reset_is_read() {
        check(&goaway(7, Code::ENHANCE_YOUR_CALM), &[(Kind::GoAway, 8, 0, Some("enhance_your_calm"))]);
        check(b"\0\0\x04\x03\0\0\0\0\x09\0\0\0\x08", &[(Kind::RstStream, 4, 9, Some("cancel"))]);
        check(b"\0\0\x04\x03\0\0\0\0\x09\xff\0\0\x08", &[(Kind::RstStream, 4, 9, Some("unknown"))]);
        check(b"\0\0\x03\x03\0\0\0\0\x09abc", &[(Kind::RstStream, 3, 9, None)]);
    }

    #[test]
    fn padding_and_priority_are_not_content() {
        check(b"\0\0\x03\0\x08\0\0\0\x01\x02\0\0", &[(Kind::Data, 0, 1, None)]);
        check(b"\0\0\x06\x01\x20\0\0\0\x01\0\0\0\0\0h", &[(Kind::Headers, 1, 1, None)]);
        check(b"\0\0\0\0\x08\0\0\0\x01", &[(Kind::Data, 0, 1, None)]);
    }

    #[test]
    fn the_next_frame_begins_behind_what_is_left_of_this_one() {
        let bytes = b"\0\0\x03\0\x01\0\0\0\x05abc\0\0\x04\x03\0\0\0\0\x09\0\0\0\x08\0\0";
        for (cut, expected) in
            [(0, Some(0)), (1, Some(11)), (8, Some(4)), (9, Some(3)), (12, Some(0)), (21, Some(4)), (23, Some(2)), (26, None)]
        {
            let (before, after) = bytes.split_at(cut);
            let mut frames = Frames::sent();
            walk(&mut frames, before);
            assert_eq!(frames.boundary_in(after), expected, "cut at {cut}");
        }
    }

    #[test]
    fn the_clients_preface_is_passed_over() {
        let mut frames = Frames::received();
        assert_eq!(walk(&mut frames, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r").len(), 0);
        assert!(!frames.at_boundary());
        assert_eq!(walk(&mut frames, b"\n\0\0\0\x04\0\0\0\0\0").len(), 1);
        assert!(frames.at_boundary());
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_parts_are_the_same_frames(bytes: Vec<u8>, cuts in prop::collection::vec(1usize..40, 1..20)) {
            let whole = walk(&mut Frames::sent(), &bytes);
            let (mut frames, mut rest, mut found) = (Frames::sent(), bytes.as_slice(), Vec::new());
            for cut in cuts.iter().cycle() {
                let (part, after) = rest.split_at(rest.len().min(*cut));
                found.extend(walk(&mut frames, part));
                rest = after;
                if rest.is_empty() { break; }
            }
            prop_assert_eq!(found, whole);
        }
    }
}
