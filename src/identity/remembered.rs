//! Tokens that were judged already: a repeat costs one look into a table.
//!
//! Sharded by the token's digest, so that threads seldom meet, and a shard is locked for one probe only. Bounded by count and by memory; what
//! was not asked for again since the last sweep goes first (the clock algorithm).

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasherDefault, Hasher},
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::token::{Moment, TokenHash};

const SHARDS: usize = 64;

/// What one entry takes in memory beside what its value refers to, in bytes: digest twice, times, pointers, the slack of the tables.
const ENTRY: usize = 192;

/// The most that is remembered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    pub entries: usize,
    pub bytes: usize,
}

/// What was found out about tokens, each until its time.
pub struct Remembered<V> {
    shards: Box<[Mutex<Shard<V>>]>,
}

struct Shard<V> {
    entries: HashMap<TokenHash, Entry<V>, BuildHasherDefault<Leading>>,
    /// Oldest first; each digest in `entries` stands here once.
    order: VecDeque<TokenHash>,
    bytes: usize,
    bounds: Bounds,
    hits: u64,
    misses: u64,
}

struct Entry<V> {
    value: V,
    until: Moment,
    weight: usize,
    /// Asked for since the hand of the clock passed.
    used: bool,
}

impl<V: Clone> Remembered<V> {
    pub fn new(bounds: Bounds) -> Self {
        let each = Bounds { entries: bounds.entries.div_ceil(SHARDS), bytes: bounds.bytes.div_ceil(SHARDS) };
        Self { shards: (0..SHARDS).map(|_| Mutex::new(Shard::new(each))).collect() }
    }

    /// What is remembered of a token. From the moment on until which it was to be remembered, it is not.
    pub fn find(&self, token: &TokenHash, now: Moment) -> Option<V> {
        self.shard(token).look(token, now)
    }

    /// Remembers until the moment, which is not part of the time. `weight` is what the value refers to, in bytes.
    pub fn remember(&self, token: TokenHash, value: V, until: Moment, weight: usize, now: Moment) {
        if until > now {
            self.shard(&token).insert(token, Entry { value, until, weight: weight + ENTRY, used: false }, now);
        }
    }

    pub fn forget(&self, token: &TokenHash) {
        self.shard(token).remove(token);
    }

    /// Forgets all for which this does not hold.
    pub fn retain(&self, keep: impl Fn(&V) -> bool) {
        for shard in &self.shards {
            locked(shard).retain(&keep);
        }
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| locked(shard).entries.len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// About what they take in memory.
    pub fn bytes(&self) -> usize {
        self.shards.iter().map(|shard| locked(shard).bytes).sum()
    }

    /// How often a token was found, and how often not.
    pub fn looks(&self) -> (u64, u64) {
        let add = |(hits, misses), shard: &Shard<V>| (hits + shard.hits, misses + shard.misses);
        self.shards.iter().fold((0, 0), |sum, shard| add(sum, &locked(shard)))
    }

    fn shard(&self, token: &TokenHash) -> MutexGuard<'_, Shard<V>> {
        let [.., last] = token.0;
        let index = usize::from(last) % SHARDS;
        let shard = self.shards.get(index).expect("there are SHARDS of them");
        locked(shard)
    }
}

/// No code that can panic runs under the lock but that of allocation.
fn locked<V>(shard: &Mutex<Shard<V>>) -> MutexGuard<'_, Shard<V>> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<V: Clone> Shard<V> {
    fn new(bounds: Bounds) -> Self {
        Self { entries: HashMap::default(), order: VecDeque::new(), bytes: 0, bounds, hits: 0, misses: 0 }
    }

    fn look(&mut self, token: &TokenHash, now: Moment) -> Option<V> {
        let found = self.find(token, now);
        let counter = if found.is_some() { &mut self.hits } else { &mut self.misses };
        *counter += 1;
        found
    }

    fn find(&mut self, token: &TokenHash, now: Moment) -> Option<V> {
        let entry = self.entries.get_mut(token)?;
        if entry.until <= now {
            return None;
        }
        entry.used = true;
        Some(entry.value.clone())
    }

    fn insert(&mut self, token: TokenHash, entry: Entry<V>, now: Moment) {
        if entry.weight > self.bounds.bytes {
            return;
        }
        self.bytes += entry.weight;
        match self.entries.insert(token, entry) {
            Some(old) => self.bytes -= old.weight,
            None => self.order.push_back(token),
        }
        self.make_room(now);
    }

    /// Ends: each turn of the hand takes the mark of an entry or the entry.
    fn make_room(&mut self, now: Moment) {
        while self.entries.len() > self.bounds.entries || self.bytes > self.bounds.bytes {
            let Some(oldest) = self.order.pop_front() else { return };
            match self.entries.get_mut(&oldest) {
                Some(entry) if entry.used && entry.until > now => {
                    entry.used = false;
                    self.order.push_back(oldest);
                }
                _ => self.drop_entry(&oldest),
            }
        }
    }

    fn remove(&mut self, token: &TokenHash) {
        if self.entries.contains_key(token) {
            self.drop_entry(token);
            self.order.retain(|other| other != token);
        }
    }

    fn drop_entry(&mut self, token: &TokenHash) {
        if let Some(entry) = self.entries.remove(token) {
            self.bytes -= entry.weight;
        }
    }

    fn retain(&mut self, keep: impl Fn(&V) -> bool) {
        let bytes = &mut self.bytes;
        self.entries.retain(|_, entry| {
            let stays = keep(&entry.value);
            *bytes -= if stays { 0 } else { entry.weight };
            stays
        });
        self.order.retain(|token| self.entries.contains_key(token));
    }
}

