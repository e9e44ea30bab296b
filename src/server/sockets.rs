//! The sockets that are listened on. They are opened before Pingora starts, which would try for 30 s and then panic in a thread of its
//! own, and are handed to it as those of a predecessor are.

use std::{
    fs::{self, Permissions},
    io,
    os::{
        fd::{AsRawFd, IntoRawFd, OwnedFd},
        unix::fs::FileTypeExt,
    },
    path::Path,
    sync::Arc,
};

use anyhow::Context;
use async_trait::async_trait;
use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, UnixAddr, bind, connect, getsockopt, listen, setsockopt,
        socket, sockopt,
    },
};
use pingora_core::{
    server::{ListenFds, ShutdownWatch},
    services::Service,
};
use tokio::sync::watch;

use super::{activation::Inherited, fault::Fault, socket_files::Files, upgrade::Spare, watchdog::Canary};
use crate::{
    config::{
        self, Config, Listener,
        address::{FileMode, ListenAddress},
    },
    limit::overload::Guard,
    stores::Held,
};

/// Silence of a connection after which its peer is asked whether it is there, and how often then, in seconds.
const PROBE_AFTER: u32 = 60;
const PROBE_EACH: u32 = 15;

/// Longest time that what was sent stays unacknowledged, in milliseconds. Over a minute, in which a slow client is ended in order.
const UNTAKEN_MAX: u32 = 120_000;

/// Open sockets, by what Pingora knows them by.
#[derive(Default)]
pub struct Sockets {
    open: Vec<(String, OwnedFd)>,
    /// The same once more.
    spare: Vec<Spare>,
}

/// Whether the listeners accept. Those of a successor do not before it is ready, so what it fails at costs no connection.
pub struct Shutters {
    raised: watch::Sender<bool>,
    /// Services that do not accept yet.
    down: watch::Sender<usize>,
}

/// A service of Pingora's whose sockets are open.
pub struct Opened<S> {
    service: S,
    sockets: Sockets,
    shutters: Arc<Shutters>,
    /// Sits on the service's threads.
    canary: Option<Canary>,
    /// Measures how late they are.
    measuring: Option<Arc<Guard>>,
    /// Turns true when they are to close. Pingora's own watch would close those of all services at once.
    closing: ShutdownWatch,
    /// Held until they are closed.
    held: Option<Held>,
}

/// What an address is listened on with.
struct Door<'a> {
    /// Where it stands in the configuration.
    key: String,
    address: &'a ListenAddress,
    ipv6_only: bool,
    reuse_port: bool,
    mode: FileMode,
}

/// Connections take this from the socket that they came by: a peer that has vanished is noticed, and what we have closed does not stay
/// in the kernel for a client that takes nothing.
fn bound_silence(socket: &OwnedFd) -> nix::Result<()> {
    setsockopt(socket, sockopt::KeepAlive, &true)?;
    setsockopt(socket, sockopt::TcpKeepIdle, &PROBE_AFTER)?;
    setsockopt(socket, sockopt::TcpKeepInterval, &PROBE_EACH)?;
    setsockopt(socket, sockopt::TcpUserTimeout, &UNTAKEN_MAX)
}

impl Sockets {
    /// Opens the sockets of all listeners, but for those that we inherit.
    ///
    /// # Errors
    /// One cannot be opened.
    pub fn of_listeners(config: &Config, inherited: &mut Inherited, files: &Files) -> anyhow::Result<Self> {
        let doors = config.listeners.iter().map(|(name, listener)| Door::of(name.as_str(), listener));
        Self::open(doors, inherited, files)
    }

    /// Opens the socket of the admin listener, unless we inherit it.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn of_admin(admin: &config::Admin, inherited: &mut Inherited, files: &Files) -> anyhow::Result<Self> {
        Self::open([Door::of_admin(admin)], inherited, files)
    }

    fn open<'a>(doors: impl IntoIterator<Item = Door<'a>>, inherited: &mut Inherited, files: &Files) -> anyhow::Result<Self> {
        let mut sockets = Self::default();
        for door in doors {
            let socket = door.open(inherited, files);
            let socket = socket.with_context(|| Fault::Listen { address: door.address.clone(), key: door.key.clone() })?;
            sockets.spare.push(Spare { address: door.address.clone(), socket: socket.try_clone()? });
            sockets.open.push((door.address.key(), socket));
        }
        Ok(sockets)
    }

    /// The sockets once more, for a successor. They go on listening until these are dropped too.
    pub fn spare(&mut self) -> Vec<Spare> {
        std::mem::take(&mut self.spare)
    }
}

