//! What becomes of how tries end: the figures that balancing goes by, ejection, the circuit breaker.

use std::{
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use tokio::{sync::Notify, time};

use super::{
    Pool,
    balance::latency::{Answer, Decay},
    breaker::{Breaker, Pass, Turn},
    ended::{Conditions, Ended},
    endpoint::Endpoint,
    member::{Out, Tally},
    outlier::{Change, Ejection, OutlierState, Outliers},
};
use crate::{
    config::{self, upstream::Condition},
    exchange::UpstreamFault,
    name::UpstreamName,
};

/// Judges the endpoints of one upstream, and the whole of it.
#[derive(Debug)]
pub(super) struct Judge {
    upstream: UpstreamName,
    pub tally: Tally,
    outliers: Option<Outliers>,
    breaker: Option<Breaker>,
    /// What counts as failing in a balance.
    failures: Conditions,
    epoch: Instant,
    /// Rung after an ejection: the order among the others is to be laid out anew.
    bell: Notify,
}

impl Judge {
    pub fn new(
        upstream: &UpstreamName,
        config: &config::Upstream,
        members: impl IntoIterator<Item = Arc<OutlierState>>,
        before: Option<&Self>,
        epoch: Instant,
    ) -> Self {
        let before = before.and_then(|before| before.breaker.as_ref());
        let breaker = config.breaker.as_ref().map(|breaker| Breaker::new(breaker, before, teller(upstream)));
        Self {
            upstream: upstream.clone(),
            tally: Tally::default(),
            outliers: config.outlier.as_ref().map(|outlier| Outliers::new(outlier, members)),
            breaker,
            failures: Conditions::of(&Condition::failures()),
            epoch,
            bell: Notify::new(),
        }
    }

    /// Nanoseconds of the clock that all upstreams share.
    pub fn now(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    /// Whether a request may go.
    ///
    /// # Errors
    /// The breaker is open.
    pub fn admit(&self, now: u64) -> Result<Option<Pass>, UpstreamFault> {
        let pass = self.breaker.as_ref().map(|breaker| breaker.admit(now)).transpose();
        pass.map_err(|open| UpstreamFault::Broken(open.retry_after))
    }

    pub fn is_shut(&self) -> bool {
        self.breaker.as_ref().is_some_and(|breaker| breaker.is_shut(self.now()))
    }

    /// A try has ended for the first time.
    pub fn end(&self, endpoint: &Endpoint, pass: Option<Pass>, ended: Ended, began: u64) {
        let now = self.now();
        let took = now.saturating_sub(began);
        let answer = if self.failures.covers(ended) { Answer::Fault } else { Answer::Good };
        endpoint.vitals.answered(answer, Duration::from_nanos(took), now, Decay::default());
        if let (Some(breaker), Some(pass)) = (&self.breaker, pass) {
            breaker.end(pass, ended, took, now);
        }
        self.weigh(endpoint, ended, now);
    }

    /// A try that was answered has come to a bad end.
    pub fn cut_short(&self, endpoint: &Endpoint, ended: Ended) {
        self.weigh(endpoint, ended, self.now());
    }

    /// A request that was let go has nowhere to go to.
    pub fn take_back(&self, pass: Pass) {
        if let Some(breaker) = &self.breaker {
            breaker.abandon(pass);
        }
    }

    /// Nothing was learnt of a try.
    pub fn abandon(&self, endpoint: &Endpoint, pass: Option<Pass>) {
        endpoint.vitals.abandoned();
        if let (Some(breaker), Some(pass)) = (&self.breaker, pass) {
            breaker.abandon(pass);
        }
    }

    fn weigh(&self, endpoint: &Endpoint, ended: Ended, now: u64) {
        let Some(outliers) = &self.outliers else { return };
        if let Some(ejection) = outliers.report(&endpoint.outlier, ended, now) {
            // Who picks now already passes it over.
            endpoint.vitals.take_out(Out::Ejected);
            self.tell_ejected(endpoint, &ejection);
            self.bell.notify_one();
        }
    }

    /// Finds out whether ejections count, and marks the endpoints by it. Called by one at a time.
    pub fn settle(&self, endpoints: &[Arc<Endpoint>]) {
        let now = self.now();
        let in_health = endpoints.iter().filter(|endpoint| endpoint.takes_traffic());
        if let Some(panics) =
            self.outliers.as_ref().and_then(|outliers| outliers.settle(in_health.map(|endpoint| &*endpoint.outlier)))
        {
            self.tell_panic(panics);
        }
        for endpoint in endpoints {
            let ejected = self.outliers.as_ref().is_some_and(|outliers| outliers.is_out(&endpoint.outlier));
            endpoint.mark(Out::Ejected, ejected, now);
            endpoint.mark(Out::Unhealthy, !endpoint.health.is_healthy(), now);
        }
    }

    fn tell_ejected(&self, endpoint: &Endpoint, ejection: &Ejection) {
        let (upstream, address, why) = (&self.upstream, endpoint.address, &ejection.why);
        let seconds = ejection.until.saturating_sub(ejection.at) as f64 / 1e9;
        tracing::warn!(%upstream, endpoint = %address, reason = %why, seconds, "endpoint is ejected, it takes no traffic");
    }

    fn tell_panic(&self, panics: bool) {
        let upstream = &self.upstream;
        match panics {
            true => tracing::warn!(%upstream, "too few endpoints are left, so those that are ejected are asked too"),
            false => tracing::info!(%upstream, "enough endpoints are left, so those that are ejected are not asked"),
        }
    }

    fn tell(&self, endpoints: &[Arc<Endpoint>], position: usize, change: &Change) {
        let Some(endpoint) = endpoints.get(position) else { return };
        match change {
            Change::Ejected(ejection) => self.tell_ejected(endpoint, ejection),
            Change::Returned => {
                let upstream = &self.upstream;
                tracing::info!(%upstream, endpoint = %endpoint.address, "endpoint is no longer ejected");
            }
        }
    }

    pub fn ejects(&self) -> bool {
        self.outliers.is_some()
    }

    /// The state of the breaker in words, for an operator.
    pub fn breaker_view(&self) -> Option<super::breaker::View> {
        self.breaker.as_ref().map(|breaker| breaker.view(self.now()))
    }
}

/// Brings ejected endpoints back in their time, until it is dropped.
pub(super) async fn watch(pool: Arc<Pool>) {
    let judge = &pool.judge;
    let Some(outliers) = &judge.outliers else { return };
    loop {
        let rung = match outliers.next_sweep() {
            Some(due) => {
                let left = Duration::from_nanos(due.saturating_sub(judge.now()));
                time::timeout(left, judge.bell.notified()).await.is_ok()
            }
            None => {
                judge.bell.notified().await;
                true
            }
        };
        let changes = {
            let _one_at_a_time = pool.laying.lock().unwrap_or_else(PoisonError::into_inner);
            outliers.sweep(judge.now())
        };
        changes.iter().for_each(|(position, change)| judge.tell(&pool.endpoints, *position, change));
        if rung || !changes.is_empty() {
            pool.lay_out();
        }
    }
}

/// Says once what changes.
fn teller(upstream: &UpstreamName) -> super::breaker::Told {
    let upstream = upstream.clone();
    Box::new(move |turn| match turn {
        Turn::Opens(counts) => {
            let (requests, failed, slow) = (counts.requests, counts.failed, counts.slow);
            tracing::warn!(%upstream, requests, failed, slow, "breaker opens, the upstream is left alone");
        }
        Turn::Probes => tracing::info!(%upstream, "breaker lets requests through to find out"),
        Turn::Closes => tracing::info!(%upstream, "breaker closes"),
    })
}
