//! A service that looks at who comes before it serves: the PROXY header, the certificate, and which requests came on which connection.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use banyan::proxy_protocol::{Parsed, parse};
use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{HandshakeKind, ServerConfig, pki_types::CertificateDer};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::oneshot,
};
use tokio_rustls::TlsAcceptor;

use super::{eventually, h2::Answering};

/// A service on a port of its own. Ends when dropped.
pub struct Reception {
    pub address: SocketAddr,
    guests: Guests,
    _end: oneshot::Sender<()>,
}

type Guests = Arc<Mutex<Vec<Guest>>>;

/// A connection that was let in.
#[derive(Clone, Debug, Default)]
pub struct Guest {
    /// Its PROXY header, as it came.
    pub header: Vec<u8>,
    /// The certificate that it showed.
    pub certificate: Option<CertificateDer<'static>>,
    /// Its TLS session was one that had been before.
    pub resumed: bool,
    /// Methods and targets.
    pub requests: Vec<String>,
}

/// Who is let in, and how it is spoken to.
#[derive(Clone, Default)]
pub struct Terms {
    /// Every connection must begin with a PROXY header.
    pub header: bool,
    /// Without TLS, HTTP/2 is spoken. With TLS, ALPN chooses.
    pub h2c: bool,
    pub tls: Option<Arc<ServerConfig>>,
}

impl Reception {
    pub fn start(terms: Terms, answer: Answering) -> Self {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let guests = Guests::default();
        let (end, ended) = oneshot::channel();
        let serving = serve(listener, terms, guests.clone(), answer);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                tokio::select! { () = serving => {}, _ = ended => {} }
            });
        });
        Self { address, guests, _end: end }
    }

    /// Who was let in, in the order in which they came.
    pub fn guests(&self) -> Vec<Guest> {
        self.guests.lock().unwrap().clone()
    }

    /// The requests of each connection.
    pub fn requests(&self) -> Vec<Vec<String>> {
        self.guests().into_iter().map(|guest| guest.requests).collect()
    }

    /// The connection that this request came on, or will come on.
    #[track_caller]
    pub fn guest_of(&self, request: &str) -> Guest {
        eventually(request, || self.guests().into_iter().find(|guest| guest.requests.iter().any(|made| made == request)))
    }
}

impl std::fmt::Display for Reception {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.address.fmt(f)
    }
}

async fn serve(listener: std::net::TcpListener, terms: Terms, guests: Guests, answer: Answering) {
    let listener = TcpListener::from_std(listener).unwrap();
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(receive(stream, terms.clone(), guests.clone(), answer));
    }
}

/// Closes on whoever does not keep to the terms.
async fn receive(mut stream: TcpStream, terms: Terms, guests: Guests, answer: Answering) {
    let mut guest = Guest::default();
    if terms.header {
        let Some(header) = header(&mut stream).await else { return };
        guest.header = header;
    }
    let Some(tls) = terms.tls else { return converse(stream, terms.h2c, admit(&guests, guest), guests, answer).await };
    let Ok(stream) = TlsAcceptor::from(tls).accept(stream).await else { return };
    let session = stream.get_ref().1;
    let http2 = session.alpn_protocol() == Some(b"h2");
    guest.certificate = session.peer_certificates().and_then(|chain| chain.first()).map(|leaf| leaf.clone().into_owned());
    guest.resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
    converse(stream, http2, admit(&guests, guest), guests, answer).await;
}

/// Reads a header byte by byte, so that nothing after it is taken.
async fn header(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        bytes.push(stream.read_u8().await.ok()?);
        match parse(&bytes) {
            Parsed::Partial => {}
            Parsed::Done { .. } => return Some(bytes),
            Parsed::Bad(_) => return None,
        }
    }
}

/// Enters the guest in the book, and gives its number.
fn admit(guests: &Guests, guest: Guest) -> usize {
    let mut guests = guests.lock().unwrap();
    guests.push(guest);
    guests.len() - 1
}

async fn converse<S>(stream: S, http2: bool, number: usize, guests: Guests, answer: Answering)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let guests = guests.clone();
        async move {
            let (head, body) = request.into_parts();
            let request = Request::from_parts(head, body.collect().await?.to_bytes());
            guests.lock().unwrap()[number].requests.push(told(&request));
            Ok::<_, hyper::Error>(answer(&request))
        }
    });
    let stream = TokioIo::new(stream);
    let _ = match http2 {
        true => hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(stream, service).await,
        false => hyper::server::conn::http1::Builder::new().serve_connection(stream, service).await,
    };
}

fn told(request: &Request<Bytes>) -> String {
    format!("{} {}", request.method(), request.uri().path())
}