impl Shutters {
    /// Of so many services.
    pub fn new(services: usize) -> Self {
        Self { raised: watch::Sender::new(false), down: watch::Sender::new(services) }
    }

    /// From now on connections are accepted.
    pub fn raise(&self) {
        self.raised.send_replace(true);
    }

    /// Returns when all services accept.
    pub async fn up(&self) {
        // An error would say that we ourselves are gone.
        let _ = self.down.subscribe().wait_for(|down| *down == 0).await;
    }
}

impl<'a> Door<'a> {
    fn of(name: &str, listener: &'a Listener) -> Self {
        Self {
            key: format!("listeners.{name}.address"),
            address: &listener.address,
            ipv6_only: listener.ipv6_only,
            reuse_port: listener.reuse_port,
            mode: listener.mode.unwrap_or(FileMode::SHARED),
        }
    }

    fn of_admin(admin: &'a config::Admin) -> Self {
        let (key, address) = ("admin.address".to_owned(), &admin.address);
        Self { key, address, ipv6_only: false, reuse_port: false, mode: FileMode::SHARED }
    }

    fn open(&self, inherited: &mut Inherited, files: &Files) -> anyhow::Result<OwnedFd> {
        let socket = match (inherited.take(self.address), self.address) {
            (Some(socket), _) => self.adopt(socket)?,
            (None, ListenAddress::Tcp(address)) => self.open_tcp(SockaddrStorage::from(*address)).map_err(io::Error::from)?,
            (None, ListenAddress::Unix(path)) => open_unix(path, self.mode.permissions(), files)?,
        };
        if self.address.tcp().is_some() {
            bound_silence(&socket).map_err(io::Error::from)?;
        }
        Ok(socket)
    }

    /// An inherited socket has the options that its opener gave it; those that the configuration names must be true.
    fn adopt(&self, socket: OwnedFd) -> anyhow::Result<OwnedFd> {
        if self.address.is_ipv6_wildcard() && getsockopt(&socket, sockopt::Ipv6V6Only).map_err(io::Error::from)? != self.ipv6_only
        {
            return otherwise(format!(
                "`ipv6_only` is {}, but the inherited socket was opened otherwise (BindIPv6Only=)",
                self.ipv6_only
            ));
        }
        if self.reuse_port && !getsockopt(&socket, sockopt::ReusePort).map_err(io::Error::from)? {
            return otherwise("`reuse_port` is true, but the inherited socket was opened otherwise (ReusePort=)".to_owned());
        }
        if let ListenAddress::Unix(path) = self.address {
            let set = fs::set_permissions(path, self.mode.permissions());
            set.context("cannot set the permissions of the inherited socket, whose owner should be who runs this (SocketUser=)")?;
        }
        Ok(socket)
    }

    fn open_tcp(&self, address: SockaddrStorage) -> nix::Result<OwnedFd> {
        let is_ipv6 = address.as_sockaddr_in6().is_some();
        let family = if is_ipv6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
        let socket = stream(family)?;
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
        if is_ipv6 {
            // Said both ways, or net.ipv6.bindv6only decides.
            setsockopt(&socket, sockopt::Ipv6V6Only, &self.ipv6_only)?;
        }
        if self.reuse_port {
            setsockopt(&socket, sockopt::ReusePort, &true)?;
        }
        bind(socket.as_raw_fd(), &address)?;
        listen(&socket, Backlog::MAXCONN)?;
        Ok(socket)
    }
}

