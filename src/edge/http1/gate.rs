//! The gate of an HTTP/1 connection: Pingora reads a head only once it is whole and found right, and of what follows it exactly the
//! body that the head declared. So it never sees a byte that could be read in two ways, on the first request or on a pipelined one.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::{Buf, BytesMut};
use pingora_core::protocols::Stream;
use tokio::io::{AsyncRead, ReadBuf};

use super::{
    chunks::{BadChunk, Chunks},
    head::{Framing, Limits, check},
    refusal::{Class, Refusal},
    scan::Scan,
};
use crate::{
    deadline::{Clock, Timer},
    exchange::Stop,
};

/// Most bytes of later requests that are read while one is carried.
const AHEAD_MAX: usize = 64 << 10;

/// How long a connection must have been silent to be closed when the process is about to end. One that is in use gets an answer before
/// that, which says so; closed under the client's hands, it would cost it a request.
pub const LULL: Duration = Duration::from_secs(1);

/// How much is read at once of what is kept here.
const READ: usize = 4 << 10;

/// What a connection is held to.
#[derive(Clone, Debug)]
pub struct Terms {
    pub head: Limits,
    /// Longest time for a head, from its first byte.
    pub header_timeout: Duration,
    /// Longest time between requests.
    pub keepalive: Duration,
}

/// Why a request is not let through.
#[derive(Clone, Copy, Debug)]
pub enum Refused {
    Head(Refusal),
    Body(BadChunk),
    /// Its head did not come in time.
    Slow,
}

/// What the client sends, as far as Pingora may read it.
#[derive(Debug)]
pub struct Gate {
    /// Read from the client, not yet by Pingora.
    kept: BytesMut,
    /// How much of it Pingora may read.
    free: usize,
    phase: Phase,
    /// No request has come yet.
    is_first: bool,
    /// When the head that is due must be whole; before its first byte, when it must begin.
    due: Instant,
    /// Since when a head is due.
    since: Instant,
    /// No byte of it has come, and the time until it must begin is not the time in which it must be whole.
    idle: bool,
    timer: Timer,
    /// The request asks for another protocol, and no answer has told yet.
    may_upgrade: bool,
    /// The client has sent all that it will.
    ended: bool,
    /// A silent connection is not waited for.
    hurried: bool,
}

#[derive(Debug)]
enum Phase {
    Head(Scan),
    Length(u64),
    Chunked(Chunks),
    /// The request has come whole; what follows waits until Pingora asks for the next head.
    Whole,
    /// The connection has left HTTP.
    Tunnel,
}

impl Gate {
    /// A connection whose first head must be whole by then. `kept` was read already.
    pub fn new(kept: BytesMut, due: Instant) -> Self {
        let phase = Phase::Head(Scan::default());
        Self {
            kept,
            free: 0,
            phase,
            is_first: true,
            due,
            since: Instant::now(),
            idle: false,
            timer: Timer::default(),
            may_upgrade: false,
            ended: false,
            hurried: false,
        }
    }

    /// Whether the client owes bytes of a body, or has sent more than that. To close on it now would reset the connection, and our
    /// answer with it.
    pub fn is_sending(&self) -> bool {
        !self.ended && (matches!(self.phase, Phase::Length(_) | Phase::Chunked(_)) || !self.kept.is_empty())
    }

    /// The connection has left HTTP.
    pub const fn is_tunnel(&self) -> bool {
        matches!(self.phase, Phase::Tunnel)
    }

    /// The process is about to end: a connection that is silent is to close.
    pub const fn hurry(&mut self) {
        self.hurried = true;
    }

    /// Whether the client speaks another protocol: its very first line ends in no version of HTTP. An invalid HTTP/2 preface is such
    /// a line, and its sender could not read our answer (RFC 9113 §3.4).
    pub const fn is_foreign(&self, refused: Refused) -> bool {
        self.is_first && matches!(refused, Refused::Head(Refusal::Version))
    }

    /// What was read of a head that is refused.
    pub fn refused_head(&self) -> &[u8] {
        &self.kept
    }

    /// Looks at what is written to the client: 101 ends HTTP on this connection (RFC 9110 §15.2.2).
    pub fn answered(&mut self, answer: &[u8]) {
        let switches = answer.starts_with(b"HTTP/1.1 101");
        if !self.may_upgrade || answer.starts_with(b"HTTP/1.1 1") && !switches {
            return;
        }
        self.may_upgrade = false;
        if switches {
            self.phase = Phase::Tunnel;
            self.free = self.kept.len();
        }
    }

