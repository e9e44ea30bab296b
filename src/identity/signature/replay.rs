//! Which signatures were used, for as long as they would still be good.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Mutex, PoisonError},
};

use ahash::RandomState;

use super::Refusal;

/// Parts of the table, each with its own lock.
const SHARDS: usize = 16;

/// Most signatures that are remembered. At five and a half minutes each, 2,700 a second. About 26 MiB when full.
pub const REPLAYS_MAX: usize = 900_000;

/// Signatures that were used, with the second of Unix time after which they are no good anyhow. When it is full of such as are still
/// good, no other is taken: who cannot be remembered could come twice.
#[derive(Debug)]
pub struct Replays {
    shards: [Mutex<Shard>; SHARDS],
    shard_max: usize,
}

#[derive(Debug, Default)]
struct Shard {
    used: HashMap<[u8; 16], u64, RandomState>,
    /// When the next one stops being good, so that a full shard is not searched in vain.
    sweep_at: u64,
}

impl Default for Replays {
    fn default() -> Self {
        Self::new(REPLAYS_MAX)
    }
}

impl Replays {
    /// Room for `max` signatures, rounded up to a multiple of 16.
    pub fn new(max: usize) -> Self {
        Self { shards: Default::default(), shard_max: max.div_ceil(SHARDS) }
    }

    /// Notes a use. `once` is a digest, `until` and `now` are seconds of Unix time.
    ///
    /// # Errors
    /// It was used before, or there is no room.
    pub fn note(&self, once: [u8; 16], until: u64, now: u64) -> Result<(), Refusal> {
        let [first, ..] = once;
        let shard = self.shards.get(usize::from(first) % SHARDS).ok_or(Refusal::Full)?;
        shard.lock().unwrap_or_else(PoisonError::into_inner).note(once, until, now, self.shard_max)
    }
}

impl Shard {
    fn note(&mut self, once: [u8; 16], until: u64, now: u64, max: usize) -> Result<(), Refusal> {
        if self.used.len() >= max && now > self.sweep_at {
            self.used.retain(|_, until| *until >= now);
            self.sweep_at = self.used.values().copied().min().unwrap_or(now);
        }
        let full = self.used.len() >= max;
        match self.used.entry(once) {
            Entry::Occupied(known) if *known.get() >= now => Err(Refusal::Replayed),
            Entry::Occupied(mut known) => {
                known.insert(until);
                Ok(())
            }
            Entry::Vacant(_) if full => Err(Refusal::Full),
            Entry::Vacant(free) => {
                free.insert(until);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn once(n: u8) -> [u8; 16] {
        [n; 16]
    }

    #[test]
    fn a_second_use_is_refused_until_the_signature_is_no_good() {
        let replays = Replays::new(100);
        assert_eq!(replays.note(once(1), 10, 5), Ok(()));
        assert_eq!(replays.note(once(1), 10, 10), Err(Refusal::Replayed));
        assert_eq!(replays.note(once(1), 20, 11), Ok(()));
        assert_eq!(replays.note(once(1), 20, 12), Err(Refusal::Replayed));
    }

    #[test]
    fn a_full_table_refuses_until_there_is_room() {
        let replays = Replays::new(SHARDS);
        assert_eq!(replays.note(once(0), 10, 5), Ok(()));
        assert_eq!(replays.note(once(16), 10, 5), Err(Refusal::Full));
        assert_eq!(replays.note(once(16), 10, 10), Err(Refusal::Full));
        assert_eq!(replays.note(once(0), 10, 5), Err(Refusal::Replayed), "what is known stays known");
        assert_eq!(replays.note(once(16), 20, 11), Ok(()));
    }
}
