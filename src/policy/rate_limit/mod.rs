//! `rate_limit`: how often callers may ask, by limits of any number.
//!
//! Edge ring, inward, after `authz`: a request takes its cost of every limit, or of none. Outward, on every answer: what is left. What the
//! response says it cost is charged when its head comes, in the origin ring. How each limit counts is in `limit`.

use std::{sync::Arc, time::Duration};

use pingora_http::ResponseHeader;
use smallvec::SmallVec;

use self::{cost::Cost, plans::Choice};
use super::{
    Policy,
    chain::{Ground, Scope},
    limit_fields::{self, Item},
    limit_key::{self, Knows, Place},
    limit_terms::{self, Places},
};
use crate::{
    config::{
        policy::{
            auth::{Auth, Mode},
            limit::{Allowance, Limit as LimitConfig, RateLimit as Config},
        },
        problem::{Path, Problem},
    },
    exchange::{Facts, Inbound, Limited, Stop},
    limit::{Counters, Id, Key, Local, Terms, Verdict, key::Parts},
    name::{LimitName, PlanName},
    observe::metrics::LimitMetrics,
    units::Rate,
};

mod consumer;
mod cost;
pub mod plans;

/// The limits of a route, by name.
pub struct RateLimit {
    limits: Box<[Limit]>,
    counters: Arc<Counters>,
}

struct Limit {
    name: LimitName,
    key: Parts,
    cost: Cost,
    /// One, or one for each plan.
    budgets: Box<[Budget]>,
    choice: Choice,
    mode: Mode,
    metrics: LimitMetrics,
}

/// What is counted, and what is told of it.
struct Budget {
    local: Arc<Local>,
    /// What one request takes at most.
    most: u32,
    item: Item,
}

/// What a request took, and which limit refused it.
#[derive(Default)]
pub struct Memo {
    taken: SmallVec<[Taken; 2]>,
    refused: Option<Refused>,
}

/// What was asked of one limit. The places are those of the limit and of its budget.
struct Taken {
    limit: usize,
    budget: usize,
    key: Key,
    /// Zero: nothing was taken, or it was given back.
    cost: u32,
    verdict: Verdict,
}

#[derive(Clone, Copy)]
struct Refused {
    limit: usize,
    shadow: bool,
}

/// What log and metrics call the policy.
pub const NAME: &str = "rate_limit";

impl RateLimit {
    /// `auth` is what applies on the same route.
    ///
    /// # Errors
    /// Limits that cannot be counted, keys that no caller has there.
    pub fn compile(
        config: &Config,
        path: &Path,
        auth: Option<&Auth>,
        scope: Scope,
        ground: &Ground<'_>,
    ) -> Result<(Self, Vec<Problem>), Vec<Problem>> {
        let (mut problems, mut limits) = (Vec::new(), Vec::with_capacity(config.0.len()));
        if config.0.is_empty() {
            problems.push(Problem::error(path.clone(), "there is no limit").help("name one, or switch the policy `off`"));
        }
        for (name, limit) in &config.0 {
            limits.extend(Draft { name, config: limit, path: path.key(name.as_str()), scope, ground }.limit(auth, &mut problems));
        }
        match problems.iter().any(Problem::is_error) {
            true => Err(problems),
            false => Ok((Self { limits: limits.into(), counters: ground.counters.clone() }, problems)),
        }
    }

    /// How long the request is held back, for its turn.
    pub fn wait(&self, memo: &Memo) -> Duration {
        let enforced = |taken: &&Taken| self.limits.get(taken.limit).is_some_and(|limit| limit.mode == Mode::Enforce);
        memo.taken.iter().filter(enforced).map(|taken| taken.verdict.wait).max().unwrap_or_default()
    }

    /// The limit that refused the request, or in its trial would have; and whether that was a trial.
    pub fn refused(&self, memo: &Memo) -> Option<(&LimitName, bool)> {
        let refused = memo.refused?;
        Some((&self.limits.get(refused.limit)?.name, refused.shadow))
    }

