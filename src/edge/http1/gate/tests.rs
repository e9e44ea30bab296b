use std::future::poll_fn;

use tokio::io::{AsyncWriteExt, DuplexStream};

use super::*;

const TERMS: Terms = Terms {
    head: Limits { request_line: 100, fields: 1000, count: 10 },
    header_timeout: Duration::from_secs(10),
    keepalive: Duration::from_secs(75),
};

/// A gate with the client at its other side.
struct Line {
    gate: Gate,
    near: Stream,
    far: DuplexStream,
}

impl Line {
    fn new() -> Self {
        let (near, far) = tokio::io::duplex(1 << 20);
        Self { gate: Gate::new(BytesMut::new(), Instant::now() + TERMS.header_timeout), near: Box::new(near), far }
    }

    async fn after(sent: &[u8]) -> Self {
        let mut line = Self::new();
        line.far.write_all(sent).await.unwrap();
        line
    }

    /// One read of at most so many bytes: what came, or why nothing more will.
    async fn read(&mut self, most: usize) -> Result<String, String> {
        poll_fn(|cx| self.poll(most, cx)).await
    }

    fn poll(&mut self, most: usize, cx: &mut Context<'_>) -> Poll<Result<String, String>> {
        let mut space = vec![0; most];
        let mut out = ReadBuf::new(&mut space);
        let read = ready!(self.gate.poll_read(&mut self.near, &TERMS, cx, &mut out));
        Poll::Ready(match read {
            Ok(None) => Ok(String::from_utf8_lossy(out.filled()).into_owned()),
            Ok(Some(refused)) => Err(refused.reason().to_owned()),
            Err(error) => Err(error.to_string()),
        })
    }

