//! Whether it is worth asking: a part of a store that does not answer is not asked until it answered the keeper.

use std::sync::atomic::{
    AtomicBool, AtomicU32, AtomicU64,
    Ordering::{Relaxed, SeqCst},
};

/// Questions in a row without an answer in time after which nobody asks any more.
const FAILURES_MAX: u32 = 3;

/// Parts of a cluster that are judged on their own: ranges of as many slots. A store without slots is one.
const PARTS: usize = 64;

/// Slots of a cluster.
const SLOTS: usize = 16_384;

#[derive(Debug)]
pub struct Breakers {
    parts: Box<[Breaker]>,
}

#[derive(Debug, Default)]
pub struct Breaker {
    failures: AtomicU32,
    open: AtomicBool,
    opened: AtomicU64,
}

impl Breakers {
    pub fn of_one() -> Self {
        Self { parts: [Breaker::default()].into() }
    }

    pub fn of_a_cluster() -> Self {
        Self { parts: (0..PARTS).map(|_| Breaker::default()).collect() }
    }

    /// Who judges the part that has the key.
    pub fn of(&self, key: &str) -> Option<&Breaker> {
        self.parts.get(if self.parts.len() == 1 { 0 } else { part(key) })
    }

    pub fn len(&self) -> usize {
        self.parts.len()
    }

    pub fn at(&self, part: usize) -> Option<&Breaker> {
        self.parts.get(part)
    }

    /// Parts that nobody asks.
    pub fn open(&self) -> impl Iterator<Item = usize> {
        self.parts.iter().enumerate().filter(|(_, part)| part.is_open()).map(|(index, _)| index)
    }

    pub fn opened(&self) -> u64 {
        self.parts.iter().map(|part| part.opened.load(Relaxed)).sum()
    }
}

impl Breaker {
    pub fn is_open(&self) -> bool {
        self.open.load(Relaxed)
    }

    pub fn answered(&self) {
        // Read first: what all requests write to costs them all.
        if self.failures.load(Relaxed) != 0 {
            self.failures.store(0, Relaxed);
        }
    }

    /// A question had no answer in time. Gives whether nobody asks from now on.
    pub fn failed(&self) -> bool {
        self.failures.fetch_add(1, Relaxed) + 1 >= FAILURES_MAX && self.trip()
    }

    /// Gives whether it was closed before.
    pub fn trip(&self) -> bool {
        let tripped = !self.open.swap(true, SeqCst);
        self.opened.fetch_add(u64::from(tripped), Relaxed);
        tripped
    }

    /// Gives whether it was open before.
    pub fn close(&self) -> bool {
        self.failures.store(0, Relaxed);
        self.open.swap(false, SeqCst)
    }
}

/// The part of a cluster that has a key.
pub fn part(key: &str) -> usize {
    usize::from(crc(hash_tag(key).as_bytes())) % SLOTS / (SLOTS / PARTS)
}

/// What the slot is made of: the first text in braces, if there is one.
fn hash_tag(key: &str) -> &str {
    let inner = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag);
    inner.filter(|tag| !tag.is_empty()).unwrap_or(key)
}

/// CRC-16/XMODEM, as the specification of the cluster has it.
fn crc(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(crc(b"123456789"), 0x31C3);
        assert_eq!(part("{user1000}.following"), part("user1000"));
        assert_eq!(hash_tag("foo{}{bar}"), "foo{}{bar}");
    }

    #[test]
    fn three_failures_in_a_row_open_it_once() {
        let breaker = Breaker::default();
        assert_eq!([breaker.failed(), breaker.failed()], [false, false]);
        breaker.answered();
        assert_eq!([breaker.failed(), breaker.failed(), breaker.failed(), breaker.failed()], [false, false, true, false]);
        assert!(breaker.is_open() && breaker.close() && !breaker.close());
    }
}
