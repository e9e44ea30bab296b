//! HTTP/1.1 as it stands on the wire: read strictly, so that what the gateway gets wrong fails a test.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
    time::Duration,
};

use super::PATIENCE;

/// Both directions of a connection, plain or TLS.
pub trait Stream: Read + Write + Send {
    /// The socket below.
    fn socket(&self) -> &TcpStream;
}

impl Stream for TcpStream {
    fn socket(&self) -> &TcpStream {
        self
    }
}

/// One side of an HTTP/1.1 connection.
pub struct Wire {
    stream: BufReader<Box<dyn Stream>>,
}

/// The head of a message: its first line and its fields, in order and as written.
#[derive(Clone, Debug, Default)]
pub struct Head {
    pub line: String,
    pub fields: Vec<(String, String)>,
}

/// A response, whole.
#[derive(Clone, Debug, Default)]
pub struct Response {
    pub status: u16,
    pub head: Head,
    pub body: Vec<u8>,
}

/// How the end of a body is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Framing {
    None,
    Length(u64),
    Chunked,
    Close,
}

impl Wire {
    pub fn over(stream: impl Stream + 'static) -> Self {
        stream.socket().set_read_timeout(Some(PATIENCE)).unwrap();
        stream.socket().set_write_timeout(Some(PATIENCE)).unwrap();
        stream.socket().set_nodelay(true).unwrap();
        Self { stream: BufReader::new(Box::new(stream)) }
    }

    pub fn socket(&self) -> &TcpStream {
        self.stream.get_ref().socket()
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes.as_ref())?;
        self.stream.get_mut().flush()
    }

    /// One chunk of a chunked body.
    pub fn send_chunk(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        let bytes = bytes.as_ref();
        self.send([format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat())
    }

    /// A head, or `None` if the other side closed before it began one.
    pub fn head(&mut self) -> io::Result<Option<Head>> {
        let Some(line) = self.line()? else { return Ok(None) };
        let mut head = Head { line, fields: Vec::new() };
        loop {
            let line = self.line()?.ok_or_else(|| broken("closed inside a head"))?;
            if line.is_empty() {
                return Ok(Some(head));
            }
            let (name, value) = line.split_once(':').ok_or_else(|| broken(format!("no colon in field `{line}`")))?;
            if name.is_empty() || name.contains([' ', '\t']) {
                return Err(broken(format!("blank in field name `{name}`")));
            }
            head.fields.push((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()));
        }
    }

    /// A line without its end, which must be CRLF.
    fn line(&mut self) -> io::Result<Option<String>> {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Ok(None);
        }
        let text = line.strip_suffix(b"\r\n").ok_or_else(|| broken(format!("line without CRLF: {}", line.escape_ascii())))?;
        String::from_utf8(text.to_vec()).map(Some).map_err(broken)
    }

    /// A whole body. What came before an error stays in `body`.
    pub fn body(&mut self, framing: Framing, body: &mut Vec<u8>) -> io::Result<()> {
        match framing {
            Framing::None => Ok(()),
            Framing::Length(length) => self.exactly(length, body),
            Framing::Chunked => {
                while let Some(chunk) = self.chunk()? {
                    body.extend(chunk);
                }
                Ok(())
            }
            Framing::Close => self.stream.read_to_end(body).map(drop),
        }
    }

    fn exactly(&mut self, length: u64, body: &mut Vec<u8>) -> io::Result<()> {
        let read = (&mut self.stream).take(length).read_to_end(body)?;
        match read as u64 == length {
            true => Ok(()),
            false => Err(broken(format!("closed after {read} of {length} bytes"))),
        }
    }

    /// The next chunk of a chunked body, or `None` at its end.
    pub fn chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let line = self.line()?.ok_or_else(|| broken("closed between chunks"))?;
        let size = u64::from_str_radix(line.split(';').next().unwrap_or_default(), 16).map_err(broken)?;
        let mut chunk = Vec::new();
        self.exactly(size, &mut chunk)?;
        let end = self.line()?.ok_or_else(|| broken("closed inside a chunk"))?;
        match (size, end.as_str()) {
            (0, "") => Ok(None),
            (_, "") => Ok(Some(chunk)),
            _ => Err(broken(format!("chunk does not end with CRLF but `{end}`"))),
        }
    }

    /// Whatever comes next, up to `buffer`'s length; 0 at the end.
    pub fn some(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer)
    }

    /// Everything up to the end of the stream.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let _ = self.stream.read_to_end(&mut rest);
        rest
    }

    /// Whether the other side closes within `time` and sends nothing before.
    pub fn closes_within(&mut self, time: Duration) -> bool {
        self.socket().set_read_timeout(Some(time)).unwrap();
        let end = self.stream.fill_buf().map(<[u8]>::is_empty);
        self.socket().set_read_timeout(Some(PATIENCE)).unwrap();
        match end {
            Ok(closed) => closed,
            Err(e) => e.kind() == io::ErrorKind::ConnectionReset,
        }
    }
}

impl Head {
    /// The value of a field that stands once; several are an error of the test's subject.
    #[track_caller]
    pub fn field(&self, name: &str) -> Option<&str> {
        let values = self.all(name);
        assert!(values.len() < 2, "{name} stands {} times in {self:#?}", values.len());
        values.first().copied()
    }

    /// All values of a field, in order.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str()).collect()
    }

    /// How the body of a request ends.
    pub fn request_framing(&self) -> io::Result<Framing> {
        Ok(match self.framing()? {
            Framing::Close => Framing::None,
            framing => framing,
        })
    }

    /// How the body of a response to `method` ends. RFC 9112 §6.3.
    pub fn response_framing(&self, method: &str) -> io::Result<Framing> {
        match self.status()? {
            _ if method == "HEAD" => Ok(Framing::None),
            100..200 | 204 | 304 => Ok(Framing::None),
            _ => self.framing(),
        }
    }

    fn framing(&self) -> io::Result<Framing> {
        match (self.all("transfer-encoding").as_slice(), self.all("content-length").as_slice()) {
            ([], []) => Ok(Framing::Close),
            ([], [length]) => length.parse().map(Framing::Length).map_err(broken),
            ([coding], []) if coding.eq_ignore_ascii_case("chunked") => Ok(Framing::Chunked),
            (codings, lengths) => Err(broken(format!("ambiguous framing: {codings:?} {lengths:?}"))),
        }
    }

    pub fn status(&self) -> io::Result<u16> {
        let code = self.line.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
        code.and_then(|code| code.parse().ok()).ok_or_else(|| broken(format!("bad status line `{}`", self.line)))
    }

    /// As on the wire, with bare line feeds.
    pub fn text(&self) -> String {
        let fields = self.fields.iter().map(|(name, value)| format!("{name}: {value}\n"));
        format!("{}\n{}", self.line, fields.collect::<String>())
    }
}

impl Response {
    /// A header that stands once.
    #[track_caller]
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.field(name)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e} in {}", self.text()))
    }
}

pub fn broken(why: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_string())
}
