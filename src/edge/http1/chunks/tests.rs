use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

type Walked = Result<Progress, BadChunk>;

/// Fed in parts of these lengths, then the rest.
fn fed(bytes: &[u8], parts: &[usize]) -> Walked {
    let mut chunks = Chunks::default();
    let mut start = 0;
    for part in parts.iter().chain([&usize::MAX]) {
        let end = bytes.len().min(start + part.min(&bytes.len()));
        let progress = chunks.advance(&bytes[start..end])?;
        start += progress.taken;
        if progress.whole {
            return Ok(Progress { taken: start, whole: true });
        }
        assert_eq!(start, end, "all are taken until the end");
    }
    Ok(Progress { taken: start, whole: false })
}

fn check(bytes: impl AsRef<[u8]>, expected: Walked) {
    let bytes = bytes.as_ref();
    assert_eq!(fed(bytes, &[]), expected, "{}", bytes.escape_ascii());
    assert_eq!(fed(bytes, &vec![1; bytes.len()]), expected, "{} by the byte", bytes.escape_ascii());
}

/// The whole body, with what follows it.
fn ends(body: &str) {
    let progress = Ok(Progress { taken: body.len(), whole: true });
    check(body, progress);
    check(format!("{body}GET / HTTP/1.1\r\n"), progress);
    for cut in 0..body.len() {
        check(&body[..cut], Ok(Progress { taken: cut, whole: false }));
    }
}

fn refused(body: impl AsRef<[u8]>, expected: BadChunk) {
    check(body, Err(expected));
}

#[test]
fn a_body_ends_after_its_trailers() {
    ends("0\r\n\r\n");
    ends("5\r\nhello\r\n0\r\n\r\n");
    ends("00a\r\n0123456789\r\nA\r\n\r\n\r\n00\r\n\r\n\r\n00\r\n\r\n");
    ends("1;a=\"b c\";d\r\nx\r\n0;e\r\n\r\n");
    ends("0\r\nX: a\tb\r\nHosts:c\r\nHos:d\r\nTransfer-Encodings:\r\n\r\n");
    ends("0000000000000001\r\nx\r\n0\r\n\r\n");
}

#[test]
fn a_large_chunk_is_followed() {
    check("7fffffffffffffff\r\nx", Ok(Progress { taken: 19, whole: false }));
    let mut chunks = Chunks::default();
    let block = vec![b'\n'; 1 << 20];
    assert!(chunks.advance(b"40000000\r\n").is_ok());
    for _ in 0..1 << 10 {
        assert_eq!(chunks.advance(&block), Ok(Progress { taken: block.len(), whole: false }));
    }
    assert_eq!(chunks.advance(b"\r\n0\r\n\r\n!"), Ok(Progress { taken: 7, whole: true }));
    assert_eq!(chunks.advance(b"!"), Ok(Progress { taken: 0, whole: true }));
}

#[test]
fn a_size_is_hexadecimal() {
    for body in ["\r\n", ";a\r\n", "x", "-1\r\n", "+1\r\n", "0x1\r\n", "1g", "1,", "1\0", "1\x0b", "\u{661}"] {
        refused(body, BadChunk::Size);
    }
    for body in [" 1\r\n", "1 \r\n", "1\t\r\n", "1 ;a\r\n", "\t1\r\n"] {
        refused(body, BadChunk::Space);
    }
    for body in ["8000000000000000\r\n", "ffffffffffffffff\r\n", "10000000000000000\r\n", "00000000000000001\r\n"] {
        refused(body, BadChunk::SizeTooLarge);
    }
}

#[test]
fn lines_end_in_one_way() {
    for body in ["1\nx\r\n", "1;a\nx", "\n", "0\r\n\n", "0\r\nX: a\n", "0\r\nX\n"] {
        refused(body, BadChunk::BareLf);
    }
    for body in ["1\rx", "1;a\rb", "1\r\r\n", "0\r\n\rX", "0\r\nX: a\rb"] {
        refused(body, BadChunk::BareCr);
    }
}

#[test]
fn a_chunk_ends_where_its_size_says() {
    for body in ["1\r\nxx", "1\r\nx\n", "1\r\nx\rx", "1\r\nx0\r\n\r\n", "2\r\nx\r\n0\r\n\r\n"] {
        refused(body, BadChunk::DataEnd);
    }
}