    /// Reads what may be read. `Some`: nothing more may.
    pub fn poll_read(
        &mut self,
        stream: &mut Stream,
        terms: &Terms,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<Option<Refused>>> {
        if self.free > 0 {
            return Poll::Ready(Ok(self.pass(out)));
        }
        match self.phase {
            Phase::Tunnel => Pin::new(stream).poll_read(cx, out).map_ok(|()| None),
            Phase::Length(_) | Phase::Chunked(_) => self.poll_body(stream, cx, out).map_ok(|()| None),
            Phase::Whole if !Clock::is_unread() => self.poll_ahead(stream, cx),
            Phase::Whole | Phase::Head(_) => match ready!(self.poll_whole(stream, terms, cx))? {
                None => Poll::Ready(Ok(self.pass(out))),
                refused => Poll::Ready(Ok(refused)),
            },
        }
    }

    /// Hands out what is free to be read.
    fn pass(&mut self, out: &mut ReadBuf<'_>) -> Option<Refused> {
        let length = self.free.min(out.remaining());
        out.put_slice(self.kept.get(..length).unwrap_or_default());
        self.kept.advance(length);
        self.free -= length;
        self.let_go();
        None
    }

    /// An idle connection keeps no memory.
    fn let_go(&mut self) {
        if self.kept.is_empty() {
            self.kept = BytesMut::new();
        }
    }

    /// Gives a head that has begun its time.
    fn begun(&mut self, terms: &Terms) {
        if self.idle && self.has_begun() {
            self.idle = false;
            self.due = Instant::now() + terms.header_timeout;
        }
    }

    /// Whether more of a head has come than the empty line that some clients send behind a body.
    fn has_begun(&self) -> bool {
        matches!(&self.phase, Phase::Head(scan) if scan.has_begun())
    }

    /// Reads until a head is whole and may be read, so that who reads it need not be there before. `Some`: it may not. Not whole
    /// either: the client has ended, or has said nothing in its time.
    pub fn poll_whole(&mut self, stream: &mut Stream, terms: &Terms, cx: &mut Context<'_>) -> Poll<io::Result<Option<Refused>>> {
        match self.phase {
            Phase::Head(_) => {}
            Phase::Whole => {
                self.phase = Phase::Head(Scan::default());
                (self.idle, self.since) = (true, Instant::now());
                self.due = self.since + terms.keepalive;
            }
            Phase::Length(_) | Phase::Chunked(_) | Phase::Tunnel => return Poll::Ready(Ok(None)),
        }
        loop {
            let kept = std::mem::take(&mut self.kept);
            let passes = self.judge(&kept, terms);
            self.kept = kept;
            match passes {
                Err(refused) => return Poll::Ready(Ok(Some(refused))),
                Ok(Some(length)) => {
                    self.free = length;
                    return Poll::Ready(Ok(None));
                }
                Ok(None) if self.ended => return Poll::Ready(Ok(None)),
                Ok(None) => self.begun(terms),
            }
            match self.poll_keep(stream, cx) {
                Poll::Pending => return self.poll_late(cx),
                Poll::Ready(read) => read?,
            }
        }
    }

    /// Whether a head is whole, and may be read.
    pub const fn is_whole(&self) -> bool {
        self.free > 0
    }

    /// Nothing came: is it too late now? A client that has sent nothing is left in silence.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Refused>>> {
        let silent = self.hurried && !self.has_begun();
        let due = if silent { self.due.min(self.since + LULL) } else { self.due };
        ready!(self.timer.poll(due, cx));
        Poll::Ready(Ok(self.has_begun().then_some(Refused::Slow)))
    }

    /// How many of these bytes may pass: the head, once it is whole, and as much of its body as is there.
    fn judge(&mut self, bytes: &[u8], terms: &Terms) -> Result<Option<usize>, Refused> {
        let Phase::Head(scan) = &mut self.phase else { return Ok(None) };
        let Some(end) = scan.advance(bytes, &terms.head).map_err(Refused::Head)? else { return Ok(None) };
        let (head, rest) = bytes.split_at_checked(end).unwrap_or((bytes, &[]));
        let head = check(head, &terms.head).map_err(Refused::Head)?;
        self.is_first = false;
        self.may_upgrade = head.upgrade;
        self.phase = match head.framing {
            Framing::None | Framing::Length(0) => Phase::Whole,
            Framing::Length(length) => Phase::Length(length),
            Framing::Chunked => Phase::Chunked(Chunks::default()),
        };
        Ok(Some(end + self.walk(rest).map_err(Refused::Body)?))
    }

