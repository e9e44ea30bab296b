//! What is written to a client, gathered, so that an answer's head and a short body go in one segment. Pingora's own buffer would be
//! held by idle connections too.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use pingora_core::protocols::Stream;
use tokio::io::AsyncWrite;

/// Most bytes that are gathered. What is as long goes as it is.
const ROOM: usize = 4 << 10;

/// Room for a usual answer, so that it is allocated once.
const USUAL: usize = 1 << 10;

/// Bytes that were taken and not yet written.
#[derive(Debug, Default)]
pub struct Gathered {
    bytes: Vec<u8>,
    /// How many of them are written.
    out: usize,
}

impl Gathered {
    /// Takes these bytes, or writes them if they are many.
    pub fn poll_write(&mut self, stream: &mut Stream, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_room(stream, cx, bytes.len()))?;
        match bytes.len() {
            ROOM.. => Pin::new(stream).poll_write(cx, bytes),
            length => {
                self.take(bytes);
                Poll::Ready(Ok(length))
            }
        }
    }

    /// The same for bytes in many places.
    pub fn poll_write_vectored(
        &mut self,
        stream: &mut Stream,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = bufs.iter().map(|buf| buf.len()).fold(0, usize::saturating_add);
        ready!(self.poll_room(stream, cx, length))?;
        if length >= ROOM {
            return Pin::new(stream).poll_write_vectored(cx, bufs);
        }
        bufs.iter().for_each(|buf| self.take(buf));
        Poll::Ready(Ok(length))
    }

    /// Writes what was taken.
    pub fn poll_out(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(left @ [_, ..]) = self.bytes.get(self.out..) {
            match ready!(Pin::new(&mut *stream).poll_write(cx, left))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.out += written,
            }
        }
        *self = Self::default();
        Poll::Ready(Ok(()))
    }

    /// How many bytes were taken and wait, those included that are written of a part.
    pub const fn waits(&self) -> usize {
        self.bytes.len()
    }

    /// What is left to be written, for another to write it.
    pub fn left(&mut self) -> Vec<u8> {
        let Self { mut bytes, out } = std::mem::take(self);
        bytes.drain(..out.min(bytes.len()));
        bytes
    }

    fn poll_room(&mut self, stream: &mut Stream, cx: &mut Context<'_>, length: usize) -> Poll<io::Result<()>> {
        if self.bytes.len().saturating_add(length) > ROOM { self.poll_out(stream, cx) } else { Poll::Ready(Ok(())) }
    }

    fn take(&mut self, bytes: &[u8]) {
        if self.bytes.capacity() == 0 {
            self.bytes.reserve(USUAL.max(bytes.len()));
        }
        self.bytes.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, duplex};

    use super::*;

    /// What the client has read after these writes, and after what was left was written too.
    async fn read_after(writes: &[&[u8]]) -> (usize, usize) {
        let (near, mut far) = duplex(64 << 10);
        let (mut near, mut gathered): (Stream, _) = (Box::new(near), Gathered::default());
        let mut space = vec![0; 64 << 10];
        for bytes in writes {
            poll_fn(|cx| gathered.poll_write(&mut near, cx, bytes)).await.unwrap();
        }
        let at_once = poll_fn(|cx| {
            let mut read = tokio::io::ReadBuf::new(&mut space);
            let _ = tokio::io::AsyncRead::poll_read(Pin::new(&mut far), cx, &mut read);
            Poll::Ready(read.filled().len())
        })
        .await;
        poll_fn(|cx| gathered.poll_out(&mut near, cx)).await.unwrap();
        assert_eq!(gathered.bytes.capacity(), 0, "nothing is held by a silent connection");
        drop(near);
        (at_once, far.read_to_end(&mut space).await.unwrap())
    }

    #[tokio::test]
    async fn short_writes_go_together_and_long_ones_at_once() {
        assert_eq!(read_after(&[b"head", b"body"]).await, (0, 8));
        assert_eq!(read_after(&[&[b'x'; ROOM]]).await, (ROOM, 0));
        assert_eq!(read_after(&[b"head", &[b'x'; ROOM]]).await, (ROOM + 4, 0));
        assert_eq!(read_after(&[&[b'x'; ROOM - 1], b"12"]).await, (ROOM - 1, 2));
    }

    #[tokio::test]
    async fn what_is_left_is_what_was_not_written() {
        let (near, mut far) = duplex(3);
        let (mut near, mut gathered): (Stream, _) = (Box::new(near), Gathered::default());
        poll_fn(|cx| gathered.poll_write(&mut near, cx, b"answer")).await.unwrap();
        poll_fn(|cx| Poll::Ready(gathered.poll_out(&mut near, cx).is_pending())).await;
        assert_eq!(gathered.left(), b"wer");
        let mut space = [0; 3];
        far.read_exact(&mut space).await.unwrap();
        assert_eq!(&space, b"ans");
    }

    #[tokio::test]
    async fn many_places_are_one_write() {
        let (near, mut far) = duplex(64 << 10);
        let (mut near, mut gathered): (Stream, _) = (Box::new(near), Gathered::default());
        let bufs = [IoSlice::new(b"he"), IoSlice::new(b"ad")];
        assert_eq!(poll_fn(|cx| gathered.poll_write_vectored(&mut near, cx, &bufs)).await.unwrap(), 4);
        poll_fn(|cx| gathered.poll_out(&mut near, cx)).await.unwrap();
        let mut space = [0; 4];
        far.read_exact(&mut space).await.unwrap();
        assert_eq!(&space, b"head");
    }
}
