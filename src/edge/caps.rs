//! How many connections a listener takes, in all and of one client.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

/// Parts of the table of clients, so that connections of different clients seldom wait for each other.
const PARTS: usize = 32;

/// The connections that a listener has, and may have.
#[derive(Debug)]
pub struct Caps {
    most: usize,
    most_of_client: usize,
    open: AtomicUsize,
    /// Connections by client. Holds no client without one, so it is as bounded as they are.
    clients: [Mutex<HashMap<Client, usize, ahash::RandomState>>; PARTS],
}

/// Who counts as one client: an IPv4 address, or a /64 network of IPv6, which is what one subscriber has (RFC 6177).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Client(u64, bool);

/// There is no room for another connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Full {
    /// On the listener.
    Listener,
    /// Of this client.
    Client,
}

/// A connection's place among those of its listener, until it is dropped.
#[derive(Debug)]
pub struct Place {
    caps: Arc<Caps>,
    client: Option<Client>,
}

impl Caps {
    pub fn new(most: usize, most_of_client: usize) -> Arc<Self> {
        let clients = std::array::from_fn(|_| Mutex::default());
        Arc::new(Self { most, most_of_client, open: AtomicUsize::new(0), clients })
    }

    /// Takes a place on the listener.
    ///
    /// # Errors
    /// There is none.
    pub fn enter(self: &Arc<Self>) -> Result<Place, Full> {
        let place = Place { caps: self.clone(), client: None };
        match self.open.fetch_add(1, Relaxed) < self.most {
            true => Ok(place),
            false => Err(Full::Listener),
        }
    }

    /// The next connection would be refused.
    pub fn is_full(&self) -> bool {
        self.open.load(Relaxed) >= self.most
    }

    fn with<T>(&self, client: Client, look: impl FnOnce(&mut HashMap<Client, usize, ahash::RandomState>) -> T) -> Option<T> {
        let part = self.clients.get(client.part())?;
        Some(look(&mut part.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl Place {
    /// Takes a place among the connections of a client too.
    ///
    /// # Errors
    /// It has as many as it may have.
    pub fn of(&mut self, address: IpAddr) -> Result<(), Full> {
        let (client, most) = (Client::of(address), self.caps.most_of_client);
        let taken = self.caps.with(client, |clients| {
            let open = clients.entry(client).or_default();
            let free = *open < most;
            *open += usize::from(free);
            free
        });
        if taken != Some(true) {
            return Err(Full::Client);
        }
        self.client = Some(client);
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.caps.open.fetch_sub(1, Relaxed);
        let Some(client) = self.client else { return };
        self.caps.with(client, |clients| match clients.get_mut(&client) {
            Some(open) if *open > 1 => *open -= 1,
            _ => drop(clients.remove(&client)),
        });
    }
}

impl Client {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self(u64::from(v4.to_bits()), false),
            IpAddr::V6(v6) => Self((v6.to_bits() >> 64) as u64, true),
        }
    }

    /// Neighbours fall into different parts.
    const fn part(self) -> usize {
        (self.0 as usize ^ (self.0 >> 32) as usize) % PARTS
    }
}

impl Full {
    /// The `reason` of a metric.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Listener => "connections",
            Self::Client => "connections_per_ip",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter(caps: &Arc<Caps>, address: &str) -> Result<Place, Full> {
        let mut place = caps.enter()?;
        place.of(address.parse().unwrap())?;
        Ok(place)
    }

    #[test]
    fn a_listener_is_full_until_a_connection_ends() {
        let caps = Caps::new(2, 9);
        let (first, _second) = (enter(&caps, "192.0.2.1").unwrap(), enter(&caps, "192.0.2.2").unwrap());
        assert_eq!(enter(&caps, "192.0.2.3").unwrap_err(), Full::Listener);
        drop(first);
        assert!(enter(&caps, "192.0.2.3").is_ok());
    }

    #[test]
    fn a_client_is_an_address_or_a_network_of_ipv6() {
        let check = |first: &str, second: &str, same: bool| {
            let caps = Caps::new(9, 1);
            let _held = enter(&caps, first).unwrap();
            assert_eq!(enter(&caps, second).is_err(), same, "{first} {second}");
        };
        check("192.0.2.1", "192.0.2.1", true);
        check("192.0.2.1", "192.0.2.2", false);
        check("192.0.2.1", "::ffff:192.0.2.1", true);
        check("2001:db8::1", "2001:db8::ffff", true);
        check("2001:db8::1", "2001:db8:0:1::1", false);
    }

    #[test]
    fn nothing_is_left_of_clients_that_went() {
        let caps = Caps::new(9, 2);
        let held = [enter(&caps, "192.0.2.1"), enter(&caps, "192.0.2.1"), enter(&caps, "192.0.2.1"), enter(&caps, "::1")];
        assert_eq!(held.iter().filter(|place| place.is_ok()).count(), 3);
        drop(held);
        assert_eq!(caps.open.load(Relaxed), 0);
        assert!(caps.clients.iter().all(|part| part.lock().unwrap().is_empty()));
    }
}