    /// How many of these bytes are of the body.
    fn walk(&mut self, bytes: &[u8]) -> Result<usize, BadChunk> {
        let (length, ended) = match &mut self.phase {
            Phase::Length(left) => {
                let length = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= length as u64;
                (length, *left == 0)
            }
            Phase::Chunked(chunks) => {
                let progress = chunks.advance(bytes)?;
                (progress.taken, progress.whole)
            }
            _ => return Ok(0),
        };
        if ended {
            self.phase = Phase::Whole;
        }
        Ok(length)
    }

    fn poll_body(&mut self, stream: &mut Stream, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = out.filled().len();
        if self.kept.is_empty() {
            ready!(self.poll_more(stream, cx, out))?;
        } else {
            let length = self.kept.len().min(out.remaining());
            out.put_slice(&self.kept.split_to(length));
            self.let_go();
        }
        let bytes = out.filled().get(before..).unwrap_or_default();
        let length = self.walk(bytes).map_err(broken)?;
        if length < bytes.len() {
            // Later requests: they stand before what is kept.
            let kept = std::mem::replace(&mut self.kept, BytesMut::from(bytes.get(length..).unwrap_or_default()));
            self.kept.extend_from_slice(&kept);
        }
        out.set_filled(before + length);
        Poll::Ready(Ok(()))
    }

    /// Reads later requests while one is carried, so that a client that is gone is seen. One that has only ended its sending is not
    /// gone: it waits for its answer (RFC 9112 §9.6).
    fn poll_ahead(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<Option<Refused>>> {
        while !self.ended && self.kept.len() < AHEAD_MAX {
            ready!(self.poll_keep(stream, cx))?;
        }
        Poll::Pending
    }

    /// Reads into what is kept.
    fn poll_keep(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut space = [std::mem::MaybeUninit::uninit(); READ];
        let mut read = ReadBuf::uninit(&mut space);
        ready!(self.poll_more(stream, cx, &mut read))?;
        self.kept.extend_from_slice(read.filled());
        Poll::Ready(Ok(()))
    }

    /// Reads, and notes the end.
    fn poll_more(&mut self, stream: &mut Stream, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (before, asked) = (out.filled().len(), out.remaining());
        ready!(Pin::new(stream).poll_read(cx, out))?;
        self.ended = asked > 0 && out.filled().len() == before;
        Poll::Ready(Ok(()))
    }
}

/// The request has gone on its way already: it ends with this error, and the client is told why.
fn broken(bad: BadChunk) -> io::Error {
    Clock::current().refuse(bad.detail());
    io::Error::new(io::ErrorKind::InvalidData, bad.detail())
}

impl From<Refused> for Stop {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Head(refusal) => stop(refusal),
            Refused::Body(bad) => Self::Framing(bad.detail()),
            Refused::Slow => Self::HeadTimeout,
        }
    }
}

fn stop(refusal: Refusal) -> Stop {
    use Refusal::{Coding, CodingInHttp10, Codings, Length, LengthAndCoding, Lengths};
    match (refusal.class(), refusal) {
        (Class::UriTooLong, _) => Stop::UriTooLong,
        (Class::FieldsTooLarge, _) => Stop::HeadersTooLarge,
        (Class::NotImplemented, _) => Stop::TransferCoding,
        (Class::VersionNotSupported, _) => Stop::Version,
        (Class::BadRequest, Coding | CodingInHttp10 | Codings | Length | LengthAndCoding | Lengths) => {
            Stop::Framing(refusal.detail())
        }
        (Class::BadRequest, _) => Stop::Malformed(refusal.detail()),
    }
}

impl Refused {
    /// The `reason` of a metric.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Head(refusal) => refusal.reason(),
            Self::Body(bad) => bad.reason(),
            Self::Slow => "header_timeout",
        }
    }
}

#[cfg(test)]
mod tests;
