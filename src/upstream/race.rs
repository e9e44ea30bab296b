//! Two threads that do the same at the same moment, again and again: what goes wrong between two instructions goes wrong here.

use std::{
    hint::{black_box, spin_loop},
    sync::atomic::{AtomicU32, Ordering::AcqRel, Ordering::Acquire},
    thread,
};

/// Both threads act on each of these, both at once, and get what both did.
pub fn race<T: Sync, D: Send>(over: &[T], act: impl Fn(&T) -> D + Sync) -> Vec<(D, D)> {
    let met: Vec<_> = over.iter().map(|_| AtomicU32::new(0)).collect();
    let run = || {
        let acts = over.iter().zip(&met).enumerate().map(|(round, (one, met))| (meet(met, round), act(one)).1);
        acts.collect::<Vec<_>>()
    };
    let (one, other) = thread::scope(|scope| {
        let (one, other) = (scope.spawn(run), scope.spawn(run));
        (one.join().unwrap(), other.join().unwrap())
    });
    one.into_iter().zip(other).collect()
}

/// Waits for the other thread. The one that comes last waits for as long as the other may need to see it, a little more each round.
fn meet(met: &AtomicU32, round: usize) {
    if met.fetch_add(1, AcqRel) == 1 {
        return (0..round % 512).for_each(|step| _ = black_box(step));
    }
    // Spinning is of no use where both threads have to share a core.
    for spins in 1_u32.. {
        match met.load(Acquire) {
            2 => return,
            _ if spins.is_multiple_of(2_000) => thread::yield_now(),
            _ => spin_loop(),
        }
    }
}
