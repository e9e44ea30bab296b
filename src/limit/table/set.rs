//! A set: seven slots in two lines of the processor's cache, one with the keys and one with the states.

use std::{
    hint,
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use super::{Change, memory::Lines};

/// Slots of a set. With the lock and the floor they fill its lines.
pub(super) const SLOTS: usize = 7;

/// In a state: its slot is being given to another key. Who sees it looks for its key anew.
pub(in crate::limit) const MOVING: u64 = 1 << 63;

/// Bits of a slot's key word that count how often it was given to another key. Above them is the key's tag.
pub(super) const TURN_BITS: u32 = 16;

#[derive(Clone, Copy)]
pub(super) struct Set<'a> {
    lock: &'a AtomicU64,
    keys: &'a [AtomicU64; SLOTS],
    /// No key that is not in the set has used more than this. Changed under the lock only.
    floor: &'a AtomicU64,
    states: &'a [AtomicU64; SLOTS],
}

/// A slot, and its key word when it was found.
#[derive(Clone, Copy)]
pub(super) struct Slot<'a> {
    key: &'a AtomicU64,
    state: &'a AtomicU64,
    word: u64,
}

/// While it is held no slot of the set is given to another key.
pub(super) struct Locked<'a>(&'a AtomicU64);

impl<'a> Set<'a> {
    pub fn new([keys, states]: &'a Lines) -> Self {
        let ([lock, keys @ ..], [floor, states @ ..]) = (keys, states);
        Self { lock, keys, floor, states }
    }

    /// Which slots have a tag: a bit for each. All are asked, so that the processor need not guess where to stop.
    pub fn matches(&self, tag: u64) -> u32 {
        let bit = |key: &AtomicU64| u32::from(key.load(Ordering::Acquire) >> TURN_BITS == tag);
        self.keys.iter().rev().fold(0, |bits, key| bits << 1 | bit(key))
    }

    /// The slot with an index, if it has the tag still.
    pub fn slot(&self, index: u32, tag: u64) -> Option<Slot<'a>> {
        let (key, state) = self.keys.get(index as usize).zip(self.states.get(index as usize))?;
        Some(Slot { key, state, word: key.load(Ordering::Acquire) }).filter(|slot| slot.word >> TURN_BITS == tag)
    }

    pub fn slots(&self) -> impl Iterator<Item = Slot<'a>> + use<'a> {
        let load = |(key, state): (&'a AtomicU64, &'a AtomicU64)| Slot { key, state, word: key.load(Ordering::Acquire) };
        self.keys.iter().zip(self.states).map(load)
    }

    pub fn floor(&self) -> u64 {
        self.floor.load(Ordering::Relaxed)
    }

    /// Under the lock only.
    pub fn raise_floor(&self, floor: u64) {
        self.floor.store(floor, Ordering::Relaxed);
    }

    /// Fills a set that nobody uses yet with the keys of this one. What was never used is not touched: it takes no memory.
    pub fn renew(&self, to: &Set<'_>, renew: impl Fn(u64) -> u64) {
        if self.floor() == 0 && self.keys.iter().all(|key| key.load(Ordering::Acquire) == 0) {
            return;
        }
        let _locked = self.lock();
        let copy = |word: &AtomicU64, to: &AtomicU64, renew: &dyn Fn(u64) -> u64| match word.load(Ordering::Acquire) {
            0 => {}
            word => to.store(renew(word), Ordering::Relaxed),
        };
        copy(self.floor, to.floor, &renew);
        self.keys.iter().zip(to.keys).for_each(|(from, to)| copy(from, to, &|key| key));
        self.states.iter().zip(to.states).for_each(|(from, to)| copy(from, to, &|state| renew(state & !MOVING)));
    }

    pub fn lock(&self) -> Locked<'a> {
        let mut patience = Patience::default();
        while self.lock.compare_exchange_weak(0, 1, Ordering::Acquire, Ordering::Relaxed).is_err() {
            patience.wait();
        }
        Locked(self.lock)
    }
}

impl Slot<'_> {
    /// Changes the state of the key that was found here. `None`: it may be another's by now, or has changed meanwhile.
    pub fn change<R>(&self, step: impl Fn(u64) -> (Change, R)) -> Option<R> {
        let state = self.state()?;
        let (change, result) = step(state);
        if let Change::To(after) = change {
            self.state.compare_exchange(state, after, Ordering::AcqRel, Ordering::Acquire).ok()?;
        }
        // What we compared with may have been another key's state, equal by chance.
        self.still().then_some(result)
    }

    /// `None`: it is being given to another key.
    pub fn state(&self) -> Option<u64> {
        Some(self.state.load(Ordering::Acquire)).filter(|state| state & MOVING == 0)
    }

    /// Whether it ever was a key's.
    pub fn was_given(&self) -> bool {
        self.word != 0
    }

    /// Whether it is still the same key's as when it was found.
    pub fn still(&self) -> bool {
        self.key.load(Ordering::Acquire) == self.word
    }

    /// Puts a state in the place of whatever it is. Under the lock only.
    pub fn set(&self, state: u64) {
        self.state.store(state, Ordering::Release);
    }

    /// Stops all changes, so that what `state` is remains true. `false`: it is no more. Under the lock only.
    pub fn freeze(&self, state: u64) -> bool {
        self.state.compare_exchange(state, state | MOVING, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Gives a frozen slot to a key. Under the lock only.
    pub fn give(&self, tag: u64, state: u64) {
        let turn = (self.word + 1) & ((1 << TURN_BITS) - 1);
        self.key.store(tag << TURN_BITS | turn, Ordering::Release);
        self.state.store(state, Ordering::Release);
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.0.store(0, Ordering::Release);
    }
}

/// Waits for another thread that has a few instructions to do: first at work, then, if it has lost its processor, by giving ours.
#[derive(Default)]
pub(super) struct Patience(u32);

impl Patience {
    pub fn wait(&mut self) {
        self.0 = self.0.saturating_add(1);
        if self.0 < 64 { hint::spin_loop() } else { thread::yield_now() }
    }
}
