//! What an operator sees of an upstream, and does to its endpoints.

use std::net::SocketAddr;

use super::{Upstream, breaker::View as BreakerView, caps::View as CapsView, endpoint::EndpointView, member::Out};

/// An upstream at this moment.
#[derive(Clone, PartialEq, Debug)]
pub struct UpstreamView {
    pub endpoints: Vec<EndpointView>,
    /// Each tier's priority, and the share of the traffic that it takes, 0 to 1.
    pub tiers: Vec<(u8, f64)>,
    pub breaker: Option<BreakerView>,
    pub limits: Option<CapsView>,
}

/// What an operator does to an endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deed {
    /// It takes no new requests, but for sessions that it has.
    Drain,
    /// It takes requests again, whether it was drained or ejected.
    Resume,
}

impl Upstream {
    pub fn view(&self) -> UpstreamView {
        UpstreamView {
            endpoints: self.endpoints().collect(),
            tiers: self.pool.layout.load().shares().collect(),
            breaker: self.pool.judge.breaker_view(),
            limits: self.caps.as_ref().map(|caps| caps.view()),
        }
    }

    /// Does it, if there is such an endpoint: says whether.
    pub fn tend(&self, address: SocketAddr, deed: Deed) -> bool {
        let Some(endpoint) = self.pool.endpoints.iter().find(|endpoint| endpoint.address == address) else { return false };
        let now = self.now();
        endpoint.mark(Out::Draining, deed == Deed::Drain, now);
        if deed == Deed::Resume {
            endpoint.outlier.readmit(now);
        }
        self.pool.lay_out();
        true
    }
}
