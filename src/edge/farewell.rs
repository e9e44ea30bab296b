//! The end of a connection on which the client may still be sending: to close it at once would reset it, and the client would lose
//! the answer that it has not read yet (RFC 9112 §9.6).

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes};
use pingora_core::protocols::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::deadline::Timer;

/// Longest time that we read on, for the client to take our answer.
const LINGER: Duration = Duration::from_secs(2);

/// Most bytes that we read on.
const LINGER_MAX: usize = 1 << 20;

/// How long a connection that flooded us stays as it is, unread. What is sent on it waits in the client's own memory then, and who opens
/// the next one only when this one ends does so seldom.
const IGNORED: Duration = Duration::from_secs(5);

/// The same where a client broke the protocol: less than honest ones wait for the end (h2spec 2 s).
const TURNED_AWAY: Duration = Duration::from_secs(1);

/// A last answer, the end of what we send, and what comes after.
#[derive(Debug)]
pub struct Farewell {
    /// What is left of the answer.
    answer: Bytes,
    step: Step,
    then: Then,
    read: usize,
    due: Instant,
    timer: Timer,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Write,
    Flush,
    Shutdown,
    Linger,
}

/// What comes after the last answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Then {
    /// The connection is closed.
    Close,
    /// The client's end is waited for.
    Linger,
    /// The client is left alone for a while.
    Ignore,
}

impl Farewell {
    pub fn new(answer: Bytes) -> Self {
        let due = Instant::now() + LINGER;
        Self { answer, step: Step::Write, then: Then::Linger, read: 0, due, timer: Timer::default() }
    }

    /// Says this first, which was to be written before.
    #[must_use]
    pub fn behind(mut self, mut before: Vec<u8>) -> Self {
        if !before.is_empty() {
            before.extend_from_slice(&self.answer);
            self.answer = before.into();
        }
        self
    }

    /// Nothing is said, and the client's end is not waited for.
    pub fn brief() -> Self {
        Self { then: Then::Close, ..Self::new(Bytes::new()) }
    }

    /// To a client that floods us. Nothing of it is read any more.
    pub fn ignoring(answer: Bytes) -> Self {
        Self { then: Then::Ignore, due: Instant::now() + IGNORED, ..Self::new(answer) }
    }

    /// The same to a client that broke the protocol and was told so. An honest one waits for the end.
    pub fn turning_away() -> Self {
        Self { due: Instant::now() + TURNED_AWAY, ..Self::ignoring(Bytes::new()) }
    }

    /// Ends the connection.
    pub async fn part(&mut self, stream: &mut Stream) {
        std::future::poll_fn(|cx| self.poll(stream, cx)).await;
    }

    /// Ready once the connection may be closed.
    pub fn poll(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<()> {
        // Broken, ended or too slow: either way there is nothing more to do for it.
        match self.poll_steps(stream, cx) {
            Poll::Ready(_) => Poll::Ready(()),
            Poll::Pending => self.timer.poll(self.due, cx),
        }
    }

    fn poll_steps(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        loop {
            let mut stream = Pin::new(&mut *stream);
            self.step = match self.step {
                Step::Write if self.answer.is_empty() => Step::Flush,
                Step::Write => match ready!(stream.poll_write(cx, &self.answer))? {
                    0 => return Poll::Ready(Ok(())),
                    written => {
                        self.answer.advance(written.min(self.answer.len()));
                        Step::Write
                    }
                },
                Step::Flush => {
                    ready!(stream.poll_flush(cx))?;
                    if self.then == Then::Ignore {
                        return Poll::Pending;
                    }
                    Step::Shutdown
                }
                Step::Shutdown => {
                    ready!(stream.poll_shutdown(cx))?;
                    if self.then == Then::Close {
                        return Poll::Ready(Ok(()));
                    }
                    Step::Linger
                }
                Step::Linger => {
                    let mut space = [0; 4096];
                    let mut thrown_away = ReadBuf::new(&mut space);
                    ready!(stream.as_mut().poll_read(cx, &mut thrown_away))?;
                    self.read += thrown_away.filled().len();
                    if thrown_away.filled().is_empty() || self.read > LINGER_MAX {
                        return Poll::Ready(Ok(()));
                    }
                    Step::Linger
                }
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn the_answer_is_sent_and_the_client_read_to_its_end() {
        let (near, mut far) = tokio::io::duplex(64);
        let mut near: Stream = Box::new(near);
        let client = async {
            far.write_all(&[b'x'; 500]).await.unwrap();
            let mut answer = Vec::new();
            far.read_to_end(&mut answer).await.unwrap();
            far.shutdown().await.unwrap();
            answer
        };
        let mut farewell = Farewell::new(Bytes::from_static(b"no"));
        let (answer, ()) = tokio::join!(client, farewell.part(&mut near));
        assert_eq!(answer, b"no");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_floods_is_told_so_and_then_left_alone() {
        let (near, mut far) = tokio::io::duplex(64);
        let mut near: Stream = Box::new(near);
        let client = async {
            let mut answer = [0; 2];
            far.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"no");
            far.write_all(&[b'x'; 64]).await.unwrap();
            assert!(tokio::time::timeout(IGNORED * 2, far.write_all(b"x")).await.is_err(), "nobody reads");
        };
        let begun = tokio::time::Instant::now();
        let farewell = async {
            Farewell::ignoring(Bytes::from_static(b"no")).part(&mut near).await;
            begun.elapsed()
        };
        let ((), took) = tokio::join!(client, farewell);
        assert!((IGNORED..IGNORED * 2).contains(&took), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_never_ends_is_waited_for_only_so_long() {
        let (near, _far) = tokio::io::duplex(64);
        Farewell::new(Bytes::new()).part(&mut (Box::new(near) as Stream)).await;
    }
}
