//! A bounded table of states, one for each key, which all threads change at once.
//!
//! **Shape.** Sets of [seven slots](set) in two lines of cache. A key may be in either of two sets, both in one page of memory; it is
//! put where there is more room. There are 32 bytes a key that the table is made for (a load of 4 in 7). Memory is taken page
//! by page, as keys come, and never more.
//!
//! **Nobody is under-counted.** A slot's key and state are two words, and each set has a *floor*. The invariant:
//!
//! > A key that is in neither of its sets has used no more than the [join](Meter::join) of their two floors.
//!
//! 1. It holds at first: nobody has used anything.
//! 2. Who leaves raises the floor. A slot is given away under the lock of its set: its state is frozen (`MOVING`), so it is the last that its key
//!    will have had here; the floor becomes the join of floor and state; then the key changes. Floors never fall.
//! 3. Who comes begins at the join of both floors, under both locks, hence no lower than it had used, and in one slot only.
//! 4. Who is there is counted by compare-and-swap on the state, without a lock. It holds only if the key word is afterwards what it was
//!    before: then the slot was this key's all the time, since each giving away counts a turn in that word. Else the count
//!    may have gone to another key, which is then over-counted, and the key is sought anew.
//! 5. What lowers a state ([`lower`](Table::lower), [`forget`](Table::forget)) does it under the lock, so it hits nobody else.
//!
//! In (4) a slot could be given away exactly 65,536 times between two instructions of another thread, and have the same
//! state again: this is taken to be impossible.
//!
//! This is Space-Saving (Metwally, Agrawal, El Abbadi 2005), whose newcomers inherit the least count, with the floor in its place:
//! the least count falls when something is given back, and whoever left before would be freed by it.
//!
//! **Who leaves** is the one of 14 that has used least now; one that has used nothing leaves no trace, and slots that nobody had go first. So an offender stays while
//! a flood of other keys passes by, and if it must go, the floor of its set is as high as its own use: it comes back limited, and so do all that come
//! to that set. A newcomer that the floor refuses takes no slot.
//!
//! **Over-counting** happens only where both sets of a key are full of keys in use.
#![doc = include_str!("overflow.md")]

mod memory;
mod set;

use super::{Key, meter::Meter};

use self::{
    memory::Memory,
    set::{Locked, Patience, Set, Slot},
};

pub(super) use self::set::MOVING;

/// Keys of a set, if the table has as many as it is made for.
const KEYS_A_SET: usize = 4;

/// Sets among which are the two of a key: a page of 4 KiB. A power of two.
const NEIGHBOURS: usize = 32;

#[derive(Debug)]
pub(super) struct Table {
    memory: Memory,
    /// A multiple of `neighbours`.
    sets: usize,
    /// A power of two, of two at least.
    neighbours: usize,
}

/// What becomes of a state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Change {
    To(u64),
    None,
}

/// The two sets of a key, and what it is called there.
struct Home<'a> {
    sets: [Set<'a>; 2],
    tag: u64,
}

impl Table {
    pub fn new(keys: usize) -> Self {
        let sets = keys.div_ceil(KEYS_A_SET);
        let neighbours = sets.next_power_of_two().clamp(2, NEIGHBOURS);
        let sets = sets.max(1).next_multiple_of(neighbours);
        Self { memory: Memory::new(sets), sets, neighbours }
    }

    /// A table of the same keys, with what `renew` makes of their states.
    pub fn renewed(&self, renew: impl Fn(u64) -> u64) -> Self {
        let renewed = Self { memory: Memory::new(self.sets), sets: self.sets, neighbours: self.neighbours };
        for (from, to) in self.memory.pairs().iter().zip(renewed.memory.pairs()) {
            Set::new(from).renew(&Set::new(to), &renew);
        }
        renewed
    }

    /// Changes the state of a key, as `step` says. It may be asked more than once; the result is of the last time.
    pub fn change<R>(&self, key: Key, meter: &Meter, now: u64, step: impl Fn(u64) -> (Change, R)) -> R {
        let Some(home) = self.home(key) else { return step(0).1 };
        let mut patience = Patience::default();
        loop {
            let result = match home.find() {
                Some(slot) => slot.change(&step),
                None => home.come(meter, now, &step),
            };
            match result {
                Some(result) => return result,
                None => patience.wait(),
            }
        }
    }

    /// Lowers the state of a key, if it is there.
    pub fn lower(&self, key: Key, less: impl Fn(u64) -> u64) {
        let Some(home) = self.home(key) else { return };
        let _locked = home.lock();
        let Some(slot) = home.find() else { return };
        while slot.change(|state| (Change::To(less(state)), ())).is_none() {}
    }

