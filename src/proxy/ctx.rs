//! What the gateway knows of one request while it passes through Pingora's hooks.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::HeaderValue;
use pingora_core::upstreams::peer::HttpPeer;

use crate::{
    caller::Caller,
    config::observe::LogFormat,
    deadline::Clock,
    exchange::{Captures, Facts, Flag, Stop, UpstreamFault},
    observe::{metrics::InFlight, trace::Trace},
    policy::{
        chain::{Memo, Permit},
        introduction::Guarded,
    },
    proxy::forwarded::Hops,
    reply::{self, Told},
    route::Route,
    stores::Carried,
    upstream::{EffectiveTimeouts, Lease, Place, Tried, Upstream},
};

/// One request, from its head to its log line.
pub struct Ctx {
    /// Counted by the drain at the end of the process.
    pub _carried: Carried,
    pub started: Instant,
    pub clock: Arc<Clock>,
    pub generation: u64,
    pub format: Option<LogFormat>,
    /// Known before the facts: a head that cannot be read is answered under an id too.
    pub request_id: Option<HeaderValue>,
    /// Known once the head was read.
    pub facts: Option<Facts>,
    pub hops: Hops,
    pub trace: Option<Trace>,
    pub caller: Caller,
    /// What the log must not show, if there is such.
    pub guarded: Option<Arc<Guarded>>,
    /// The route that took the request, pinned until its log line; the one of unmatched requests if none did.
    pub route: Option<Arc<Route>>,
    pub captures: Captures,
    pub memo: Memo,
    pub permit: Option<Permit>,
    pub in_flight: Option<InFlight>,
    pub tries: Tries,
    /// Why the request goes no further, on its way to `fail_to_proxy`.
    pub stopped: Option<Stop>,
    /// What the client was told of it.
    pub told: Option<Told>,
}

/// The tries to reach a service.
#[derive(Default)]
pub struct Tries {
    pub upstream: Option<Arc<Upstream>>,
    pub lease: Option<Lease>,
    /// Among the requests that the service works on, until this one is over.
    pub place: Option<Place>,
    /// Where the first try goes.
    pub first: Option<Box<HttpPeer>>,
    /// Endpoints that were asked in vain.
    pub tried: Tried,
    pub count: u8,
    pub fault: Option<UpstreamFault>,
    pub began: Option<Instant>,
    /// How long the last connection took; zero for a pooled one.
    pub connect: Option<Duration>,
    /// When the last try's request head was sent.
    pub sent: Option<Instant>,
    /// From then to the response head.
    pub first_byte: Option<Duration>,
    /// Of the last try.
    pub timeouts: Option<EffectiveTimeouts>,
    /// The request asks for another protocol on its connection.
    pub upgrades: bool,
    /// The response head came.
    pub head_came: bool,
    /// The answer that came is given up for another try.
    pub again: bool,
    /// How long to wait before the next try.
    pub pause: Duration,
}

impl Tries {
    /// The try is over: another goes elsewhere, if there is an elsewhere.
    pub fn leave(&mut self) {
        if let Some(lease) = &self.lease {
            self.tried.push(lease.address());
        }
    }
}

impl Ctx {
    pub fn new(carried: Carried) -> Self {
        let clock = Clock::current();
        clock.begin();
        Self {
            _carried: carried,
            started: Instant::now(),
            clock,
            generation: 0,
            format: None,
            request_id: None,
            facts: None,
            hops: Hops::default(),
            trace: None,
            caller: Caller::default(),
            guarded: None,
            route: None,
            captures: Captures::new(),
            memo: Memo::default(),
            permit: None,
            in_flight: None,
            tries: Tries::default(),
            stopped: None,
            told: None,
        }
    }

    /// Notes why the request goes no further. The first reason counts.
    pub fn stop(&mut self, stop: &Stop) -> Told {
        *self.told.get_or_insert_with(|| reply::told(stop))
    }

    pub fn flag(&self) -> Flag {
        self.told.map_or(Flag::None, |told| told.flag)
    }
}
