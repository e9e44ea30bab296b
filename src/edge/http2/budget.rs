//! What a client may send of frames that make no progress by themselves.
//!
//! Each is paid from the budget of its kind. A budget has a burst for a client's start, grows with time for its idle chatter, and
//! grows with what a real client answers to: DATA of ours brings WINDOW_UPDATE and PING, a response brings cancelled streams. So
//! a flood must let us finish as much work as it makes.

use std::time::{Duration, Instant};

use super::{
    flood::Flood,
    frames::{Frame, Kind},
};

/// Most of what credit may bring together. A client answers what is on its way to it at once: this many WINDOW_UPDATEs are
/// 10,000 DATA frames of ours on their way.
const CREDIT_MAX: u32 = 100_000;

/// RST_STREAM. Burst: Envoy looks at premature resets from 500 streams on; a browser that leaves a page cancels up to 100 at once.
/// Rate: 100 streams at a time, each given up after a second without an answer; a stream that lived so long is not premature for
/// Envoy either. nghttp2's defaults are 1000 and 33.
const RESETS: Allowance = Allowance { burst: 500, rate: 100, most: 500 };

/// PING. Rate: Jetty closes at 50 a second. gRPC measures bandwidth with one PING for DATA frames that it got, which they credit.
const PINGS: Allowance = Allowance { burst: 200, rate: 10, most: CREDIT_MAX };

/// SETTINGS, in parts of `SETTINGS_PART` entries. A client sends one and acknowledges ours; gRPC sends more as it measures.
const SETTINGS: Allowance = Allowance { burst: 100, rate: 10, most: 1000 };

/// Bytes of a SETTINGS frame that count as one: 32 entries. Source: nghttp2's limit after CVE-2020-11080.
const SETTINGS_PART: u32 = 32 * 6;

/// PRIORITY and PRIORITY_UPDATE. Burst: Envoy allows 100 with no stream open. nghttp2 begins with 5, Firefox with 6.
const PRIORITIES: Allowance = Allowance { burst: 100, rate: 10, most: 1000 };

/// PRIORITY frames that a request credits. Envoy allows 100; a browser moves a request a few times.
const PRIORITIES_PER_REQUEST: u32 = 10;

/// WINDOW_UPDATE. Burst and rate are for small windows at the start.
const WINDOW_UPDATES: Allowance = Allowance { burst: 1000, rate: 100, most: CREDIT_MAX };

/// WINDOW_UPDATE frames that a DATA frame of ours credits. Source: Envoy's default.
const UPDATES_PER_DATA: u32 = 10;

/// Bytes of our DATA that credit one WINDOW_UPDATE more. Source: Go's client sends two, connection and stream, every 4 KiB.
const UPDATE_BYTES: u32 = 2048;

/// WINDOW_UPDATE frames that a request credits. Source: Envoy.
const UPDATES_PER_REQUEST: u32 = 2;

/// DATA and header frames that carry nothing and end nothing. Burst: `h2` allows 100 empty DATA in a connection's whole life.
const EMPTIES: Allowance = Allowance { burst: 100, rate: 1, most: 100 };

/// Frames of unknown type (to be ignored, RFC 9113 §5.5), GOAWAY and PUSH_PROMISE.
const UNKNOWNS: Allowance = Allowance { burst: 100, rate: 10, most: 1000 };

/// Frames of unknown type that a request credits: a client that greases sends about one.
const UNKNOWNS_PER_REQUEST: u32 = 2;

/// What one frame costs, and what it is when that cannot be paid.
#[derive(Clone, Copy, Debug)]
pub struct Price {
    flood: Flood,
    amount: u32,
}

impl Price {
    pub const fn one(flood: Flood) -> Self {
        Self { flood, amount: 1 }
    }

    /// None of frames that carry something of a request.
    pub const fn of(frame: &Frame) -> Option<Self> {
        let flood = match frame.kind {
            Kind::Data if frame.content() == 0 && !frame.ends_stream() => Flood::EmptyData,
            Kind::Headers if frame.content() == 0 && !(frame.ends_stream() && frame.ends_headers()) => Flood::EmptyHeaders,
            Kind::Continuation if frame.content() == 0 && !frame.ends_headers() => Flood::EmptyHeaders,
            Kind::Data | Kind::Headers | Kind::Continuation => return None,
            Kind::RstStream => Flood::Reset,
            Kind::Ping => Flood::Ping,
            Kind::Settings => return Some(Self { flood: Flood::Settings, amount: 1 + frame.length / SETTINGS_PART }),
            Kind::Priority | Kind::PriorityUpdate => Flood::Priority,
            Kind::WindowUpdate => Flood::WindowUpdate,
            Kind::PushPromise | Kind::GoAway | Kind::Unknown(_) => Flood::UnknownFrame,
        };
        Some(Self::one(flood))
    }
}

