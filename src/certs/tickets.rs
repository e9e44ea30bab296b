//! Session tickets with keys that rotate (RFC 5077, RFC 8446 §4.6.1).

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use rustls::{crypto::aws_lc_rs::Ticketer, server::ProducesTickets};

/// Seals tickets with one key, opens those of the one before too. rustls has a rotator of its own, but it opens tickets of any age
/// after a silence, and counts whole seconds of a clock that can be set.
pub struct Tickets {
    rotate: Duration,
    keys: ArcSwap<Keys>,
}

#[derive(Clone)]
struct Keys {
    current: Arc<dyn ProducesTickets>,
    previous: Option<Arc<dyn ProducesTickets>>,
    /// From when the current one is in use.
    since: Instant,
}

impl Tickets {
    /// # Errors
    /// There is no randomness for a key.
    pub fn new(rotate: Duration) -> Result<Self, rustls::Error> {
        let keys = Keys { current: Ticketer::new()?, previous: None, since: Instant::now() };
        Ok(Self { rotate, keys: ArcSwap::from_pointee(keys) })
    }

    pub fn rotate(&self) -> Duration {
        self.rotate
    }

    /// The keys at this time. Whoever comes first after the rotation is due makes it.
    fn keys(&self, now: Instant) -> Option<Arc<Keys>> {
        let keys = self.keys.load_full();
        match keys.after(now, self.rotate) {
            None => Some(keys),
            Some(next) => {
                self.keys.compare_and_swap(&keys, Arc::new(next.ok()?));
                Some(self.keys.load_full())
            }
        }
    }

    fn decrypt_at(&self, ticket: &[u8], now: Instant) -> Option<Vec<u8>> {
        let keys = self.keys(now)?;
        keys.current.decrypt(ticket).or_else(|| keys.previous.as_ref()?.decrypt(ticket))
    }
}

impl Keys {
    /// The next keys if the rotation is due, in use from when it was. After a silence of two rotations what was sealed before is too
    /// old.
    fn after(&self, now: Instant, rotate: Duration) -> Option<Result<Self, rustls::Error>> {
        let due = self.since + rotate;
        if now < due {
            return None;
        }
        let (previous, since) = if now < due + rotate { (Some(self.current.clone()), due) } else { (None, now) };
        Some(Ticketer::new().map(|current| Self { current, previous, since }))
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    /// What the client is told: longer it need not keep a ticket.
    fn lifetime(&self) -> u32 {
        u32::try_from(self.rotate.as_secs() * 2).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.keys(Instant::now())?.current.encrypt(plain)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.decrypt_at(cipher, Instant::now())
    }
}

/// Without the keys.
impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").field("rotate", &self.rotate).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_ticket_outlives_one_rotation_and_not_two() {
        let tickets = Tickets::new(HOUR).unwrap();
        let (start, sealed) = (tickets.keys.load().since, tickets.encrypt(b"session").unwrap());
        let opened = |after: Duration| tickets.decrypt_at(&sealed, start + after);
        assert_eq!(opened(HOUR / 2).unwrap(), b"session");
        assert_eq!(opened(HOUR + HOUR / 2).unwrap(), b"session");
        assert_eq!(opened(HOUR * 2), None, "a rotation that is late does not let it live longer");
    }

    #[test]
    fn after_a_silence_nothing_old_is_opened() {
        let tickets = Tickets::new(HOUR).unwrap();
        let sealed = tickets.encrypt(b"session").unwrap();
        assert_eq!(tickets.decrypt_at(&sealed, Instant::now() + HOUR * 2), None);
    }

    #[test]
    fn keys_of_one_process_are_not_anothers() {
        let (one, other) = (Tickets::new(HOUR).unwrap(), Tickets::new(HOUR).unwrap());
        assert_eq!(other.decrypt(&one.encrypt(b"session").unwrap()), None);
    }
}
