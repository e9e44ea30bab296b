//! HTTP/2, frame by frame, from a client that sends whatever it is told.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
};

use super::{Gateway, PATIENCE};

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Frame types. Source: RFC 9113 §6.
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

/// Flags: END_STREAM is ACK too.
pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// Error codes. Source: RFC 9113 §7.
pub const NO_ERROR: u32 = 0;
pub const PROTOCOL_ERROR: u32 = 1;
pub const FLOW_CONTROL_ERROR: u32 = 3;
pub const STREAM_CLOSED: u32 = 5;
pub const FRAME_SIZE_ERROR: u32 = 6;
pub const REFUSED_STREAM: u32 = 7;
pub const CANCEL: u32 = 8;
pub const COMPRESSION_ERROR: u32 = 9;
pub const ENHANCE_YOUR_CALM: u32 = 11;

#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// The error code of RST_STREAM or GOAWAY.
    pub fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }

    /// The status at the start of a response's header block: a field of the static table (RFC 7541, appendix A) or a literal.
    pub fn status(&self) -> String {
        match self.payload[0] {
            0x88 => "200".to_owned(),
            0x8c => "400".to_owned(),
            other => format!("a header block that begins with {other:#x}"),
        }
    }
}

/// An HTTP/2 client that sends whatever it is told.
pub struct Raw(pub TcpStream);

impl Raw {
    /// A connection after the handshake.
    pub fn open(gateway: &Gateway) -> Self {
        let mut raw = Self::unspoken(gateway);
        raw.send(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat());
        raw.until(|frame| frame.kind == SETTINGS && frame.flags == ACK).expect("our settings are acknowledged");
        raw.send(&frame(SETTINGS, ACK, 0, &[]));
        raw
    }

    /// A connection on which nothing was said yet.
    pub fn unspoken(gateway: &Gateway) -> Self {
        let stream = TcpStream::connect(gateway.web()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self(stream)
    }

    /// Sends; a gateway that gave up the connection before may have closed it.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes);
    }

    /// The next frame, or none at the end of the connection.
    pub fn frame(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).ok()?;
        let [a, b, c, kind, flags, s0, s1, s2, s3] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.0.read_exact(&mut payload).ok()?;
        Some(Frame { kind, flags, stream: u32::from_be_bytes([s0, s1, s2, s3]), payload })
    }

    /// Whether the gateway gives the connection up: it says so, or closes without.
    pub fn ends(&mut self) -> bool {
        loop {
            let mut byte = [0];
            match self.0.peek(&mut byte).map_err(|e| e.kind()) {
                Ok(0) => return true,
                Ok(_) if self.frame().is_some_and(|frame| frame.kind == GOAWAY) => return true,
                Ok(_) => continue,
                Err(kind) => return kind == ErrorKind::ConnectionReset,
            }
        }
    }

    pub fn until(&mut self, wanted: impl Fn(&Frame) -> bool) -> Option<Frame> {
        std::iter::from_fn(|| self.frame()).find(wanted)
    }
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header block of literals: no index, no Huffman coding (RFC 7541 §6.2.2).
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    fields.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect()
}

pub const GET: [(&str, &str); 4] = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a")];
pub const POST: [(&str, &str); 4] = [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "a")];