#[derive(Debug)]
pub struct Budgets {
    /// Up to when time is counted, in whole seconds from the start.
    refilled: Instant,
    resets: Budget,
    pings: Budget,
    settings: Budget,
    priorities: Budget,
    window_updates: Budget,
    empties: Budget,
    unknowns: Budget,
}

impl Budgets {
    pub const fn new(now: Instant) -> Self {
        Self {
            refilled: now,
            resets: Budget::new(RESETS),
            pings: Budget::new(PINGS),
            settings: Budget::new(SETTINGS),
            priorities: Budget::new(PRIORITIES),
            window_updates: Budget::new(WINDOW_UPDATES),
            empties: Budget::new(EMPTIES),
            unknowns: Budget::new(UNKNOWNS),
        }
    }

    /// # Errors
    /// There is not so much left.
    pub fn pay(&mut self, Price { flood, amount }: Price) -> Result<(), Flood> {
        let budget = match flood {
            Flood::Reset => &mut self.resets,
            Flood::Ping => &mut self.pings,
            Flood::Settings => &mut self.settings,
            Flood::Priority => &mut self.priorities,
            Flood::WindowUpdate => &mut self.window_updates,
            Flood::EmptyData | Flood::EmptyHeaders => &mut self.empties,
            Flood::UnknownFrame => &mut self.unknowns,
            Flood::Continuation | Flood::OversizedFrame => return Err(flood),
        };
        budget.spend(amount).ok_or(flood)
    }

    /// A request credits what comes with it.
    pub fn request(&mut self) {
        self.window_updates.earn(UPDATES_PER_REQUEST);
        self.priorities.earn(PRIORITIES_PER_REQUEST);
        self.unknowns.earn(UNKNOWNS_PER_REQUEST);
    }

    /// A frame of ours credits what a real client answers to it.
    pub fn credit(&mut self, ours: &Frame) {
        match ours.kind {
            Kind::Data => {
                self.window_updates.earn(UPDATES_PER_DATA + ours.length / UPDATE_BYTES);
                self.pings.earn(1);
            }
            Kind::Headers => {
                self.pings.earn(1);
                self.resets.earn(1);
            }
            Kind::Settings if !ours.is_ack() => self.settings.earn(1),
            Kind::Ping if !ours.is_ack() => self.pings.earn(1),
            _ => {}
        }
    }

    pub fn refill(&mut self, now: Instant) {
        let seconds = now.saturating_duration_since(self.refilled).as_secs();
        if seconds > 0 {
            self.refilled += Duration::from_secs(seconds);
            self.all().into_iter().for_each(|budget| budget.refill(seconds));
        }
    }

    fn all(&mut self) -> [&mut Budget; 7] {
        let Self { refilled: _, resets, pings, settings, priorities, window_updates, empties, unknowns } = self;
        [resets, pings, settings, priorities, window_updates, empties, unknowns]
    }
}

/// How many frames of a kind a client may send.
#[derive(Clone, Copy, Debug)]
struct Allowance {
    /// At the start, and the most that time alone brings.
    burst: u32,
    /// A second.
    rate: u32,
    /// The most that time and credit bring together.
    most: u32,
}

#[derive(Debug)]
struct Budget {
    left: u32,
    allowance: Allowance,
}

impl Budget {
    const fn new(allowance: Allowance) -> Self {
        Self { left: allowance.burst, allowance }
    }

    fn spend(&mut self, price: u32) -> Option<()> {
        self.left = self.left.checked_sub(price)?;
        Some(())
    }

    fn earn(&mut self, credit: u32) {
        self.left = self.left.saturating_add(credit).min(self.allowance.most);
    }

    fn refill(&mut self, seconds: u64) {
        let grown = u64::from(self.allowance.rate).saturating_mul(seconds).saturating_add(self.left.into());
        let grown = u32::try_from(grown).unwrap_or(u32::MAX).min(self.allowance.burst);
        self.left = self.left.max(grown);
    }
}
