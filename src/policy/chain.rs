//! THE ORDER of the policies, and the permit that only they give.
//!
//! A route switches policies on; it never orders them. Outward the order is the reverse of inward.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use pingora_http::{RequestHeader, ResponseHeader};

use super::{
    BodyNeed, Policy,
    auth::Auth,
    authz::Authz,
    concurrency::{self, Concurrency},
    cors::Cors,
    introduction::Guarded,
    overload::{self, Overload},
    quota::{self, Quota, Quotas},
    rate_limit::{self, RateLimit},
    request_limits::RequestLimits,
    throttle::{self, Throttle},
};
use crate::{
    caller::Caller,
    config::{
        load::Loaded,
        policy::{Policies, Switch},
        problem::{Path, Problem},
    },
    exchange::{ByLimit, Facts, Held, Inbound, Stop},
    identity::{Consumers, Identities, signature::replay::Replays},
    limit::{Counters, Verdict, overload::Guard},
    name::{LimitName, RouteName},
    observe::metrics::Metrics,
};

/// The policies of one route, in their order. One field each makes a duplicate unrepresentable.
pub struct Chain {
    /// Before everything: what is shed must cost next to nothing.
    overload: Overload,
    /// Then: who comes too often is looked at no further.
    throttle: Option<Throttle>,
    /// Before the rest, because it is cheap and everything after it reads the head.
    request_limits: Option<RequestLimits>,
    /// Before any authentication: a preflight carries no credentials, by the Fetch standard.
    cors: Option<Cors>,
    /// Before whatever asks who calls.
    auth: Option<Auth>,
    /// After `auth`, whose word it weighs.
    authz: Option<Authz>,
    /// After all that refuses for other reasons: only what is let pass is counted.
    rate_limit: Option<RateLimit>,
    /// After `rate_limit`: a quota is for much longer, so what comes too fast must not cost any of it.
    quota: Option<Quota>,
    /// Last: what is refused is not carried.
    concurrency: Option<Concurrency>,
    /// On every route: it is what keeps the word of the gateway its own.
    guarded: Arc<Guarded>,
    body: BodyNeed,
}

/// What policies are compiled with, beside their settings.
pub struct Ground<'a> {
    pub loaded: &'a Loaded,
    /// `-` for requests that no route takes.
    pub route: &'a RouteName,
    pub consumers: &'a Arc<Consumers>,
    pub identities: &'a Identities,
    pub guarded: &'a Arc<Guarded>,
    pub metrics: &'a Metrics,
    /// Signatures that were used.
    pub replays: &'a Arc<Replays>,
    /// What limits count.
    pub counters: &'a Arc<Counters>,
    pub quotas: &'a Arc<Quotas>,
    pub guard: &'a Arc<Guard>,
}

/// Where a policy stands that applies on a route.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// On the route: it is the route's own.
    Route,
    /// On the gateway: what it counts is one for all routes that have no other.
    Gateway,
}

impl Scope {
    fn of<T>(own: &Switch<T>) -> Self {
        if own.is_inherited() { Self::Gateway } else { Self::Route }
    }

    /// The route that owns the policy.
    pub fn route(self, ground: &Ground<'_>) -> Option<RouteName> {
        (self == Self::Route).then(|| ground.route.clone())
    }
}

/// What the policies of a chain remember about one request.
#[derive(Default)]
pub struct Memo {
    overload: overload::Memo,
    throttle: <Throttle as Policy>::Memo,
    request_limits: <RequestLimits as Policy>::Memo,
    cors: <Cors as Policy>::Memo,
    auth: <Auth as Policy>::Memo,
    authz: <Authz as Policy>::Memo,
    rate_limit: <RateLimit as Policy>::Memo,
    quota: <Quota as Policy>::Memo,
    concurrency: <Concurrency as Policy>::Memo,
}

impl Memo {
    /// Keeps what is known of the request's body for the policies that ask for it.
    pub fn hold(&mut self, held: Held) {
        self.auth.held = held;
    }
}

/// The proof that a request passed the edge ring. Every way out asks for one, so a forgotten call fails closed.
#[derive(Debug)]
pub struct Permit {
    _only_the_chain_makes_one: (),
}

