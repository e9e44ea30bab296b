//! Medians of interleaved runs, and how sure they are.

use serde::Serialize;

/// A median with its interval, and the runs that it is of, in their order.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Estimate {
    pub median: f64,
    pub low: f64,
    pub high: f64,
    pub each: Vec<f64>,
}

impl Estimate {
    /// Of these runs. The interval covers the true median with 95 % or a little more, whatever the distribution: its ends are
    /// order statistics. Of fewer than six runs it is the lowest and the highest, which cover less.
    pub fn of(each: Vec<f64>) -> Self {
        let mut sorted = each.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let Some(last) = sorted.len().checked_sub(1) else { return Self::default() };
        let median = f64::midpoint(sorted[last / 2], sorted[last.div_ceil(2)]);
        let cut = trimmed(sorted.len());
        Self { median, low: sorted[cut], high: sorted[last - cut], each }
    }

    /// Run by run, how this one stands to the other: both were taken in the same turn.
    pub fn over(&self, other: &Self) -> Self {
        Self::paired(self, other, |own, theirs| own / theirs)
    }

    /// Run by run, how much more this one is than the other.
    pub fn minus(&self, other: &Self) -> Self {
        Self::paired(self, other, |own, theirs| own - theirs)
    }

    fn paired(one: &Self, other: &Self, of: impl Fn(f64, f64) -> f64) -> Self {
        Self::of(one.each.iter().zip(&other.each).map(|(own, theirs)| of(*own, *theirs)).collect())
    }
}

/// How many of `n` sorted runs lie below the lower end of a 95 % interval of the median: the most with
/// `P(Binomial(n, 1/2) <= k - 1) <= 2.5 %`.
fn trimmed(n: usize) -> usize {
    let mut term = 0.5_f64.powi(i32::try_from(n).unwrap_or(i32::MAX));
    let mut below = 0.0;
    for k in 0..n {
        below += term;
        if below > 0.025 {
            return k.saturating_sub(1);
        }
        term *= (n - k) as f64 / (k + 1) as f64;
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(each: &[f64], median: f64, low: f64, high: f64) {
        let found = Estimate::of(each.to_vec());
        assert_eq!((found.median, found.low, found.high), (median, low, high), "{each:?}");
    }

    #[test]
    fn the_interval_of_nine_runs_leaves_out_one_on_either_side() {
        check(&[9.0, 1.0, 8.0, 2.0, 7.0, 3.0, 6.0, 4.0, 5.0], 5.0, 2.0, 8.0);
    }

    #[test]
    fn the_interval_of_few_runs_is_all_of_them() {
        check(&[3.0], 3.0, 3.0, 3.0);
        check(&[2.0, 1.0], 1.5, 1.0, 2.0);
        check(&[5.0, 1.0, 2.0, 4.0, 3.0, 6.0], 3.5, 1.0, 6.0);
        check(&[], 0.0, 0.0, 0.0);
    }

    #[test]
    fn the_ends_of_an_interval_are_those_of_the_tables() {
        // Of n runs, the k-th lowest and highest: David and Nagaraja, Order Statistics, section 7.1.
        for (n, k) in [(6, 1), (8, 1), (9, 2), (11, 2), (12, 3), (15, 4), (20, 6), (25, 8), (30, 10)] {
            assert_eq!(trimmed(n) + 1, k, "{n} runs");
        }
    }

    #[test]
    fn ratios_are_taken_run_by_run() {
        let slow_machine = Estimate::of(vec![10.0, 20.0, 30.0]);
        let same_machine = Estimate::of(vec![5.0, 10.0, 15.0]);
        let ratio = slow_machine.over(&same_machine);
        assert_eq!((ratio.low, ratio.median, ratio.high), (2.0, 2.0, 2.0));
        assert_eq!(slow_machine.minus(&same_machine).each, [5.0, 10.0, 15.0]);
    }
}
