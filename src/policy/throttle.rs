//! `throttle`: how many requests of one client are looked at.
//!
//! Edge ring, inward, before all else: it knows no more of the caller than its address and what its request says. Who comes far more often than
//! allowed is found by a sketch and costs no more than that; over all others decides the exact count. Outward, on every answer: what
//! is left.

use std::{sync::Arc, time::Duration};

use pingora_http::ResponseHeader;

use super::{
    Policy,
    chain::{Ground, Scope},
    limit_fields::{self, Item},
    limit_key::{self, Knows, Place},
    limit_terms::{self, Places},
};
use crate::{
    config::{
        policy::{auth::Mode, limit::Throttle as Config},
        problem::{Path, Problem},
    },
    exchange::{Facts, Inbound, Limited, Stop},
    limit::{Algorithm, Counters, Id, Key, Local, Terms, Verdict, flood::Flood, key::Parts},
    observe::metrics::LimitMetrics,
};

/// The limit of a route, and what finds those who are far above it.
pub struct Throttle {
    key: Parts,
    local: Arc<Local>,
    flood: Arc<Flood>,
    item: Item,
    mode: Mode,
    metrics: LimitMetrics,
    counters: Arc<Counters>,
}

/// What was said of one request.
#[derive(Default)]
pub struct Memo {
    judged: Option<(Key, Verdict)>,
    refused: bool,
}

/// What log and metrics call the policy.
pub const NAME: &str = "throttle";

/// What a flood is told: no count says when it ends.
const FLOOD_RETRY: Duration = Duration::from_secs(1);

impl Throttle {
    /// # Errors
    /// A limit that cannot be counted, a key that is not known yet.
    pub fn compile(config: &Config, path: &Path, scope: Scope, ground: &Ground<'_>) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let place = Place { route: ground.route, knows: Knows::NothingYet };
        let key = limit_key::compile(&config.key, config.ipv6_prefix, path, place).map_err(|found| problems.extend(found)).ok();
        let burst = config.burst.map_or(config.limit.count(), u64::from);
        let terms = Terms { algorithm: Algorithm::TokenBucket, rate: config.limit, burst, keys: Some(config.keys as usize) };
        let places = Places { rate: path.key("limit"), burst: path.key("burst") };
        problems.extend(limit_terms::refuse_unfit(&terms, &places, path));
        let Some(key) = key.filter(|_| problems.is_empty()) else { return Err(problems) };
        let id = Id { policy: NAME, route: scope.route(ground), limit: None, plan: None };
        Ok(Self {
            key,
            local: ground.counters.local(&id, &terms),
            flood: ground.counters.flood(&id, &terms),
            item: Item::new(NAME, config.headers, &terms),
            mode: config.mode,
            metrics: ground.metrics.limit(ground.route, NAME, NAME, config.mode),
            counters: ground.counters.clone(),
        })
    }

    /// Whether it refused the request, or in its trial would have; and whether that was a trial.
    pub fn refused(&self, memo: &Memo) -> Option<bool> {
        memo.refused.then_some(self.mode == Mode::Shadow)
    }

    /// When a request that is refused may come again.
    fn judge(&self, inbound: &Inbound<'_>, memo: &mut Memo) -> Result<(), Duration> {
        let (now, key) = (self.counters.now(), self.counters.key(&self.key, inbound));
        if self.flood.comes(key, now) && self.mode == Mode::Enforce {
            return Err(FLOOD_RETRY);
        }
        let verdict = self.local.take(key, 1, now);
        memo.judged = Some((key, verdict));
        if verdict.admitted { Ok(()) } else { Err(verdict.retry_after) }
    }
}

impl Policy for Throttle {
    type Memo = Memo;

    async fn request(&self, inbound: &mut Inbound<'_>, memo: &mut Memo) -> Result<(), Stop> {
        let Err(retry_after) = self.judge(inbound, memo) else {
            self.metrics.admitted(Duration::ZERO);
            return Ok(());
        };
        self.metrics.refused();
        memo.refused = true;
        match self.mode {
            Mode::Enforce => Err(Stop::Limited(Limited { by: NAME, retry_after })),
            Mode::Shadow => Ok(()),
        }
    }

    fn give_back(&self, memo: &mut Memo) {
        let Some((key, verdict)) = memo.judged.as_mut().filter(|(_, verdict)| verdict.admitted) else { return };
        let now = self.counters.now();
        self.local.give_back(*key, 1, verdict.until, now);
        *verdict = self.local.look(*key, now);
    }

    fn response(&self, head: &mut ResponseHeader, _: &Facts, memo: &mut Memo) -> Result<(), Stop> {
        let told = memo.judged.iter().filter(|_| self.mode == Mode::Enforce && self.item.is_told());
        let told = told.map(|(_, verdict)| (&self.item, verdict));
        limit_fields::write(head, told).map_err(|error| Stop::Fault(anyhow::anyhow!("limits: {error}")))
    }
}
