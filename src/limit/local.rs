//! One named limit, counted on this node.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{
    Algorithm, CLOCK_MAX, Key, Rate, Verdict,
    meter::Meter,
    table::{Change, Table},
};

/// One named limit, counted on this node. All threads count in it at once.
#[derive(Debug)]
pub struct Local {
    meter: Meter,
    states: States,
}

#[derive(Debug)]
enum States {
    Many(Table),
    One(AtomicU64),
}

impl Local {
    /// For at least so many keys at once, at 32 bytes a key, of which memory is taken as they come. What does not fit (see
    /// [`Algorithm::fits`]) is cut to what does.
    pub fn new(algorithm: &Algorithm, rate: Rate, burst: u64, keys: usize) -> Self {
        Self { meter: Meter::new(algorithm, rate, burst), states: States::Many(Table::new(keys)) }
    }

    /// For what has one key only, such as a route: whatever the key, the count is the same.
    pub fn single(algorithm: &Algorithm, rate: Rate, burst: u64) -> Self {
        Self { meter: Meter::new(algorithm, rate, burst), states: States::One(AtomicU64::new(0)) }
    }

    /// A limit of other terms for as many keys, which begins with what was used of this one. What is counted here from now on is not counted there.
    pub fn renewed(&self, algorithm: &Algorithm, rate: Rate, burst: u64, now: u64) -> Self {
        let (now, meter) = (now.min(CLOCK_MAX), Meter::new(algorithm, rate, burst));
        let renew = |state| match self.meter.look(state, now) {
            Verdict { limit, remaining, .. } if remaining < limit => {
                meter.charge(0, u32::try_from(limit - remaining).unwrap_or(u32::MAX), now)
            }
            _ => 0,
        };
        let states = match &self.states {
            States::Many(table) => States::Many(table.renewed(renew)),
            States::One(state) => States::One(AtomicU64::new(renew(state.load(Ordering::Relaxed)))),
        };
        Self { meter, states }
    }

    /// Counts a request, or refuses it. A refused request takes nothing.
    pub fn take(&self, key: Key, cost: u32, now: u64) -> Verdict {
        let now = now.min(CLOCK_MAX);
        self.change(key, now, |state| {
            let (after, verdict) = self.meter.take(state, cost, now);
            (if verdict.admitted { Change::To(after) } else { Change::None }, verdict)
        })
    }

    /// Gives back what was taken, since a later limit refused the request.
    ///
    /// `until` is the verdict's, `now` the present. What came back by itself in between is not given back again, so this never
    /// leaves less counted than was taken by others.
    pub fn give_back(&self, key: Key, cost: u32, until: u64, now: u64) {
        let now = now.min(CLOCK_MAX);
        let less = |state| self.meter.give_back(state, cost, until, now);
        match &self.states {
            States::Many(table) => table.lower(key, less),
            States::One(state) => lower(state, less),
        }
    }

    /// Counts what the answer says that the request cost. Never refuses, and may leave a debt.
    pub fn charge(&self, key: Key, cost: u32, now: u64) {
        let now = now.min(CLOCK_MAX);
        self.change(key, now, |state| (Change::To(self.meter.charge(state, cost, now)), ()));
    }

    /// What a request of cost 1 would be told, which is not counted.
    pub fn look(&self, key: Key, now: u64) -> Verdict {
        let state = match &self.states {
            States::Many(table) => table.look(key, &self.meter),
            States::One(state) => state.load(Ordering::Relaxed),
        };
        self.meter.look(state, now.min(CLOCK_MAX))
    }

    /// Lets a key begin anew.
    pub fn forget(&self, key: Key) {
        match &self.states {
            States::Many(table) => table.forget(key, &self.meter),
            States::One(state) => state.store(0, Ordering::Relaxed),
        }
    }

    fn change<R>(&self, key: Key, now: u64, step: impl Fn(u64) -> (Change, R)) -> R {
        match &self.states {
            States::Many(table) => table.change(key, &self.meter, now, step),
            States::One(state) => change(state, step),
        }
    }
}

/// Changes a state that is nobody else's key.
fn change<R>(cell: &AtomicU64, step: impl Fn(u64) -> (Change, R)) -> R {
    let mut state = cell.load(Ordering::Relaxed);
    loop {
        let (change, result) = step(state);
        let Change::To(after) = change else { return result };
        match cell.compare_exchange_weak(state, after, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return result,
            Err(found) => state = found,
        }
    }
}

fn lower(cell: &AtomicU64, less: impl Fn(u64) -> u64) {
    change(cell, |state| (Change::To(less(state)), ()));
}
