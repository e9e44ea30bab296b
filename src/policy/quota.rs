//! `quota`: how much callers may ask for in an hour, a day or a month, by their plans.
//!
//! Edge ring, inward, after `rate_limit`: a request that is refused for coming too fast costs nothing of the quota. Outward, on every answer: what is left.
//! A consumer's quota is one for all routes; who has no plan, or one without a quota, is not counted. What is used is kept by `limit::quota`.

use std::{collections::BTreeMap, sync::Arc};

use pingora_http::ResponseHeader;

use super::{
    Policy,
    chain::Ground,
    limit_fields::{self, Item},
};
use crate::{
    caller::{Caller, Consumer},
    config::{
        load::Loaded,
        plan,
        policy::{CountedQuota as Config, Switch, auth::Mode},
        problem::{Path, Problem},
        suggest::suggest,
    },
    exchange::{Facts, Inbound, Limited, Stop},
    identity::Consumers,
    limit::{
        Verdict,
        quota::{Calendar, Ledger, Quota as Count, wall, zones},
    },
    name::{ConsumerName, PlanName},
    observe::metrics::LimitMetrics,
};

/// How the requests of a route count.
pub struct Quota {
    quotas: Arc<Quotas>,
    mode: Mode,
    /// What is told of the quota of each plan, by its index.
    items: Box<[Option<Item>]>,
    metrics: LimitMetrics,
}

/// The quotas of all consumers, shared by all routes.
#[derive(Debug, Default)]
pub struct Quotas {
    /// By the index of the consumer, which is that of its name, ascending.
    by_consumer: Box<[(Arc<Consumer>, Option<Count>)]>,
}

/// What a request took.
#[derive(Default)]
pub struct Memo {
    taken: Option<Taken>,
    /// The quota refused it; in its trial it would have.
    refused: bool,
}

struct Taken {
    /// Of the consumer.
    place: usize,
    plan: usize,
    verdict: Verdict,
}

/// What file, log, metrics and the client call it.
pub const NAME: &str = "quota";

/// What a request costs.
const COST: u32 = 1;

impl Quotas {
    /// The quotas of a configuration, with what was used of them; and what is wrong with the plans.
    pub fn compile(loaded: &Loaded, consumers: &Consumers, ledger: &Ledger) -> (Self, Vec<Problem>) {
        let mut problems = Vec::new();
        let plans: BTreeMap<&PlanName, (u64, Arc<Calendar>)> = loaded
            .config
            .plans
            .iter()
            .filter_map(|(name, plan)| {
                let at = Path::root().key("plans").key(name.as_str());
                let calendar = calendar(plan, &at).map_err(|problem| problems.push(problem)).ok()??;
                Some((name, (plan.quota?.amount, Arc::new(calendar))))
            })
            .collect();
        let count = |name: &ConsumerName| {
            let consumer = consumers.named(name)?;
            let quota = consumer.plan.as_ref().and_then(|plan| plans.get(&plan.name));
            let count = quota.map(|(amount, calendar)| Count::new(name.as_str(), *amount, calendar.clone(), ledger));
            Some((consumer.clone(), count))
        };
        (Self { by_consumer: loaded.config.consumers.keys().filter_map(count).collect() }, problems)
    }

    /// The place of a consumer. One of another configuration may have another index.
    fn place(&self, consumer: &Consumer) -> Option<usize> {
        match self.by_consumer.get(consumer.index).is_some_and(|(known, _)| known.name == consumer.name) {
            true => Some(consumer.index),
            false => self.find(&consumer.name),
        }
    }

    fn find(&self, name: &ConsumerName) -> Option<usize> {
        self.by_consumer.binary_search_by(|(known, _)| known.name.cmp(name)).ok()
    }

    fn at(&self, place: usize) -> Option<&Count> {
        self.by_consumer.get(place)?.1.as_ref()
    }

    /// The quota of the consumer with this name, if there is one.
    pub fn named(&self, name: &ConsumerName) -> Option<&Count> {
        self.at(self.find(name)?)
    }

