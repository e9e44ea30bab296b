//! A client's connection, as Pingora sees it: HTTP/1 through its [`Gate`], HTTP/2 under its [`Watch`].
//!
//! A head of HTTP/1 that is refused is answered here, before Pingora knows of it. What Pingora itself refuses before any hook, with its name
//! and without a body, is exchanged for an answer of ours.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker, ready},
    time::Instant,
};

use async_trait::async_trait;
use bytes::{Buf, Bytes, BytesMut};
use http::StatusCode;
use pingora_core::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream, TimingDigest, UniqueID,
    UniqueIDType, raw_connect::ProxyDigest, tls::SslDigest,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    sync::oneshot,
};

use super::{
    door::Door,
    farewell::Farewell,
    gather::Gathered,
    http1::{Gate, Refused},
    http2::{Code, Guard},
    patience::Patience,
    refusal,
    websocket::Tunnel,
};
use crate::{deadline::Clock, live::Stage, reply};

/// How much is read at once of a connection of which nothing is known yet: most heads.
const FIRST_READ: usize = 1 << 10;

/// How an HTTP/2 connection begins (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A client's connection.
#[derive(Debug)]
pub struct Client {
    stream: Stream,
    gathered: Gathered,
    door: Arc<Door>,
    manner: Manner,
    /// What is left to write of our answer in place of one of Pingora's.
    exchanged: Option<Bytes>,
    patience: Patience,
    /// Counts what was written.
    writes: Arc<AtomicU32>,
    /// What goes to the client once the connection has left HTTP.
    tunnel: Option<Box<Tunnel>>,
    /// Where the connection goes when Pingora lets it fall. None: it was ended in order.
    fallen: Option<oneshot::Sender<Fallen>>,
}

/// A connection that Pingora let fall, as it does when a request has failed or no other comes: nothing more is sent on it, but the
/// client has not been told so.
#[derive(Debug)]
pub struct Fallen(Stream, Farewell);

impl Fallen {
    pub async fn part(mut self) {
        self.1.part(&mut self.0).await;
    }
}

#[derive(Debug)]
enum Manner {
    Http1(Box<Gate>),
    Http2(Box<Guard>),
    /// The last that is said is being said.
    Over(Farewell),
}

impl Client {
    /// Looks at how the connection begins. On TLS the handshake has told whether it is HTTP/2; else its first bytes tell (RFC 9113
    /// §3.3), and the look ends with the first that is not the preface's.
    ///
    /// # Errors
    /// The connection is broken.
    pub async fn meet(mut stream: Stream, door: Arc<Door>, due: Instant) -> io::Result<Self> {
        let mut seen = BytesMut::with_capacity(FIRST_READ);
        if stream.get_ssl_digest().is_none() {
            while seen.len() < PREFACE.len() && PREFACE.starts_with(&seen) {
                if stream.read_buf(&mut seen).await? == 0 {
                    break;
                }
            }
        }
        let is_http2 = seen.starts_with(PREFACE) || stream.selected_alpn_proto() == Some(ALPN::H2);
        let manner = match is_http2 {
            true => Manner::Http2(Box::new(Guard::new(seen, due, door.header_list))),
            false => Manner::Http1(Box::new(Gate::new(seen, due))),
        };
        Ok(Self {
            stream,
            gathered: Gathered::default(),
            door,
            manner,
            exchanged: None,
            patience: Patience::default(),
            writes: Arc::default(),
            tunnel: None,
            fallen: None,
        })
    }

    /// Where to wait for the connection once Pingora has let it go.
    pub fn fallen(&mut self) -> oneshot::Receiver<Fallen> {
        let (sender, receiver) = oneshot::channel();
        self.fallen = Some(sender);
        receiver
    }

    /// How the connection ends if nothing more is to be said on it.
    fn farewell(&mut self) -> Farewell {
        let farewell = match &self.manner {
            Manner::Http1(gate) if gate.is_sending() => Farewell::new(Bytes::new()),
            Manner::Http2(guard) => guard.farewell(Code::NO_ERROR, &self.door),
            Manner::Http1(_) | Manner::Over(_) => Farewell::brief(),
        };
        farewell.behind(self.gathered.left())
    }

    pub const fn is_http2(&self) -> bool {
        matches!(self.manner, Manner::Http2(_))
    }

