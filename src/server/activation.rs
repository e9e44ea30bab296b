//! Sockets that a supervisor such as systemd opened for us: `sd_listen_fds(3)`.

use std::{io, os::fd::OwnedFd};

use listenfd::ListenFd;
use nix::sys::socket::{getsockopt, sockopt};

use crate::config::address::ListenAddress;

/// Listening sockets that the process was started with, or that a predecessor left to it.
#[derive(Default)]
pub struct Inherited(Vec<(ListenAddress, OwnedFd)>);

/// The process that the sockets are meant for, and how many there are.
const PID: &str = "LISTEN_PID";
const COUNT: &str = "LISTEN_FDS";

/// Most sockets that we look at.
const COUNT_MAX: usize = 1024;

/// Why a socket cannot be taken.
#[derive(Debug, thiserror::Error)]
enum Unfit {
    #[error("it is no stream socket: {0}")]
    Kind(io::Error),
    #[error("it does not listen")]
    Deaf,
    #[error("it has no address that a listener could name")]
    Nameless,
    #[error(transparent)]
    System(#[from] io::Error),
}

impl Inherited {
    /// Takes the sockets over; a child will not find them, nor the variables that tell of them. To be called before there are threads.
    pub fn of_this_process() -> Self {
        let number = |name: &str| std::env::var(name).ok()?.parse::<usize>().ok();
        let ours = number(PID).is_some_and(|pid| u32::try_from(pid) == Ok(std::process::id()));
        if !ours || number(COUNT).is_none_or(|count| count > COUNT_MAX) {
            return Self::default();
        }
        let mut given = ListenFd::from_env();
        let sockets = (0..given.len()).filter_map(|index| match listening(&mut given, index) {
            Ok(socket) => Some(socket),
            Err(unfit) => {
                tracing::warn!(index, "an inherited socket is left alone: {unfit}");
                None
            }
        });
        Self(sockets.collect())
    }

    /// The socket that is bound to this address.
    pub fn take(&mut self, address: &ListenAddress) -> Option<OwnedFd> {
        let at = self.0.iter().position(|(bound, _)| bound == address)?;
        let (_, socket) = self.0.swap_remove(at);
        tracing::info!("listening on an inherited socket at {address}");
        Some(socket)
    }

    /// Adds what a predecessor offers.
    pub fn add(&mut self, sockets: Vec<(ListenAddress, OwnedFd)>) {
        self.0.extend(sockets);
    }

    /// Closes what was not taken. Who opened it may still have it open: systemd, or the predecessor until it ends.
    pub fn close_the_rest(self) {
        for (address, _) in &self.0 {
            tracing::warn!("an inherited socket is left alone: no listener has the address `{address}`");
        }
    }
}

fn listening(given: &mut ListenFd, index: usize) -> Result<(ListenAddress, OwnedFd), Unfit> {
    let (address, socket) = match given.take_unix_listener(index) {
        Ok(Some(unix)) => {
            unix.set_nonblocking(true)?;
            (unix.local_addr()?.as_pathname().map(|path| ListenAddress::Unix(path.to_owned())), OwnedFd::from(unix))
        }
        _ => {
            let tcp = given.take_tcp_listener(index).map_err(Unfit::Kind)?.ok_or(Unfit::Nameless)?;
            tcp.set_nonblocking(true)?;
            (Some(ListenAddress::Tcp(tcp.local_addr()?)), OwnedFd::from(tcp))
        }
    };
    if !getsockopt(&socket, sockopt::AcceptConn).map_err(io::Error::from)? {
        return Err(Unfit::Deaf);
    }
    Ok((address.ok_or(Unfit::Nameless)?, socket))
}
