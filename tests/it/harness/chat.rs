//! WebSockets (RFC 6455), by a library at both ends: a service that answers in capitals, and its client.

use std::{
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread::JoinHandle,
    time::Duration,
};

use tungstenite::{
    Message, WebSocket,
    protocol::{CloseFrame, frame::coding::CloseCode},
};

use super::PATIENCE;

/// How often a conversation says something.
const PAUSE: Duration = Duration::from_millis(20);

/// Starts the service, for as long as the tests run.
pub fn service() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || answer(stream));
        }
    });
    address
}

/// The library answers a Close itself; after it there is nothing to read.
fn answer(stream: TcpStream) {
    let Ok(mut socket) = tungstenite::accept(stream) else { return };
    while let Ok(message) = socket.read() {
        if let Message::Text(text) = message
            && socket.send(Message::text(text.to_ascii_uppercase())).is_err()
        {
            return;
        }
    }
}

/// The client's end of a WebSocket.
pub struct Chat(WebSocket<TcpStream>);

impl Chat {
    #[track_caller]
    pub fn open(address: SocketAddr, path: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let (socket, _) = tungstenite::client(format!("ws://{address}{path}"), stream).expect("a handshake");
        Self(socket)
    }

    /// Says something and hears it in capitals.
    pub fn exchange(&mut self, text: &str) -> io::Result<()> {
        self.0.send(Message::text(text)).map_err(io::Error::other)?;
        match self.0.read().map_err(io::Error::other)? {
            Message::Text(answer) if answer == text.to_ascii_uppercase() => Ok(()),
            other => Err(io::Error::other(format!("{other} for {text}"))),
        }
    }

    /// What the other end says with its Close, which is answered: code and reason. `None`: it said something else, or just went.
    pub fn closed(mut self) -> Option<(u16, String)> {
        let Ok(Message::Close(Some(CloseFrame { code, reason }))) = self.0.read() else { return None };
        // Our reply goes out, and nothing comes after.
        while self.0.read().is_ok() {}
        Some((code.into(), reason.to_string()))
    }

    /// Says Close and waits for the other's.
    pub fn close(mut self) -> io::Result<()> {
        let frame = CloseFrame { code: CloseCode::Normal, reason: "done".into() };
        self.0.close(Some(frame)).map_err(io::Error::other)?;
        match self.0.read().map_err(io::Error::other)? {
            Message::Close(Some(frame)) if frame.code == CloseCode::Normal => Ok(()),
            other => Err(io::Error::other(format!("{other} for Close"))),
        }
    }

    /// Goes on by itself until told to end.
    pub fn conversation(mut self) -> Conversation {
        let over = Arc::<AtomicBool>::default();
        let told = over.clone();
        let thread = std::thread::spawn(move || {
            let mut exchanges = 0;
            while !told.load(SeqCst) {
                self.exchange(&format!("message {exchanges}"))?;
                exchanges += 1;
                std::thread::sleep(PAUSE);
            }
            self.close()?;
            Ok(exchanges)
        });
        Conversation { over, thread }
    }
}

/// A WebSocket on which something is said all the time.
pub struct Conversation {
    over: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<usize>>,
}

impl Conversation {
    /// Ends it properly. How many messages were answered.
    pub fn end(self) -> io::Result<usize> {
        self.over.store(true, SeqCst);
        self.thread.join().expect("it does not panic")
    }
}
