//! The counts of all limits, which outlive reloads, by the names in the file.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Instant,
};

use super::{
    Key, Local, Terms,
    concurrency::Carried,
    flood::Flood,
    key::{Parts, Secret},
};
use crate::{
    exchange::Inbound,
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
pub struct Counters {
    secret: Secret,
    since: Instant,
    known: Mutex<Known>,
}

/// What is in use. Whoever counts holds it; this only finds it again.
#[derive(Default)]
struct Known {
    /// The latest last: there are several of one place while a configuration takes the place of another, or is tried.
    locals: HashMap<Id, Vec<(Terms, Weak<Local>)>>,
    floods: HashMap<Id, Vec<(Terms, Weak<Flood>)>>,
    carried: HashMap<Id, Weak<Carried>>,
}

impl Default for Counters {
    fn default() -> Self {
        Self { secret: Secret::default(), since: Instant::now(), known: Mutex::default() }
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

    /// The limit of this place. With the same terms it is the one in use; with others it begins with what was used until now, unless it is made
    /// for another number of keys.
    pub fn local(&self, id: &Id, terms: &Terms) -> Arc<Local> {
        let now = self.now();
        latest(&mut self.known().locals, id, terms, |before| match before {
            Some((of, before)) if of.keys == terms.keys => before.renewed(&terms.algorithm, terms.rate, terms.burst, now),
            _ => terms.local(),
        })
    }

    /// The sketch of this place.
    pub fn flood(&self, id: &Id, terms: &Terms) -> Arc<Flood> {
        latest(&mut self.known().floods, id, terms, |_| Flood::new(terms))
    }

    /// The requests that are carried, of this place.
    pub fn carried(&self, id: &Id) -> Arc<Carried> {
        let mut known = self.known();
        if let Some(carried) = known.carried.get(id).and_then(Weak::upgrade) {
            return carried;
        }
        known.carried.retain(|_, carried| carried.strong_count() > 0);
        let carried = Arc::new(Carried::default());
        known.carried.insert(id.clone(), Arc::downgrade(&carried));
        carried
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The latest of a place, if it has these terms; else a new one, made knowing the latest. One of a configuration that was refused is gone by now.
fn latest<T>(
    known: &mut HashMap<Id, Vec<(Terms, Weak<T>)>>,
    id: &Id,
    terms: &Terms,
    make: impl FnOnce(Option<(Terms, Arc<T>)>) -> T,
) -> Arc<T> {
    if !known.contains_key(id) {
        known.retain(|_, listed| listed.iter().any(|(_, one)| one.strong_count() > 0));
    }
    let listed = known.entry(id.clone()).or_default();
    listed.retain(|(_, one)| one.strong_count() > 0);
    let before = listed.last().and_then(|(of, one)| Some((*of, one.upgrade()?)));
    match before {
        Some((of, same)) if of == *terms => same,
        before => {
            let made = Arc::new(make(before));
            listed.push((*terms, Arc::downgrade(&made)));
            made
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{limit::Algorithm, units::Rate};

    fn terms(count: u64) -> Terms {
        let rate = Rate::new(count, Duration::from_secs(3600)).unwrap();
        Terms { algorithm: Algorithm::TokenBucket, rate, burst: count, keys: Some(100) }
    }

    fn id(limit: &str) -> Id {
        Id { policy: "rate_limit", route: None, limit: Some(LimitName::new(limit)), plan: None }
    }

    fn left(local: &Local, counters: &Counters) -> u64 {
        local.look(Key::new(1), counters.now()).remaining
    }

    #[test]
    fn a_limit_is_found_again_while_someone_has_it() {
        let counters = Counters::default();
        let one = counters.local(&id("a"), &terms(10));
        assert!(Arc::ptr_eq(&one, &counters.local(&id("a"), &terms(10))));
        assert!(!Arc::ptr_eq(&one, &counters.local(&id("b"), &terms(10))));
        one.take(Key::new(1), 3, counters.now());
        drop(one);
        assert_eq!(left(&counters.local(&id("a"), &terms(10)), &counters), 10);
    }

    #[test]
    fn other_terms_begin_with_what_was_used() {
        let counters = Counters::default();
        let before = counters.local(&id("a"), &terms(10));
        before.take(Key::new(1), 8, counters.now());
        for (count, expected) in [(20, 12), (5, 0)] {
            let after = counters.local(&id("a"), &terms(count));
            assert_eq!(left(&after, &counters), expected, "{count}");
        }
        let windows = Terms { algorithm: Algorithm::FixedWindow, ..terms(10) };
        assert_eq!(left(&counters.local(&id("a"), &windows), &counters), 2);
    }

    #[test]
    fn a_configuration_that_is_refused_changes_nothing() {
        let counters = Counters::default();
        let before = counters.local(&id("a"), &terms(10));
        drop(counters.local(&id("a"), &terms(20)));
        assert!(Arc::ptr_eq(&before, &counters.local(&id("a"), &terms(10))));
    }

    #[test]
    fn who_counts_for_an_old_request_is_not_taken_for_the_latest() {
        let counters = Counters::default();
        let old = counters.local(&id("a"), &terms(10));
        let now = counters.local(&id("a"), &terms(20));
        now.take(Key::new(1), 4, counters.now());
        let again = counters.local(&id("a"), &terms(10));
        assert!(!Arc::ptr_eq(&old, &again));
        assert_eq!(left(&again, &counters), 6);
    }
}
