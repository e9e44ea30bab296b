//! The client: HTTP/1.1 over bare sockets, for little of its own in what is measured; HTTP/2 by hyper; TLS by rustls.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::identity::HOST;

/// How a client speaks.
#[derive(Clone)]
pub enum Speech {
    Http1,
    /// HTTP/1.1 over TLS.
    Tls(Arc<ClientConfig>),
    /// HTTP/2 over TLS.
    Http2(Arc<ClientConfig>),
    /// HTTP/1.1 over a TLS connection of its own for each request, or with none a plain one.
    Fresh(Option<Arc<ClientConfig>>),
}

/// A request, and what its answer must be.
#[derive(Clone, Debug)]
pub struct Ask {
    path: String,
    body: Bytes,
    raw: Vec<u8>,
    pub status: u16,
    /// Bytes of the answer's body.
    pub length: usize,
    /// Whether it may be refused instead, with 429.
    pub may_be_refused: bool,
}

impl Ask {
    /// A GET that is answered with 200 and so many bytes.
    pub fn get(path: &str, length: usize) -> Self {
        let raw = format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\nUser-Agent: loadtest\r\nAccept: */*\r\n\r\n").into_bytes();
        Self { path: path.to_owned(), body: Bytes::new(), raw, status: 200, length, may_be_refused: false }
    }

    /// A GET with this header field.
    pub fn get_with(path: &str, field: (&'static str, &str), length: usize) -> Self {
        let (name, value) = field;
        let raw =
            format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\nUser-Agent: loadtest\r\nAccept: */*\r\n{name}: {value}\r\n\r\n")
                .into_bytes();
        Self { raw, ..Self::get(path, length) }
    }

    /// The same as a POST with so many bytes of body.
    pub fn post(path: &str, body: usize, length: usize) -> Self {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {HOST}\r\nUser-Agent: loadtest\r\nAccept: */*\r\nContent-Length: {body}\r\n\r\n"
        );
        let body = Bytes::from(vec![b'x'; body]);
        let raw = [head.as_bytes(), &body].concat();
        Self { path: path.to_owned(), body, raw, status: 200, length, may_be_refused: false }
    }

    /// The same with a token, over HTTP/1.1.
    pub fn bearing(mut self, token: &str) -> Self {
        let head = self.raw.len() - self.body.len() - b"\r\n".len();
        self.raw.splice(head..head, format!("Authorization: Bearer {token}\r\n").into_bytes());
        self
    }

    /// The same, which a limit may refuse.
    pub fn or_refused(self) -> Self {
        Self { may_be_refused: true, ..self }
    }

    /// Bytes of its body.
    pub fn sent(&self) -> usize {
        self.body.len()
    }

    fn request(&self) -> http::Request<Full<Bytes>> {
        let method = if self.body.is_empty() { http::Method::GET } else { http::Method::POST };
        let request = http::Request::builder().method(method).uri(format!("https://{HOST}{}", self.path));
        let request = request.header("user-agent", "loadtest").header("accept", "*/*");
        request.body(Full::new(self.body.clone())).expect("a request of this file")
    }

    fn judge(&self, status: u16, length: usize) -> io::Result<()> {
        if (status, length) == (self.status, self.length) || (self.may_be_refused && status == 429) {
            return Ok(());
        }
        let expected = format!("{} with {} bytes was expected", self.status, self.length);
        Err(io::Error::other(format!("{status} with {length} bytes; {expected}, for {}", self.path)))
    }
}

/// One connection, or one stream of HTTP/2.
pub enum Client {
    Plain(Wire<TcpStream>),
    Tls(Box<Wire<TlsStream<TcpStream>>>),
    Http2(SendRequest<Full<Bytes>>),
    Fresh(SocketAddr, Option<Arc<ClientConfig>>),
}

/// Streams on a connection of HTTP/2.
pub const STREAMS: usize = 8;

