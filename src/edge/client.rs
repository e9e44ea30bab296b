//! A client's connection, as Pingora sees it.
//!
//! A head that Pingora cannot read is answered by Pingora itself, before any hook: with its name, without a body, uncounted. Such
//! an answer is exchanged here for one of ours.
//!
//! Pingora looks at the first 24 bytes of a plaintext connection to know HTTP/2 by its preface, and waits until there are as many. A
//! head such as `GET / HTTP/1.0` of a load balancer's health check is shorter and would wait for ever. Here the look ends with
//! the first byte that is not the preface's.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use async_trait::async_trait;
use bytes::{Buf, Bytes, BytesMut};
use http::StatusCode;
use pingora_core::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream, TimingDigest, UniqueID,
    UniqueIDType, raw_connect::ProxyDigest, tls::SslDigest,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use crate::{deadline::Clock, observe::metrics::Metrics, reply};

/// How an HTTP/2 connection begins (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A client's connection.
#[derive(Debug)]
pub struct Client {
    stream: Stream,
    /// Read by the look, not yet by who reads.
    seen: BytesMut,
    metrics: Arc<Metrics>,
    /// What is left to write of our answer to a head that could not be read.
    unread: Option<Bytes>,
    /// The last write could not be taken.
    blocked: bool,
}

impl Client {
    pub fn new(stream: Stream, metrics: Arc<Metrics>) -> Self {
        Self { stream, seen: BytesMut::new(), metrics, unread: None, blocked: false }
    }

    /// Notes whether the client takes what is written. While it does not, the service cannot be heard.
    fn taken(&mut self, taken: bool) {
        if self.blocked == taken {
            self.blocked = !taken;
            Clock::hold(!taken);
        }
    }

    /// Writes our answer in place of Pingora's, once; whatever Pingora writes besides is passed over.
    fn poll_unread(&mut self, cx: &mut Context<'_>, theirs: &[u8]) -> Poll<io::Result<usize>> {
        let metrics = &self.metrics;
        let left = self.unread.get_or_insert_with(|| {
            let status = status(theirs);
            metrics.unread(status.as_u16());
            reply::unread(status, &format!("{:032x}", fastrand::u128(..)))
        });
        while !left.is_empty() {
            let written = std::task::ready!(Pin::new(&mut self.stream).poll_write(cx, left))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            left.advance(written.min(left.len()));
        }
        Poll::Ready(Ok(theirs.len()))
    }
}

/// The status of a response head: `HTTP/1.1 400 …`.
fn status(head: &[u8]) -> StatusCode {
    head.get(9..12).and_then(|digits| StatusCode::from_bytes(digits).ok()).unwrap_or(StatusCode::BAD_REQUEST)
}

#[async_trait]
impl Peek for Client {
    /// Fills `buf` with what came first; what did not come stays as it was.
    async fn try_peek(&mut self, buf: &mut [u8]) -> io::Result<bool> {
        while self.seen.len() < buf.len() && PREFACE.starts_with(&self.seen) {
            if self.stream.read_buf(&mut self.seen).await? == 0 {
                break;
            }
        }
        buf.iter_mut().zip(&self.seen).for_each(|(to, from)| *to = *from);
        Ok(true)
    }
}

impl AsyncRead for Client {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.seen.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let length = self.seen.len().min(buf.remaining());
        buf.put_slice(self.seen.get(..length).unwrap_or_default());
        self.seen.advance(length);
        if self.seen.is_empty() {
            self.seen = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Client {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if Clock::is_unread() {
            return self.poll_unread(cx, buf);
        }
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.taken(written.is_ready());
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if Clock::is_unread() {
            let first = bufs.iter().find(|buf| !buf.is_empty()).map_or(&[][..], |buf| buf);
            return self.poll_unread(cx, first);
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.taken(written.is_ready());
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[async_trait]
impl Shutdown for Client {
    async fn shutdown(&mut self) {
        self.stream.shutdown().await;
    }
}

impl UniqueID for Client {
    fn id(&self) -> UniqueIDType {
        self.stream.id()
    }
}

impl Ssl for Client {
    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.stream.get_ssl_digest()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.stream.selected_alpn_proto()
    }
}

impl GetTimingDigest for Client {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.stream.get_timing_digest()
    }

    fn get_read_pending_time(&self) -> std::time::Duration {
        self.stream.get_read_pending_time()
    }

    fn get_write_pending_time(&self) -> std::time::Duration {
        self.stream.get_write_pending_time()
    }
}

impl GetProxyDigest for Client {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.stream.get_proxy_digest()
    }
}

impl GetSocketDigest for Client {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.stream.get_socket_digest()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    fn client(stream: tokio::io::DuplexStream) -> Client {
        Client::new(Box::new(stream), Arc::new(Metrics::new(&crate::config::observe::Metrics::default()).unwrap()))
    }

    #[tokio::test]
    async fn an_answer_before_the_hooks_is_exchanged_for_ours() {
        let (near, mut far) = tokio::io::duplex(4096);
        let mut client = client(near);
        let metrics = client.metrics.clone();
        Clock::drive(crate::deadline::Terms::default(), async move {
            client.write_all(b"HTTP/1.1 405 Method Not Allowed\r\nServer: Pingora\r\n").await.unwrap();
            client.write_all(b"more\r\n\r\n").await.unwrap();
        })
        .await;
        let mut read = String::new();
        far.read_to_string(&mut read).await.unwrap();
        assert!(read.starts_with("HTTP/1.1 405 Method Not Allowed\r\n") && read.ends_with('}'), "{read}");
        assert!(!read.contains("Pingora") && !read.contains("more"), "{read}");
        assert!(metrics.render([]).contains("banyan_requests_flagged_total{flag=\"DPE\"} 1"));
    }

    #[tokio::test]
    async fn what_the_hooks_answer_passes() {
        let (near, mut far) = tokio::io::duplex(4096);
        let mut client = client(near);
        Clock::drive(crate::deadline::Terms::default(), async move {
            Clock::current().begin();
            client.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        })
        .await;
        let mut read = String::new();
        far.read_to_string(&mut read).await.unwrap();
        assert_eq!(read, "HTTP/1.1 400 Bad Request\r\n\r\n");
    }

    async fn check(sent: &[u8], is_http2: bool) {
        let (near, mut far) = tokio::io::duplex(64);
        let mut client = client(near);
        far.write_all(sent).await.unwrap();
        let mut first = [0; 24];
        assert!(client.try_peek(&mut first).await.unwrap());
        assert_eq!(first == *PREFACE, is_http2, "{}", sent.escape_ascii());
        let mut read = vec![0; sent.len()];
        client.read_exact(&mut read).await.unwrap();
        assert_eq!(read, sent, "nothing is lost by the look");
    }

    #[tokio::test]
    async fn the_look_ends_with_the_first_byte_that_is_not_the_prefaces() {
        check(PREFACE, true).await;
        check(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nframes", true).await;
        check(b"GET / HTTP/1.0\r\n\r\n", false).await;
        check(b"P\r\n", false).await;
        check(b"PUT / HTTP/1.1\r\nHost: a\r\n\r\n", false).await;
    }

    #[tokio::test]
    async fn a_client_that_leaves_in_the_preface_is_read_to_its_end() {
        let (near, mut far) = tokio::io::duplex(64);
        far.write_all(b"PRI").await.unwrap();
        drop(far);
        let mut client = client(near);
        client.try_peek(&mut [0; 24]).await.unwrap();
        let mut read = Vec::new();
        client.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"PRI");
    }
}