    /// The state of a key as it is, or as it would begin.
    pub fn look(&self, key: Key, meter: &Meter) -> u64 {
        let Some(home) = self.home(key) else { return 0 };
        let _locked = home.lock();
        home.find().and_then(|slot| slot.state()).unwrap_or_else(|| home.floor(meter))
    }

    /// Lets a key begin anew.
    pub fn forget(&self, key: Key, meter: &Meter) {
        let Some(home) = self.home(key) else { return };
        let _locked = home.lock();
        match home.find() {
            Some(slot) => slot.set(0),
            None if home.floor(meter) == 0 => (),
            None => home.settle(meter, 0, 0),
        }
    }

    /// Never `None`: the indices are below the number of sets.
    fn home(&self, key: Key) -> Option<Home<'_>> {
        let hash = mixed(key.hash());
        let first = scaled(hash >> 32, self.sets);
        // Another one of the same page.
        let second = first ^ (1 + scaled(hash & u64::from(u32::MAX), self.neighbours - 1));
        let pairs = self.memory.pairs();
        let [low, high] = [first.min(second), first.max(second)];
        // No tag is zero, which a slot has that was never used.
        let tag = (hash & (u64::MAX >> set::TURN_BITS)).max(1);
        Some(Home { sets: [Set::new(pairs.get(low)?), Set::new(pairs.get(high)?)], tag })
    }
}

impl<'a> Home<'a> {
    fn find(&self) -> Option<Slot<'a>> {
        let [one, other] = &self.sets;
        // Both at once: if they must come from memory, it is one wait.
        let (here, there) = (one.matches(self.tag), other.matches(self.tag));
        if here > 0 { one.slot(here.trailing_zeros(), self.tag) } else { other.slot(there.trailing_zeros(), self.tag) }
    }

    /// Both sets, in the order of their places, so that nobody waits for each other.
    fn lock(&self) -> [Locked<'a>; 2] {
        let [low, high] = &self.sets;
        let low = low.lock();
        [low, high.lock()]
    }

    fn floor(&self, meter: &Meter) -> u64 {
        let [one, other] = &self.sets;
        meter.join(one.floor(), other.floor())
    }

    /// Takes a slot for a key that has none. `None`: it has one by now.
    fn come<R>(&self, meter: &Meter, now: u64, step: impl Fn(u64) -> (Change, R)) -> Option<R> {
        let _locked = self.lock();
        if self.find().is_some() {
            return None;
        }
        let (change, result) = step(self.floor(meter));
        if let Change::To(state) = change {
            self.settle(meter, now, state);
        }
        Some(result)
    }

    /// Gives the slot that has used least to this key. Under both locks.
    fn settle(&self, meter: &Meter, now: u64, state: u64) {
        loop {
            let Some((set, slot, left)) = self.least(meter, now) else { return };
            if slot.freeze(left) {
                set.raise_floor(meter.join(set.floor(), left));
                return slot.give(self.tag, state);
            }
        }
    }

    /// The slot that has used least, of the set that has more room; of several one that nobody ever had, for the others' keys may come
    /// again, or be at it now. Never `None`: there are slots, and none is frozen under the locks.
    fn least(&self, meter: &Meter, now: u64) -> Option<(Set<'a>, Slot<'a>, u64)> {
        let of = |set: &Set<'a>| {
            let states = set.slots().filter_map(|slot| Some((slot, slot.state()?)));
            let used = states.map(|(slot, state)| ((meter.used(state, now), slot.was_given()), slot, state));
            let (mut least, mut busy) = (None::<((u64, bool), Slot<'a>, u64)>, 0);
            for one in used {
                busy += usize::from(one.0.0 > 0);
                least = Some(least.filter(|least| least.0 <= one.0).unwrap_or(one));
            }
            least.map(|(used, slot, state)| ((used, busy), (*set, slot, state)))
        };
        let least = self.sets.iter().filter_map(of).min_by_key(|(order, _)| *order);
        least.map(|(_, slot)| slot)
    }
}

/// The same for the same, and spread: a key need not be a good hash.
fn mixed(key: u64) -> u64 {
    let key = (key ^ key >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let key = (key ^ key >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    key ^ key >> 32
}

/// A part of 32 bits of a hash, as an index below `bound`.
fn scaled(hash: u64, bound: usize) -> usize {
    ((u128::from(hash) * bound as u128) >> 32) as usize
}