impl Client {
    /// Opens one connection, with all that may ask on it.
    pub async fn open(target: SocketAddr, speech: &Speech) -> io::Result<Vec<Self>> {
        Ok(match speech {
            Speech::Http1 => vec![Self::Plain(Wire::over(connect(target).await?))],
            Speech::Tls(config) => vec![Self::Tls(Box::new(Wire::over(shaken(connect(target).await?, config).await?)))],
            Speech::Http2(config) => {
                let sender = http2(shaken(connect(target).await?, config).await?).await?;
                (0..STREAMS).map(|_| Self::Http2(sender.clone())).collect()
            }
            Speech::Fresh(config) => vec![Self::Fresh(target, config.clone())],
        })
    }

    /// Asks once. What does not answer as it must is an error.
    pub async fn ask(&mut self, ask: &Ask) -> io::Result<()> {
        match self {
            Self::Plain(wire) => wire.ask(ask).await,
            Self::Tls(wire) => wire.ask(ask).await,
            Self::Http2(sender) => {
                let answer = sender.send_request(ask.request()).await.map_err(io::Error::other)?;
                let status = answer.status().as_u16();
                let mut body = answer.into_body();
                let mut length = 0;
                while let Some(frame) = body.frame().await {
                    length += frame.map_err(io::Error::other)?.data_ref().map_or(0, Bytes::len);
                }
                ask.judge(status, length)
            }
            Self::Fresh(target, config) => {
                let stream = connect_from_anywhere(*target).await?;
                match config {
                    Some(config) => Wire::over(shaken(stream, config).await?).ask(ask).await,
                    None => Wire::over(stream).ask(ask).await,
                }
            }
        }
    }
}

async fn connect(target: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(target).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// From one of many addresses of loopback in turn: a port of an address is not to be had again for a minute after its connection's end.
async fn connect_from_anywhere(target: SocketAddr) -> io::Result<TcpStream> {
    static TURN: AtomicU32 = AtomicU32::new(0);
    let turn = TURN.fetch_add(1, Relaxed);
    let source = Ipv4Addr::from(u32::from(Ipv4Addr::LOCALHOST) + 1 + turn % 250);
    let socket = TcpSocket::new_v4()?;
    socket.bind((source, 0).into())?;
    let stream = socket.connect(target).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A handshake of TLS 1.3 that agrees on the protocol that was offered.
async fn shaken(stream: TcpStream, config: &Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
    let name = HOST.try_into().map_err(io::Error::other)?;
    let stream = TlsConnector::from(config.clone()).connect(name, stream).await?;
    let agreed = stream.get_ref().1.alpn_protocol();
    if agreed.is_some() && agreed == config.alpn_protocols.first().map(Vec::as_slice) {
        return Ok(stream);
    }
    Err(io::Error::other(format!("ALPN agreed on {:?}", agreed.map(String::from_utf8_lossy))))
}

async fn http2(stream: TlsStream<TcpStream>) -> io::Result<SendRequest<Full<Bytes>>> {
    let builder = http2::Builder::new(TokioExecutor::new());
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    tokio::spawn(connection);
    Ok(sender)
}

/// A connection of HTTP/1.1.
pub struct Wire<S> {
    stream: S,
    read: Vec<u8>,
}

/// Most fields of an answer.
const FIELDS: usize = 32;

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    fn over(stream: S) -> Self {
        Self { stream, read: Vec::with_capacity(16 << 10) }
    }

    async fn ask(&mut self, ask: &Ask) -> io::Result<()> {
        self.stream.write_all(&ask.raw).await?;
        self.stream.flush().await?;
        self.read.clear();
        let (status, head, length) = loop {
            self.more().await?;
            if let Some(found) = head(&self.read)? {
                break found;
            }
        };
        while self.read.len() < head + length {
            self.more().await?;
        }
        ask.judge(status, self.read.len() - head)
    }

    async fn more(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.read).await? {
            0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed before the answer's end")),
            _ => Ok(()),
        }
    }
}

/// Status, bytes of the head and bytes of the body, once the head is whole.
fn head(read: &[u8]) -> io::Result<Option<(u16, usize, usize)>> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut answer = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(head) = answer.parse(read).map_err(io::Error::other)? else { return Ok(None) };
    let length = answer.headers.iter().find(|field| field.name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|field| std::str::from_utf8(field.value).ok()?.parse().ok());
    let status = answer.code.unwrap_or_default();
    let length = length.ok_or_else(|| io::Error::other(format!("{status} without Content-Length")))?;
    Ok(Some((status, head, length)))
}
