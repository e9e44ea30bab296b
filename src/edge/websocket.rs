//! A WebSocket at the end of the process: the client is told to go (RFC 6455 §7.4.1, 1001), and its own Close goes on to the service,
//! which closes then. So both ends part as they would if they had wished to.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes};
use pingora_core::protocols::Stream;
use tokio::io::AsyncWrite;

use crate::deadline::Timer;

/// Longest time from our Close until client and service have parted.
pub const PARTING_MAX: Duration = Duration::from_secs(5);

/// A Close frame, not masked, with the code 1001 and why.
const GOING_AWAY: &[u8] = b"\x88\x0c\x03\xe9going away";

/// What goes to the client of an upgraded connection.
#[derive(Debug, Default)]
pub struct Tunnel {
    frames: Frames,
    /// What is left of our Close to be written, once it has begun. Behind it nothing may stand.
    close: Option<Bytes>,
    /// When it was written.
    said: Option<Instant>,
    timer: Timer,
}

impl Tunnel {
    /// Begins behind the head that ends HTTP, in what was written.
    pub fn after(written: &[u8]) -> Self {
        let mut tunnel = Self::default();
        match written.windows(4).position(|end| end == b"\r\n\r\n") {
            Some(end) => tunnel.sent(written.get(end + 4..).unwrap_or_default()),
            None => tunnel.frames.step = Step::Strange,
        }
        tunnel
    }

    /// These bytes of the service's went to the client.
    pub fn sent(&mut self, bytes: &[u8]) {
        self.frames.advance(bytes);
    }

    /// How many of these bytes may still go to the client, after which we say Close: the rest of the frame that was begun. What is no
    /// WebSocket goes on until it is cut.
    pub fn may_send(&self, bytes: &[u8]) -> usize {
        match (&self.close, self.frames.step) {
            (None, Step::Strange) => bytes.len(),
            (None, _) if self.frames.closed => bytes.len(),
            (None, Step::Kind) => 0,
            (None, _) => self.frames.clone().finish(bytes),
            (Some(_), _) => 0,
        }
    }

    /// Says Close as soon as the frame that was begun is whole. Ready when it is too late for both to part.
    pub fn poll_part(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<()> {
        let Some(said) = self.said else {
            // A connection that is broken ends of itself.
            return match self.poll_say(stream, cx) {
                Poll::Ready(Ok(())) => {
                    let said = *self.said.insert(Instant::now());
                    self.timer.poll(said + PARTING_MAX, cx)
                }
                _ => Poll::Pending,
            };
        };
        self.timer.poll(said + PARTING_MAX, cx)
    }

    fn poll_say(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The service said it itself.
        if self.close.is_none() && self.frames.closed {
            return Poll::Ready(Ok(()));
        }
        if self.close.is_none() && self.frames.step != Step::Kind {
            return Poll::Pending;
        }
        let left = self.close.get_or_insert(Bytes::from_static(GOING_AWAY));
        while !left.is_empty() {
            match ready!(Pin::new(&mut *stream).poll_write(cx, left))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => left.advance(written.min(left.len())),
            }
        }
        Pin::new(stream).poll_flush(cx)
    }
}

/// Where one frame ends and the next begins (RFC 6455 §5.2).
#[derive(Clone, Debug, Default)]
struct Frames {
    step: Step,
    /// Length of the payload, as far as it is known; in [`Step::Payload`], what is left of it.
    payload: u64,
    /// A Close frame has begun.
    closed: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Step {
    #[default]
    Kind,
    Length,
    /// So many bytes of the length are to come.
    Longer(u8),
    Payload,
    /// No frame of a server: nothing more is known.
    Strange,
}

impl Frames {
    fn advance(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.step != Step::Strange {
            let taken = self.finish(bytes);
            bytes = bytes.get(taken..).unwrap_or_default();
        }
    }

    /// Takes bytes up to the end of a frame; how many.
    fn finish(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        while let Some(byte) = bytes.get(taken) {
            let step = match self.step {
                Step::Strange => return bytes.len(),
                Step::Payload => self.skip(bytes.len() - taken),
                _ => {
                    self.head(*byte);
                    1
                }
            };
            taken += step;
            if self.step == Step::Kind {
                break;
            }
        }
        taken
    }

    fn skip(&mut self, there: usize) -> usize {
        let taken = usize::try_from(self.payload).unwrap_or(usize::MAX).min(there);
        self.payload -= taken as u64;
        if self.payload == 0 {
            self.step = Step::Kind;
        }
        taken
    }

    /// Takes one byte of a frame's head.
    fn head(&mut self, byte: u8) {
        self.step = match self.step {
            Step::Kind => self.kind(byte & 0x0f),
            // A server masks nothing (§5.1).
            Step::Length if byte & 0x80 != 0 => Step::Strange,
            Step::Length if byte == 126 => self.longer(2),
            Step::Length if byte == 127 => self.longer(8),
            Step::Length => self.length(u64::from(byte)),
            Step::Longer(1) => self.length(self.payload << 8 | u64::from(byte)),
            Step::Longer(left) => {
                self.payload = self.payload << 8 | u64::from(byte);
                Step::Longer(left - 1)
            }
            step => step,
        };
    }

