//! The watch on one client's connection.

use std::time::Instant;

use super::{
    budget::{Budgets, Price},
    flood::Flood,
    frames::{Code, Frame, Frames, Kind},
};

/// Longest payload of a frame, in bytes. Source: SETTINGS_MAX_FRAME_SIZE's default (RFC 9113 §6.5.2), which we do not raise.
pub const FRAME_MAX: u32 = 16_384;

/// Most CONTINUATION frames of one header block, where the longest header list does not need more: with its HEADERS frame 144 KiB.
/// Source: nghttp2's default. `h2` itself allows 6 with a header list of 64 KiB.
const CONTINUATIONS_MAX: u32 = 8;

/// A frame of ours that ended something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The connection, by GOAWAY.
    Connection(Code),
    /// A stream, by RST_STREAM.
    Stream(Code),
}

/// Both directions of a client's connection, by their frames.
#[derive(Debug)]
pub struct Watch {
    received: Frames,
    sent: Frames,
    /// Once too much, for ever too much.
    flood: Option<Flood>,
    /// Highest stream that the client opened.
    last_stream: u32,
    /// CONTINUATION frames of the header block being received.
    continuations: u32,
    continuations_max: u32,
    /// A header block has begun, and its last part has not come.
    block_is_open: bool,
    /// The last frame is DATA, whose payload may take its time.
    is_data: bool,
    budgets: Budgets,
}

impl Watch {
    /// Before the first byte, the client's preface included.
    pub const fn new(now: Instant) -> Self {
        Self {
            received: Frames::received(),
            sent: Frames::sent(),
            flood: None,
            last_stream: 0,
            continuations: 0,
            continuations_max: CONTINUATIONS_MAX,
            block_is_open: false,
            is_data: false,
            budgets: Budgets::new(now),
        }
    }

    /// Header lists may be so long, in bytes: a block has as many parts as that takes, and a few more.
    #[must_use]
    pub fn with_header_list(self, longest: u32) -> Self {
        Self { continuations_max: CONTINUATIONS_MAX.max(longest / FRAME_MAX * 5 / 4 + 1), ..self }
    }

    /// Sees what the client sent. The clock is read once at most, and only if there is a frame to be paid for.
    ///
    /// # Errors
    /// It is too much, now or before.
    pub fn received(&mut self, mut bytes: &[u8], now: impl FnOnce() -> Instant) -> Result<(), Flood> {
        let mut now = Some(now);
        self.flood.map_or(Ok(()), Err)?;
        while let Some(frame) = self.received.next(&mut bytes) {
            self.judge(&frame, &mut now).inspect_err(|flood| self.flood = Some(*flood))?;
        }
        Ok(())
    }

    /// Where in these bytes, which come next, the first frame begins that they hold from its start.
    pub fn boundary_in(&self, bytes: &[u8]) -> Option<usize> {
        self.received.boundary_in(bytes)
    }

    /// Sees what was written to the client: only the bytes that the socket took. Tells of each GOAWAY and RST_STREAM in it.
    pub fn sent(&mut self, mut bytes: &[u8], mut ended: impl FnMut(Ended)) {
        while let Some(frame) = self.sent.next(&mut bytes) {
            self.budgets.credit(&frame);
            match (frame.kind, frame.code()) {
                (Kind::GoAway, Some(code)) => ended(Ended::Connection(code)),
                (Kind::RstStream, Some(code)) => {
                    self.provoked(code);
                    ended(Ended::Stream(code));
                }
                _ => {}
            }
        }
    }

    /// Something has begun that comes in one piece from an honest client: the preface, a header block, a frame that is not DATA.
    pub const fn is_waiting(&self) -> bool {
        self.block_is_open || !self.is_data && !self.received.at_boundary()
    }

    /// What was sent is whole frames: a GOAWAY may follow.
    pub const fn at_boundary(&self) -> bool {
        self.sent.at_boundary()
    }

    /// Highest stream that the client opened, for a GOAWAY. 0 before the first.
    pub const fn last_stream(&self) -> u32 {
        self.last_stream
    }

    fn judge<N: FnOnce() -> Instant>(&mut self, frame: &Frame, now: &mut Option<N>) -> Result<(), Flood> {
        if frame.length > FRAME_MAX {
            return Err(Flood::OversizedFrame);
        }
        self.part(frame)?;
        if frame.kind == Kind::Headers && frame.stream > self.last_stream {
            self.last_stream = frame.stream;
            self.budgets.request();
        }
        let Some(price) = Price::of(frame) else { return Ok(()) };
        if let Some(now) = now.take() {
            self.budgets.refill(now());
        }
        self.budgets.pay(price)
    }

    /// Counts the parts of a header block.
    fn part(&mut self, frame: &Frame) -> Result<(), Flood> {
        self.is_data = frame.kind == Kind::Data;
        self.block_is_open = matches!(frame.kind, Kind::Headers | Kind::Continuation) && !frame.ends_headers();
        self.continuations = if frame.kind == Kind::Continuation { self.continuations + 1 } else { 0 };
        if self.continuations > self.continuations_max { Err(Flood::Continuation) } else { Ok(()) }
    }

    /// A reset of ours that the client made us send costs as one of its own. STREAM_CLOSED does not: what is on its way to a
    /// stream that we reset brings it from honest clients.
    fn provoked(&mut self, code: Code) {
        let theirs = matches!(code, Code::PROTOCOL_ERROR | Code::FLOW_CONTROL_ERROR | Code::FRAME_SIZE_ERROR);
        if theirs && self.budgets.pay(Price::one(Flood::Reset)).is_err() {
            self.flood.get_or_insert(Flood::Reset);
        }
    }
}

#[cfg(test)]
mod tests;
