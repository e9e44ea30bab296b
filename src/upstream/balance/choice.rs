//! One pick among the members of a tier.
//!
//! `Round` says who can be asked at all; the rest is the comparison of two, drawn by weight ("the power of two choices", Mitzenmacher 1996).
//! Since only two are looked at, a pick costs the same among 3 and among 300, and gateways that do not know of each other do not all
//! run to the one that looks best.

use std::{
    net::{IpAddr, SocketAddr},
    sync::atomic::AtomicU64,
};

use super::{
    super::member::{Member, Out, Tally, Vitals},
    Ask, Tuning,
    draws::{Draws, Random, mix, share},
    ring::{Ring, hash, room},
    turns::Turns,
};

/// Draws before we look at one after the other. With at most half of a tier's weight out or tried, one pick in 16 gets that far.
const DRAWS_MAX: usize = 4;

/// What failing costs an endpoint by its latency: with all answers failing it counts as 96 times as slow, with one in ten as 5 times. Among fast ones it
/// then gets little; where many fail so, they still share the work.
const FAILURE_COST: f32 = 20.0;

/// What it costs by its load: with all answers failing it counts as if it had 20 times more to do than others on average, with one in ten a fifth more.
/// That does not look for errors, but without it whoever refuses at once would be the one with nothing to do, and get most of the traffic.
const FAILURE_LOAD: f32 = 20.0;

/// Of two that have both more than their part to do, the better is compared with others, up to so many in all. If half of the endpoints
/// are bad, two of them are drawn together for a fifth of the requests; four, for one in forty.
const CHOICES_MAX: usize = 4;

/// An endpoint that has never answered well, and is being asked, counts as slower than the other by this.
const UNKNOWN_COST: f32 = 4.0;

/// With a smaller share of failures, one that has only failed so far is tried again: 18 seconds after a single failure, at the default decay.
const FORGIVEN: f32 = 0.005;

/// What one pick sees.
#[derive(Clone, Copy)]
pub(super) struct Round<'r> {
    pub members: &'r [Member],
    pub tuning: &'r Tuning,
    pub tally: &'r Tally,
    pub ask: &'r Ask<'r>,
    pub panicking: bool,
}

/// A member that can be asked.
#[derive(Clone, Copy)]
struct Candidate<'r> {
    seat: usize,
    position: usize,
    vitals: &'r Vitals,
    ramp: f32,
    /// Its weight, as far as it has warmed up.
    weight: f32,
}

impl<'r> Round<'r> {
    pub fn tried(&self, address: &SocketAddr) -> bool {
        self.ask.tried.contains(address)
    }

