//! Holds a request back until its end is noted.
//!
//! pingora-proxy 0.9.1 notes the end of a request's body, empty or not, while it already listens for the response, in an order left to
//! chance. When it reads a 101 first, it takes that end for the end of the upgraded stream, and closes it. So the head of a request
//! that asks for an upgrade stays in our socket (`TCP_CORK`) until the request's task has nothing left to do but wait: the end is noted
//! by then, and no answer can have come before.

use socket2::{SockRef, Socket};
use std::os::fd::AsFd;

/// A handle of its own on the socket of one connection. The kernel lets go after 200 ms in any case.
#[derive(Debug)]
pub struct Cork {
    socket: Socket,
    loose: bool,
}

impl Cork {
    /// # Errors
    /// No file descriptor is left.
    pub fn on(socket: &impl AsFd) -> std::io::Result<Self> {
        Ok(Self { socket: SockRef::from(socket).try_clone()?, loose: false })
    }

    /// What is written from now on stays here. (Where it cannot be held, it goes as it always went.)
    pub fn close(&mut self) {
        let _ = self.socket.set_tcp_cork(true);
    }

    pub fn loosen(&mut self) {
        self.loose = true;
    }

    pub fn is_loose(&self) -> bool {
        self.loose
    }
}

impl Drop for Cork {
    fn drop(&mut self) {
        let _ = self.socket.set_tcp_cork(false);
    }
}
