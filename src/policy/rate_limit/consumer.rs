//! What one consumer has of the limits, for the operator.

use super::{Budget, Limit, RateLimit};
use crate::{
    exchange::Inbound,
    limit::{Key, Verdict, key::Part},
    name::LimitName,
};

impl RateLimit {
    /// What the caller of a made-up request has of those limits that count nothing but consumers, plans and routes.
    pub fn standing(&self, inbound: &Inbound<'_>) -> Vec<(LimitName, Verdict)> {
        let now = self.counters.now();
        self.of_caller(inbound).map(|(limit, budget, key)| (limit.name.clone(), budget.local.look(key, now))).collect()
    }

    /// Nothing of them was used.
    pub fn forget(&self, inbound: &Inbound<'_>) {
        self.of_caller(inbound).for_each(|(_, budget, key)| budget.local.forget(key));
    }

    fn of_caller<'a>(&'a self, inbound: &'a Inbound<'_>) -> impl Iterator<Item = (&'a Limit, &'a Budget, Key)> {
        let counted = self.limits.iter().filter(|limit| counts_consumers(&limit.key.0));
        counted.filter_map(|limit| {
            let budget = limit.budgets.get(limit.choice.of(inbound.caller)?)?;
            Some((limit, budget, self.counters.key(&limit.key, inbound)))
        })
    }
}

/// What else a key has, only a request of the consumer's can tell.
fn counts_consumers(parts: &[Part]) -> bool {
    parts.contains(&Part::Consumer) && parts.iter().all(|part| matches!(part, Part::Consumer | Part::Plan | Part::Route(_)))
}
