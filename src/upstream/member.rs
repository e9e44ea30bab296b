//! What a balancer sees of an endpoint: [`Member`] as it is written in the file, [`Vitals`] as it is doing now.
//!
//! Times are nanoseconds of one monotonic clock of the process, given by the caller.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{
            AtomicU8, AtomicU32, AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    time::Duration,
};

use super::balance::{
    latency::{Answer, Decay, Failures, Latency},
    sticky::Token,
};

/// An endpoint in an upstream's list.
#[derive(Clone, Debug)]
pub struct Member {
    pub address: SocketAddr,
    /// Share of the traffic relative to the others. 0 takes no new sessions.
    pub weight: u32,
    /// Its tier: 0 is asked first, others when too little of the tiers before is available.
    pub priority: u8,
    /// What its name is in a session cookie.
    pub token: Token,
    pub vitals: Arc<Vitals>,
}

/// How an endpoint is doing. Kept over reloads and resolutions, by upstream name and address.
///
/// In a cache line of its own: a pick reads two of them, and every request writes one.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Vitals {
    in_flight: AtomicU32,
    /// Of those, the ones whose response head has not come.
    awaiting: AtomicU32,
    /// When it answered last, or was asked first since; told only while something is awaited.
    quiet_since: AtomicU64,
    /// When it came or came back. 0: it has been here all along.
    began: AtomicU64,
    /// Bits of [`Out`].
    out: AtomicU8,
    latency: Latency,
    failures: Failures,
}

/// Why an endpoint takes no new sessions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Out {
    /// Its health checks fail.
    Unhealthy = 1,
    /// Its answers were worse than its peers'.
    Ejected = 2,
    /// Its circuit is open.
    Broken = 4,
    /// Its operator wants it empty. Sessions that it has stay with it.
    Draining = 8,
}

/// All reasons but draining: nothing should be sent there.
const UNFIT: u8 = Out::Unhealthy as u8 | Out::Ejected as u8 | Out::Broken as u8;

/// What the layouts of an upstream have in common: how far the turns are, and how much is out.
#[derive(Debug, Default)]
pub struct Tally {
    pub(super) turn: AtomicU64,
    in_flight: AtomicU32,
}

impl Vitals {
    /// Those of an endpoint that is new among others, so it starts slowly. One of the first start is `default()`.
    pub fn arriving(now: u64) -> Self {
        Self { began: now.max(1).into(), ..Self::default() }
    }

    /// A request goes there.
    pub fn begin(&self, tally: &Tally, now: u64) {
        if self.awaiting.fetch_add(1, Relaxed) == 0 {
            self.quiet_since.store(now, Relaxed);
        }
        self.in_flight.fetch_add(1, Relaxed);
        tally.in_flight.fetch_add(1, Relaxed);
    }

    /// It answered, or failed to: once for each [`begin`](Self::begin), else [`abandoned`](Self::abandoned).
    pub fn answered(&self, answer: Answer, took: Duration, now: u64, decay: Decay) {
        self.quiet_since.store(now, Relaxed);
        lower(&self.awaiting);
        self.latency.observe(answer, took, now, decay);
        self.failures.observe(answer, now, decay);
    }

    /// The client went before it answered, which says nothing of the endpoint.
    pub fn abandoned(&self) {
        lower(&self.awaiting);
    }

    /// The request is over, body and all.
    pub fn end(&self, tally: &Tally) {
        lower(&self.in_flight);
        lower(&tally.in_flight);
    }

    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// How long it has said nothing though it was asked, in nanoseconds: never more than the oldest request waits.
    pub fn silence(&self, now: u64) -> u64 {
        if self.awaiting.load(Relaxed) == 0 { 0 } else { now.saturating_sub(self.quiet_since.load(Relaxed)) }
    }

    /// The peak-sensitive average of its time to the response head. `None` if it has not answered well yet.
    pub fn latency(&self, now: u64, decay: Decay) -> Option<Duration> {
        self.latency.read(now, decay).map(|nanos| Duration::from_nanos(nanos as u64))
    }

    /// Share of failures among its last answers, 0 to 1.
    pub fn failures(&self, now: u64, decay: Decay) -> f32 {
        self.failures.read(now, decay)
    }

    pub(super) fn latency_nanos(&self, now: u64, decay: Decay) -> Option<f32> {
        self.latency.read(now, decay)
    }

    /// Whether nothing should be sent there.
    pub fn is_out(&self) -> bool {
        self.out.load(Acquire) & UNFIT != 0
    }

    /// Whether it takes new sessions, its weight apart.
    pub fn is_available(&self) -> bool {
        self.out.load(Acquire) == 0
    }

