//! One renewal of a session at a time: a refresh token is good for one use, and a browser asks for many things at once.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use ahash::RandomState;
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use super::{Fault, ticket::Ticket};

/// How long the outcome of a renewal is remembered, in seconds: requests with the old cookie are still on their way.
const KEPT: u64 = 60;

/// Most renewals that are under way or remembered. More have to sign in again.
const RENEWALS_MAX: usize = 20_000;

/// What became of a renewal.
pub type Outcome = Result<Ticket, Fault>;

/// Renewals under way, and those that ended a moment ago.
#[derive(Debug, Default)]
pub struct Renewals(Mutex<HashMap<[u8; 32], Renewal, RandomState>>);

#[derive(Debug)]
struct Renewal {
    outcome: watch::Receiver<Option<Outcome>>,
    until: u64,
}

/// What to do for a renewal.
pub enum Turn {
    /// Somebody does it, or has.
    Wait(watch::Receiver<Option<Outcome>>),
    /// It is ours: do it, and say what became of it.
    Go(watch::Sender<Option<Outcome>>, watch::Receiver<Option<Outcome>>),
    /// There are too many.
    Full,
}

impl Renewals {
    /// Whose turn it is to renew with this refresh token.
    pub fn turn(&self, token: &str, now: u64) -> Turn {
        let mut renewals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key: [u8; 32] = Sha256::digest(token).into();
        if let Some(renewal) = renewals.get(&key).filter(|renewal| renewal.until > now && !renewal.is_lost()) {
            return Turn::Wait(renewal.outcome.clone());
        }
        if renewals.len() >= RENEWALS_MAX {
            renewals.retain(|_, renewal| renewal.until > now);
        }
        if renewals.len() >= RENEWALS_MAX {
            return Turn::Full;
        }
        let (sender, outcome) = watch::channel(None);
        renewals.insert(key, Renewal { outcome: outcome.clone(), until: now.saturating_add(KEPT) });
        Turn::Go(sender, outcome)
    }
}

impl Renewal {
    /// Whether it may be tried again: nobody does it any more, or the provider was not there.
    fn is_lost(&self) -> bool {
        match &*self.outcome.borrow() {
            None => self.outcome.has_changed().is_err(),
            Some(outcome) => matches!(outcome, Err(Fault::Unavailable)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_renews_and_the_others_wait() {
        let renewals = Renewals::default();
        let Turn::Go(sender, _) = renewals.turn("token", 0) else { panic!("the first does it") };
        let Turn::Wait(outcome) = renewals.turn("token", 0) else { panic!("the second waits") };
        assert!(matches!(renewals.turn("other", 0), Turn::Go(..)));
        sender.send_replace(Some(Err(Fault::Ended)));
        assert!(matches!(&*outcome.borrow(), Some(Err(Fault::Ended))));
        assert!(matches!(renewals.turn("token", KEPT - 1), Turn::Wait(_)), "who comes late is told");
        assert!(matches!(renewals.turn("token", KEPT), Turn::Go(..)));
    }

    #[test]
    fn a_renewal_that_came_to_nothing_is_tried_again() {
        let renewals = Renewals::default();
        let Turn::Go(sender, outcome) = renewals.turn("token", 0) else { panic!("the first does it") };
        drop((sender, outcome));
        let Turn::Go(sender, _outcome) = renewals.turn("token", 0) else { panic!("nobody does it any more") };
        sender.send_replace(Some(Err(Fault::Unavailable)));
        assert!(matches!(renewals.turn("token", 0), Turn::Go(..)));
    }
}
