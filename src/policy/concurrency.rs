//! `concurrency`: how many requests are carried at the same time.
//!
//! Edge ring, inward, the last: a request that is refused for another reason is none that is carried. What it holds is released when its memo is
//! dropped, however the request ends: answered, given up, reset, or as a connection of another protocol.

use std::{sync::Arc, time::Duration};

use super::{
    Policy,
    chain::{Ground, Scope},
    limit_key::{self, Knows, Place},
};
use crate::{
    config::{
        policy::{
            auth::{Auth, Mode},
            limit::Concurrency as Config,
        },
        problem::{Path, Problem},
    },
    exchange::{Inbound, Limited, Stop},
    limit::{
        Counters, Id,
        concurrency::{Carried, Held},
        key::Parts,
    },
    observe::metrics::LimitMetrics,
};

/// The limit of a route.
pub struct Concurrency {
    key: Parts,
    carried: Arc<Carried>,
    limit: u64,
    mode: Mode,
    metrics: LimitMetrics,
    counters: Arc<Counters>,
}

/// What a request holds while it is carried.
#[derive(Default)]
pub struct Memo {
    held: Option<Held>,
    refused: bool,
}

/// What log and metrics call the policy.
pub const NAME: &str = "concurrency";

/// When to come again: nobody knows how long those take that are carried.
const RETRY: Duration = Duration::from_secs(1);

impl Concurrency {
    /// `auth` is what applies on the same route.
    ///
    /// # Errors
    /// A key that no caller has there.
    pub fn compile(
        config: &Config,
        path: &Path,
        auth: Option<&Auth>,
        scope: Scope,
        ground: &Ground<'_>,
    ) -> Result<Self, Vec<Problem>> {
        let place = Place { route: ground.route, knows: Knows::By(auth) };
        let key = limit_key::compile(&config.key, config.ipv6_prefix, path, place)?;
        let id = Id { policy: NAME, route: scope.route(ground), limit: None, plan: None };
        Ok(Self {
            key,
            carried: ground.counters.carried(&id),
            limit: config.limit.into(),
            mode: config.mode,
            metrics: ground.metrics.limit(ground.route, NAME, NAME, config.mode),
            counters: ground.counters.clone(),
        })
    }

    /// Whether it refused the request, or in its trial would have; and whether that was a trial.
    pub fn refused(&self, memo: &Memo) -> Option<bool> {
        memo.refused.then_some(self.mode == Mode::Shadow)
    }
}

impl Policy for Concurrency {
    type Memo = Memo;

    async fn request(&self, inbound: &mut Inbound<'_>, memo: &mut Memo) -> Result<(), Stop> {
        let (held, count) = self.carried.begin(self.counters.key(&self.key, inbound));
        if count <= self.limit {
            memo.held = Some(held);
            self.metrics.admitted(Duration::ZERO);
            return Ok(());
        }
        self.metrics.refused();
        memo.refused = true;
        match self.mode {
            Mode::Enforce => Err(Stop::Limited(Limited { by: NAME, retry_after: RETRY })),
            Mode::Shadow => {
                memo.held = Some(held);
                Ok(())
            }
        }
    }
}
