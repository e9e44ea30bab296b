//! Who is asked next.
//!
//! A [`Layout`] is what is worked out when membership, health or weights change: `tiers` says how much of the traffic each tier of priority takes,
//! `turns`, `draws` and `ring` are the orders within one, `sticky` the names of endpoints in cookies. A pick reads the layout and the
//! [`Vitals`](super::member::Vitals) of two or three members (`choice`); it takes no lock and allocates nothing. Clock and randomness are
//! given to it, so what is simulated is what runs.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use self::{
    choice::Round,
    draws::{Draws, Random, share},
    latency::Decay,
    ring::Ring,
    sticky::{Names, Token},
    tiers::{Health, Shares},
    turns::Turns,
};
use super::member::{Member, Out, Tally};

mod tiers;
mod turns;
mod draws;
mod ring;
mod choice;
pub mod latency;
pub mod sticky;

/// How an endpoint is chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Method {
    /// In turn, each as often as its weight says, spread smoothly.
    #[default]
    RoundRobin,
    /// The one of two (of four, while they have more than their part), drawn by weight, that has fewer requests for its weight.
    LeastRequests,
    /// The one of two that is likely to answer sooner: by its latency, its failures, what it has to do, and how long it has been silent.
    PeakEwma,
    /// At random, by weight.
    Random,
    /// The same one for the same key.
    Hash,
}

/// What is decided in the file.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Tuning {
    pub method: Method,
    /// How long a new or recovered endpoint takes to its full weight, in nanoseconds. 0: none.
    pub slow_start: u64,
    /// How fast `PeakEwma` forgets.
    pub decay: Decay,
    /// Share of the weights, 0 to 1, below which health is not believed: all are tried. 0: never; if nobody is available, nobody is asked.
    pub panic: f64,
    /// Of `Hash`: most that an endpoint has in flight, over its part of all. `None`: no bound.
    pub bound: Option<f32>,
}

/// Default of [`Tuning::panic`]: nearly all are out, which is more likely our mistake than theirs.
pub const PANIC_DEFAULT: f64 = 0.1;

impl Tuning {
    pub fn of(method: Method) -> Self {
        Self { method, slow_start: 0, decay: Decay::default(), panic: PANIC_DEFAULT, bound: None }
    }

    #[must_use]
    pub fn starting_slowly(self, over: Duration) -> Self {
        Self { slow_start: u64::try_from(over.as_nanos()).unwrap_or(u64::MAX), ..self }
    }
}

/// What a request brings to a pick.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ask<'a> {
    /// Of `Hash`: what it is hashed by. A request without one goes anywhere.
    pub key: Option<&'a [u8]>,
    /// Its session, if a cookie names one.
    pub session: Option<Token>,
    /// Addresses that it has been to.
    pub tried: &'a [SocketAddr],
    /// 64 random bits.
    pub random: u64,
    /// Nanoseconds of the clock that the vitals are kept by.
    pub now: u64,
}

/// Who is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pick {
    /// Among the layout's members.
    pub position: usize,
    /// Its session is kept: the client need not be told where it is.
    pub kept: bool,
}

/// The members of an upstream and their order, as of some moment.
#[derive(Debug)]
pub struct Layout {
    members: Box<[Member]>,
    /// The most preferred first.
    tiers: Box<[Tier]>,
    names: Names,
    tuning: Tuning,
    panicking: bool,
}

#[derive(Debug)]
struct Tier {
    priority: u8,
    /// Share of the traffic that it takes.
    share: f64,
    /// The same, with those of all tiers before it.
    upto: f32,
    order: Order,
}

/// The order within a tier. It names only those that are available, but for `Ring`.
#[derive(Debug)]
enum Order {
    Turns(Turns),
    LeastRequests(Draws),
    PeakEwma(Draws),
    Random(Draws),
    Hash {
        ring: Arc<Ring>,
        /// The member of each of its nodes.
        nodes: Box<[usize]>,
        /// Available weight for each request of the tier's share.
        weight: f32,
    },
}

impl Layout {
    /// Lays the members out. `before`: the layout that this one takes the place of, of which rings are kept.
    pub fn of(members: Box<[Member]>, tuning: Tuning, before: Option<&Self>) -> Self {
        let mut tiers: BTreeMap<u8, Vec<usize>> = BTreeMap::new();
        for (position, member) in members.iter().enumerate().filter(|(_, member)| member.weight > 0) {
            tiers.entry(member.priority).or_default().push(position);
        }
        let health: Vec<_> = tiers.values().map(|positions| health(&members, positions)).collect();
        let shares = tiers::shares(&health, tuning.panic);
        let panicking = shares == Shares::Panic;
        let (tiers, shares) = match shares {
            Shares::Of(shares) => (tiers, shares),
            Shares::Panic => (BTreeMap::from([(0, tiers.into_values().flatten().collect())]), vec![1.0]),
        };
        let names = Names::of(members.iter().map(|member| member.token));
        let mut layout = Self { members, tiers: Box::default(), names, tuning, panicking };
        let mut upto = 0.0;
        let tier = |((priority, positions), share): ((u8, Vec<usize>), f64)| {
            upto += share;
            let before = before.and_then(|before| before.tiers.iter().find(|tier| tier.priority == priority));
            Tier { priority, share, upto: upto as f32, order: layout.order(&positions, share, before) }
        };
        layout.tiers = tiers.into_iter().zip(shares).map(tier).collect();
        layout
    }