/// A listening Unix socket. Nobody can connect before `listen`, so nobody does before the permissions are right.
///
/// # Errors
/// There is something else at the path, another process listens on it, or it cannot be made.
pub fn open_unix(path: &Path, permissions: Permissions, files: &Files) -> anyhow::Result<OwnedFd> {
    remove_stale(path)?;
    let socket = stream(AddressFamily::Unix).map_err(io::Error::from)?;
    bind(socket.as_raw_fd(), &UnixAddr::new(path)?).map_err(io::Error::from)?;
    files.book().own(path)?;
    fs::set_permissions(path, permissions)?;
    listen(&socket, Backlog::MAXCONN).map_err(io::Error::from)?;
    Ok(socket)
}

fn stream(family: AddressFamily) -> nix::Result<OwnedFd> {
    socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)
}

impl<S> Opened<S> {
    pub fn new(service: S, sockets: Sockets, shutters: Arc<Shutters>, closing: ShutdownWatch) -> Self {
        Self { service, sockets, shutters, canary: None, measuring: None, closing, held: None }
    }

    /// Answers for the service's threads.
    pub fn watched(self, canary: Canary) -> Self {
        Self { canary: Some(canary), ..self }
    }

    /// Whose lag is measured on the service's threads.
    pub fn measured(self, guard: Arc<Guard>) -> Self {
        Self { measuring: Some(guard), ..self }
    }

    /// What is let go of when the sockets are closed.
    pub fn holding(self, held: Held) -> Self {
        Self { held: Some(held), ..self }
    }
}

impl<S: Service> Opened<S> {
    async fn serve(&mut self, fds: Option<ListenFds>, listeners_per_fd: usize) {
        let (mut raised, mut closing) = (self.shutters.raised.subscribe(), self.closing.clone());
        tokio::select! {
            _ = raised.wait_for(|raised| *raised) => {}
            _ = closing.wait_for(|closing| *closing) => return,
        }
        if let Some(table) = &fds {
            for (address, socket) in self.sockets.open.drain(..) {
                table.lock().add(address, socket.into_raw_fd());
            }
        }
        if let Some(canary) = self.canary.take() {
            tokio::spawn(canary.sing());
        }
        if let Some(guard) = self.measuring.take() {
            tokio::spawn(async move { guard.measure().await });
        }
        let mut served = self.service.start_service(fds, self.closing.clone(), listeners_per_fd);
        // Its sockets are open, so when it first has to wait it has begun to accept.
        tokio::select! {
            biased;
            () = &mut served => return,
            () = std::future::ready(()) => self.shutters.down.send_modify(|down| *down = down.saturating_sub(1)),
        }
        served.await;
    }
}

#[async_trait]
impl<S: Service> Service for Opened<S> {
    async fn start_service(&mut self, fds: Option<ListenFds>, _: ShutdownWatch, listeners_per_fd: usize) {
        self.serve(fds, listeners_per_fd).await;
        self.held = None;
    }

    fn name(&self) -> &str {
        self.service.name()
    }

    fn threads(&self) -> Option<usize> {
        self.service.threads()
    }

    fn listen_addresses(&self) -> Option<Vec<String>> {
        self.service.listen_addresses()
    }
}

/// An inherited socket does not fit the configuration.
fn otherwise(why: String) -> anyhow::Result<OwnedFd> {
    Err(io::Error::new(io::ErrorKind::InvalidInput, why).into())
}

/// Removes the socket that a process left behind which is no more. Nothing else is ever removed.
fn remove_stale(path: &Path) -> anyhow::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found if found.as_ref().is_ok_and(|found| !found.file_type().is_socket()) => {
            let taken = "there is a file of this name already, which is no socket";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, taken).into());
        }
        found => {
            found?;
        }
    }
    let probe = stream(AddressFamily::Unix).map_err(io::Error::from)?;
    match connect(probe.as_raw_fd(), &UnixAddr::new(path)?) {
        Err(Errno::ECONNREFUSED) => Ok(fs::remove_file(path)?),
        Err(Errno::ENOENT) => Ok(()),
        // EAGAIN: it listens, with a full queue.
        Ok(()) | Err(Errno::EAGAIN) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens on it").into()),
        Err(error) => Err(io::Error::from(error)).context("cannot tell whether another process listens on it"),
    }
}