    /// The member at this position, if it can be asked. Layouts are laid out after health has changed, so this asks again.
    fn open(&self, position: usize) -> Option<&'r Member> {
        let member = self.members.get(position)?;
        let fit = if self.panicking { !member.vitals.is(Out::Draining) } else { member.vitals.is_available() };
        (fit && !self.tried(&member.address)).then_some(member)
    }

    fn ramp(&self, member: &Member) -> f32 {
        member.vitals.ramp(self.tuning.slow_start, self.ask.now)
    }

    /// Whoever's turn it is. One that starts slowly declines some of its turns.
    pub fn turn(&self, turns: &Turns, random: &mut Random) -> Option<usize> {
        // A try after the first takes nobody's turn: else one that fails would be first in line again and again.
        let anywhere = AtomicU64::new(if self.ask.tried.is_empty() { 0 } else { random.next() });
        let cursor = if self.ask.tried.is_empty() { &self.tally.turn } else { &anywhere };
        let first = turns.round(cursor).find(|position| self.open(*position).is_some())?;
        if self.accepts(first, random) {
            return Some(first);
        }
        let mut another = || turns.any(random.next() as u32).filter(|position| self.accepts(*position, random));
        Some((0..DRAWS_MAX).find_map(|_| another()).unwrap_or(first))
    }

    fn accepts(&self, position: usize, random: &mut Random) -> bool {
        self.open(position).is_some_and(|member| random.hits(self.ramp(member)))
    }

    /// Anyone, by weight.
    pub fn any(&self, draws: &Draws, random: &mut Random) -> Option<usize> {
        self.one(draws, random).map(|one| one.position)
    }

    /// The one of two that has less to do for its weight. If both have nothing, the first drawn, so that weights hold when little is going on.
    pub fn least(&self, draws: &Draws, random: &mut Random) -> Option<usize> {
        self.better(draws, random, |one, other| self.busy(&one, 0.0, draws) >= self.busy(&other, 1.0, draws))
    }

    /// What it has and so much more, for its weight. What fails counts as if it were still to be done, beside what all have on average.
    fn busy(&self, candidate: &Candidate, more: f32, draws: &Draws) -> f32 {
        match self.failing_load(candidate.vitals) {
            failing if failing > 0.0 => candidate.load(more + failing) + failing * self.part(draws),
            _ => candidate.load(more),
        }
    }

    /// Requests in flight for a unit of weight, on average.
    fn part(&self, draws: &Draws) -> f32 {
        self.tally.in_flight() as f32 / draws.total()
    }

    /// The one of two that is likely to answer sooner.
    pub fn fastest(&self, draws: &Draws, random: &mut Random) -> Option<usize> {
        self.better(draws, random, |one, other| self.is_slower(&one, &other, draws.mean()))
    }

    /// The first of two, or the second if the first is worse; of more, if it has more than its part to do.
    fn better(&self, draws: &Draws, random: &mut Random, worse: impl Fn(Candidate, Candidate) -> bool) -> Option<usize> {
        let (mut best, part) = (self.one(draws, random)?, self.part(draws));
        for _ in 1..CHOICES_MAX {
            best = self.other(draws, &best, random).filter(|other| worse(best, *other)).unwrap_or(best);
            if best.load(0.0) <= part {
                break;
            }
        }
        Some(best.position)
    }

    fn one(&self, draws: &Draws, random: &mut Random) -> Option<Candidate<'r>> {
        let drawn = (0..DRAWS_MAX).find_map(|_| self.warm(draws, draws.draw(random.next())?, random));
        drawn.or_else(|| draws.from(draws.draw(random.next())?).find_map(|seat| self.candidate(draws, seat)))
    }

    /// Another than this one, if there is one.
    fn other(&self, draws: &Draws, one: &Candidate, random: &mut Random) -> Option<Candidate<'r>> {
        let another = |seat: &usize| *seat != one.seat;
        let drawn = (1..DRAWS_MAX).find_map(|_| self.warm(draws, draws.draw(random.next()).filter(another)?, random));
        drawn.or_else(|| draws.from(one.seat).skip(1).find_map(|seat| self.warm(draws, seat, random)))
    }

    fn candidate(&self, draws: &Draws, seat: usize) -> Option<Candidate<'r>> {
        let position = draws.position(seat)?;
        let member = self.open(position)?;
        let ramp = self.ramp(member);
        Some(Candidate { seat, position, vitals: &member.vitals, ramp, weight: member.weight as f32 * ramp })
    }

    /// A candidate, unless it declines since it starts slowly.
    fn warm(&self, draws: &Draws, seat: usize, random: &mut Random) -> Option<Candidate<'r>> {
        self.candidate(draws, seat).filter(|candidate| random.hits(candidate.ramp))
    }

    /// When both are idle, a lighter one is preferred only if it is better by as much as it is lighter: latencies fluctuate, and their noise would else
    /// give it the share of the heavier. The more they have to do, the more that decides.
    fn is_slower(&self, one: &Candidate, other: &Candidate, mean: f32) -> bool {
        let (known, known_other) = (self.expected(one), self.expected(other));
        // Of one that we do not know, we know what the other is like.
        let base = known.or(known_other).unwrap_or(1.0);
        let cost = |candidate: &Candidate, known: Option<f32>, of_other: f32, alone: f32| {
            let cost = known.unwrap_or_else(|| self.guess(candidate, of_other));
            let failing = 1.0 + FAILURE_COST * self.failures(candidate.vitals);
            cost * (alone + candidate.load(0.0) * mean) * failing * failing.sqrt()
        };
        let bar = (one.weight / other.weight).max(1.0);
        cost(one, known, known_other.unwrap_or(base), 1.0) > cost(other, known_other, base, bar)
    }

    /// Nanoseconds to an answer, of one request alone: as it was, or as long as we are waiting already.
    fn expected(&self, candidate: &Candidate) -> Option<f32> {
        let latency = candidate.vitals.latency_nanos(self.ask.now, self.tuning.decay)?;
        Some(latency.max(candidate.vitals.silence(self.ask.now) as f32))
    }

    /// One that has nothing to do and no fresh failure is tried; one that is being tried is given time.
    fn guess(&self, candidate: &Candidate, of_other: f32) -> f32 {
        match candidate.vitals.in_flight() {
            0 if self.failures(candidate.vitals) < FORGIVEN => 0.0,
            _ => (of_other * UNKNOWN_COST).max(candidate.vitals.silence(self.ask.now) as f32),
        }
    }

    fn failures(&self, vitals: &Vitals) -> f32 {
        vitals.failures(self.ask.now, self.tuning.decay)
    }

    fn failing_load(&self, vitals: &Vitals) -> f32 {
        FAILURE_LOAD * self.failures(vitals).powi(2)
    }

    /// The first on the ring, from the key on, that can be asked and has room. `nodes`: the members of the ring's nodes. `weight`: what is
    /// available of the tier, with the share of all traffic that the tier takes.
    pub fn hashed(&self, ring: &Ring, nodes: &[usize], weight: f32, key: &[u8]) -> Option<usize> {
        let in_flight = self.tally.in_flight();
        let has_room = |member: &Member, bound| {
            let room = room(bound, in_flight, member.weight as f32, weight) as f32;
            (member.vitals.in_flight() as f32) < room * (1.0 - self.failing_load(&member.vitals))
        };
        let mut spare = None;
        for position in ring.from(key).filter_map(|node| nodes.get(node).copied()) {
            let Some(member) = self.open(position) else { continue };
            if self.has_come_to(member, key) && self.tuning.bound.is_none_or(|bound| has_room(member, bound)) {
                return Some(position);
            }
            spare = spare.or(Some(position));
        }
        spare.or_else(|| {
            ring.all(hash(key)).filter_map(|node| nodes.get(node).copied()).find(|position| self.open(*position).is_some())
        })
    }

    /// Whether a key belongs to the part that a member takes while it starts slowly. A key that has come to it stays.
    fn has_come_to(&self, member: &Member, key: &[u8]) -> bool {
        let ramp = self.ramp(member);
        ramp >= 1.0 || share(mix(hash(key) ^ salt(&member.address))) < ramp
    }
}

/// Each member takes other keys first.
fn salt(address: &SocketAddr) -> u64 {
    let of_ip = match address.ip() {
        IpAddr::V4(ip) => hash(&ip.octets()),
        IpAddr::V6(ip) => hash(&ip.octets()),
    };
    mix(of_ip ^ u64::from(address.port()))
}

impl Candidate<'_> {
    /// Requests that it has, and so many more, for its weight.
    fn load(&self, more: f32) -> f32 {
        (self.vitals.in_flight() as f32 + more) / self.weight
    }
}
