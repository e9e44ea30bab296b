//! One limit, wherever it is counted.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    Key, Local, Terms, Verdict,
    fleet::{Ask, Asked, Exact, Leased, Unanswered, take_all},
};

/// One limit, wherever it is counted.
#[derive(Debug)]
pub enum Counter {
    /// On this node.
    Local(Arc<Local>),
    /// In a store, for all nodes that have it.
    Shared(Shared),
}

/// A limit that a store counts.
#[derive(Debug)]
pub struct Shared {
    pub way: Way,
    pub otherwise: Otherwise,
    /// What is told where nothing is counted.
    pub terms: Terms,
}

/// When the store is asked.
#[derive(Debug)]
pub enum Way {
    Exact(Arc<Exact>),
    Leased(Arc<Leased>),
}

/// What holds while the store does not answer.
#[derive(Debug)]
pub enum Otherwise {
    Local(Arc<Local>),
    Open,
    Closed,
}

/// Where a request was counted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    Here,
    /// With the key's text, where it was needed.
    Store(Option<Box<str>>),
    Nowhere,
}

/// What a limit says, and where it counted.
pub type Counted = (Verdict, Place);

/// A limit that cannot say of a request without its store.
#[derive(Clone, Debug)]
pub struct Pending<'a> {
    pub limit: &'a Shared,
    pub key: Key,
    pub text: Box<str>,
    pub cost: u32,
}

/// The store does not answer, and the rule is to let nobody pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Closed;

impl Counter {
    /// What can be said at once; else the question to the store. `text` is the key as a text that is the same on every node.
    pub fn try_take<'a>(&'a self, key: Key, text: impl FnOnce() -> String, cost: u32, now: u64) -> Result<Counted, Pending<'a>> {
        match self {
            Self::Local(local) => Ok((local.take(key, cost, now), Place::Here)),
            Self::Shared(limit) => {
                let mut text = Some(text);
                let mut told = None;
                let said = match &limit.way {
                    Way::Exact(exact) => exact.try_take(key.hash(), now),
                    Way::Leased(leased) => {
                        let text = || told.get_or_insert(text.take().map(|text| text()).unwrap_or_default()).clone();
                        leased.try_take(key.hash(), text, cost, now)
                    }
                };
                said.map(|verdict| (verdict, Place::Store(None))).ok_or_else(|| {
                    let text = told.or_else(|| text.map(|text| text())).unwrap_or_default().into();
                    Pending { limit, key, text, cost }
                })
            }
        }
    }

    /// Gives back what was taken, and gives what is told from then on.
    pub fn give_back(&self, key: Key, place: &Place, cost: u32, verdict: &Verdict, now: u64) -> Verdict {
        match (self.local(), place) {
            (Some(local), Place::Here) => {
                local.give_back(key, cost, verdict.until, now);
                local.look(key, now)
            }
            (_, Place::Store(text)) => {
                self.settle(key, text.as_deref(), -i64::from(cost), now);
                Verdict { remaining: (verdict.remaining + u64::from(cost)).min(verdict.limit), ..*verdict }
            }
            _ => *verdict,
        }
    }

    /// Counts what the answer says that the request cost beyond what it took, and gives what is told from then on.
    pub fn charge(&self, key: Key, place: &Place, cost: u32, verdict: &Verdict, now: u64) -> Verdict {
        match (self.local(), place) {
            (Some(local), Place::Here) => {
                local.charge(key, cost, now);
                local.look(key, now)
            }
            (_, Place::Store(text)) => {
                self.settle(key, text.as_deref(), i64::from(cost), now);
                Verdict { remaining: verdict.remaining.saturating_sub(u64::from(cost)), ..*verdict }
            }
            _ => *verdict,
        }
    }

    fn settle(&self, key: Key, text: Option<&str>, amount: i64, now: u64) {
        let Self::Shared(Shared { way, .. }) = self else { return };
        match way {
            _ if amount == 0 => {}
            Way::Exact(exact) => exact.settle(Asked { hash: key.hash(), text: text.unwrap_or_default() }, amount),
            Way::Leased(leased) => leased.settle(key.hash(), text, amount, now),
        }
    }

    /// Who counts on this node.
    pub fn local(&self) -> Option<&Arc<Local>> {
        match self {
            Self::Local(local) | Self::Shared(Shared { otherwise: Otherwise::Local(local), .. }) => Some(local),
            Self::Shared(_) => None,
        }
    }
}

