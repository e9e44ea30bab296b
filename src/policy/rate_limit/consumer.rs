//! What one consumer has of the limits, for the operator.

use std::sync::Arc;

use super::{Limit, RateLimit};
use crate::{
    exchange::Inbound,
    limit::{Key, Local, Verdict, key::Part},
    name::LimitName,
};

impl RateLimit {
    /// What the caller of a made-up request has of those limits that count nothing but consumers, plans and routes, and that on this node.
    pub fn standing(&self, inbound: &Inbound<'_>) -> Vec<(LimitName, Verdict)> {
        let now = self.counters.now();
        self.of_caller(inbound).map(|(limit, local, key)| (limit.name.clone(), local.look(key, now))).collect()
    }

    /// Nothing of them was used.
    pub fn forget(&self, inbound: &Inbound<'_>) {
        self.of_caller(inbound).for_each(|(_, local, key)| local.forget(key));
    }

    fn of_caller<'a>(&'a self, inbound: &'a Inbound<'_>) -> impl Iterator<Item = (&'a Limit, &'a Arc<Local>, Key)> {
        let counted = self.limits.iter().filter(|limit| counts_consumers(&limit.key.0));
        counted.filter_map(|limit| {
            let budget = limit.budgets.get(limit.choice.of(inbound.caller)?)?;
            Some((limit, budget.counter.local()?, self.counters.key(&limit.key, inbound)))
        })
    }
}

/// What else a key has, only a request of the consumer's can tell.
fn counts_consumers(parts: &[Part]) -> bool {
    parts.contains(&Part::Consumer) && parts.iter().all(|part| matches!(part, Part::Consumer | Part::Plan | Part::Route(_)))
}