    /// Whether it is out for this reason.
    pub fn is(&self, why: Out) -> bool {
        self.out.load(Acquire) & why as u8 != 0
    }

    /// Takes it out. Says whether this reason is new: then the layout must be made anew.
    pub fn take_out(&self, why: Out) -> bool {
        self.out.fetch_or(why as u8, Release) & why as u8 == 0
    }

    /// A reason is gone. If it was the last, the endpoint starts slowly. Says whether it was there: then the layout must be made anew.
    pub fn let_in(&self, why: Out, now: u64) -> bool {
        // Before it is seen to be in: whoever sees that, sees since when.
        if self.out.load(Acquire) == why as u8 {
            self.began.store(now.max(1), Relaxed);
        }
        self.out.fetch_and(!(why as u8), Release) & why as u8 != 0
    }

    /// Share of its weight that it takes now: from [`RAMP_FLOOR`] rising to 1 over the slow start.
    pub fn ramp(&self, slow_start: u64, now: u64) -> f32 {
        match self.began.load(Relaxed) {
            0 => 1.0,
            began => ramp(now.saturating_sub(began), slow_start),
        }
    }
}

impl Tally {
    /// Requests that are out at any endpoint of the upstream.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }
}

/// Share of its weight that an endpoint begins with. With nothing it would never be seen to be warm. Envoy's `min_weight_percent` is the same.
pub const RAMP_FLOOR: f32 = 0.1;

fn ramp(elapsed: u64, slow_start: u64) -> f32 {
    if elapsed >= slow_start { 1.0 } else { (elapsed as f32 / slow_start as f32).clamp(RAMP_FLOOR, 1.0) }
}

fn lower(count: &AtomicU32) {
    let before = count.fetch_sub(1, Relaxed);
    debug_assert!(before > 0, "an end without a beginning");
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn silence_is_counted_from_the_last_sign_of_life() {
        let (vitals, tally) = (Vitals::default(), Tally::default());
        assert_eq!(vitals.silence(SECOND), 0);
        vitals.begin(&tally, SECOND);
        vitals.begin(&tally, 2 * SECOND);
        assert_eq!(vitals.silence(3 * SECOND), 2 * SECOND);
        vitals.answered(Answer::Good, Duration::from_secs(2), 3 * SECOND, Decay::default());
        assert_eq!(vitals.silence(4 * SECOND), SECOND);
        vitals.abandoned();
        assert_eq!(vitals.silence(5 * SECOND), 0);
    }

    #[test]
    fn a_request_counts_until_its_end_at_the_endpoint_and_in_all() {
        let (vitals, tally) = (Vitals::default(), Tally::default());
        vitals.begin(&tally, 1);
        vitals.answered(Answer::Good, Duration::from_millis(1), 2, Decay::default());
        assert_eq!((vitals.in_flight(), tally.in_flight()), (1, 1));
        vitals.end(&tally);
        assert_eq!((vitals.in_flight(), tally.in_flight()), (0, 0));
    }

    #[test]
    fn it_is_out_while_any_reason_is_left_and_starts_slowly_after_the_last() {
        let vitals = Vitals::default();
        assert!(vitals.take_out(Out::Unhealthy));
        assert!(!vitals.take_out(Out::Unhealthy), "that is known");
        assert!(vitals.take_out(Out::Ejected));
        assert!(vitals.let_in(Out::Unhealthy, SECOND));
        assert!(vitals.is_out());
        assert_eq!(vitals.ramp(10 * SECOND, SECOND), 1.0);
        assert!(vitals.let_in(Out::Ejected, 2 * SECOND));
        assert!(!vitals.is_out());
        assert_eq!(vitals.ramp(10 * SECOND, 7 * SECOND), 0.5);
    }

    #[test]
    fn draining_takes_no_new_sessions_and_is_not_unfit() {
        let vitals = Vitals::default();
        assert!(vitals.take_out(Out::Draining));
        assert!(!vitals.is_out() && !vitals.is_available());
        assert!(vitals.let_in(Out::Draining, 1) && vitals.is_available());
    }

    #[test]
    fn slow_start_begins_at_a_tenth_and_ends_at_all() {
        let vitals = Vitals::arriving(SECOND);
        let shares = [1, 2, 6, 11, 60].map(|second| vitals.ramp(10 * SECOND, second * SECOND));
        assert_eq!(shares, [0.1, 0.1, 0.5, 1.0, 1.0]);
        assert_eq!(vitals.ramp(0, SECOND), 1.0, "no slow start");
    }
}
