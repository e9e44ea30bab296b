//! The sockets that are listened on. They are opened before Pingora starts, which would try for 30 s and then panic in a thread of its
//! own, and are handed to it as those of a predecessor are.

use std::{
    fs, io,
    os::{
        fd::{AsRawFd, IntoRawFd, OwnedFd},
        unix::fs::{FileTypeExt, MetadataExt},
    },
    path::{Path, PathBuf},
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

use super::{activation::Inherited, fault::Fault};
use crate::{
    config::{
        self, Config, Listener,
        address::{FileMode, ListenAddress},
    },
    stores::Held,
};

/// Open sockets, by what Pingora knows them by.
#[derive(Default)]
pub struct Sockets {
    open: Vec<(String, OwnedFd)>,
}

/// The files of the Unix sockets that we opened: removed when dropped.
#[derive(Default)]
pub struct Files(Vec<SocketFile>);

/// A service of Pingora's whose sockets are open.
pub struct Opened<S> {
    service: S,
    sockets: Sockets,
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

/// A file that a Unix socket is found by.
struct SocketFile {
    path: PathBuf,
    /// A file that another process has put in its place since is not ours.
    id: (u64, u64),
}

impl Sockets {
    /// Opens the sockets of all listeners, but for those that we inherit.
    ///
    /// # Errors
    /// One cannot be opened.
    pub fn of_listeners(config: &Config, inherited: &mut Inherited, files: &mut Files) -> anyhow::Result<Self> {
        let doors = config.listeners.iter().map(|(name, listener)| Door::of(name.as_str(), listener));
        Self::open(doors, inherited, files)
    }

    /// Opens the socket of the admin listener, unless we inherit it.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn of_admin(admin: &config::Admin, inherited: &mut Inherited, files: &mut Files) -> anyhow::Result<Self> {
        Self::open([Door::of_admin(admin)], inherited, files)
    }

    fn open<'a>(doors: impl IntoIterator<Item = Door<'a>>, inherited: &mut Inherited, files: &mut Files) -> anyhow::Result<Self> {
        let mut sockets = Self::default();
        for door in doors {
            let socket = door.open(inherited, files);
            let socket = socket.with_context(|| Fault::Listen { address: door.address.clone(), key: door.key.clone() })?;
            sockets.open.push((door.address.key(), socket));
        }
        Ok(sockets)
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

    fn open(&self, inherited: &mut Inherited, files: &mut Files) -> anyhow::Result<OwnedFd> {
        match (inherited.take(self.address), self.address) {
            (Some(socket), _) => self.adopt(socket),
            (None, ListenAddress::Tcp(address)) => Ok(self.open_tcp(SockaddrStorage::from(*address)).map_err(io::Error::from)?),
            (None, ListenAddress::Unix(path)) => self.open_unix(path, files),
        }
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

    /// Nobody can connect before `listen`, so nobody does before the permissions are right.
    fn open_unix(&self, path: &Path, files: &mut Files) -> anyhow::Result<OwnedFd> {
        remove_stale(path)?;
        let socket = stream(AddressFamily::Unix).map_err(io::Error::from)?;
        bind(socket.as_raw_fd(), &UnixAddr::new(path)?).map_err(io::Error::from)?;
        files.0.push(SocketFile { path: path.to_owned(), id: id(path)? });
        fs::set_permissions(path, self.mode.permissions())?;
        listen(&socket, Backlog::MAXCONN).map_err(io::Error::from)?;
        Ok(socket)
    }
}

fn stream(family: AddressFamily) -> nix::Result<OwnedFd> {
    socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)
}

impl<S> Opened<S> {
    pub fn new(service: S, sockets: Sockets, closing: ShutdownWatch) -> Self {
        Self { service, sockets, closing, held: None }
    }

    /// What is let go of when the sockets are closed.
    pub fn holding(self, held: Held) -> Self {
        Self { held: Some(held), ..self }
    }
}

#[async_trait]
impl<S: Service> Service for Opened<S> {
    async fn start_service(&mut self, fds: Option<ListenFds>, _: ShutdownWatch, listeners_per_fd: usize) {
        if let Some(table) = &fds {
            for (address, socket) in self.sockets.open.drain(..) {
                table.lock().add(address, socket.into_raw_fd());
            }
        }
        self.service.start_service(fds, self.closing.clone(), listeners_per_fd).await;
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

/// Device and number of a file.
fn id(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if id(&self.path).is_ok_and(|now| now == self.id) {
            // One that stays is found to be stale at the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}
