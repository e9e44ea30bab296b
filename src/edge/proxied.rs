//! Who the client is, by the header of the PROXY protocol that its connection begins with.

use std::{net::SocketAddr, os::fd::AsRawFd};

use bytes::BytesMut;
use pingora_core::protocols::{
    GetSocketDigest, SocketDigest, Stream,
    l4::{socket::SocketAddr as Address, stream::Stream as L4Stream},
};
use tokio::io::AsyncReadExt;

use crate::proxy_protocol::{Parsed, parse};

/// Reads the header, and makes its source the connection's peer. What came behind it is left to be read.
///
/// # Errors
/// There is no header, or none that can be read.
pub async fn read(stream: Stream) -> Result<Stream, &'static str> {
    let mut stream = stream.into_any().downcast::<L4Stream>().map_err(|_| "proxy_protocol")?;
    let mut seen = BytesMut::new();
    loop {
        match parse(&seen) {
            Parsed::Partial => {}
            Parsed::Bad(_) => return Err("proxy_protocol"),
            Parsed::Done { length, source } => {
                stream.rewind(seen.get(length..).unwrap_or_default());
                if let Some(addresses) = source {
                    stream.set_socket_digest(told(&stream, addresses.source));
                }
                return Ok(stream);
            }
        }
        if stream.read_buf(&mut seen).await.map_err(|_| "closed")? == 0 {
            return Err("closed");
        }
    }
}

/// The socket with another peer.
fn told(stream: &L4Stream, peer: SocketAddr) -> SocketDigest {
    let digest = SocketDigest::from_raw_fd(stream.as_raw_fd());
    // Nobody else has it yet.
    let _ = digest.peer_addr.set(Some(Address::Inet(peer)));
    digest
}
