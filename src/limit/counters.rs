//! The counts of all limits, which outlive reloads, by the names in the file.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Instant,
};

use super::{
    Local, Terms,
    key::{Parts, Secret},
};
use crate::{
    exchange::Inbound,
    limit::Key,
    name::{LimitName, PlanName, RouteName},
};

/// Where a limit stands in the file: it keeps its counts while it stands there.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Id {
    pub policy: &'static str,
    /// Absent: the gateway's own, which all routes share.
    pub route: Option<RouteName>,
    /// Of `rate_limit`.
    pub limit: Option<LimitName>,
    /// Each plan counts for itself.
    pub plan: Option<PlanName>,
}

/// The counts of all limits, and the secret and the clock by which they count.
#[derive(Debug)]
pub struct Counters {
    secret: Secret,
    since: Instant,
    /// Several of one name while a configuration takes the place of another, or is tried.
    locals: Mutex<HashMap<Id, Vec<Weak<Local>>>>,
}

impl Default for Counters {
    fn default() -> Self {
        Self { secret: Secret::default(), since: Instant::now(), locals: Mutex::default() }
    }
}

impl Counters {
    /// Nanoseconds of the clock by which everything here is counted.
    pub fn now(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// The key of a request.
    pub fn key(&self, parts: &Parts, inbound: &Inbound<'_>) -> Key {
        self.secret.key(parts, inbound)
    }

    /// The limit of this place with these terms: the one in use if there is one.
    pub fn local(&self, id: &Id, terms: &Terms) -> Arc<Local> {
        let mut locals = self.locals.lock().unwrap_or_else(PoisonError::into_inner);
        let known = locals.entry(id.clone()).or_default();
        known.retain(|local| local.strong_count() > 0);
        if let Some(same) = known.iter().filter_map(Weak::upgrade).find(|local| local.terms() == terms) {
            return same;
        }
        let local = Arc::new(Local::new(*terms));
        known.push(Arc::downgrade(&local));
        local
    }
}
