//! How much of the traffic each tier of priority takes, as Envoy has it ("Priority levels" and "Panic threshold" of its documentation).
//!
//! A tier is asked for all until less than 1 / 1.4 of it, about 72 percent, is available; then it takes 1.4 × its available share, and what is left
//! over goes to the next. So the first tier has some of its own failures to spare before anyone else is bothered, and what it hands on
//! grows by steps with them, never at once. If all tiers together cannot take everything, they are asked for more in proportion; if, besides,
//! less of the upstream than the panic threshold is available, health is not believed any more. Unlike Envoy's, panic is of the upstream and not of
//! a tier: its endpoints are then one tier. Shares are of weights, not of endpoints (Envoy's `weighted_priority_health`).

/// Envoy's overprovisioning factor.
const OVERPROVISIONING: f64 = 1.4;

/// The weights of a tier: of those that take traffic, and of those that would if all were well.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Health {
    pub available: u64,
    pub all: u64,
}

/// Who is asked.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Shares {
    /// Each tier for this share of the traffic; they sum to 1, unless nobody is there.
    Of(Vec<f64>),
    /// Everyone, whatever is known of him.
    Panic,
}

/// `panic`: the share of all that must be available, from 0 (never panic: if nobody is available, nobody is asked) to 1.
pub(super) fn shares(tiers: &[Health], panic: f64) -> Shares {
    let able: Vec<f64> = tiers.iter().map(|tier| tier.able()).collect();
    let total: f64 = able.iter().sum();
    let whole = tiers.iter().fold(Health::default(), |whole, tier| whole.and(*tier));
    if total < 1.0 && whole.share() < panic {
        return Shares::Panic;
    }
    let mut left = 1.0;
    Shares::Of(able.iter().map(|able| take(&mut left, able / total.clamp(f64::MIN_POSITIVE, 1.0))).collect())
}

fn take(left: &mut f64, able: f64) -> f64 {
    let share = able.min(*left);
    *left -= share;
    share
}

impl Health {
    fn share(self) -> f64 {
        if self.all == 0 { 0.0 } else { self.available as f64 / self.all as f64 }
    }

    /// Share of all traffic that it can be asked for.
    fn able(self) -> f64 {
        (self.share() * OVERPROVISIONING).min(1.0)
    }

    const fn and(self, other: Self) -> Self {
        Self { available: self.available + other.available, all: self.all + other.all }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Percent available of each tier of weight 100, and percent of the traffic that it takes.
    fn check(available: &[u64], panic: f64, expected: Option<&[u32]>) {
        let tiers: Vec<_> = available.iter().map(|available| Health { available: *available, all: 100 }).collect();
        let percent = match shares(&tiers, panic) {
            Shares::Of(shares) => Some(shares.iter().map(|share| (share * 100.0).round() as u32).collect::<Vec<_>>()),
            Shares::Panic => None,
        };
        assert_eq!(percent.as_deref(), expected, "{available:?}");
    }

    #[test]
    fn a_tier_hands_on_what_is_more_than_its_health_allows() {
        // The table of Envoy's documentation.
        check(&[100, 100], 0.0, Some(&[100, 0]));
        check(&[72, 100], 0.0, Some(&[100, 0]));
        check(&[71, 71], 0.0, Some(&[99, 1]));
        check(&[50, 50], 0.0, Some(&[70, 30]));
        check(&[25, 100], 0.0, Some(&[35, 65]));
        check(&[25, 25], 0.0, Some(&[50, 50]));
        check(&[0, 100], 0.0, Some(&[0, 100]));
        check(&[25, 25, 20], 0.0, Some(&[36, 36, 29]));
    }

    #[test]
    fn panic_is_when_too_few_are_left_and_the_others_cannot_take_it() {
        check(&[40], 0.5, None);
        check(&[0], 0.01, None);
        check(&[50], 0.5, Some(&[100]));
        check(&[10, 100], 0.6, Some(&[14, 86]));
        check(&[0, 0], 0.0, Some(&[0, 0]));
    }

    #[test]
    fn an_empty_tier_is_passed_over() {
        let tiers = [Health::default(), Health { available: 1, all: 1 }];
        assert_eq!(shares(&tiers, 0.5), Shares::Of(vec![0.0, 1.0]));
    }
}
