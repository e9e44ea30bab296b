//! HTTP/2 clients and services, and HTTP/1.1 ones over TLS.

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{
    body::{Frame, Incoming},
    client::conn::http2::{SendRequest, handshake},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ClientConfig, ServerConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot},
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::PATIENCE;

pub type Body = BoxBody<Bytes, Infallible>;

/// Runs a client's story to its end.
#[track_caller]
pub fn play<T>(story: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE * 2, story).await.expect("it ends in time") })
}

/// An HTTP/2 connection without TLS, by prior knowledge.
pub async fn h2c(address: SocketAddr) -> SendRequest<Body> {
    client(TcpStream::connect(address).await.unwrap()).await
}

/// An HTTP/2 connection over TLS, chosen by ALPN.
pub async fn h2(address: SocketAddr, name: &str, config: Arc<ClientConfig>) -> SendRequest<Body> {
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let stream = TlsConnector::from(config).connect(name, stream).await.expect("TLS");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]), "ALPN chose HTTP/2");
    client(stream).await
}

/// An HTTP/2 connection over a stream of any kind.
pub async fn client(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> SendRequest<Body> {
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
    tokio::spawn(connection);
    sender
}

/// A body that is known whole.
pub fn full(body: impl Into<Bytes>) -> Body {
    Full::new(body.into()).boxed()
}

/// A body of these frames.
pub fn frames(frames: impl IntoIterator<Item = Frame<Bytes>>) -> Body {
    Frames(frames.into_iter().collect()).boxed()
}

/// A body that is sent as the test goes, and where to send it.
pub fn stream() -> (mpsc::UnboundedSender<Frame<Bytes>>, Body) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (sender, Flow(receiver).boxed())
}

struct Frames(VecDeque<Frame<Bytes>>);

struct Flow(mpsc::UnboundedReceiver<Frame<Bytes>>);

impl hyper::body::Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }
}

impl hyper::body::Body for Flow {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|frame| frame.map(Ok))
    }
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub head: http::response::Parts,
    pub body: Bytes,
    pub trailers: Option<HeaderMap>,
    /// The head was the end of the stream.
    pub head_only: bool,
}

impl Answer {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Sends a request and reads the whole answer.
pub async fn ask(sender: &mut SendRequest<Body>, request: Request<Body>) -> Answer {
    sender.ready().await.expect("the connection is open");
    read(sender.send_request(request).await.expect("an answer")).await
}

pub async fn read(response: Response<Incoming>) -> Answer {
    let head_only = hyper::body::Body::is_end_stream(response.body());
    let (head, body) = response.into_parts();
    let body = body.collect().await.expect("a whole body");
    let trailers = body.trailers().cloned();
    Answer { head, body: body.to_bytes(), trailers, head_only }
}

/// A service that speaks HTTP/2 (or HTTP/1.1 over TLS) and records the requests it saw. Ends when dropped.
pub struct Service {
    pub address: SocketAddr,
    seen: Arc<Seen>,
    _end: oneshot::Sender<()>,
}

#[derive(Default)]
struct Seen {
    requests: Mutex<Vec<Request<Bytes>>>,
    connections: AtomicUsize,
}

/// What a service answers to a request whose body is read.
pub type Answering = fn(&Request<Bytes>) -> Response<Body>;

impl Service {
    pub fn h2c(answer: Answering) -> Self {
        Self::start(None, answer)
    }

    /// Speaks HTTP/2 if the client's ALPN chooses it, else HTTP/1.1.
    pub fn tls(config: Arc<ServerConfig>, answer: Answering) -> Self {
        Self::start(Some(config), answer)
    }

    fn start(tls: Option<Arc<ServerConfig>>, answer: Answering) -> Self {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        let (end, ended) = oneshot::channel();
        let serving = serve(listener, tls, seen.clone(), answer);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                tokio::select! { () = serving => {}, _ = ended => {} }
            });
        });
        Self { address, seen, _end: end }
    }

    pub fn requests(&self) -> Vec<Request<Bytes>> {
        self.seen.requests.lock().unwrap().clone()
    }

    pub fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    #[track_caller]
    pub fn last(&self) -> Request<Bytes> {
        self.requests().pop().expect("a request came")
    }
}

impl std::fmt::Display for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.address.fmt(f)
    }
}

async fn serve(listener: std::net::TcpListener, tls: Option<Arc<ServerConfig>>, seen: Arc<Seen>, answer: Answering) {
    let listener = TcpListener::from_std(listener).unwrap();
    while let Ok((stream, _)) = listener.accept().await {
        seen.connections.fetch_add(1, Ordering::SeqCst);
        let (tls, seen) = (tls.clone(), seen.clone());
        tokio::spawn(async move {
            let Some(tls) = tls else { return http2(stream, seen, answer).await };
            let Ok(stream) = TlsAcceptor::from(tls).accept(stream).await else { return };
            match stream.get_ref().1.alpn_protocol() {
                Some(b"h2") => http2(stream, seen, answer).await,
                _ => http1(stream, seen, answer).await,
            }
        });
    }
}

async fn http2(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, seen: Arc<Seen>, answer: Answering) {
    let service = service_fn(move |request| respond(request, seen.clone(), answer));
    let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
}

async fn http1(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, seen: Arc<Seen>, answer: Answering) {
    let service = service_fn(move |request| respond(request, seen.clone(), answer));
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn respond(request: Request<Incoming>, seen: Arc<Seen>, answer: Answering) -> Result<Response<Body>, hyper::Error> {
    let (head, body) = request.into_parts();
    let request = Request::from_parts(head, body.collect().await?.to_bytes());
    seen.requests.lock().unwrap().push(request.clone());
    Ok(answer(&request))
}
