//! Whose turn it is: smooth weighted round robin, laid out once as a list of turns.
//!
//! The order is that of nginx's `ngx_http_upstream_round_robin`: among 5, 1 and 1 it is `a a b a c a a`, never five in a
//! row. Laid out only over the endpoints that take traffic, and anew when one goes or comes back, so that the others'
//! proportions stay exact; a request then costs one atomic addition.

use std::sync::atomic::{AtomicU64, Ordering};

/// Most turns of one list. Weights whose turns would be more are scaled down, each to at least one turn: at this bound
/// that shifts a share by less than one in a thousand of the average among ten endpoints.
const TURNS_MAX: u64 = 10_000;

/// The order in which endpoints take their turns, as positions.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Turns(Box<[usize]>);

impl Turns {
    /// Lays out the turns of endpoints with these weights; 0 takes none.
    pub fn of(weights: &[u32]) -> Self {
        let shares = shares(weights);
        if shares.iter().all(|share| *share <= 1) {
            // Equals take turns in their order, as they would below, without the work of many.
            return Self(shares.iter().enumerate().filter(|(_, share)| **share > 0).map(|(position, _)| position).collect());
        }
        let total = shares.iter().sum::<i64>();
        let mut lead = vec![0_i64; shares.len()];
        Self((0..total).filter_map(|_| next(&mut lead, &shares, total)).collect())
    }

    /// The positions from the cursor on, one whole round. Moves the cursor by one; it survives a new list.
    pub fn round(&self, cursor: &AtomicU64) -> impl Iterator<Item = usize> {
        let start = cursor.fetch_add(1, Ordering::Relaxed).checked_rem(self.0.len() as u64).unwrap_or(0) as usize;
        let (before, from) = self.0.split_at_checked(start).unwrap_or((&[], &self.0));
        from.iter().chain(before).copied()
    }

    /// Whose turn it is anywhere in the list, of 32 random bits. Where one whose turn it is declines, its turns are so spread over all; the one
    /// behind it would get them all.
    pub fn any(&self, random: u32) -> Option<usize> {
        let turn = (u64::from(random) * self.0.len() as u64) >> 32;
        self.0.get(turn as usize).copied()
    }
}

/// One step of the smooth algorithm: all gain their share, the one in front is taken and falls back by the total.
fn next(lead: &mut [i64], shares: &[i64], total: i64) -> Option<usize> {
    lead.iter_mut().zip(shares).for_each(|(lead, share)| *lead += share);
    let (position, front) = lead.iter_mut().enumerate().rev().max_by_key(|(_, lead)| **lead)?;
    *front -= total;
    Some(position)
}

/// The weights in lowest terms, scaled to fit [`TURNS_MAX`].
fn shares(weights: &[u32]) -> Vec<i64> {
    let divisor = weights.iter().copied().fold(0, gcd).max(1);
    let total = weights.iter().map(|w| u64::from(w / divisor)).sum::<u64>().max(1);
    let scale = |weight: u32| match u64::from(weight / divisor) {
        0 => 0,
        share if total <= TURNS_MAX => share,
        share => (share * TURNS_MAX / total).max(1),
    };
    weights.iter().map(|w| i64::try_from(scale(*w)).unwrap_or(i64::MAX)).collect()
}

const fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(weights: &[u32], expected: &[usize]) {
        assert_eq!(&*Turns::of(weights).0, expected, "{weights:?}");
    }

    #[test]
    fn turns_are_spread_as_nginx_spreads_them() {
        check(&[5, 1, 1], &[0, 0, 1, 0, 2, 0, 0]);
        check(&[1, 1, 1], &[0, 1, 2]);
        check(&[2, 1], &[0, 1, 0]);
        check(&[2, 2, 0, 2], &[0, 1, 3]);
    }

    #[test]
    fn weights_count_in_lowest_terms() {
        check(&[300, 100], &[0, 0, 1, 0]);
        check(&[1000, 1000], &[0, 1]);
    }

    #[test]
    fn weight_zero_takes_no_turn() {
        check(&[0, 1], &[1]);
        check(&[0, 0], &[]);
        check(&[], &[]);
    }

    #[test]
    fn a_round_starts_one_later_each_time() {
        let (turns, cursor) = (Turns::of(&[2, 1]), AtomicU64::default());
        let rounds: Vec<Vec<usize>> = (0..4).map(|_| turns.round(&cursor).collect()).collect();
        assert_eq!(rounds, [[0, 1, 0], [1, 0, 0], [0, 0, 1], [0, 1, 0]]);
        assert_eq!(Turns::of(&[]).round(&cursor).count(), 0);
    }

    #[test]
    fn many_odd_weights_stay_bounded_and_proportional() {
        let weights: Vec<u32> = (0..100).map(|n| 997 - (n % 7)).chain([1]).collect();
        let turns = Turns::of(&weights);
        assert!(turns.0.len() <= TURNS_MAX as usize);
        let of = |position| turns.0.iter().filter(|p| **p == position).count();
        assert!((98..=101).contains(&of(0)), "{}", of(0));
        assert_eq!(of(100), 1);
    }
}