/// The key is a SHA-256 already: its first bytes are the hash.
#[derive(Default)]
struct Leading(u64);

impl Hasher for Leading {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 = u64::from_le_bytes(*first);
        }
    }

    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Moment = Moment(1_000);

    fn hash(n: u64) -> TokenHash {
        TokenHash::of(&n.to_be_bytes())
    }

    fn table(entries: usize, bytes: usize) -> Remembered<u64> {
        Remembered::new(Bounds { entries, bytes })
    }

    #[test]
    fn a_token_is_remembered_until_its_time() {
        let table = table(1_000, 1 << 20);
        table.remember(hash(1), 1, Moment(2_000), 10, NOW);
        assert_eq!(table.find(&hash(1), Moment(1_999)), Some(1));
        assert_eq!(table.find(&hash(1), Moment(2_000)), None, "the last moment is not part of it");
        assert_eq!(table.find(&hash(2), NOW), None);
        table.remember(hash(3), 3, NOW, 10, NOW);
        assert_eq!((table.len(), table.looks()), (1, (1, 2)));
    }

    #[test]
    fn neither_count_nor_memory_grows_beyond_its_bound() {
        let by_count = table(SHARDS * 4, 1 << 30);
        let by_bytes = table(1 << 20, SHARDS * 4 * (ENTRY + 100));
        for table in [&by_count, &by_bytes] {
            (0..100_000).for_each(|n| table.remember(hash(n), n, Moment::NEVER, 100, NOW));
            assert_eq!(table.len(), SHARDS * 4, "full, and not more");
            assert_eq!(table.bytes(), SHARDS * 4 * (ENTRY + 100));
            let ordered: usize = table.shards.iter().map(|shard| locked(shard).order.len()).sum();
            assert_eq!(ordered, table.len());
        }
    }

    #[test]
    fn what_is_asked_for_stays_while_strangers_pass() {
        let table = table(SHARDS * 16, 1 << 30);
        (0..8).for_each(|n| table.remember(hash(n), n, Moment::NEVER, 1, NOW));
        for stranger in 100..20_000 {
            (0..8).for_each(|n| assert_eq!(table.find(&hash(n), NOW), Some(n), "after {stranger}"));
            table.remember(hash(stranger), 0, Moment::NEVER, 1, NOW);
        }
    }

    #[test]
    fn what_is_too_heavy_for_the_table_is_left_out() {
        let table = table(1_000, SHARDS * 1_000);
        table.remember(hash(1), 1, Moment::NEVER, 100, NOW);
        table.remember(hash(1), 2, Moment::NEVER, 200, NOW);
        assert_eq!((table.find(&hash(1), NOW), table.len(), table.bytes()), (Some(2), 1, 200 + ENTRY));
        table.remember(hash(2), 3, Moment::NEVER, 1_000, NOW);
        assert_eq!(table.find(&hash(2), NOW), None);
    }

    #[test]
    fn what_does_not_hold_any_longer_is_forgotten() {
        let table = table(1_000, 1 << 20);
        (0..100).for_each(|n| table.remember(hash(n), n, Moment::NEVER, 10, NOW));
        table.retain(|n| n % 2 == 0);
        table.forget(&hash(0));
        assert_eq!((table.len(), table.bytes()), (49, 49 * (10 + ENTRY)));
        assert_eq!((table.find(&hash(2), NOW), table.find(&hash(1), NOW)), (Some(2), None));
    }
}
