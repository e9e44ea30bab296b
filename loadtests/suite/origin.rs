//! The service behind every contestant: HTTP/1.1 with kept connections, on a thread of its own in this process, so that what it was asked can
//! be compared with what was answered, and so that it can die.
//!
//! It answers `/large…` with 64 KiB, `/slow…` after a second, `/introspect` with a caller (RFC 7662), and everything else with 100 bytes, at once.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
};

/// Bytes of an answer's body.
pub const SMALL: usize = 100;
pub const LARGE: usize = 64 << 10;

/// Whose every token is.
const CALLER: &str = r#"{"active":true,"sub":"user-1","client_id":"web","scope":"openid profile orders:read orders:write"}"#;

/// How long an answer to `/slow…` takes.
const SLOW: Duration = Duration::from_secs(1);

/// A running service. It ends when it is dropped.
pub struct Origin {
    address: SocketAddr,
    counts: Arc<Counts>,
    life: Mutex<Option<(oneshot::Sender<()>, JoinHandle<()>)>>,
}

/// What it was asked so far, but for `/slow…` and `/introspect`, which are asked beside what is measured.
#[derive(Debug, Default)]
struct Counts {
    hits: AtomicU64,
    introspections: AtomicU64,
    bytes: AtomicU64,
}

struct Answers {
    small: Vec<u8>,
    large: Vec<u8>,
    caller: Vec<u8>,
}

impl Origin {
    pub fn start() -> io::Result<Self> {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut origin = Self { address: any, counts: Arc::default(), life: Mutex::default() };
        let listener = origin.listen()?;
        origin.address = listener.local_addr()?;
        origin.serve(listener);
        Ok(origin)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Requests so far, but for `/slow…` and `/introspect`.
    pub fn hits(&self) -> u64 {
        self.counts.hits.load(Relaxed)
    }

    /// How many tokens it was asked about.
    pub fn introspections(&self) -> u64 {
        self.counts.introspections.load(Relaxed)
    }

    /// Bytes of request bodies so far.
    pub fn bytes(&self) -> u64 {
        self.counts.bytes.load(Relaxed)
    }

    /// Closes everything at once, in the middle of whatever it is.
    pub fn die(&self) {
        if let Some((end, thread)) = self.life.lock().unwrap().take() {
            let _ = end.send(());
            let _ = thread.join();
        }
    }

    /// Listens again, at the address of before.
    pub fn live(&self) -> io::Result<()> {
        self.serve(self.listen()?);
        Ok(())
    }

    fn listen(&self) -> io::Result<std::net::TcpListener> {
        let listener = std::net::TcpListener::bind(self.address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    }

    fn serve(&self, listener: std::net::TcpListener) {
        let (end, ended) = oneshot::channel();
        let counts = self.counts.clone();
        let thread = std::thread::spawn(move || {
            super::generator::runtime().block_on(async {
                let listener = TcpListener::from_std(listener).expect("a listener of this process");
                tokio::select! { _ = ended => {}, () = serve(listener, counts) => {} }
            });
        });
        *self.life.lock().unwrap() = Some((end, thread));
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.die();
    }
}

async fn serve(listener: TcpListener, counts: Arc<Counts>) {
    let answers = Arc::new(Answers { small: text(SMALL), large: text(LARGE), caller: answer("application/json", CALLER) });
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            let (answers, counts) = (answers.clone(), counts.clone());
            tokio::spawn(async move { visit(stream, &answers, &counts).await });
        }
    }
}

fn text(length: usize) -> Vec<u8> {
    answer("text/plain", &"x".repeat(length))
}

fn answer(kind: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

async fn visit(mut stream: TcpStream, answers: &Answers, counts: &Counts) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut read = Vec::with_capacity(32 << 10);
    loop {
        read.clear();
        let head = loop {
            if stream.read_buf(&mut read).await? == 0 {
                return Ok(());
            }
            if let Some(end) = end_of_head(&read) {
                break end;
            }
        };
        let length = length(&read[..head]);
        while read.len() < head + length {
            if stream.read_buf(&mut read).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let path = read.splitn(3, |byte| *byte == b' ').nth(1).unwrap_or_default();
        let answer = match path {
            b"/introspect" => &answers.caller,
            path if path.starts_with(b"/large") => &answers.large,
            _ => &answers.small,
        };
        if path == b"/introspect" {
            counts.introspections.fetch_add(1, Relaxed);
        } else if path.starts_with(b"/slow") {
            tokio::time::sleep(SLOW).await;
        } else {
            counts.hits.fetch_add(1, Relaxed);
            counts.bytes.fetch_add(length as u64, Relaxed);
        }
        stream.write_all(answer).await?;
    }
}

fn end_of_head(read: &[u8]) -> Option<usize> {
    const END: &[u8] = b"\r\n\r\n";
    if read.ends_with(END) && read.starts_with(b"GET") {
        return Some(read.len());
    }
    read.windows(END.len()).position(|four| four == END).map(|at| at + END.len())
}

/// What `Content-Length` says; requests without a body are not asked.
fn length(head: &[u8]) -> usize {
    if head.starts_with(b"GET") {
        return 0;
    }
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let field = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    field.and_then(|text| text.trim().parse().ok()).unwrap_or_default()
}