impl Chain {
    /// Compiles what applies on a route: its own policy, else the gateway's; with what should be mended of it, though it works.
    ///
    /// # Errors
    /// Settings that cannot be enforced. `path` is where the route's policies stand.
    pub fn compile(own: &Policies, path: &Path, ground: &Ground<'_>) -> Result<(Self, Vec<Problem>), Vec<Problem>> {
        let mut problems = Vec::new();
        let (gateway, around) = (&ground.loaded.config.policies, Path::root().key("policies"));
        let place = |inherited: bool, key: &str| if inherited { around.key(key) } else { path.key(key) };
        let throttle = own.throttle.or(&gateway.throttle).and_then(|throttle| {
            let at = place(own.throttle.is_inherited(), throttle::NAME);
            let compiled = Throttle::compile(throttle, &at, Scope::of(&own.throttle), ground);
            compiled.map_err(|found| problems.extend(found)).ok()
        });
        let request_limits = own.request_limits.or(&gateway.request_limits).map(RequestLimits::compile);
        let cors = own.cors.or(&gateway.cors).and_then(|cors| {
            Cors::compile(cors, &place(own.cors.is_inherited(), "cors")).map_err(|found| problems.extend(found)).ok()
        });
        let auth = own.auth.or(&gateway.auth).and_then(|auth| {
            let at = place(own.auth.is_inherited(), "auth");
            Auth::compile(auth, &at, ground).map_err(|found| problems.extend(found)).ok()
        });
        let authz = own.authz.or(&gateway.authz).and_then(|authz| {
            let at = place(own.authz.is_inherited(), "authz");
            Authz::compile(authz, &at, own.auth.or(&gateway.auth), ground).map_err(|found| problems.extend(found)).ok()
        });
        let known_by = own.auth.or(&gateway.auth);
        let rate_limit = own.rate_limit.or(&gateway.rate_limit).and_then(|limits| {
            let at = place(own.rate_limit.is_inherited(), rate_limit::NAME);
            let compiled = RateLimit::compile(limits, &at, known_by, Scope::of(&own.rate_limit), ground);
            let (policy, found) = compiled.map_or_else(|found| (None, found), |(policy, found)| (Some(policy), found));
            problems.extend(found);
            policy
        });
        let concurrency = own.concurrency.or(&gateway.concurrency).and_then(|concurrency| {
            let at = place(own.concurrency.is_inherited(), concurrency::NAME);
            let compiled = Concurrency::compile(concurrency, &at, known_by, Scope::of(&own.concurrency), ground);
            compiled.map_err(|found| problems.extend(found)).ok()
        });
        let (overload, quota) = (Overload::compile(ground), Quota::compile(&own.quota, &gateway.quota, ground));
        let body = request_limits.body().max(cors.body()).max(auth.body()).max(authz.body());
        let chain = Self {
            overload,
            throttle,
            request_limits,
            cors,
            auth,
            authz,
            rate_limit,
            quota,
            concurrency,
            guarded: ground.guarded.clone(),
            body,
        };
        if problems.iter().any(Problem::is_error) { Err(problems) } else { Ok((chain, problems)) }
    }

