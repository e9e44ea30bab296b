//! `rate_limit`: how often callers may ask, by limits of any number.
//!
//! Edge ring, inward, after `authz`: a request takes its cost of every limit, or of none. Outward, on every answer: what is left. What the
//! response says it cost is charged when its head comes, in the origin ring. How each limit counts is in `limit`.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName};
use pingora_http::ResponseHeader;
use smallvec::SmallVec;

use super::{
    Policy,
    chain::{Ground, Scope},
    limit_fields::{self, Item},
    limit_key::{self, Knows, Place},
};
use crate::{
    caller::Caller,
    config::{
        policy::{
            auth::{Auth, Mode},
            limit::{Algorithm as Word, Allowance, Cost as CostConfig, Limit as LimitConfig, RateLimit as Config},
        },
        problem::{Path, Problem},
    },
    exchange::{Facts, Inbound, Limited, Stop},
    limit::{Algorithm, Counters, Id, Key, Local, Terms, Verdict, key::Parts},
    name::LimitName,
    observe::metrics::LimitMetrics,
    units::Rate,
};

mod consumer;

/// The limits of a route, by name.
pub struct RateLimit {
    limits: Box<[Limit]>,
    counters: Arc<Counters>,
}

struct Limit {
    name: LimitName,
    key: Parts,
    budgets: Budgets,
    cost: Cost,
    mode: Mode,
    metrics: LimitMetrics,
}

/// What a limit allows.
enum Budgets {
    One(Budget),
    /// By the index of the caller's plan; `default` is that of callers without one.
    ByPlan {
        plans: Box<[Budget]>,
        default: Option<usize>,
    },
}

/// What is counted, and what is told of it.
struct Budget {
    local: Arc<Local>,
    item: Item,
}

/// What a request takes.
enum Cost {
    Fixed(u32),
    Header { name: HeaderName },
    Response { name: HeaderName },
}

/// What a request took, by the places of the limits.
#[derive(Default)]
pub struct Memo {
    taken: SmallVec<[Taken; 2]>,
    /// The last limit that refused, or in its trial would have.
    refused: Option<Refused>,
}

struct Taken {
    limit: usize,
    budget: usize,
    key: Key,
    cost: u32,
    verdict: Verdict,
}

#[derive(Clone, Copy)]
struct Refused {
    limit: usize,
    shadow: bool,
}

/// What log and metrics call the policy.
const NAME: &str = "rate_limit";

/// Longest that a request waits for its turn, if the file does not say.
const MAX_DELAY: Duration = Duration::from_secs(1);

impl RateLimit {
    /// `auth` is what applies on the same route.
    ///
    /// # Errors
    /// Limits that cannot count, keys that no caller has there.
    pub fn compile(
        config: &Config,
        path: &Path,
        auth: Option<&Auth>,
        scope: Scope,
        ground: &Ground<'_>,
    ) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        if config.0.is_empty() {
            problems.push(Problem::error(path.clone(), "there is no limit").help("name one, or switch the policy `off`"));
        }
        let limits = config.0.iter().filter_map(|(name, limit)| {
            let compiled = Limit::compile(name, limit, &path.key(name.as_str()), auth, scope, ground);
            compiled.map_err(|found| problems.extend(found)).ok()
        });
        let limits = limits.collect();
        if problems.is_empty() { Ok(Self { limits, counters: ground.counters.clone() }) } else { Err(problems) }
    }

    /// How long the request is held back, for its turn.
    pub fn wait(&self, memo: &Memo) -> Duration {
        let enforced = |taken: &&Taken| self.limits.get(taken.limit).is_some_and(|limit| limit.mode == Mode::Enforce);
        memo.taken.iter().filter(enforced).map(|taken| taken.verdict.wait).max().unwrap_or_default()
    }

    /// The limit that refused the request, or in its trial would have.
    pub fn refused(&self, memo: &Memo) -> Option<(&LimitName, bool)> {
        let refused = memo.refused?;
        Some((&self.limits.get(refused.limit)?.name, refused.shadow))
    }

    fn of(&self, taken: &Taken) -> Option<(&Limit, &Budget)> {
        let limit = self.limits.get(taken.limit)?;
        Some((limit, limit.budgets.at(taken.budget)?))
    }

    fn judge(&self, inbound: &mut Inbound<'_>, memo: &mut Memo) -> Result<(), Stop> {
        let now = self.counters.now();
        for (at, limit) in self.limits.iter().enumerate() {
            let refusal = match limit.budgets.of(inbound.caller).and_then(|index| Some((index, limit.budgets.at(index)?))) {
                Some((index, budget)) => {
                    let key = self.counters.key(&limit.key, inbound);
                    let cost = limit.cost.of(&inbound.head.headers, budget);
                    let verdict = budget.local.take(key, cost, now);
                    memo.taken.push(Taken { limit: at, budget: index, key, cost, verdict });
                    (!verdict.admitted).then_some(Stop::Limited(Limited { by: NAME, retry_after: verdict.retry_after }))
                }
                // Nothing says how often somebody without a plan may ask.
                None => Some(Stop::Forbidden(None)),
            };
            let Some(stop) = refusal else { continue };
            limit.metrics.refused();
            let shadow = limit.mode == Mode::Shadow;
            memo.refused = Some(Refused { limit: at, shadow });
            if !shadow {
                return Err(stop);
            }
        }
        Ok(())
    }
}

impl Policy for RateLimit {
    type Memo = Memo;