    fn kind(&mut self, opcode: u8) -> Step {
        self.closed |= opcode == 8;
        if matches!(opcode, 0..=2 | 8..=10) { Step::Length } else { Step::Strange }
    }

    fn longer(&mut self, bytes: u8) -> Step {
        self.payload = 0;
        Step::Longer(bytes)
    }

    fn length(&mut self, payload: u64) -> Step {
        self.payload = payload;
        if payload == 0 { Step::Kind } else { Step::Payload }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frames of these payload lengths.
    fn frames(lengths: &[usize]) -> Vec<u8> {
        let frame = |length: &usize| {
            let head = match *length {
                short @ 0..126 => vec![0x82, short as u8],
                middle @ 126..65536 => [&[0x82, 126][..], &(middle as u16).to_be_bytes()].concat(),
                long => [&[0x82, 127][..], &(long as u64).to_be_bytes()].concat(),
            };
            [head, vec![0xff; *length]].concat()
        };
        lengths.iter().flat_map(frame).collect()
    }

    #[test]
    fn frames_of_every_length_end_where_they_end_however_they_come() {
        let bytes = frames(&[0, 1, 125, 126, 300, 65535, 65536, 0]);
        let ends: Vec<usize> = (1..=8).map(|n| frames(&[0, 1, 125, 126, 300, 65535, 65536, 0][..n]).len()).collect();
        for size in [1, 7, 1000, bytes.len()] {
            let (mut walk, mut at) = (Frames::default(), 0);
            for part in bytes.chunks(size) {
                walk.advance(part);
                at += part.len();
                assert_eq!(walk.step == Step::Kind, ends.contains(&at), "at {at} in parts of {size}");
            }
        }
    }

    #[test]
    fn only_the_frame_that_was_begun_may_be_finished() {
        let mut tunnel = Tunnel::after(b"HTTP/1.1 101 Switching Protocols\r\n\r\n");
        assert_eq!(tunnel.may_send(b"\x81\x01a"), 0);
        tunnel.sent(b"\x81\x03a");
        assert_eq!(tunnel.may_send(b"bc\x81\x01d"), 2);
        tunnel.sent(b"bc");
        assert_eq!(tunnel.may_send(b"\x81\x01d"), 0);
    }

    #[test]
    fn what_came_with_the_head_counts() {
        let tunnel = Tunnel::after(b"HTTP/1.1 101 x\r\n\r\n\x81\x05ab");
        assert_eq!(tunnel.may_send(b"cdefg"), 3);
    }

    #[test]
    fn what_is_no_frame_of_a_server_goes_on() {
        for bytes in [&b"\x81\x85abcd12345"[..], b"\x83\x00", b"HI"] {
            let mut tunnel = Tunnel::after(b"\r\n\r\n");
            tunnel.sent(bytes);
            let strange = tunnel.frames.step == Step::Strange;
            assert!(strange || bytes == b"HI", "{}", bytes.escape_ascii());
        }
    }

    #[tokio::test]
    async fn the_close_stands_behind_a_whole_frame_and_the_wait_for_its_answer_ends() {
        use tokio::io::AsyncReadExt;
        let (near, mut far) = tokio::io::duplex(64);
        let mut near: Stream = Box::new(near);
        let mut tunnel = Tunnel::after(b"\r\n\r\n\x81\x02a");
        let early = std::future::poll_fn(|cx| Poll::Ready(tunnel.poll_part(&mut near, cx).is_pending())).await;
        assert!(early && tunnel.close.is_none());
        tunnel.sent(b"b");
        std::future::poll_fn(|cx| Poll::Ready(tunnel.poll_part(&mut near, cx).is_pending())).await;
        let mut said = vec![0; GOING_AWAY.len()];
        far.read_exact(&mut said).await.unwrap();
        assert_eq!(said, GOING_AWAY);
        tunnel.said = tunnel.said.map(|said| said - PARTING_MAX);
        std::future::poll_fn(|cx| tunnel.poll_part(&mut near, cx)).await;
    }

    #[tokio::test]
    async fn a_service_that_said_close_itself_is_not_doubled() {
        let (near, far) = tokio::io::duplex(64);
        let mut near: Stream = Box::new(near);
        let mut tunnel = Tunnel::after(b"\r\n\r\n\x88\x02\x03\xe8");
        std::future::poll_fn(|cx| Poll::Ready(tunnel.poll_part(&mut near, cx).is_pending())).await;
        assert!(tunnel.close.is_none() && tunnel.said.is_some());
        drop(far);
    }
}
