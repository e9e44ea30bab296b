//! Policies: the rules a request meets on its way in, and its answer on the way out.
//!
//! Reading order: the [`Policy`] trait says when a rule runs; [`chain`] says in which order; each other file is one rule.
//! A policy knows no status code, no other policy and no socket.

use bytes::Bytes;
use pingora_http::{RequestHeader, ResponseHeader};

use crate::exchange::{Facts, Inbound, Stop};

pub mod chain;
pub mod introduction;
pub mod overload;
pub mod auth;
pub mod authz;
pub mod cors;
pub mod request_limits;
pub mod throttle;
pub mod rate_limit;
pub mod quota;
pub mod concurrency;
pub mod limit_key;
pub mod limit_terms;
pub mod limit_fields;

/// One rule of a route, compiled. A step does nothing unless overridden.
pub trait Policy: Send + Sync {
    /// What this policy remembers about one request. Private to it.
    type Memo: Default + Send + Sync;

    /// Edge ring, before any policy may stop the request: to look, never to judge. What is noted here serves `response`
    /// even when an earlier policy stops the request.
    fn look(&self, _: &Inbound<'_>, _: &mut Self::Memo) {}

    /// Edge ring, inward: for every request, before the cache.
    fn request(&self, _: &mut Inbound<'_>, _: &mut Self::Memo) -> impl Future<Output = Result<(), Stop>> + Send {
        async { Ok(()) }
    }

    /// A later limit refused the request: what it took of this policy's is given back.
    fn give_back(&self, _: &mut Self::Memo) {}

    /// Origin ring, inward: only when we go to the origin.
    fn upstream_request(&self, _: &mut RequestHeader, _: &Facts, _: &mut Self::Memo) -> Result<(), Stop> {
        Ok(())
    }

    /// Origin ring, outward: what is written here is what the cache stores.
    fn upstream_response(&self, _: &mut ResponseHeader, _: &Facts, _: &mut Self::Memo) -> Result<(), Stop> {
        Ok(())
    }

    /// Edge ring, outward: hits, misses and local answers alike.
    fn response(&self, _: &mut ResponseHeader, _: &Facts, _: &mut Self::Memo) -> Result<(), Stop> {
        Ok(())
    }

    /// What this policy needs of the bodies.
    fn body(&self) -> BodyNeed {
        BodyNeed::None
    }

    /// Each chunk of the request body, when `body` asked for it.
    fn request_chunk(&self, _: &mut Option<Bytes>, _end: bool, _: &mut Self::Memo) -> Result<(), Stop> {
        Ok(())
    }
}

/// What a policy needs of the request body. Combined over the chain at compile, so a route without need pays nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum BodyNeed {
    /// Nothing.
    None,
    /// Each chunk as it passes.
    Watch,
}

/// A policy that is not switched on does nothing.
impl<P: Policy> Policy for Option<P> {
    type Memo = P::Memo;

    fn look(&self, inbound: &Inbound<'_>, memo: &mut Self::Memo) {
        if let Some(policy) = self {
            policy.look(inbound, memo);
        }
    }

    async fn request(&self, inbound: &mut Inbound<'_>, memo: &mut Self::Memo) -> Result<(), Stop> {
        match self {
            Some(policy) => policy.request(inbound, memo).await,
            None => Ok(()),
        }
    }

    fn give_back(&self, memo: &mut Self::Memo) {
        if let Some(policy) = self {
            policy.give_back(memo);
        }
    }

    fn upstream_request(&self, head: &mut RequestHeader, facts: &Facts, memo: &mut Self::Memo) -> Result<(), Stop> {
        self.as_ref().map_or(Ok(()), |policy| policy.upstream_request(head, facts, memo))
    }

    fn upstream_response(&self, head: &mut ResponseHeader, facts: &Facts, memo: &mut Self::Memo) -> Result<(), Stop> {
        self.as_ref().map_or(Ok(()), |policy| policy.upstream_response(head, facts, memo))
    }

    fn response(&self, head: &mut ResponseHeader, facts: &Facts, memo: &mut Self::Memo) -> Result<(), Stop> {
        self.as_ref().map_or(Ok(()), |policy| policy.response(head, facts, memo))
    }

    fn body(&self) -> BodyNeed {
        self.as_ref().map_or(BodyNeed::None, Policy::body)
    }

    fn request_chunk(&self, chunk: &mut Option<Bytes>, end: bool, memo: &mut Self::Memo) -> Result<(), Stop> {
        self.as_ref().map_or(Ok(()), |policy| policy.request_chunk(chunk, end, memo))
    }
}