    fn of(&self, taken: &Taken) -> Option<(&Limit, &Budget)> {
        let limit = self.limits.get(taken.limit)?;
        Some((limit, limit.budgets.get(taken.budget)?))
    }

    fn judge(&self, inbound: &Inbound<'_>, memo: &mut Memo) -> Result<(), Stop> {
        let now = self.counters.now();
        for (at, limit) in self.limits.iter().enumerate() {
            let Err(stop) = self.ask(at, limit, inbound, memo, now) else { continue };
            limit.metrics.refused();
            let shadow = limit.mode == Mode::Shadow;
            memo.refused = Some(Refused { limit: at, shadow });
            if !shadow {
                return Err(stop);
            }
        }
        Ok(())
    }

    /// Asks one limit. Nothing says how often somebody without a plan may ask.
    fn ask(&self, at: usize, limit: &Limit, inbound: &Inbound<'_>, memo: &mut Memo, now: u64) -> Result<(), Stop> {
        let found = limit.choice.of(inbound.caller).and_then(|place| Some((place, limit.budgets.get(place)?)));
        let (place, budget) = found.ok_or(Stop::Forbidden(None))?;
        let key = self.counters.key(&limit.key, inbound);
        let cost = limit.cost.of_request(&inbound.head.headers, budget.most);
        let verdict = budget.local.take(key, cost, now);
        let cost = if verdict.admitted { cost } else { 0 };
        memo.taken.push(Taken { limit: at, budget: place, key, cost, verdict });
        match verdict.admitted {
            true => Ok(()),
            false => Err(Stop::Limited(Limited { by: NAME, retry_after: verdict.retry_after })),
        }
    }
}

impl Policy for RateLimit {
    type Memo = Memo;

    async fn request(&self, inbound: &mut Inbound<'_>, memo: &mut Memo) -> Result<(), Stop> {
        self.judge(inbound, memo)?;
        for taken in memo.taken.iter().filter(|taken| taken.verdict.admitted) {
            self.limits.get(taken.limit).inspect(|limit| limit.metrics.admitted(taken.verdict.wait));
        }
        Ok(())
    }

    fn give_back(&self, memo: &mut Memo) {
        for taken in memo.taken.iter_mut().filter(|taken| taken.cost > 0) {
            let (Some((_, budget)), now) = (self.of(taken), self.counters.now()) else { continue };
            budget.local.give_back(taken.key, taken.cost, taken.verdict.until, now);
            (taken.cost, taken.verdict) = (0, budget.local.look(taken.key, now));
        }
    }

    fn upstream_response(&self, head: &mut ResponseHeader, _: &Facts, memo: &mut Memo) -> Result<(), Stop> {
        for taken in memo.taken.iter_mut().filter(|taken| taken.cost > 0) {
            let Some((limit, budget)) = self.of(taken) else { continue };
            let Some(cost) = limit.cost.of_response(&head.headers) else { continue };
            let now = self.counters.now();
            match cost {
                0 => budget.local.give_back(taken.key, 1, taken.verdict.until, now),
                cost => budget.local.charge(taken.key, cost - 1, now),
            }
            // Of what comes after this head nothing is charged again.
            (taken.cost, taken.verdict) = (0, budget.local.look(taken.key, now));
        }
        Ok(())
    }

    fn response(&self, head: &mut ResponseHeader, _: &Facts, memo: &mut Memo) -> Result<(), Stop> {
        let told = memo.taken.iter().filter_map(|taken| {
            let (limit, budget) = self.of(taken)?;
            (limit.mode == Mode::Enforce && budget.item.is_told()).then_some((&budget.item, &taken.verdict))
        });
        limit_fields::write(head, told).map_err(|error| Stop::Fault(anyhow::anyhow!("limits: {error}")))
    }
}

