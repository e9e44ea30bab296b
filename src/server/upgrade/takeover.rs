//! The successor's part.

use std::{
    io::ErrorKind,
    os::{fd::OwnedFd, unix::net::UnixStream as Blocking},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use rustix::process::geteuid;
use tokio::{
    net::UnixStream,
    time::{sleep, timeout},
};

use super::{
    MEET_MAX,
    channel::{Channel, Estate, Offered, PATIENCE, PROTOCOL, Word, is_gone},
    meeting_point,
};
use crate::{config::address::ListenAddress, server::socket_files::Book};

/// How often we look for the upgrade socket.
const LOOK: Duration = Duration::from_millis(20);

/// What a predecessor offers. Until [`Accession::complete`] it may still carry on itself.
pub struct Bequest {
    /// Those files of Unix sockets that go to us.
    files: Vec<PathBuf>,
    channel: Blocking,
    estate: Estate,
}

/// Listening sockets by what they are bound to.
type Sockets = Vec<(ListenAddress, OwnedFd)>;

/// What is left to do once we serve.
pub struct Accession {
    bequest: Bequest,
    /// The addresses that we serve on.
    taken: Vec<ListenAddress>,
    book: Book,
}

impl Bequest {
    /// Waits for a predecessor and what it offers: its listening sockets, and more.
    ///
    /// # Errors
    /// None came, or not one of ours, or it will not.
    pub fn await_one() -> anyhow::Result<(Self, Sockets)> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start a runtime")?;
        runtime.block_on(Self::received())
    }

    async fn received() -> anyhow::Result<(Self, Sockets)> {
        let path = meeting_point();
        tracing::info!("waiting for the predecessor at {}", path.display());
        let mut channel = Channel::new(connected(&path).await?);
        let (pid, user) = channel.peer()?;
        let own = geteuid().as_raw();
        ensure!(user == own, "the upgrade socket is that of process {pid}, which runs as user {user}, this one as {own}");
        channel.say(&Word::Hello { protocol: PROTOCOL, version: env!("CARGO_PKG_VERSION").to_owned() }).await?;
        let (mut sockets, mut files) = (Vec::new(), Vec::new());
        loop {
            let heard = timeout(PATIENCE, channel.hear()).await.context("the predecessor offers nothing")?;
            let (offered, estate, more, descriptors) = match heard.context("the predecessor turned us away; its log says why")? {
                (Word::Offer { sockets, estate, more }, descriptors) => (sockets, estate, more, descriptors),
                (Word::Refused { reason }, _) => bail!("the predecessor refuses: {reason}"),
                (word, _) => bail!("the predecessor said {word:?} instead of an offer"),
            };
            for (Offered { address, owns_file }, descriptor) in offered.into_iter().zip(descriptors) {
                let Ok(address) = address.parse::<ListenAddress>() else { bail!("the predecessor offers `{address}`") };
                files.extend(address.path().filter(|_| owns_file).map(Path::to_owned));
                sockets.push((address, descriptor));
            }
            if !more {
                return Ok((Self { files, channel: channel.parked()?, estate }, sockets));
            }
        }
    }

    /// We will serve on these addresses, and keep `book` of our files.
    pub fn accession(self, taken: Vec<ListenAddress>, book: Book) -> Accession {
        Accession { bequest: self, taken, book }
    }
}

impl Accession {
    /// Says that we serve, and waits until the predecessor leaves the sockets to us. One that is gone has.
    ///
    /// # Errors
    /// It did not wait for us.
    pub async fn complete(self) -> anyhow::Result<Estate> {
        let mut channel = Channel::new(UnixStream::from_std(self.bequest.channel)?);
        let taken = self.taken.iter().map(ToString::to_string).collect();
        let gone = |error: std::io::Error| match is_gone(&error) {
            true => {
                tracing::warn!("the predecessor ended meanwhile");
                Ok(Word::Yours)
            }
            false => Err(error),
        };
        // Even if it is gone, what it said last can be heard.
        let said = channel.say(&Word::Ready { taken }).await;
        let heard = timeout(PATIENCE, channel.hear()).await.context("the predecessor does not answer")?;
        match heard.map(|(word, _)| word).or_else(gone)? {
            Word::Yours => {}
            Word::Refused { reason } => bail!("the predecessor did not wait: {reason}"),
            word => bail!("the predecessor said {word:?} instead of yours"),
        }
        drop(said);
        for file in self.bequest.files.iter().filter(|file| self.taken.iter().any(|taken| taken.path() == Some(file))) {
            self.book.own(file).unwrap_or_else(|error| tracing::warn!(%error, "{} is gone", file.display()));
        }
        // The end of the connection says that the service manager knows us; what we tell it before, it would not believe.
        let _ = timeout(PATIENCE, channel.hear()).await;
        tracing::info!("took over from the predecessor");
        Ok(self.bequest.estate)
    }
}

/// The predecessor opens its socket when it is told to (SIGQUIT), which may be later.
async fn connected(path: &Path) -> anyhow::Result<UnixStream> {
    let until = Instant::now() + MEET_MAX;
    loop {
        match UnixStream::connect(path).await {
            Ok(stream) => return Ok(stream),
            Err(error) if !is_early(error.kind()) => {
                return Err(error).with_context(|| format!("cannot connect to {}", path.display()));
            }
            Err(_) if Instant::now() > until => {
                bail!("no predecessor opened {} within {MEET_MAX:?}: send it SIGQUIT", path.display())
            }
            Err(_) => sleep(LOOK).await,
        }
    }
}

/// It is not there yet, or the one that is there was left behind.
fn is_early(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::NotFound | ErrorKind::ConnectionRefused)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A successor that serves on one Unix socket whose file goes to it, and the predecessor's end.
    fn ready(book: &Book, file: &Path) -> (Accession, Channel) {
        let (ours, theirs) = Blocking::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.set_nonblocking(true).unwrap();
        let bequest = Bequest { files: vec![file.to_owned()], channel: ours, estate: Estate::default() };
        let accession = bequest.accession(vec![ListenAddress::Unix(file.to_owned())], book.clone());
        (accession, Channel::new(UnixStream::from_std(theirs).unwrap()))
    }

    /// How a takeover ends when the predecessor says this, and whether the file is ours then.
    async fn ends(last_word: Option<Word>) -> (Result<(), String>, bool) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let book = Book::default();
        let (accession, mut predecessor) = ready(&book, file.path());
        let said = async move {
            let heard = predecessor.hear().await.unwrap().0;
            assert_eq!(heard, Word::Ready { taken: vec![format!("unix:{}", file.path().display())] });
            if let Some(word) = last_word {
                predecessor.say(&word).await.unwrap();
            }
            (predecessor, file)
        };
        let (ended, (_, file)) = tokio::join!(accession.complete(), async {
            let (predecessor, file) = said.await;
            drop(predecessor);
            ((), file)
        });
        (ended.map(drop).map_err(|fault| fault.to_string()), book.owns(file.path()))
    }

    #[tokio::test]
    async fn what_the_predecessor_leaves_is_ours() {
        assert_eq!(ends(Some(Word::Yours)).await, (Ok(()), true));
    }

    #[tokio::test]
    async fn what_a_predecessor_that_is_gone_had_is_ours() {
        assert_eq!(ends(None).await, (Ok(()), true));
    }

    #[tokio::test]
    async fn what_the_predecessor_keeps_is_not_ours() {
        let refused = Word::Refused { reason: "too late".to_owned() };
        assert_eq!(ends(Some(refused)).await, (Err("the predecessor did not wait: too late".to_owned()), false));
    }
}
