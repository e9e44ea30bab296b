//! A client that sends exactly what it is told and reads strictly.

use std::{
    io,
    net::{SocketAddr, TcpStream},
    sync::Arc,
};

use rustls::{ClientConfig, ClientConnection, StreamOwned, pki_types::ServerName};
use tokio::net::TcpSocket;

use super::{
    PATIENCE,
    wire::{Head, Response, Stream, Wire},
};

impl Stream for StreamOwned<ClientConnection, TcpStream> {
    fn socket(&self) -> &TcpStream {
        &self.sock
    }
}

/// A connection to the gateway.
pub struct Connection(pub Wire);

impl Connection {
    pub fn open(address: SocketAddr) -> Self {
        Self(Wire::over(connect(address)))
    }

    /// From a loopback address other than the usual one.
    pub fn open_from(source: [u8; 4], address: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let stream = runtime.block_on(async {
            let socket = TcpSocket::new_v4()?;
            socket.bind((source, 0).into())?;
            socket.connect(address).await?.into_std()
        });
        let stream = stream.unwrap_or_else(|e| panic!("{address} from {source:?}: {e}"));
        stream.set_nonblocking(false).expect("a socket");
        Self(Wire::over(stream))
    }

    /// Speaks TLS to the name given.
    ///
    /// # Errors
    /// When the handshake fails.
    pub fn tls(address: SocketAddr, name: &str, config: Arc<ClientConfig>) -> io::Result<Self> {
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let client = ClientConnection::new(config, name).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(client, connect(address));
        stream.sock.set_read_timeout(Some(PATIENCE))?;
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Self(Wire::over(stream)))
    }

    /// Sends bytes as they are.
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.0.send(bytes).expect("the gateway takes what we send");
        self
    }

    /// Sends a head written with bare line feeds, without the empty line at its end.
    #[track_caller]
    pub fn send_head(&mut self, head: &str) -> &mut Self {
        self.send(wire_head(head))
    }

    /// Sends a head, reads the answer.
    #[track_caller]
    pub fn ask(&mut self, head: &str) -> Response {
        self.send_head(head).response(method_of(head))
    }

    /// The next bytes, so many; fewer if the stream ends.
    pub fn exactly(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        let mut read = 0;
        while read < count
            && let Ok(more @ 1..) = self.0.some(&mut bytes[read..])
        {
            read += more;
        }
        bytes.truncate(read);
        bytes
    }

    /// The head of the next final response.
    #[track_caller]
    pub fn head(&mut self) -> Head {
        self.try_head().unwrap_or_else(|e| panic!("no response head: {e}"))
    }

    pub fn try_head(&mut self) -> io::Result<Head> {
        loop {
            let head = self.0.head()?.ok_or(io::ErrorKind::UnexpectedEof)?;
            match head.status()? {
                100 | 102..200 => continue,
                _ => return Ok(head),
            }
        }
    }

    /// The next final response, whole.
    #[track_caller]
    pub fn response(&mut self, method: &str) -> Response {
        self.try_response(method).unwrap_or_else(|e| panic!("no whole response: {e}"))
    }

    /// # Errors
    /// When the response is not whole or not HTTP.
    pub fn try_response(&mut self, method: &str) -> io::Result<Response> {
        let head = self.try_head()?;
        let mut body = Vec::new();
        self.0.body(head.response_framing(method)?, &mut body)?;
        Ok(Response { status: head.status()?, head, body })
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect_timeout(&address, PATIENCE).unwrap_or_else(|e| panic!("{address}: {e}"))
}

/// A head with the line ends that go on the wire.
pub fn wire_head(head: &str) -> String {
    format!("{}\r\n\r\n", head.trim_end_matches('\n').replace('\n', "\r\n"))
}

/// The method in the first line of a head.
pub fn method_of(head: &str) -> &str {
    head.split(' ').next().unwrap_or_default()
}