    /// A request as Pingora reads it: the head, then its body as far as it is there, then whether the client is still there.
    async fn request(&mut self, most: usize) -> Result<String, String> {
        drive(async {
            let mut text = self.read(most).await?;
            let head = !text.is_empty();
            while head && !text.contains("\r\n\r\n") {
                text += &self.read(most).await?;
            }
            Clock::current().begin();
            while let Poll::Ready(more) = poll_fn(|cx| Poll::Ready(self.poll(most, cx))).await {
                let more = more?;
                if more.is_empty() {
                    break;
                }
                text += &more;
            }
            Ok(text)
        })
        .await
    }
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
const CHUNKED: &str = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\n";

#[tokio::test]
async fn each_request_is_read_to_its_last_byte_and_no_further() {
    for most in [1, 7, 4096] {
        let requests = [GET, POST, CHUNKED, GET, CHUNKED, POST];
        let mut line = Line::after(requests.concat().as_bytes()).await;
        for request in requests {
            assert_eq!(line.request(most).await.as_deref(), Ok(request), "in reads of {most}");
        }
        assert!(line.gate.kept.is_empty());
    }
}

#[tokio::test]
async fn bytes_that_come_one_by_one_make_the_same_requests() {
    let mut line = Line::new();
    for request in [POST, CHUNKED, GET] {
        let mut read = String::new();
        drive(async {
            for byte in request.as_bytes() {
                line.far.write_all(&[*byte]).await.unwrap();
                while let Poll::Ready(more) = poll_fn(|cx| Poll::Ready(line.poll(4096, cx))).await {
                    read += &more.unwrap();
                }
                if read.contains("\r\n\r\n") {
                    Clock::current().begin();
                }
            }
        })
        .await;
        assert_eq!(read, request);
    }
}

#[tokio::test]
async fn a_bad_head_is_refused_wherever_it_stands() {
    let bad = "GET / HTTP/1.1\r\nHost : a\r\n\r\n";
    for before in [&[][..], &[GET], &[POST, CHUNKED]] {
        let mut line = Line::after((before.concat() + bad).as_bytes()).await;
        for request in before {
            assert_eq!(line.request(4096).await.as_deref(), Ok(*request));
        }
        assert_eq!(line.request(4096).await, Err("space_before_colon".to_owned()));
        assert!(line.gate.refused_head().starts_with(b"GET / HTTP/1.1\r\n"));
    }
}

#[tokio::test]
async fn a_bad_chunk_is_refused_with_its_head_if_they_come_together() {
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut line = Line::after((head.to_owned() + "+5\r\nhello\r\n").as_bytes()).await;
    assert!(line.request(4096).await.is_err_and(|reason| reason.contains("size")));
    let mut line = Line::after((head.to_owned() + "5\r\nhel").as_bytes()).await;
    let clock = drive(async {
        line.read(4096).await.unwrap();
        Clock::current().begin();
        line.far.write_all(b"loX\r\n").await.unwrap();
        assert!(line.read(4096).await.is_err());
        Clock::current()
    });
    assert!(clock.await.refused().is_some());
}

#[tokio::test]
async fn a_client_that_ends_its_sending_is_waited_for() {
    let mut line = Line::after(GET.as_bytes()).await;
    line.far.shutdown().await.unwrap();
    assert_eq!(line.request(4096).await.as_deref(), Ok(GET), "no end is seen while it is carried");
    assert_eq!(line.request(4096).await.as_deref(), Ok(""), "then there is no other request");
}

#[tokio::test]
async fn a_client_that_leaves_within_a_body_is_gone() {
    let mut line = Line::after(&POST.as_bytes()[..POST.len() - 2]).await;
    line.far.shutdown().await.unwrap();
    assert_eq!(line.request(4096).await.as_deref(), Ok(&POST[..POST.len() - 2]));
    assert!(!line.gate.is_sending());
}

#[tokio::test]
async fn a_connection_that_leaves_http_is_read_as_it_comes() {
    let upgrade = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n";
    let check = async |answers: &[&str], expected: &str| {
        let mut line = Line::after((upgrade.to_owned() + "\0frames").as_bytes()).await;
        assert_eq!(line.request(4096).await.as_deref(), Ok(upgrade));
        answers.iter().for_each(|answer| line.gate.answered(answer.as_bytes()));
        let read = drive(async {
            Clock::current().begin();
            poll_fn(|cx| Poll::Ready(line.poll(4096, cx))).await
        });
        assert_eq!(format!("{:?}", read.await), expected);
    };
    check(&["HTTP/1.1 103 Early Hints\r\n\r\n", "HTTP/1.1 101 Switching Protocols\r\n"], r#"Ready(Ok("\0frames"))"#).await;
    check(&["HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 101 in a body"], "Pending").await;
}

#[tokio::test]
async fn a_late_head_is_refused_and_silence_is_ended_in_silence() {
    let mut line = Line::after(b"GET / HT").await;
    line.gate.due = Instant::now();
    assert_eq!(line.request(4096).await, Err("header_timeout".to_owned()));
    let mut line = Line::new();
    line.gate.due = Instant::now();
    assert_eq!(line.request(4096).await.as_deref(), Ok(""));
}

#[tokio::test]
async fn a_connection_in_use_is_not_closed_before_a_lull() {
    let mut line = Line::new();
    line.gate.hurry();
    let mut waits = async || poll_fn(|cx| Poll::Ready(line.poll(4096, cx))).await.is_pending();
    assert!(waits().await, "it may be about to send");
    line.gate.since -= LULL;
    assert_eq!(line.request(4096).await.as_deref(), Ok(""));
    let mut line = Line::after(b"GET / HT").await;
    line.gate.hurry();
    line.gate.since -= LULL;
    assert!(poll_fn(|cx| Poll::Ready(line.poll(4096, cx))).await.is_pending(), "a head that has begun has its time");
}

#[tokio::test]
async fn a_later_head_has_its_time_from_its_first_byte() {
    let mut line = Line::after(GET.as_bytes()).await;
    line.request(4096).await.unwrap();
    drive(async {
        assert!(poll_fn(|cx| Poll::Ready(line.poll(4096, cx))).await.is_pending());
        assert!(line.gate.due > Instant::now() + TERMS.header_timeout);
        line.far.write_all(b"G").await.unwrap();
        assert!(poll_fn(|cx| Poll::Ready(line.poll(4096, cx))).await.is_pending());
        let due = line.gate.due;
        assert!(due <= Instant::now() + TERMS.header_timeout);
        line.far.write_all(b"E").await.unwrap();
        assert!(poll_fn(|cx| Poll::Ready(line.poll(4096, cx))).await.is_pending());
        assert_eq!(line.gate.due, due, "more bytes give no more time");
    })
    .await;
}

#[tokio::test]
async fn only_the_first_line_can_be_of_another_protocol() {
    let check = async |before: &[&str], line: &str, is_foreign: bool| {
        let mut client = Line::after((before.concat() + line + "\r\n\r\n").as_bytes()).await;
        for request in before {
            assert_eq!(client.request(4096).await.as_deref(), Ok(*request));
        }
        let refused = drive(async {
            let mut space = [0; 4096];
            let mut out = ReadBuf::new(&mut space);
            poll_fn(|cx| client.gate.poll_read(&mut client.near, &TERMS, cx, &mut out)).await.unwrap().unwrap()
        });
        let refused = refused.await;
        assert_eq!(client.gate.is_foreign(refused), is_foreign, "{line}");
    };
    check(&[], "INVALID CONNECTION PREFACE", true).await;
    check(&[GET], "INVALID CONNECTION PREFACE", false).await;
    check(&[], "GET / HTTP/2.0", false).await;
    check(&[], "GE(T / HTTP/1.1", false).await;
}

#[tokio::test]
async fn an_empty_line_behind_a_body_begins_no_request() {
    let mut line = Line::after((POST.to_owned() + "\r\n").as_bytes()).await;
    assert_eq!(line.request(4096).await.as_deref(), Ok(POST));
    drive(async {
        assert!(poll_fn(|cx| Poll::Ready(line.poll(4096, cx))).await.is_pending());
        assert!(line.gate.due > Instant::now() + TERMS.header_timeout, "the connection is idle");
        line.gate.due = Instant::now();
        assert_eq!(line.read(4096).await.as_deref(), Ok(""), "and ends in silence");
    })
    .await;
}

/// Within a request.
async fn drive<F: Future>(request: F) -> F::Output {
    Clock::drive(crate::deadline::Terms::default(), &mut Timer::default(), request).await
}
