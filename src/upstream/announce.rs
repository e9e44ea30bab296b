//! Connections that begin by saying whose they are: the PROXY protocol towards a service.
//!
//! The service takes what the header says for all that follows, so such a connection carries the requests of one client only.

use std::{
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use async_trait::async_trait;
use pingora_core::{
    Error, ErrorType, OrErr,
    connectors::l4::Connect,
    protocols::l4::{ext, socket::SocketAddr, stream::Stream},
    upstreams::peer::HttpPeer,
};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::{
    config::upstream::ProxyProtocol,
    deadline::Clock,
    proxy_protocol::{Addresses, write_v1, write_v2},
};

/// Makes the connections to a service begin with a PROXY header.
#[derive(Clone, Debug)]
pub(super) struct Announcer {
    version: ProxyProtocol,
    /// Drawn anew for each configuration: no client can choose an address whose connections fall together with another's.
    keys: RandomState,
}

impl Announcer {
    pub fn new(version: ProxyProtocol) -> Self {
        Self { version, keys: RandomState::new() }
    }

    /// For a client: connections of others are not taken for it.
    pub fn for_client(&self, peer: &mut HttpPeer, client: Addresses) {
        // Pingora's own key does not know what a connection began with.
        peer.group_key = self.keys.hash_one((peer.group_key, client));
        peer.options.custom_l4 = Some(Arc::new(Announced { version: self.version, whose: Whose::Client(client) }));
    }

    /// For ourselves, as health checks are.
    pub fn for_ourselves(&self, peer: &mut HttpPeer) {
        peer.options.custom_l4 = Some(Arc::new(Announced { version: self.version, whose: Whose::Ours }));
    }
}

/// How a connection is opened that says whose it is.
#[derive(Debug)]
struct Announced {
    version: ProxyProtocol,
    whose: Whose,
}

#[derive(Clone, Copy, Debug)]
enum Whose {
    Client(Addresses),
    Ours,
}

impl Announced {
    fn header(&self, socket: &TcpStream) -> Vec<u8> {
        match (self.version, self.whose) {
            (ProxyProtocol::V1, Whose::Client(client)) => write_v1(Some(client)),
            (ProxyProtocol::V2, Whose::Client(client)) => write_v2(Some(client)),
            // The specification advises against UNKNOWN in checks (§2.1): some services refuse it.
            (ProxyProtocol::V1, Whose::Ours) => write_v1(own(socket)),
            (ProxyProtocol::V2, Whose::Ours) => write_v2(None),
        }
    }
}

/// Both ends of a connection of ours.
fn own(socket: &TcpStream) -> Option<Addresses> {
    Some(Addresses { source: socket.local_addr().ok()?, destination: socket.peer_addr().ok()? })
}

#[async_trait]
impl Connect for Announced {
    /// Bounded by the peer's `total_connection_timeout`, and by that of a check.
    async fn connect(&self, address: &SocketAddr) -> pingora_core::Result<Stream> {
        let address = address.as_inet().ok_or_else(|| Error::explain(ErrorType::ConnectError, "not an address of TCP"))?;
        let mut socket = ext::connect(address, None).await?;
        Clock::current().hold_back(&socket).or_err(ErrorType::SocketError, "while taking a handle on it")?;
        let header = self.header(&socket);
        socket.write_all(&header).await.or_err(ErrorType::ConnectError, "the PROXY header cannot be sent")?;
        Ok(socket.into())
    }
}

#[cfg(test)]
mod tests {
    use pingora_core::upstreams::peer::Peer;
    use tokio::{io::AsyncReadExt, net::TcpListener};

    use super::*;

    fn client(port: u16) -> Addresses {
        Addresses { source: ([192, 0, 2, 1], port).into(), destination: ([198, 51, 100, 1], 443).into() }
    }

    fn key(announcer: &Announcer, client: Addresses) -> u64 {
        let mut peer = HttpPeer::new("127.0.0.1:1", false, String::new());
        announcer.for_client(&mut peer, client);
        peer.reuse_hash()
    }

    #[test]
    fn connections_are_of_one_client() {
        let announcer = Announcer::new(ProxyProtocol::V2);
        assert_eq!(key(&announcer, client(1)), key(&announcer, client(1)));
        assert_ne!(key(&announcer, client(1)), key(&announcer, client(2)));
        assert_ne!(key(&announcer, client(1)), key(&Announcer::new(ProxyProtocol::V2), client(1)), "none can be foreseen");
    }

    /// What a service hears first.
    async fn heard(version: ProxyProtocol, whose: Whose) -> Vec<u8> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (announced, address) = (Announced { version, whose }, address.into());
        let (stream, accepted) = tokio::join!(announced.connect(&address), listener.accept());
        let ((mut socket, _), mut heard) = (accepted.unwrap(), Vec::new());
        drop(stream.unwrap());
        socket.read_to_end(&mut heard).await.unwrap();
        heard
    }

    #[tokio::test]
    async fn the_header_is_the_first_that_a_service_hears() {
        assert_eq!(heard(ProxyProtocol::V1, Whose::Client(client(1))).await, write_v1(Some(client(1))));
        assert_eq!(heard(ProxyProtocol::V2, Whose::Client(client(1))).await, write_v2(Some(client(1))));
        assert_eq!(heard(ProxyProtocol::V2, Whose::Ours).await, write_v2(None));
        let own = heard(ProxyProtocol::V1, Whose::Ours).await;
        assert!(own.starts_with(b"PROXY TCP4 127.0.0.1 127.0.0.1 "), "{}", own.escape_ascii());
    }
}