#[test]
fn extensions_are_bounded_over_a_body() {
    let chunk = format!("1;{}\r\nx\r\n", "a".repeat(EXTENSIONS_MAX / 4 - 2));
    let body = chunk.repeat(4);
    check(format!("{body}0\r\n\r\n"), Ok(Progress { taken: body.len() + 5, whole: true }));
    refused(format!("{body}0;a\r\n\r\n"), BadChunk::ExtensionsTooLarge);
    refused(format!("1;{}", "a".repeat(EXTENSIONS_MAX)), BadChunk::ExtensionsTooLarge);
    for byte in ["\0", "\t", "\x7f", "\x0b"] {
        refused(format!("1;a{byte}"), BadChunk::Extension);
    }
}

#[test]
fn trailers_are_fields() {
    for line in [
        ": a",
        "X",
        "X : a",
        "X\t: a",
        " X: a",
        "\tX: a",
        "X: a\r\n b",
        "X: a\0",
        "X: \x0b",
        "X: a\x7f",
        "X(: a",
        "\u{fc}: a",
        "X\0: a",
    ] {
        refused(format!("0\r\n{line}\r\n\r\n"), BadChunk::Trailer);
    }
    for name in ["Transfer-Encoding", "content-length", "HOST"] {
        refused(format!("0\r\nX: a\r\n{name}: a\r\n\r\n"), BadChunk::TrailerName);
    }
    let body = |length: usize| format!("0\r\nX: {}\r\n\r\n", "a".repeat(length - 5));
    ends(&body(200));
    check(body(TRAILERS_MAX), Ok(Progress { taken: TRAILERS_MAX + 5, whole: true }));
    refused(body(TRAILERS_MAX + 1), BadChunk::TrailersTooLarge);
    refused(body(TRAILERS_MAX + 9), BadChunk::TrailersTooLarge);
}

#[test]
fn every_breach_has_words_of_its_own() {
    for (at, bad) in BadChunk::ALL.into_iter().enumerate() {
        assert_eq!(bad as usize, at, "{bad:?}");
    }
    assert_eq!(BadChunk::ALL.map(BadChunk::reason).iter().collect::<BTreeSet<_>>().len(), BadChunk::ALL.len());
    assert_eq!(BadChunk::ALL.map(BadChunk::detail).iter().collect::<BTreeSet<_>>().len(), BadChunk::ALL.len());
}

/// What bodies are made of, good and bad.
const PIECES: [&str; 24] = [
    "0\r\n\r\n",
    "0\r\n",
    "\r\n",
    "\r\n",
    "1\r\nx\r\n",
    "5\r\nhello\r\n",
    "a\r\n0123456789\r\n",
    "3;a=b\r\nabc\r\n",
    "2\r\n\r\n\r\n",
    "0\r\nX: y\r\n\r\n",
    "X: y\r\n",
    "host: a\r\n",
    "\r",
    "\n",
    ";",
    " ",
    "\t",
    ":",
    "7",
    "F",
    "0",
    "\0",
    "x",
    "ü",
];

/// Near to chunked bodies.
fn bodies() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(proptest::sample::select(&PIECES[..]), 0..12).prop_map(|pieces| pieces.concat().into_bytes())
}

/// A body read by httparse's reading of sizes alone: where it ends, if it is well formed and whole.
fn second_reading(body: &[u8]) -> usize {
    let mut at = 0;
    loop {
        let Ok(httparse::Status::Complete((data, size))) = httparse::parse_chunk_size(&body[at..]) else {
            panic!("{}", body.escape_ascii())
        };
        at += data;
        if size == 0 {
            let mut headers = [httparse::EMPTY_HEADER; 256];
            let trailers = httparse::parse_headers(&body[at..], &mut headers);
            return at + trailers.unwrap().unwrap().0;
        }
        at += usize::try_from(size).unwrap();
        assert_eq!(&body[at..at + 2], b"\r\n");
        at += 2;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_split_gives_the_same(bytes in bodies(), parts in proptest::collection::vec(0_usize..8, 0..30)) {
        let whole = fed(&bytes, &[]);
        prop_assert_eq!(fed(&bytes, &parts), whole);
        prop_assert_eq!(fed(&bytes, &vec![1; bytes.len()]), whole);
    }

    #[test]
    fn what_is_whole_is_read_the_same_by_others(bytes in bodies()) {
        if let Ok(Progress { taken, whole: true }) = fed(&bytes, &[]) {
            prop_assert_eq!(second_reading(&bytes), taken);
        }
    }
}