    fn order(&self, positions: &[usize], share: f64, before: Option<&Tier>) -> Order {
        let weights: Vec<_> =
            positions.iter().filter_map(|position| Some((*position, self.members.get(*position)?.weight))).collect();
        let takes = |position: usize| self.members.get(position).is_some_and(|member| takes(member, self.panicking));
        let open: Vec<_> = weights.iter().copied().filter(|(position, _)| takes(*position)).collect();
        match self.tuning.method {
            Method::RoundRobin => {
                let mut turns = vec![0; self.members.len()];
                open.iter().for_each(|(position, weight)| turns.get_mut(*position).into_iter().for_each(|turn| *turn = *weight));
                Order::Turns(Turns::of(&turns))
            }
            Method::LeastRequests => Order::LeastRequests(Draws::of(&open)),
            Method::PeakEwma => Order::PeakEwma(Draws::of(&open)),
            Method::Random => Order::Random(Draws::of(&open)),
            Method::Hash => {
                let available: f64 = open.iter().map(|(_, weight)| f64::from(*weight)).sum();
                let nodes = weights.iter().filter_map(|(position, weight)| Some((self.members.get(*position)?.address, *weight)));
                let ring = ring(nodes.collect(), before);
                Order::Hash { ring, nodes: positions.into(), weight: (available / share.max(f64::MIN_POSITIVE)) as f32 }
            }
        }
    }

    /// Who is asked, if anyone can be: where the session is, else the order's choice in the tier that is drawn, else in any other.
    pub fn pick(&self, tally: &Tally, ask: &Ask<'_>) -> Option<Pick> {
        let round = Round { members: &self.members, tuning: &self.tuning, tally, ask, panicking: self.panicking };
        if let Some(position) = self.session(ask) {
            return Some(Pick { position, kept: true });
        }
        let mut random = Random::new(ask.random);
        let drawn = self.drawn(ask, &mut random);
        let others = self.tiers.iter().enumerate().filter(|(tier, _)| *tier != drawn).map(|(_, tier)| tier);
        let mut tiers = self.tiers.get(drawn).into_iter().chain(others);
        tiers.find_map(|tier| tier.order.pick(&round, &mut random)).map(|position| Pick { position, kept: false })
    }

    /// Where the session is, if it can go on there: a draining member keeps what it has, one that is out does not.
    fn session(&self, ask: &Ask<'_>) -> Option<usize> {
        let position = self.names.find(ask.session?)?;
        let member = self.members.get(position)?;
        let fit = self.panicking || !member.vitals.is_out();
        (fit && !ask.tried.contains(&member.address)).then_some(position)
    }

    /// Of a key, always the same tier, as long as the tiers take what they take.
    fn drawn(&self, ask: &Ask<'_>, random: &mut Random) -> usize {
        if self.tiers.len() < 2 {
            return 0;
        }
        let draw = match ask.key {
            Some(key) if self.tuning.method == Method::Hash => share(ring::hash(key)),
            _ => random.share(),
        };
        self.tiers.iter().position(|tier| draw < tier.upto).unwrap_or(0)
    }

    /// In the order in which they were given.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    pub const fn tuning(&self) -> &Tuning {
        &self.tuning
    }

    /// Whether so few are available that all are tried.
    #[cfg(test)]
    pub const fn is_panicking(&self) -> bool {
        self.panicking
    }

    /// Each tier's priority and the share of the traffic that it takes, 0 to 1. In a panic all are one.
    pub fn shares(&self) -> impl Iterator<Item = (u8, f64)> {
        self.tiers.iter().map(|tier| (tier.priority, tier.share))
    }
}

impl Order {
    fn pick(&self, round: &Round<'_>, random: &mut Random) -> Option<usize> {
        match self {
            Self::Turns(turns) => round.turn(turns, random),
            Self::LeastRequests(draws) => round.least(draws, random),
            Self::PeakEwma(draws) => round.fastest(draws, random),
            Self::Random(draws) => round.any(draws, random),
            Self::Hash { ring, nodes, weight } => match round.ask.key {
                Some(key) => round.hashed(ring, nodes, *weight, key),
                None => round.hashed(ring, nodes, *weight, &random.next().to_le_bytes()),
            },
        }
    }
}

/// Whether a member with weight is in the order.
fn takes(member: &Member, panicking: bool) -> bool {
    if panicking { !member.vitals.is(Out::Draining) } else { member.vitals.is_available() }
}

/// Who is draining does not count as failing.
fn health(members: &[Member], positions: &[usize]) -> Health {
    let members =
        positions.iter().filter_map(|position| members.get(*position)).filter(|member| !member.vitals.is(Out::Draining));
    members.fold(Health::default(), |health, member| {
        let weight = u64::from(member.weight);
        Health { available: health.available + if member.vitals.is_out() { 0 } else { weight }, all: health.all + weight }
    })
}

/// The ring of these nodes: the one from before, if it is of the same. To sort a hundred endpoints' points takes a millisecond.
fn ring(nodes: Vec<(SocketAddr, u32)>, before: Option<&Tier>) -> Arc<Ring> {
    match before {
        Some(Tier { order: Order::Hash { ring, .. }, .. }) if ring.is_of(&nodes) => ring.clone(),
        _ => Arc::new(Ring::of(nodes)),
    }
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod simulated;

#[cfg(test)]
mod simulator;
