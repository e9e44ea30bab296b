//! The client of good faith: so many requests a second over a few kept connections, each answer timed.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::{MissedTickBehavior, interval_at, timeout},
};
use tokio_rustls::TlsConnector;

use super::frames::{self as f, put};

/// Which protocol it speaks.
#[derive(Clone)]
pub enum Speech {
    Http1,
    /// Over TLS.
    Http2(Arc<ClientConfig>),
}

/// How long its answers took.
#[derive(Debug, Default)]
pub struct Taken {
    pub times: Mutex<Vec<Duration>>,
    pub failed: Mutex<Vec<String>>,
}

const CONNECTIONS: u32 = 10;

/// Requests a second over all connections.
const RATE: u32 = 200;

const PATIENCE: Duration = Duration::from_secs(10);

/// Asks until it is dropped.
pub async fn run(target: SocketAddr, speech: Speech, taken: Arc<Taken>) {
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..CONNECTIONS {
        tasks.spawn(keep(number, target, speech.clone(), taken.clone()));
    }
    while tasks.join_next().await.is_some() {}
}

async fn keep(number: u32, target: SocketAddr, speech: Speech, taken: Arc<Taken>) {
    loop {
        let asked = match &speech {
            Speech::Http1 => http1(number, target, &taken).await,
            Speech::Http2(config) => http2(number, target, config.clone(), &taken).await,
        };
        if let Err(error) = asked {
            taken.failed.lock().unwrap().push(error.to_string());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// When requests are due on a connection: the connections take turns.
struct Pace {
    ticks: tokio::time::Interval,
    free: Instant,
}

impl Pace {
    fn new(number: u32) -> Self {
        let turn = Duration::from_secs(1) / RATE;
        let mut ticks = interval_at(tokio::time::Instant::now() + turn * number, turn * CONNECTIONS);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        Self { ticks, free: Instant::now() }
    }

    /// Waits for the next request's time. Where the last answer came too late for it, it counts from when it was due: who waits
    /// in line has begun to wait. Else from now on, so that this machine's timers are not counted.
    async fn due(&mut self) -> Instant {
        let due = self.ticks.tick().await.into_std();
        if self.free > due { due } else { Instant::now() }
    }

    fn done(&mut self, since: Instant, taken: &Taken) {
        self.free = Instant::now();
        taken.times.lock().unwrap().push(self.free - since);
    }
}

async fn within<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(PATIENCE, work).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

async fn http1(number: u32, target: SocketAddr, taken: &Taken) -> io::Result<()> {
    let mut stream = within(TcpStream::connect(target)).await?;
    stream.set_nodelay(true)?;
    let mut pace = Pace::new(number);
    loop {
        let since = pace.due().await;
        stream.write_all(b"GET /small HTTP/1.1\r\nHost: a.example\r\n\r\n").await?;
        within(answer(&mut stream)).await?;
        pace.done(since, taken);
    }
}

/// Reads an answer whose length is told. Gives the length of its body.
pub async fn answer(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<usize> {
    let mut read = Vec::with_capacity(4096);
    let end = loop {
        if stream.read_buf(&mut read).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(at) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
    };
    let head = String::from_utf8_lossy(&read[..end]).to_ascii_lowercase();
    if !head.starts_with("http/1.1 200") {
        return Err(io::Error::other(head.lines().next().unwrap_or_default().to_owned()));
    }
    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()).and_then(|text| text.parse().ok());
    let length: usize = length.ok_or_else(|| io::Error::other("no content-length"))?;
    let mut left = (end + length).saturating_sub(read.len()) as u64;
    let mut rest = stream.take(left);
    while left > 0 {
        read.clear();
        left -= match rest.read_buf(&mut read).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            some => some as u64,
        };
    }
    Ok(length)
}

async fn http2(number: u32, target: SocketAddr, config: Arc<ClientConfig>, taken: &Taken) -> io::Result<()> {
    let stream = within(TcpStream::connect(target)).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from("a.example").map_err(io::Error::other)?;
    let mut stream = within(TlsConnector::from(config).connect(name, stream)).await?;
    let mut begin = f::PREFACE.to_vec();
    put(&mut begin, f::WINDOW_UPDATE, 0, 0, &0x7000_0000_u32.to_be_bytes());
    stream.write_all(&begin).await?;
    let mut pace = Pace::new(number);
    for id in (1..).step_by(2) {
        let since = pace.due().await;
        let mut request = Vec::new();
        put(&mut request, f::HEADERS, f::END_HEADERS | f::END_STREAM, id, &f::block(f::GET, "/small"));
        stream.write_all(&request).await?;
        stream.flush().await?;
        within(end_of(&mut stream, id)).await?;
        pace.done(since, taken);
    }
    Ok(())
}

/// Reads frames to the end of a stream, which must begin with 200.
async fn end_of(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), id: u32) -> io::Result<()> {
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let [a, b, c, kind, flags, d, e, g, h] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        stream.read_exact(&mut payload).await?;
        let is_ours = u32::from_be_bytes([d, e, g, h]) == id;
        match kind {
            f::SETTINGS | f::PING if flags & f::ACK == 0 => {
                let mut ack = Vec::new();
                put(&mut ack, kind, f::ACK, 0, if kind == f::PING { &payload } else { &[] });
                stream.write_all(&ack).await?;
                stream.flush().await?;
            }
            f::GOAWAY => return Err(io::Error::other("GOAWAY")),
            f::RST_STREAM if is_ours => return Err(io::Error::other("RST_STREAM")),
            // `:status: 200` in the static table.
            f::HEADERS if is_ours && !payload.contains(&0x88) => return Err(io::Error::other("not 200")),
            f::HEADERS | f::DATA if is_ours && flags & f::END_STREAM != 0 => return Ok(()),
            _ => {}
        }
    }
}

/// The value below which this part of them is.
pub fn quantile(times: &mut [Duration], part: f64) -> Duration {
    times.sort_unstable();
    let at = ((times.len() as f64 * part) as usize).min(times.len().saturating_sub(1));
    times.get(at).copied().unwrap_or_default()
}