    /// Changes whenever the client has taken something.
    pub fn writes(&self) -> Arc<AtomicU32> {
        self.writes.clone()
    }

    /// Waits for a request's head on HTTP/1, so that nobody else need be there before it is. `false`: there comes none.
    pub async fn is_asked(&mut self) -> bool {
        poll_fn(|cx| self.poll_asked(cx)).await.unwrap_or(false)
    }

    fn poll_asked(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if self.door.live.is(Stage::Closing) {
            self.poll_end(cx)?;
        }
        loop {
            match &mut self.manner {
                Manner::Http1(gate) => match ready!(gate.poll_whole(&mut self.stream, &self.door.http1, cx))? {
                    None => return Poll::Ready(Ok(gate.is_whole())),
                    Some(refused) => self.refuse(refused),
                },
                Manner::Http2(_) => return Poll::Ready(Ok(true)),
                Manner::Over(farewell) => return farewell.poll(&mut self.stream, cx).map(|()| Ok(false)),
            }
        }
    }

    /// Answers a head that is refused, and lets nothing more be read.
    fn refuse(&mut self, refused: Refused) {
        let Manner::Http1(gate) = &self.manner else { return };
        let answer = refusal::answer(refused, gate.refused_head(), &self.stream, &self.door);
        let answer = if gate.is_foreign(refused) { Bytes::new() } else { answer };
        self.manner = Manner::Over(Farewell::new(answer).behind(self.gathered.left()));
    }

    /// Writes our answer in place of Pingora's, once; whatever Pingora writes besides is passed over.
    fn poll_exchanged(&mut self, cx: &mut Context<'_>, theirs: &[u8]) -> Poll<io::Result<usize>> {
        let door = &self.door;
        let left = self.exchanged.get_or_insert_with(|| {
            let status = status(theirs);
            door.metrics.refused_head("parser", status.as_u16());
            reply::unread(&refusal::of_pingora(status), &refusal::new_request_id())
        });
        while !left.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, left))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            left.advance(written.min(left.len()));
        }
        Poll::Ready(Ok(theirs.len()))
    }

    /// Sees to it that the connection ends with the process: silence is waited for no more, and a WebSocket is closed.
    ///
    /// # Errors
    /// The connection is cut.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if let Manner::Http1(gate) = &mut self.manner {
            gate.hurry();
        }
        let (tunnel, gathered) = (&mut self.tunnel, &mut self.gathered);
        let mut parting = tunnel.as_mut().filter(|_| self.door.live.is(Stage::Parting));
        let too_late = parting.as_mut().is_some_and(|tunnel| {
            // What it says stands behind what was sent.
            let out = gathered.poll_out(&mut self.stream, cx);
            matches!(out, Poll::Ready(Ok(()))) && tunnel.poll_part(&mut self.stream, cx).is_ready()
        });
        if too_late || self.door.live.is(Stage::Cut) { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }

    /// How many of these bytes may be written, if not all: behind a Close of ours stands nothing.
    fn poll_room(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> io::Result<usize> {
        self.poll_end(cx)?;
        let parting = self.tunnel.as_ref().filter(|_| self.door.live.is(Stage::Parting));
        Ok(parting.map_or(bytes.len(), |tunnel| tunnel.may_send(bytes)))
    }

    /// Looks at what was written.
    fn wrote(&mut self, bytes: &[u8]) {
        self.writes.fetch_add(1, Relaxed);
        match &mut self.manner {
            Manner::Http1(gate) => match &mut self.tunnel {
                Some(tunnel) => tunnel.sent(bytes),
                None => {
                    gate.answered(bytes);
                    self.tunnel = gate.is_tunnel().then(|| Box::new(Tunnel::after(bytes)));
                }
            },
            Manner::Http2(guard) => guard.sent(bytes, &self.door),
            Manner::Over(_) => {}
        }
    }
}

/// The status of a response head: `HTTP/1.1 400 …`.
fn status(head: &[u8]) -> StatusCode {
    head.get(9..12).and_then(|digits| StatusCode::from_bytes(digits).ok()).unwrap_or(StatusCode::BAD_REQUEST)
}