    /// The consumer with this name.
    pub fn consumer(&self, name: &ConsumerName) -> Option<&Arc<Consumer>> {
        self.by_consumer.get(self.find(name)?).map(|(consumer, _)| consumer)
    }
}

/// The calendar of a plan, if it has a quota.
fn calendar(plan: &plan::Plan, at: &Path) -> Result<Option<Calendar>, Problem> {
    let zone = plan.timezone.as_deref().unwrap_or("UTC");
    match plan.quota {
        None if plan.timezone.is_some() => {
            Err(Problem::error(at.key("timezone"), "`timezone` is that of a quota, and this plan has none"))
        }
        None => Ok(None),
        Some(quota) => Calendar::new(quota.unit, zone).map(Some).map_err(|unknown| {
            let problem = Problem::error(at.key("timezone"), unknown.to_string());
            match suggest(zone, zones().iter().map(String::as_str)) {
                Some(near) => problem.help(format!("did you mean `{near}`?")),
                None => problem.help("write its IANA name: `Europe/Berlin`, `America/New_York`, `UTC`"),
            }
        }),
    }
}

impl Quota {
    /// What counts on a route; `None` if nothing does.
    pub fn compile(own: &Switch<Config>, gateway: &Switch<Config>, ground: &Ground<'_>) -> Option<Self> {
        let plans = &ground.loaded.config.plans;
        let default = Config::default();
        let config = match (own, gateway) {
            (Switch::Off, _) | (Switch::Inherited, Switch::Off) => return None,
            (Switch::Inherited, Switch::Inherited) => &default,
            (Switch::On(config), _) | (Switch::Inherited, Switch::On(config)) => config,
        };
        let items: Box<[_]> =
            plans.values().map(|plan| plan.quota.map(|quota| Item::quota(NAME, config.headers, quota))).collect();
        items.iter().any(Option::is_some).then(|| Self {
            quotas: ground.quotas.clone(),
            mode: config.mode,
            items,
            metrics: ground.metrics.limit(ground.route, NAME, NAME, config.mode),
        })
    }

    /// Whether it refused a request: `Some(true)` if only in its trial.
    pub fn refused(&self, memo: &Memo) -> Option<bool> {
        memo.refused.then_some(self.mode == Mode::Shadow)
    }

    fn take(&self, caller: &Caller) -> Option<Taken> {
        let consumer = caller.consumer.as_ref()?;
        let (place, plan) = (self.quotas.place(consumer)?, consumer.plan.as_ref()?.index);
        Some(Taken { place, plan, verdict: self.quotas.at(place)?.take(COST, wall()) })
    }
}

impl Policy for Quota {
    type Memo = Memo;

    async fn request(&self, inbound: &mut Inbound<'_>, memo: &mut Memo) -> Result<(), Stop> {
        memo.taken = self.take(inbound.caller);
        let Some(Taken { verdict, .. }) = &memo.taken else { return Ok(()) };
        if verdict.admitted {
            self.metrics.admitted(verdict.wait);
            return Ok(());
        }
        memo.refused = true;
        self.metrics.refused();
        match self.mode {
            Mode::Enforce => Err(Stop::Limited(Limited { by: NAME, retry_after: verdict.retry_after })),
            Mode::Shadow => Ok(()),
        }
    }

    fn give_back(&self, memo: &mut Memo) {
        let Some(taken) = memo.taken.as_mut().filter(|taken| taken.verdict.admitted) else { return };
        if let Some(count) = self.quotas.at(taken.place) {
            let now = wall();
            count.give_back(COST, taken.verdict.until, now);
            taken.verdict = count.look(now);
        }
    }

    fn response(&self, head: &mut ResponseHeader, _: &Facts, memo: &mut Memo) -> Result<(), Stop> {
        let told = memo.taken.iter().filter_map(|taken| {
            let item = self.items.get(taken.plan)?.as_ref()?;
            (self.mode == Mode::Enforce && item.is_told()).then_some((item, &taken.verdict))
        });
        limit_fields::write(head, told).map_err(|error| Stop::Fault(anyhow::anyhow!("quota: {error}")))
    }
}
