//! The keys that a node knows, in a table of fixed size that takes memory as it fills.

use std::sync::{
    Arc, Mutex, OnceLock, PoisonError,
    atomic::{
        AtomicU64,
        Ordering::{Acquire, Release},
    },
};

use arc_swap::ArcSwapOption;

use super::entry::Entry;

/// Places in which one key may stand.
const WAYS: usize = 8;

/// Sets of places that are allocated together.
const SETS: usize = 64;

pub struct Table {
    sections: Box<[OnceLock<Box<Section>>]>,
}

struct Section {
    sets: [Set; SETS],
    /// Held by who brings a new key, so that none stands there twice.
    new: Mutex<()>,
}

#[derive(Default)]
struct Set([Place; WAYS]);

#[derive(Default)]
struct Place {
    hash: AtomicU64,
    entry: ArcSwapOption<Entry>,
}

impl Table {
    pub fn new(keys: usize) -> Self {
        let sections = keys.div_ceil(WAYS * SETS).max(1);
        Self { sections: (0..sections).map(|_| OnceLock::new()).collect() }
    }

    pub fn find(&self, hash: u64) -> Option<Arc<Entry>> {
        self.section(hash)?.get()?.set(hash)?.find(hash)
    }

    /// The entry of a key, made if it is new. None: all places are taken by keys that are in use.
    pub fn entry(&self, hash: u64, now: u64, key: impl FnOnce() -> String) -> Option<Arc<Entry>> {
        let section = self.section(hash)?.get_or_init(Box::default);
        let set = section.set(hash)?;
        if let Some(entry) = set.find(hash) {
            return Some(entry);
        }
        let _one = section.new.lock().unwrap_or_else(PoisonError::into_inner);
        set.find(hash).or_else(|| set.put(Arc::new(Entry::new(hash, key(), now)), now))
    }

    fn section(&self, hash: u64) -> Option<&OnceLock<Box<Section>>> {
        self.sections.get((hash >> 32) as usize % self.sections.len())
    }
}

impl Default for Section {
    fn default() -> Self {
        Self { sets: std::array::from_fn(|_| Set::default()), new: Mutex::default() }
    }
}

impl Section {
    fn set(&self, hash: u64) -> Option<&Set> {
        self.sets.get(hash as usize % SETS)
    }
}

impl Set {
    fn find(&self, hash: u64) -> Option<Arc<Entry>> {
        let place = self.0.iter().find(|place| place.hash.load(Acquire) == hash)?;
        place.entry.load_full().filter(|entry| entry.hash == hash)
    }

    fn put(&self, entry: Arc<Entry>, now: u64) -> Option<Arc<Entry>> {
        let free = self.0.iter().find(|place| place.entry.load().as_ref().is_none_or(|entry| entry.is_idle(now)))?;
        free.entry.store(Some(entry.clone()));
        free.hash.store(entry.hash, Release);
        Some(entry)
    }
}