/// A limit while it is compiled.
struct Draft<'a> {
    name: &'a LimitName,
    config: &'a LimitConfig,
    path: Path,
    scope: Scope,
    ground: &'a Ground<'a>,
}

impl Draft<'_> {
    /// `None` if a problem that was found is an error.
    fn limit(&self, auth: Option<&Auth>, problems: &mut Vec<Problem>) -> Option<Limit> {
        let mut found = Vec::new();
        limit_terms::refuse_idle(self.config, &self.path, &mut found);
        let place = Place { route: self.ground.route, knows: Knows::By(auth) };
        let key = limit_key::compile(&self.config.key, self.config.ipv6_prefix, &self.path, place);
        let key = key.map_err(|more| found.extend(more)).ok();
        let cost = Cost::compile(&self.config.cost, &self.path.key("cost")).map_err(|problem| found.push(problem)).ok();
        let is_single = self.scope == Scope::Route && key.as_ref().is_some_and(Parts::is_of_route);
        let offers = self.offers((!is_single).then_some(self.config.keys as usize), &mut found);
        let is_refused = found.iter().any(Problem::is_error);
        // What is wrong with a plan, each limit finds in it.
        found.retain(|problem| !problems.contains(problem));
        problems.extend(found);
        let (Some(key), Some(cost), false) = (key, cost, is_refused) else { return None };
        let choice = match self.config.limit {
            Allowance::Rate(_) => Choice::Own,
            Allowance::Plan => Choice::by_plan(self.config.default_plan.as_ref(), &self.ground.loaded.config),
        };
        let (mode, name) = (self.config.mode, self.name.clone());
        let metrics = self.ground.metrics.limit(self.ground.route, NAME, name.as_str(), mode);
        let budgets = offers.into_iter().map(|(plan, terms)| self.budget(plan, &terms)).collect();
        Some(Limit { name, key, cost, budgets, choice, mode, metrics })
    }

    /// What is allowed, by itself or by each plan.
    fn offers(&self, keys: Option<usize>, found: &mut Vec<Problem>) -> Vec<(Option<PlanName>, Terms)> {
        let Allowance::Rate(rate) = self.config.limit else {
            plans::refuse(self.config, &self.path, self.ground, found);
            let plans = self.ground.loaded.config.plans.iter();
            let offer = plans.map(|(name, plan)| {
                let at = Path::root().key("plans").key(name.as_str());
                let places = Places { rate: at.key("limit"), burst: at.key("burst") };
                (Some(name.clone()), self.terms(plan.limit, plan.burst, keys, &places, found))
            });
            return offer.collect();
        };
        if let Some(name) = &self.config.default_plan {
            let problem = Problem::error(self.path.key("default_plan"), format!("plan `{name}` has no say in this limit"));
            found.push(problem.help("remove it, or write `limit: plan`"));
        }
        let places = Places { rate: self.path.key("limit"), burst: self.path.key("burst") };
        vec![(None, self.terms(rate, self.config.burst, keys, &places, found))]
    }

    fn terms(&self, rate: Rate, burst: Option<u32>, keys: Option<usize>, places: &Places, found: &mut Vec<Problem>) -> Terms {
        let terms = limit_terms::of(self.config, rate, burst, keys);
        found.extend(limit_terms::refuse_unfit(&terms, places, &self.path));
        found.extend(limit_terms::refuse_cost(self.config, &terms, &self.path));
        terms
    }

    fn budget(&self, plan: Option<PlanName>, terms: &Terms) -> Budget {
        let limit = Some(self.name.clone());
        let id = Id { policy: NAME, route: self.scope.route(self.ground), limit, plan };
        let local = self.ground.counters.local(&id, terms);
        Budget { local, most: terms.most(), item: Item::new(self.name.as_str(), self.config.headers, terms) }
    }
}

#[cfg(test)]
mod tests;
