//! Services behind the gateway, by hand: they do what a test says and record what they saw.

use std::{
    fmt, io,
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
};

use super::{
    eventually, port,
    wire::{Head, Wire},
};

/// A service on a port of its own. It shows as its address and ends when dropped.
pub struct Origin {
    address: SocketAddr,
    seen: Arc<Seen>,
    thread: Option<JoinHandle<()>>,
}

/// What a service saw.
#[derive(Default)]
struct Seen {
    requests: Mutex<Vec<Request>>,
    connections: AtomicUsize,
    closed: AtomicBool,
}

/// A request as it came.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub head: Head,
    pub body: Vec<u8>,
}

/// A connection to a service, in the hands of its script.
pub struct Visit {
    pub wire: Wire,
    seen: Arc<Seen>,
}

impl Origin {
    /// Runs `script` for each connection, in a thread of its own. An error ends the connection.
    pub fn script(script: impl Fn(&mut Visit) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self::script_at(([127, 0, 0, 1], 0).into(), script)
    }

    /// The same on an address that is known before the service starts.
    pub fn script_at(address: SocketAddr, script: impl Fn(&mut Visit) -> io::Result<()> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(address).unwrap_or_else(|e| panic!("{address}: {e}"));
        let address = listener.local_addr().expect("it is bound");
        let seen = Arc::new(Seen::default());
        let thread = std::thread::spawn({
            let seen = seen.clone();
            move || serve(&listener, &seen, &Arc::new(script))
        });
        Self { address, seen, thread: Some(thread) }
    }

    /// Answers every request by `answer`, which gives the bytes of a response.
    pub fn answer<B: AsRef<[u8]>>(answer: impl Fn(&Request) -> B + Send + Sync + 'static) -> Self {
        Self::script(answering(answer))
    }

    pub fn answer_at<B: AsRef<[u8]>>(address: SocketAddr, answer: impl Fn(&Request) -> B + Send + Sync + 'static) -> Self {
        Self::script_at(address, answering(answer))
    }

    /// Answers 200 with this text.
    pub fn text(text: &'static str) -> Self {
        Self::answer(move |_| ok(text))
    }

    /// Answers 200 with the head it got, then the body it got.
    pub fn echo() -> Self {
        Self::answer(|request| ok(&format!("{}\n{}", request.head.text(), String::from_utf8_lossy(&request.body))))
    }

    /// Upgrades the connection, then says in capitals whatever it hears.
    pub fn shouting() -> Self {
        Self::script(|visit| {
            visit.head()?;
            visit.wire.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")?;
            let mut buffer = [0; 1024];
            loop {
                match visit.wire.some(&mut buffer)? {
                    0 => return Ok(()),
                    read => visit.wire.send(buffer[..read].to_ascii_uppercase())?,
                }
            }
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.seen.requests.lock().unwrap().clone()
    }

    pub fn count(&self) -> usize {
        self.seen.requests.lock().unwrap().len()
    }

    /// The request that came last.
    #[track_caller]
    pub fn last(&self) -> Request {
        self.requests().pop().expect("a request came")
    }

    /// How many connections were made to it.
    pub fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    /// Waits for the `count`th request.
    #[track_caller]
    pub fn wait_for(&self, count: usize) {
        eventually("a request at the origin", || (self.count() >= count).then_some(()));
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.seen.closed.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn serve<S>(listener: &TcpListener, seen: &Arc<Seen>, script: &Arc<S>)
where
    S: Fn(&mut Visit) -> io::Result<()> + Send + Sync + 'static,
{
    for stream in listener.incoming() {
        if seen.closed.load(Ordering::SeqCst) {
            return;
        }
        let Ok(stream) = stream else { continue };
        seen.connections.fetch_add(1, Ordering::SeqCst);
        let mut visit = Visit { wire: Wire::over(stream), seen: seen.clone() };
        let script = script.clone();
        std::thread::spawn(move || script(&mut visit));
    }
}

fn answering<B: AsRef<[u8]>>(
    answer: impl Fn(&Request) -> B + Send + Sync + 'static,
) -> impl Fn(&mut Visit) -> io::Result<()> + Send + Sync + 'static {
    move |visit| {
        while let Some(request) = visit.request()? {
            visit.wire.send(answer(&request))?;
        }
        Ok(())
    }
}

impl Visit {
    /// The next request, whole and recorded; `None` when the gateway closed.
    pub fn request(&mut self) -> io::Result<Option<Request>> {
        let Some(head) = self.wire.head()? else { return Ok(None) };
        let mut request = Request { body: Vec::new(), head };
        self.wire.body(request.head.request_framing()?, &mut request.body)?;
        self.seen.requests.lock().unwrap().push(request.clone());
        Ok(Some(request))
    }

    /// The next head, recorded without a body.
    pub fn head(&mut self) -> io::Result<Option<Head>> {
        let head = self.wire.head()?;
        if let Some(head) = &head {
            self.seen.requests.lock().unwrap().push(Request { head: head.clone(), body: Vec::new() });
        }
        Ok(head)
    }

    /// Ends the connection with a TCP reset.
    pub fn reset(&self) {
        let socket = self.wire.socket().try_clone().expect("a socket");
        socket.set_nonblocking(true).expect("a socket");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            tokio::net::TcpStream::from_std(socket).and_then(|socket| socket.set_zero_linger()).expect("a socket");
        });
    }
}

impl Request {
    #[track_caller]
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.field(name)
    }

    pub fn target(&self) -> &str {
        self.head.line.split(' ').nth(1).unwrap_or_default()
    }
}

/// A plain 200.
pub fn ok(text: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n{text}", text.len())
}

/// An address where nothing listens.
pub fn nobody() -> SocketAddr {
    ([127, 0, 0, 1], port::free()).into()
}
