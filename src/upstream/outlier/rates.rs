//! Rates of success, and which of them lie too far below the others. As Envoy does it.

use crate::config::upstream::SuccessRate;

/// What a rate is measured by.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Bar {
    pub mean: f64,
    /// A lower rate is too low.
    pub least: f64,
}

/// The rate of a tally, if it is of enough tries.
pub fn of(tally: u64, rules: &SuccessRate) -> Option<f64> {
    let (tries, failures) = (tally >> 32, tally & u64::from(u32::MAX));
    (tries >= u64::from(rules.min_requests.get())).then(|| 1.0 - failures as f64 / tries as f64)
}

/// So many standard deviations below the mean; `None` if there are too few to compare.
pub fn bar(rates: &[(usize, f64)], rules: &SuccessRate) -> Option<Bar> {
    if rates.len() < rules.min_endpoints.get() as usize {
        return None;
    }
    let count = rates.len() as f64;
    let mean = rates.iter().map(|(_, rate)| rate).sum::<f64>() / count;
    let variance = rates.iter().map(|(_, rate)| (rate - mean).powi(2)).sum::<f64>() / count;
    Some(Bar { mean, least: mean - rules.deviations * variance.sqrt() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rates: &[f64], least: Option<f64>) {
        let rates: Vec<_> = rates.iter().copied().enumerate().collect();
        let found = bar(&rates, &SuccessRate::default()).map(|bar| bar.least);
        assert_eq!(found.map(|least| (least * 1e4).round()), least.map(|least| (least * 1e4).round()), "{rates:?}");
    }

    #[test]
    fn the_bar_lies_deviations_below_the_mean() {
        check(&[1.0, 1.0, 1.0, 1.0], None);
        check(&[0.99; 5], Some(0.99));
        // Mean 0.8, standard deviation 0.4.
        check(&[1.0, 1.0, 1.0, 1.0, 0.0], Some(0.04));
        check(&[], None);
    }

    #[test]
    fn a_rate_needs_enough_tries() {
        let rules = SuccessRate::default();
        assert_eq!(of(99 << 32, &rules), None);
        assert_eq!(of(100 << 32 | 25, &rules), Some(0.75));
    }
}
