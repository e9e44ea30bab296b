//! HTTP/2 frames by hand: what a client of good faith sends, and what the others do.

/// How an HTTP/2 connection begins (RFC 9113 §3.4), with empty SETTINGS.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

pub const DATA: u8 = 0x0;
pub const HEADERS: u8 = 0x1;
pub const PRIORITY: u8 = 0x2;
pub const RST_STREAM: u8 = 0x3;
pub const SETTINGS: u8 = 0x4;
pub const PING: u8 = 0x6;
pub const GOAWAY: u8 = 0x7;
pub const WINDOW_UPDATE: u8 = 0x8;
pub const CONTINUATION: u8 = 0x9;

pub const END_STREAM: u8 = 0x1;
pub const ACK: u8 = 0x1;
pub const END_HEADERS: u8 = 0x4;

/// Appends a frame.
pub fn put(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    out.extend([length[1], length[2], length[3], kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(payload);
}

/// A header block that the table's state does not change: method, path and authority of a request.
pub fn block(method: u8, path: &str) -> Vec<u8> {
    let mut block = vec![method, 0x86];
    block.extend(literal(4, path));
    block.extend(literal(1, "a.example"));
    block
}

/// `:method: GET` and `:method: POST` in the static table (RFC 7541, appendix A).
pub const GET: u8 = 0x82;
pub const POST: u8 = 0x83;

/// A field with an indexed name that is not to be indexed; the value is shorter than 127 bytes.
fn literal(name: u8, value: &str) -> Vec<u8> {
    [&[name, u8::try_from(value.len()).unwrap_or_default()], value.as_bytes()].concat()
}

/// A field `x` of 3,968 bytes that is put into the dynamic table, which it fills.
pub fn large_entry() -> Vec<u8> {
    let length: usize = 3968;
    // 7-bit prefix of ones, the rest in two parts (RFC 7541 §5.1).
    let rest = length - 127;
    let mut field = vec![0x40, 1, b'x', 0x7f, (rest % 128) as u8 | 0x80, (rest / 128) as u8];
    field.extend(std::iter::repeat_n(b'v', length));
    field
}

/// A reference to the newest entry of the dynamic table.
pub const NEWEST: u8 = 0x80 | 62;