/// Asks the stores, until the deadline at most. Of limits that one hop can ask it takes all, or nothing; what it took of others is for the
/// caller to give back. Gives answers in the order of the questions, as far as the first that refuses.
pub async fn take(pending: &[Pending<'_>], now: u64, deadline: Instant) -> Vec<Result<Counted, Closed>> {
    let asks: Vec<_> = pending.iter().map_while(Pending::exact).collect();
    let (together, rest) = pending.split_at(if asks.len() > 1 { asks.len() } else { 0 });
    let mut counted = match together {
        [] => Vec::with_capacity(pending.len()),
        together => at_once(together, take_all(&asks, now, deadline).await, now),
    };
    for one in rest {
        if !counted.iter().all(is_admitted) {
            break;
        }
        let said = one.ask(now, deadline).await;
        counted.push(one.told(said, now));
    }
    counted
}

/// What is told of limits that were asked all together. One that refuses means that nothing was taken of any.
fn at_once(pending: &[Pending<'_>], said: Result<Vec<Verdict>, Unanswered>, now: u64) -> Vec<Result<Counted, Closed>> {
    let verdicts = match said {
        Ok(verdicts) => verdicts,
        Err(why) => return pending.iter().map(|one| one.told(Err(why), now)).collect(),
    };
    let all = verdicts.len() == pending.len() && verdicts.iter().all(|verdict| verdict.admitted);
    let told = pending.iter().zip(verdicts).map(|(one, verdict)| match all {
        true => one.told(Ok(verdict), now),
        false => Ok((verdict, Place::Nowhere)),
    });
    told.collect()
}

fn is_admitted(counted: &Result<Counted, Closed>) -> bool {
    matches!(counted, Ok((Verdict { admitted: true, .. }, _)))
}

impl Pending<'_> {
    /// Until when its store may be asked.
    pub fn deadline(&self) -> Instant {
        let store = match &self.limit.way {
            Way::Exact(exact) => exact.store(),
            Way::Leased(leased) => leased.store(),
        };
        Instant::now() + store.settings().timeout
    }

    async fn ask(&self, now: u64, deadline: Instant) -> Result<Verdict, Unanswered> {
        let asked = Asked { hash: self.key.hash(), text: &self.text };
        match &self.limit.way {
            Way::Exact(exact) => exact.take(asked, self.cost, now, deadline).await,
            Way::Leased(leased) => leased.take(asked, self.cost, now, deadline).await,
        }
    }

    fn exact(&self) -> Option<Ask<'_>> {
        match &self.limit.way {
            Way::Exact(limit) => Some(Ask { limit, key: Asked { hash: self.key.hash(), text: &self.text }, cost: self.cost }),
            Way::Leased(_) => None,
        }
    }

    /// What the store said; else what the rule says.
    fn told(&self, said: Result<Verdict, Unanswered>, now: u64) -> Result<Counted, Closed> {
        match (said, &self.limit.otherwise) {
            (Ok(verdict), _) => Ok((verdict, Place::Store(Some(self.text.clone())))),
            (Err(_), Otherwise::Local(local)) => Ok((local.take(self.key, self.cost, now), Place::Here)),
            (Err(_), Otherwise::Open) => Ok((self.limit.open(), Place::Nowhere)),
            (Err(_), Otherwise::Closed) => Err(Closed),
        }
    }
}

impl Shared {
    /// Nobody counts.
    fn open(&self) -> Verdict {
        let (nothing, limit) = (Duration::ZERO, self.terms.burst);
        Verdict { admitted: true, limit, remaining: limit, reset: nothing, retry_after: nothing, wait: nothing, until: 0 }
    }
}