    /// Names of the policies that are on, in the order in which a request meets them.
    pub fn names(&self) -> Vec<&'static str> {
        let on = [
            (self.throttle.is_some(), throttle::NAME),
            (self.request_limits.is_some(), "request_limits"),
            (self.cors.is_some(), "cors"),
            (self.auth.is_some(), "auth"),
            (self.authz.is_some(), "authz"),
            (self.rate_limit.is_some(), rate_limit::NAME),
            (self.quota.is_some(), quota::NAME),
            (self.concurrency.is_some(), concurrency::NAME),
        ];
        on.into_iter().filter_map(|(on, name)| on.then_some(name)).collect()
    }

    /// Lets the policies note what their answer needs of a request that goes no further.
    pub fn look(&self, inbound: &Inbound<'_>, memo: &mut Memo) {
        self.throttle.look(inbound, &mut memo.throttle);
        self.request_limits.look(inbound, &mut memo.request_limits);
        self.cors.look(inbound, &mut memo.cors);
        self.auth.look(inbound, &mut memo.auth);
        self.authz.look(inbound, &mut memo.authz);
        self.rate_limit.look(inbound, &mut memo.rate_limit);
        self.quota.look(inbound, &mut memo.quota);
        self.concurrency.look(inbound, &mut memo.concurrency);
    }

    /// Lets a request in, or sheds it. To be asked before anything is done for it; [`enter`](Self::enter) asks who was not asked.
    ///
    /// # Errors
    /// There is more to carry than can be.
    pub fn admit(&self, memo: &mut Memo) -> Result<(), Stop> {
        self.overload.admit(&mut memo.overload)
    }

    /// The edge ring, inward.
    ///
    /// # Errors
    /// The first policy that stops the request.
    pub async fn enter(&self, inbound: &mut Inbound<'_>, memo: &mut Memo) -> Result<Permit, Stop> {
        self.look(inbound, memo);
        self.admit(memo)?;
        self.throttle.request(inbound, &mut memo.throttle).await?;
        self.request_limits.request(inbound, &mut memo.request_limits).await?;
        self.cors.request(inbound, &mut memo.cors).await?;
        self.auth.request(inbound, &mut memo.auth).await?;
        self.authz.request(inbound, &mut memo.authz).await?;
        self.limit(inbound, memo).await.inspect_err(|_| self.give_back(memo))?;
        self.wait(memo).await;
        Ok(Permit { _only_the_chain_makes_one: () })
    }

    /// The limits of what callers may do: all of them take of a request, or none does.
    async fn limit(&self, inbound: &mut Inbound<'_>, memo: &mut Memo) -> Result<(), Stop> {
        self.rate_limit.request(inbound, &mut memo.rate_limit).await?;
        self.quota.request(inbound, &mut memo.quota).await?;
        self.concurrency.request(inbound, &mut memo.concurrency).await
    }

    fn give_back(&self, memo: &mut Memo) {
        self.concurrency.give_back(&mut memo.concurrency);
        self.quota.give_back(&mut memo.quota);
        self.rate_limit.give_back(&mut memo.rate_limit);
        self.throttle.give_back(&mut memo.throttle);
    }

    /// Holds a request back until its turn. Last, so that none waits that is refused.
    async fn wait(&self, memo: &Memo) {
        let wait = self.rate_limit.as_ref().map_or(Duration::ZERO, |limits| limits.wait(&memo.rate_limit));
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }

    /// What the caller of a made-up request has of the limits that count consumers.
    pub fn standing(&self, inbound: &Inbound<'_>) -> Vec<(LimitName, Verdict)> {
        self.rate_limit.as_ref().map(|limits| limits.standing(inbound)).unwrap_or_default()
    }

    /// Nothing of these was used.
    pub fn forget(&self, inbound: &Inbound<'_>) {
        if let Some(limits) = &self.rate_limit {
            limits.forget(inbound);
        }
    }

    /// The limit that refused the request; else the last that in its trial would have.
    pub fn refused_by(&self, memo: &Memo) -> Option<ByLimit<'_>> {
        let throttle = self.throttle.as_ref().and_then(|policy| policy.refused(&memo.throttle));
        let rate_limit = self.rate_limit.as_ref().and_then(|policy| policy.refused(&memo.rate_limit));
        let quota = self.quota.as_ref().and_then(|policy| policy.refused(&memo.quota));
        let concurrency = self.concurrency.as_ref().and_then(|policy| policy.refused(&memo.concurrency));
        let refusals = [
            throttle.map(|shadow| ByLimit { policy: throttle::NAME, limit: None, shadow }),
            rate_limit.map(|(name, shadow)| ByLimit { policy: rate_limit::NAME, limit: Some(name.as_str()), shadow }),
            quota.map(|shadow| ByLimit { policy: quota::NAME, limit: None, shadow }),
            concurrency.map(|shadow| ByLimit { policy: concurrency::NAME, limit: None, shadow }),
        ];
        refusals.into_iter().flatten().reduce(|one, other| if one.shadow { other } else { one })
    }

    /// The origin ring, inward.
    ///
    /// # Errors
    /// The first policy that stops the request.
    pub fn upstream_request(
        &self,
        head: &mut RequestHeader,
        facts: &Facts,
        caller: &Caller,
        memo: &mut Memo,
    ) -> Result<(), Stop> {
        self.throttle.upstream_request(head, facts, &mut memo.throttle)?;
        self.request_limits.upstream_request(head, facts, &mut memo.request_limits)?;
        self.cors.upstream_request(head, facts, &mut memo.cors)?;
        self.auth.upstream_request(head, facts, &mut memo.auth)?;
        self.authz.upstream_request(head, facts, &mut memo.authz)?;
        self.rate_limit.upstream_request(head, facts, &mut memo.rate_limit)?;
        self.quota.upstream_request(head, facts, &mut memo.quota)?;
        self.concurrency.upstream_request(head, facts, &mut memo.concurrency)?;
        self.guarded.introduce(head, caller).map_err(|error| Stop::Fault(anyhow::anyhow!("caller: {error}")))
    }

    /// The origin ring, outward.
    ///
    /// # Errors
    /// The first policy that stops the response.
    pub fn upstream_response(&self, head: &mut ResponseHeader, facts: &Facts, memo: &mut Memo) -> Result<(), Stop> {
        self.concurrency.upstream_response(head, facts, &mut memo.concurrency)?;
        self.quota.upstream_response(head, facts, &mut memo.quota)?;
        self.rate_limit.upstream_response(head, facts, &mut memo.rate_limit)?;
        self.authz.upstream_response(head, facts, &mut memo.authz)?;
        self.auth.upstream_response(head, facts, &mut memo.auth)?;
        self.cors.upstream_response(head, facts, &mut memo.cors)?;
        self.request_limits.upstream_response(head, facts, &mut memo.request_limits)?;
        self.throttle.upstream_response(head, facts, &mut memo.throttle)
    }

    /// The edge ring, outward: for every answer, our own included.
    ///
    /// # Errors
    /// The first policy that stops the response.
    pub fn response(&self, head: &mut ResponseHeader, facts: &Facts, memo: &mut Memo) -> Result<(), Stop> {
        self.concurrency.response(head, facts, &mut memo.concurrency)?;
        self.quota.response(head, facts, &mut memo.quota)?;
        self.rate_limit.response(head, facts, &mut memo.rate_limit)?;
        self.authz.response(head, facts, &mut memo.authz)?;
        self.auth.response(head, facts, &mut memo.auth)?;
        self.cors.response(head, facts, &mut memo.cors)?;
        self.request_limits.response(head, facts, &mut memo.request_limits)?;
        self.throttle.response(head, facts, &mut memo.throttle)
    }

    /// Whether any policy may need all of a request's body before it judges.
    pub fn may_hold(&self) -> bool {
        self.auth.as_ref().is_some_and(Auth::may_hold)
    }

    /// Whether one needs that of this request. Asked before the policies judge, with what is known of the body.
    pub fn wants_body(&self, inbound: &Inbound<'_>, memo: &Memo) -> bool {
        self.auth.as_ref().is_some_and(|auth| auth.wants_body(inbound, &memo.auth))
    }

    /// Whether any policy watches the request body.
    pub fn watches_body(&self) -> bool {
        self.body == BodyNeed::Watch
    }

    /// One chunk of the request body.
    ///
    /// # Errors
    /// The first policy that stops the request.
    pub fn request_chunk(&self, chunk: &mut Option<Bytes>, end: bool, memo: &mut Memo) -> Result<(), Stop> {
        self.throttle.request_chunk(chunk, end, &mut memo.throttle)?;
        self.request_limits.request_chunk(chunk, end, &mut memo.request_limits)?;
        self.cors.request_chunk(chunk, end, &mut memo.cors)?;
        self.auth.request_chunk(chunk, end, &mut memo.auth)?;
        self.authz.request_chunk(chunk, end, &mut memo.authz)?;
        self.rate_limit.request_chunk(chunk, end, &mut memo.rate_limit)?;
        self.quota.request_chunk(chunk, end, &mut memo.quota)?;
        self.concurrency.request_chunk(chunk, end, &mut memo.concurrency)
    }
}