impl AsyncRead for Client {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.door.live.is(Stage::Closing) {
            this.poll_end(cx)?;
        }
        loop {
            match &mut this.manner {
                Manner::Http1(gate) => match ready!(gate.poll_read(&mut this.stream, &this.door.http1, cx, out))? {
                    None => return Poll::Ready(Ok(())),
                    Some(refused) => this.refuse(refused),
                },
                Manner::Http2(guard) => match ready!(guard.poll_read(&mut this.stream, &this.door, cx, out))? {
                    None => return Poll::Ready(Ok(())),
                    Some(farewell) => this.manner = Manner::Over(farewell.behind(this.gathered.left())),
                },
                Manner::Over(farewell) => return farewell.poll(&mut this.stream, cx).map(Ok),
            }
        }
    }
}

impl AsyncWrite for Client {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match this.manner {
            // What HTTP/2 still has to say would stand behind the end.
            Manner::Over(_) => return Poll::Ready(Ok(bytes.len())),
            _ if Clock::is_unread() => return this.poll_exchanged(cx, bytes),
            _ => {}
        }
        let mut bytes = bytes;
        if this.door.live.is(Stage::Closing) && !bytes.is_empty() {
            match this.poll_room(cx, bytes)? {
                0 => return Poll::Ready(Ok(bytes.len())),
                room => bytes = bytes.get(..room).unwrap_or(bytes),
            }
        }
        let written = this.gathered.poll_write(&mut this.stream, cx, bytes);
        if let Poll::Ready(Ok(length)) = written {
            this.wrote(bytes.get(..length).unwrap_or_default());
            // Behind what already waits it was only put aside: the client has taken nothing.
            if this.gathered.waits() > length {
                return written;
            }
        }
        this.patience.with(written, cx)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = match this.gathered.poll_out(&mut this.stream, cx) {
            Poll::Ready(Ok(())) => Pin::new(&mut this.stream).poll_flush(cx),
            unfinished => unfinished,
        };
        this.patience.with(flushed, cx)
    }

    /// An HTTP/2 connection is over with this; the client of an HTTP/1 connection may still be sending.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let is_ignored = matches!(&this.manner, Manner::Http2(guard) if guard.is_ended());
        if this.is_http2() && !is_ignored {
            this.fallen = None;
        }
        let ended = match this.gathered.poll_out(&mut this.stream, cx) {
            Poll::Ready(Ok(())) if is_ignored => Pin::new(&mut this.stream).poll_flush(cx),
            Poll::Ready(Ok(())) => Pin::new(&mut this.stream).poll_shutdown(cx),
            unfinished => unfinished,
        };
        this.patience.with(ended, cx)
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if matches!(this.manner, Manner::Over(_)) || Clock::is_unread() || this.door.live.is(Stage::Closing) {
            let first = bufs.iter().find(|buf| !buf.is_empty()).map_or(&[][..], |buf| buf);
            return Pin::new(this).poll_write(cx, first);
        }
        let written = this.gathered.poll_write_vectored(&mut this.stream, cx, bufs);
        if let Poll::Ready(Ok(all)) = written {
            let mut left = all;
            for buf in bufs {
                let length = left.min(buf.len());
                this.wrote(buf.get(..length).unwrap_or_default());
                left -= length;
            }
            if this.gathered.waits() > all {
                return written;
            }
        }
        this.patience.with(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[async_trait]
impl Shutdown for Client {
    async fn shutdown(&mut self) {
        self.fallen = None;
        self.farewell().part(&mut self.stream).await;
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let Some(fallen) = self.fallen.take() else { return };
        if Clock::is_cut() {
            // What was sent of the answer shows that it was cut: without it an answer that never came would be asked for again.
            let cx = &mut Context::from_waker(Waker::noop());
            let _ = self.gathered.poll_out(&mut self.stream, cx);
            let _ = Pin::new(&mut self.stream).poll_flush(cx);
            return;
        }
        let farewell = self.farewell();
        let stream = std::mem::replace(&mut self.stream, Box::new(io::Cursor::new(Vec::new())));
        // Without a receiver it is closed.
        let _ = fallen.send(Fallen(stream, farewell));
    }
}

#[async_trait]
impl Peek for Client {}

impl UniqueID for Client {
    fn id(&self) -> UniqueIDType {
        self.stream.id()
    }
}

impl Ssl for Client {
    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.stream.get_ssl_digest()
    }

    /// Also where the preface has told.
    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.is_http2().then_some(ALPN::H2)
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
