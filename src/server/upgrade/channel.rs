//! What an old process and its successor say to each other: lines of JSON over a Unix socket, and beside them the listening sockets.

use std::{
    io::{self, ErrorKind, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream as Blocking,
    },
    time::Duration,
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};
use tokio::{io::Interest, net::UnixStream, time::timeout};

/// The version of what is said. A successor that says another one is refused, and a restart is due.
pub const PROTOCOL: u32 = 1;

/// Most sockets that go with one line; the system takes 253.
pub const SOCKETS_MAX: usize = 128;

/// Longest line, in bytes.
const LINE_MAX: usize = 256 << 10;

/// Longest wait for a line that is due at once.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// What is said, in this order.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "word", rename_all = "snake_case")]
pub enum Word {
    /// The successor presents itself.
    Hello { protocol: u32, version: String },
    /// The old process hands over. Each line has a socket with it for each address.
    Offer { sockets: Vec<Offered>, estate: Estate, more: bool },
    /// The successor serves on these addresses.
    Ready { taken: Vec<String> },
    /// The old process accepts no more, and sends its own away in time.
    Yours,
    /// There will be no upgrade.
    Refused { reason: String },
}

impl Word {
    /// How many sockets go with it.
    fn sockets(&self) -> usize {
        match self {
            Self::Offer { sockets, .. } => sockets.len(),
            _ => 0,
        }
    }
}

/// A listening socket.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Offered {
    pub address: String,
    /// Its file is removed by who has it last. Not so if the service manager opened it.
    pub owns_file: bool,
}

/// What else a successor inherits: the ear of the service manager, which tells the main process alone.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Estate {
    pub notify: Option<String>,
    pub watchdog: Option<Duration>,
}

/// The connection of the two.
pub struct Channel {
    stream: UnixStream,
    /// What was read after the last line.
    rest: Vec<u8>,
    /// Sockets that came and were not taken.
    sockets: Vec<OwnedFd>,
}

impl Channel {
    pub fn new(stream: UnixStream) -> Self {
        Self { stream, rest: Vec::new(), sockets: Vec::new() }
    }

    /// To go on with it on another runtime.
    ///
    /// # Errors
    /// When the stream is broken, or the other said more than was asked.
    pub fn parked(self) -> io::Result<Blocking> {
        if !self.rest.is_empty() {
            return Err(io::Error::new(ErrorKind::InvalidData, "words that nobody waited for"));
        }
        self.stream.into_std()
    }

    /// Who is at the other end: process and user.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn peer(&self) -> io::Result<(u32, u32)> {
        let peer = self.stream.peer_cred()?;
        let pid = peer.pid().and_then(|pid| u32::try_from(pid).ok());
        Ok((pid.ok_or_else(|| io::Error::other("a process without a number"))?, peer.uid()))
    }

    pub async fn say(&self, word: &Word) -> io::Result<()> {
        self.hand(word, &[]).await
    }

    /// Says a word, and hands these sockets over with it.
    pub async fn hand(&self, word: &Word, sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut line = serde_json::to_vec(word)?;
        line.push(b'\n');
        let (mut left, mut sockets) = (line.as_slice(), sockets);
        while !left.is_empty() {
            let send = || send(&self.stream, left, sockets);
            let sent = timeout(PATIENCE, self.stream.async_io(Interest::WRITABLE, send)).await??;
            left = left.get(sent..).unwrap_or_default();
            // They went with the first byte.
            sockets = &[];
        }
        Ok(())
    }

    /// The next word, and the sockets that came with it.
    ///
    /// # Errors
    /// `UnexpectedEof`: the other is gone. Else the connection is broken, or what came is no word.
    pub async fn hear(&mut self) -> io::Result<(Word, Vec<OwnedFd>)> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                let word: Word = serde_json::from_slice(&line)?;
                // Those of the next word may have come with the end of this one.
                let due = word.sockets();
                if due > self.sockets.len() {
                    return Err(io::Error::new(ErrorKind::InvalidData, "fewer sockets than were named"));
                }
                return Ok((word, self.sockets.drain(..due).collect()));
            }
            if self.rest.len() > LINE_MAX {
                return Err(io::Error::new(ErrorKind::InvalidData, "a line without end"));
            }
            let (bytes, sockets) = self.stream.async_io(Interest::READABLE, || receive(&self.stream)).await?;
            if bytes.is_empty() {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            self.rest.extend(bytes);
            self.sockets.extend(sockets);
        }
    }
}

/// Whether an error of the connection says that the other is gone.
pub fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}

fn send(stream: &UnixStream, bytes: &[u8], sockets: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_MAX))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    if !sockets.is_empty() && !beside.push(SendAncillaryMessage::ScmRights(sockets)) {
        return Err(io::Error::new(ErrorKind::InvalidInput, "too many sockets for one message"));
    }
    Ok(sendmsg(stream.as_fd(), &[IoSlice::new(bytes)], &mut beside, SendFlags::NOSIGNAL)?)
}

fn receive(stream: &UnixStream) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_MAX))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = vec![0; 16 << 10];
    let read = recvmsg(stream.as_fd(), &mut [IoSliceMut::new(&mut bytes)], &mut beside, RecvFlags::CMSG_CLOEXEC)?.bytes;
    bytes.truncate(read);
    let sockets = beside.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(sockets) => Some(sockets),
        _ => None,
    });
    Ok((bytes, sockets.flatten().collect()))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn pair() -> (Channel, Channel) {
        let (one, other) = UnixStream::pair().unwrap();
        (Channel::new(one), Channel::new(other))
    }

    #[tokio::test]
    async fn sockets_go_with_the_words_that_name_them() {
        let (old, mut new) = pair();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let offered = vec![Offered { address: address.to_string(), owns_file: false }];
        let offer = Word::Offer { sockets: offered, estate: Estate::default(), more: false };
        old.hand(&offer, &[listener.as_fd()]).await.unwrap();
        old.say(&Word::Yours).await.unwrap();
        drop(listener);
        let (word, sockets) = new.hear().await.unwrap();
        assert_eq!((word, sockets.len()), (offer, 1));
        let inherited = TcpListener::from(sockets.into_iter().next().unwrap());
        assert_eq!(inherited.local_addr().unwrap(), address);
        let (word, sockets) = new.hear().await.unwrap();
        assert_eq!((word, sockets.len()), (Word::Yours, 0));
    }

    #[tokio::test]
    async fn who_is_gone_is_told_from_who_talks_nonsense() {
        let (old, mut new) = pair();
        drop(old);
        assert_eq!(new.hear().await.unwrap_err().kind(), ErrorKind::UnexpectedEof);
        let (old, mut new) = pair();
        old.stream.try_write(b"{\"word\":\"yes\"}\n").unwrap();
        assert_eq!(new.hear().await.unwrap_err().kind(), ErrorKind::InvalidData);
    }

    #[tokio::test]
    async fn a_line_without_end_is_not_read_for_ever() {
        let (old, mut new) = pair();
        let flood = tokio::spawn(async move {
            let noise = vec![b' '; LINE_MAX * 2];
            while old.stream.writable().await.is_ok()
                && !matches!(old.stream.try_write(&noise), Err(e) if e.kind() != ErrorKind::WouldBlock)
            {}
        });
        assert_eq!(new.hear().await.unwrap_err().kind(), ErrorKind::InvalidData);
        drop(new);
        flood.await.unwrap();
    }

    #[tokio::test]
    async fn the_other_end_is_known_by_process_and_user() {
        let (old, _new) = pair();
        assert_eq!(old.peer().unwrap(), (std::process::id(), rustix::process::geteuid().as_raw()));
    }
}
