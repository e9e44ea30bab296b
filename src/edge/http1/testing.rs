//! Heads made up for tests.

use proptest::prelude::*;

use super::head::Limits;

pub const LIMITS: Limits = Limits { request_line: 8000, fields: 65536, count: 256 };

/// What heads are made of, good and bad.
const PIECES: [&str; 72] = [
    "\r\n",
    "\r\n",
    "\r\n",
    "\r\n",
    "\r\n\r\n",
    "\r",
    "\n",
    "\t",
    " ",
    "  ",
    ":",
    ": ",
    " :",
    ",",
    ";",
    "=",
    "\0",
    "\x0b",
    "\x7f",
    "\u{fc}",
    "GET / HTTP/1.1\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\n",
    "POST /a?b HTTP/1.1\r\nHost: shop.example:80\r\n",
    "GET / HTTP/1.0\r\n",
    "OPTIONS * HTTP/1.1\r\n",
    "CONNECT a:1 HTTP/1.1\r\n",
    "PRI * HTTP/2.0\r\n",
    "GET /\r\n",
    "GET ",
    "PATCH",
    "/",
    "*",
    " HTTP/1.1",
    " HTTP/1.0",
    "http/1.1",
    "HTTP/1.2",
    "Host",
    "Host: a",
    "Host: [::1]:80\r\n",
    "host: a b",
    "HOST:a\r\n",
    "Content-Length",
    "Content-Length: 5\r\n",
    "content-length:0\r\n",
    "Content-Length: +1",
    "Content_Length: 7\r\n",
    "Transfer-Encoding",
    "Transfer-Encoding: chunked\r\n",
    "TRANSFER-ENCODING:\tChunked \r\n",
    "Transfer-Encoding: gzip, chunked\r\n",
    "chunked",
    "gzip",
    "identity",
    "5",
    "18446744073709551616",
    "9223372036854775807",
    "-",
    "X: y\r\n",
    "X:\r\n",
    "X: a\tb\r\n",
    "X-\u{e9}: y\r\n",
    "X y: z\r\n",
    "!#$%&'*+-.^_`|~:\r\n",
    "Upgrade: websocket\r\n",
    "Connection: keep-alive, Upgrade\r\n",
    "Expect: 100-continue\r\n",
    "\r\n folded",
    "\"",
    "@",
    "user@a",
    "a,b",
    "é: ü\r\n",
];

/// Near to heads.
pub fn heads() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        30 => proptest::sample::select(&PIECES[..]).prop_map(|piece| piece.as_bytes().to_vec()),
        1 => any::<u8>().prop_map(|byte| vec![byte]),
    ];
    let start =
        proptest::sample::select(&["", "GET / HTTP/1.1\r\nHost: a\r\n", "GET / HTTP/1.0\r\n", "\r\nPUT /x HTTP/1.1\r\n"][..]);
    let end = proptest::sample::select(&["", "\r\n", "\r\n\r\n"][..]);
    (start, proptest::collection::vec(piece, 0..12), end)
        .prop_map(|(start, middle, end)| [start.as_bytes(), &middle.concat(), end.as_bytes()].concat())
}