    async fn request(&self, inbound: &mut Inbound<'_>, memo: &mut Memo) -> Result<(), Stop> {
        let judged = self.judge(inbound, memo);
        match judged {
            Ok(()) => {
                for taken in memo.taken.iter().filter(|taken| taken.verdict.admitted) {
                    self.limits.get(taken.limit).inspect(|limit| limit.metrics.admitted(&taken.verdict));
                }
            }
            Err(_) => self.give_back(memo),
        }
        judged
    }

    fn give_back(&self, memo: &mut Memo) {
        let now = self.counters.now();
        for taken in memo.taken.iter_mut().filter(|taken| taken.verdict.admitted) {
            if let Some((_, budget)) = self.of(taken) {
                budget.local.give_back(taken.key, taken.cost, now);
                taken.verdict = budget.local.look(taken.key, now);
            }
        }
    }

    fn upstream_response(&self, head: &mut ResponseHeader, _: &Facts, memo: &mut Memo) -> Result<(), Stop> {
        for taken in memo.taken.iter_mut().filter(|taken| taken.verdict.admitted) {
            let Some((Limit { cost: Cost::Response { name }, .. }, budget)) = self.of(taken) else { continue };
            let now = self.counters.now();
            match number(&head.headers, name) {
                Some(0) => budget.local.give_back(taken.key, 1, now),
                Some(cost) => budget.local.charge(taken.key, cost - 1, now),
                None => continue,
            }
            taken.verdict = budget.local.look(taken.key, now);
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

impl Budgets {
    /// The place of what a caller may use. `None`: it has no plan.
    fn of(&self, caller: &Caller) -> Option<usize> {
        match self {
            Self::One(_) => Some(0),
            Self::ByPlan { default, .. } => {
                let plan = caller.consumer.as_ref().and_then(|consumer| consumer.plan.as_ref());
                plan.map(|plan| plan.index).or(*default)
            }
        }
    }

    fn at(&self, index: usize) -> Option<&Budget> {
        match self {
            Self::One(budget) => Some(budget),
            Self::ByPlan { plans, .. } => plans.get(index),
        }
    }
}

impl Cost {
    fn compile(config: &CostConfig, at: &Path) -> Result<Self, Problem> {
        match config {
            CostConfig::Fixed(cost) => Ok(Self::Fixed(*cost)),
            CostConfig::Header(name) => Ok(Self::Header { name: limit_key::header_name(name, &at.key("header"))? }),
            CostConfig::ResponseHeader(name) => {
                Ok(Self::Response { name: limit_key::header_name(name, &at.key("response_header"))? })
            }
        }
    }

    /// What a request takes at first. No more than may come at once, or it could never pass; no less than 1, or who names its own cost
    /// would name none.
    fn of(&self, headers: &HeaderMap, budget: &Budget) -> u32 {
        match self {
            Self::Fixed(cost) => *cost,
            Self::Header { name } => number(headers, name).unwrap_or(1).clamp(1, budget.local.terms().most()),
            Self::Response { .. } => 1,
        }
    }
}

/// The whole number that a field is. Nothing else is one: several fields, a sign, blanks.
fn number(headers: &HeaderMap, name: &HeaderName) -> Option<u32> {
    let mut values = headers.get_all(name).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let text = value.to_str().ok()?.trim();
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

impl Limit {
    fn compile(
        name: &LimitName,
        config: &LimitConfig,
        path: &Path,
        auth: Option<&Auth>,
        scope: Scope,
        ground: &Ground<'_>,
    ) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let place = Place { route: ground.route, knows: Knows::By(auth) };
        let key = limit_key::compile(&config.key, config.ipv6_prefix, path, place).map_err(|found| problems.extend(found)).ok();
        let cost = Cost::compile(&config.cost, &path.key("cost")).map_err(|problem| problems.push(problem)).ok();
        let id = Id { policy: NAME, route: scope.route(ground), limit: Some(name.clone()), plan: None };
        let budget = |id: &Id, rate: Rate, burst: Option<u32>| {
            let terms = terms(config, rate, burst);
            let item = Item::new(name.as_str(), config.headers, rate, terms.burst);
            Budget { local: ground.counters.local(id, &terms), item }
        };
        let budgets = match config.limit {
            Allowance::Rate(rate) => Budgets::One(budget(&id, rate, config.burst)),
            Allowance::Plan => {
                let plans = ground.loaded.config.plans.iter();
                let plans =
                    plans.map(|(plan, terms)| budget(&Id { plan: Some(plan.clone()), ..id.clone() }, terms.limit, terms.burst));
                let default = config.default_plan.as_ref();
                let default = default.and_then(|name| ground.loaded.config.plans.keys().position(|plan| plan == name));
                Budgets::ByPlan { plans: plans.collect(), default }
            }
        };
        let metrics = ground.metrics.limit(ground.route, NAME, name.as_str(), config.mode);
        match (key, cost) {
            (Some(key), Some(cost)) if problems.is_empty() => {
                Ok(Self { name: name.clone(), key, budgets, cost, mode: config.mode, metrics })
            }
            _ => Err(problems),
        }
    }
}

/// How a limit counts at this rate.
fn terms(config: &LimitConfig, rate: Rate, burst: Option<u32>) -> Terms {
    let algorithm = match config.algorithm {
        Word::TokenBucket => Algorithm::TokenBucket,
        Word::LeakyBucket => {
            Algorithm::LeakyBucket { max_delay: config.max_delay.map_or(MAX_DELAY, crate::units::Duration::as_std) }
        }
        Word::SlidingWindow => Algorithm::SlidingWindow,
        Word::FixedWindow => Algorithm::FixedWindow,
    };
    Terms { algorithm, rate, burst: burst.unwrap_or(rate.count()).into(), keys: config.keys as usize }
}
