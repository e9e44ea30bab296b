//! A client's HTTP/2 connection under its [`Watch`].

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Instant,
};

use bytes::{Buf, Bytes, BytesMut};
use pingora_core::protocols::Stream;
use tokio::io::{AsyncRead, ReadBuf};

use super::{Code, Ended, Flood, Watch, coalesce::coalesce, goaway};
use crate::{
    deadline::Timer,
    edge::{door::Door, farewell::Farewell},
};

/// A connection under watch. Time is limited for what must come in one piece: the preface, and the rest of a header block.
#[derive(Debug)]
pub struct Guard {
    /// Read by the look at how the connection begins.
    seen: BytesMut,
    watch: Watch,
    /// The connection was ended for a fault of the client's.
    ended: bool,
    /// When what has begun must be whole. `None`: nothing has.
    due: Option<Instant>,
    timer: Timer,
}

impl Guard {
    /// A connection whose preface must be whole by then. `seen` was read already.
    pub fn new(seen: BytesMut, due: Instant, header_list: u32) -> Self {
        Self {
            seen,
            ended: false,
            watch: Watch::new(Instant::now()).with_header_list(header_list),
            due: Some(due),
            timer: Timer::default(),
        }
    }

    /// Reads on. `Some`: the connection is at its end, because it is too much or too slow.
    pub fn poll_read(
        &mut self,
        stream: &mut Stream,
        door: &Door,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<Option<Farewell>>> {
        let before = out.filled().len();
        if self.seen.is_empty() {
            match Pin::new(stream).poll_read(cx, out) {
                Poll::Pending => return self.poll_late(door, cx),
                Poll::Ready(read) => read?,
            }
        } else {
            let length = self.seen.len().min(out.remaining());
            out.put_slice(self.seen.get(..length).unwrap_or_default());
            self.seen.advance(length);
        }
        let read = out.filled().get(before..).unwrap_or_default();
        let boundary = self.watch.boundary_in(read);
        if let Err(flood) = self.watch.received(read, Instant::now) {
            out.set_filled(before);
            return Poll::Ready(Ok(Some(self.flooded(flood, door))));
        }
        if let Some(begin) = boundary.map(|boundary| before + boundary) {
            let left = out.filled_mut().get_mut(begin..).map_or(0, coalesce);
            out.set_filled(begin + left);
        }
        self.due = match (self.watch.is_waiting(), self.due) {
            (true, None) => Some(Instant::now() + door.http1.header_timeout),
            (true, due) => due,
            (false, _) => None,
        };
        Poll::Ready(Ok(None))
    }

    /// Looks at what was written to the client.
    pub fn sent(&mut self, bytes: &[u8], door: &Door) {
        let ended = &mut self.ended;
        self.watch.sent(bytes, |frame| match frame {
            Ended::Connection(code) => {
                *ended |= code != Code::NO_ERROR;
                door.metrics.goaway(code.label());
            }
            Ended::Stream(code) => door.metrics.reset(code.label()),
        });
    }

    fn poll_late(&mut self, door: &Door, cx: &mut Context<'_>) -> Poll<io::Result<Option<Farewell>>> {
        let Some(due) = self.due else { return Poll::Pending };
        ready!(self.timer.poll(due, cx));
        door.metrics.slow_head();
        Poll::Ready(Ok(Some(self.farewell(Code::ENHANCE_YOUR_CALM, door))))
    }

    fn flooded(&self, flood: Flood, door: &Door) -> Farewell {
        door.metrics.flood(flood.label());
        Farewell::ignoring(self.last_words(flood.code(), door))
    }

    /// The client was told that it is at fault: it is left alone for a moment, or it would come again at once.
    pub const fn is_ended(&self) -> bool {
        self.ended
    }

    /// How the connection ends if nobody ended it.
    pub fn farewell(&self, code: Code, door: &Door) -> Farewell {
        if self.ended {
            return Farewell::turning_away();
        }
        Farewell::new(self.last_words(code, door))
    }

    /// Says why, if what was sent before is whole: inside of a frame it would be read as a part of that.
    fn last_words(&self, code: Code, door: &Door) -> Bytes {
        if !self.watch.at_boundary() {
            return Bytes::new();
        }
        door.metrics.goaway(code.label());
        Bytes::copy_from_slice(&goaway(self.watch.last_stream(), code))
    }
}
