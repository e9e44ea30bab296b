//! Counts over the time just past: a ring of cells, each one atomic word.
//!
//! A word is the cell's tick in its upper half and its count in the lower. An addition is one atomic addition; only the first of each tick
//! exchanges the word for a new one. No addition is lost, whatever threads do at once.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

/// A count of what happened within a window that ends now. It moves on by a cell at a time, so it spans the window less at most one cell.
pub struct Sliding {
    /// Length of a cell in nanoseconds.
    width: u64,
    cells: Box<[AtomicU64]>,
}

const fn tick_of(word: u64) -> u32 {
    (word >> 32) as u32
}

const fn count_of(word: u64) -> u64 {
    word & u32::MAX as u64
}

const fn word(tick: u32, count: u32) -> u64 {
    (tick as u64) << 32 | count as u64
}

impl Sliding {
    /// A window of so many cells of so many nanoseconds, each at least a millisecond so that ticks come round after 49 days at the
    /// soonest.
    pub fn new(width: u64, cells: usize) -> Self {
        let cells = (0..cells.max(1)).map(|_| AtomicU64::default()).collect();
        Self { width: width.max(1_000_000), cells }
    }

    pub fn add(&self, now: u64, count: u32) {
        let (tick, Some(cell)) = self.at(now) else { return };
        if !self.is_of(cell.fetch_add(u64::from(count), Relaxed), tick) {
            self.begin(cell, tick, count);
        }
    }

    /// Takes back what was added at the same `now`, if its cell still counts.
    pub fn take_back(&self, now: u64, count: u32) {
        let (tick, Some(cell)) = self.at(now) else { return };
        let less = |seen: u64| (tick_of(seen) == tick).then(|| seen.checked_sub(u64::from(count))).flatten();
        let _ = cell.fetch_update(Relaxed, Relaxed, |seen| less(seen).filter(|less| tick_of(*less) == tick));
    }

    pub fn sum(&self, now: u64) -> u64 {
        let (tick, _) = self.at(now);
        let words = self.cells.iter().map(|cell| cell.load(Relaxed));
        words.filter(|word| self.is_near(*word, tick)).map(count_of).sum()
    }

    /// Forgets everything. What is added meanwhile may be forgotten too.
    pub fn clear(&self) {
        for cell in &self.cells {
            cell.store(0, Relaxed);
        }
    }

    /// The first addition of a tick: what the cell counted of an older one goes.
    #[cold]
    fn begin(&self, cell: &AtomicU64, tick: u32, count: u32) {
        let mut seen = cell.load(Relaxed);
        while !self.is_of(seen, tick) {
            match cell.compare_exchange_weak(seen, word(tick, count), Relaxed, Relaxed) {
                Ok(_) => return,
                Err(other) => seen = other,
            }
        }
        cell.fetch_add(u64::from(count), Relaxed);
    }

    fn at(&self, now: u64) -> (u32, Option<&AtomicU64>) {
        let tick = now / self.width;
        (tick as u32, self.cells.get((tick % self.cells.len() as u64) as usize))
    }

    /// Whether a cell counts this tick, or already one after it: our clock was read a little earlier than another's.
    fn is_of(&self, word: u64, tick: u32) -> bool {
        tick_of(word).wrapping_sub(tick) <= self.span()
    }

    /// Whether a cell lies within the window that ends with this tick.
    fn is_near(&self, word: u64, tick: u32) -> bool {
        tick.wrapping_sub(tick_of(word)) < self.span() || self.is_of(word, tick)
    }

    fn span(&self) -> u32 {
        self.cells.len() as u32
    }
}

impl fmt::Debug for Sliding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sliding({} cells of {} ns)", self.cells.len(), self.width)
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::upstream::race::race;

    const MS: u64 = 1_000_000;

    proptest! {
        #[test]
        fn the_sum_is_that_of_the_cells_within_the_window(steps in vec((0..40_u64, 0..5_u32), 1..200)) {
            let sliding = Sliding::new(10 * MS, 4);
            let (mut now, mut all) = (0, Vec::new());
            for (pause, count) in steps {
                now += pause * MS;
                sliding.add(now, count);
                all.push((now / (10 * MS), u64::from(count)));
                let within = |tick: u64| now / (10 * MS) - tick < 4;
                prop_assert_eq!(sliding.sum(now), all.iter().filter(|(tick, _)| within(*tick)).map(|(_, count)| count).sum::<u64>());
            }
        }
    }

    #[test]
    fn no_addition_is_lost_while_a_cell_turns() {
        // In the state of long ago each.
        let rings: Vec<_> = (0..5_000).map(|_| Sliding::new(MS, 1)).collect();
        rings.iter().for_each(|ring| ring.add(7 * MS, 5));
        race(&rings, |ring| ring.add(100 * MS, 1));
        assert!(rings.iter().all(|ring| ring.sum(100 * MS) == 2));
    }

    #[test]
    fn what_is_taken_back_never_was() {
        let sliding = Sliding::new(MS, 4);
        sliding.add(7 * MS, 3);
        sliding.take_back(7 * MS, 2);
        assert_eq!(sliding.sum(7 * MS), 1);
        sliding.take_back(7 * MS, 2);
        sliding.take_back(9 * MS, 1);
        assert_eq!(sliding.sum(9 * MS), 1, "more than was there, or of a cell that is over, is not taken");
    }

    #[test]
    fn a_ring_that_stood_still_for_long_counts_nothing_old() {
        let sliding = Sliding::new(MS, 4);
        sliding.add(5 * MS, 9);
        let later = (1_u64 << 31) * MS + 5 * MS;
        assert_eq!(sliding.sum(later), 0);
        sliding.add(later, 1);
        assert_eq!(sliding.sum(later), 1);
    }
}
