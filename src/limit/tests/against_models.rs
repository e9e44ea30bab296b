//! Random requests at random times: what is said must be what the model says.

use std::time::Duration;

use proptest::{collection::vec, prelude::*};

use super::{
    super::{Algorithm, Key, Local, Rate, Verdict},
    burst_of,
    models::{Model, most},
};

#[derive(Clone, Copy, Debug)]
enum Act {
    Take {
        cost: u32,
    },
    Charge {
        cost: u32,
    },
    /// Of what was taken and not given back, the one so many places from the last.
    GiveBack {
        which: usize,
    },
}

/// One limit, its model, and what may still be given back.
struct Pair {
    algorithm: Algorithm,
    rate: Rate,
    burst: u64,
    local: Local,
    model: Model,
    taken: Vec<Taken>,
    /// Something was given back too late to be exact: from then on we may be stricter than the model.
    late: bool,
}

#[derive(Clone, Copy)]
struct Taken {
    number: usize,
    at: u64,
    cost: u32,
    until: u64,
    /// How long what was used before would have been there.
    before: u128,
}

const KEY: Key = Key::new(7);

impl Pair {
    fn new(algorithm: Algorithm, rate: Rate, burst: u64, single: bool) -> Self {
        let burst = burst_of(&algorithm, rate, burst);
        algorithm.fits(rate, burst).unwrap();
        let local = if single { Local::single(&algorithm, rate, burst) } else { Local::new(&algorithm, rate, burst, 10) };
        Self { algorithm, rate, burst, local, model: Model::default(), taken: Vec::new(), late: false }
    }

    /// A bucket's clock has ticks; where they are no nanoseconds, a time may be taken for one that is less than a nanosecond off.
    fn slack(&self) -> u64 {
        u64::from(self.is_bucket() && !self.rate.nanos().is_multiple_of(self.rate.count()))
    }

    fn used(&self, now: u64) -> u128 {
        self.model.used(&self.algorithm, self.rate, now)
    }

    fn would_admit(&self, cost: u32, now: u64) -> bool {
        let cost = u128::from(cost) * u128::from(self.rate.nanos());
        self.used(now) + cost <= most(&self.algorithm, self.rate, self.burst)
    }

    fn act(&mut self, act: Act, now: u64) {
        match act {
            Act::Take { cost } => self.take(cost, now),
            Act::Charge { cost } => {
                self.local.charge(KEY, cost, now);
                self.model.count(now, cost);
            }
            Act::GiveBack { which } => self.give_back(which, now),
        }
        self.look(now);
    }

    fn take(&mut self, cost: u32, now: u64) {
        let (sooner, later) = (now.saturating_sub(self.slack()), now + self.slack());
        let verdict = self.local.take(KEY, cost, now);
        if verdict.admitted {
            assert!(self.would_admit(cost, later), "admitted, {verdict:?}");
            let before = self.used(now) / u128::from(self.rate.count());
            let number = self.model.count(now, cost);
            self.taken.push(Taken { number, at: now, cost, until: verdict.until, before });
            self.waits(verdict, now);
        } else {
            assert!(self.late || !self.would_admit(cost, sooner), "refused, {verdict:?}");
            self.asks_again(verdict, cost, now);
        }
    }

    /// Exact, but in a bucket that would have been full in between, if somebody else came since.
    fn give_back(&mut self, which: usize, now: u64) {
        let Some(place) = self.taken.len().checked_sub(1 + which) else { return };
        let Taken { number, at, cost, until, before } = self.taken.remove(place);
        // Two at once are in a test of their own.
        self.taken.clear();
        self.local.give_back(KEY, cost, until, now);
        self.late |= self.is_bucket() && u128::from(now - at) > before && !self.model.is_last(number);
        self.model.take_out(number);
    }

    fn is_bucket(&self) -> bool {
        matches!(self.algorithm, Algorithm::TokenBucket | Algorithm::LeakyBucket { .. })
    }

    /// What is left is what the model leaves.
    fn look(&self, now: u64) {
        let verdict = self.local.look(KEY, now);
        let left =
            |at| most(&self.algorithm, self.rate, self.burst).saturating_sub(self.used(at)) / u128::from(self.rate.nanos());
        let remaining = u128::from(verdict.remaining);
        assert!(remaining <= left(now + self.slack()), "{verdict:?}");
        assert!(self.late || remaining >= left(now.saturating_sub(self.slack())), "{verdict:?}");
        assert_eq!(u128::from(verdict.limit), most(&self.algorithm, self.rate, self.burst) / u128::from(self.rate.nanos()));
        self.comes_back(verdict, now);
    }

    /// After `reset` all is there, and not before.
    fn comes_back(&self, verdict: Verdict, now: u64) {
        let reset = verdict.reset.as_nanos() as u64;
        let after = self.local.look(KEY, now + reset);
        assert!(after.remaining == after.limit && after.reset.is_zero(), "{verdict:?} {after:?}");
        assert!(reset <= self.slack() || !self.local.look(KEY, now + reset - 1 - self.slack()).reset.is_zero());
    }

    /// What was refused is admitted after `retry_after`, and not before.
    fn asks_again(&mut self, verdict: Verdict, cost: u32, now: u64) {
        let wait = verdict.retry_after.as_nanos() as u64;
        assert!(wait > 0);
        if u64::from(cost) > verdict.limit {
            return;
        }
        let sooner = now + wait.saturating_sub(1 + self.slack());
        assert!(!self.local.take(KEY, cost, sooner).admitted, "sooner than {verdict:?}");
        assert!(self.peek(cost, now + wait), "not after {verdict:?}");
    }

    /// Whether a cost would be admitted.
    fn peek(&self, cost: u32, at: u64) -> bool {
        u64::from(cost) <= self.local.look(KEY, at).remaining
    }

    /// Of what is in the queue, all but the burst is waited for.
    fn waits(&self, verdict: Verdict, now: u64) {
        let Algorithm::LeakyBucket { max_delay } = self.algorithm else { return assert!(verdict.wait.is_zero()) };
        let over = self.used(now).saturating_sub(u128::from(self.burst) * u128::from(self.rate.nanos()));
        let wait = over.div_ceil(u128::from(self.rate.count()));
        assert!(verdict.wait <= max_delay);
        assert!(self.late || verdict.wait.as_nanos().abs_diff(wait) <= u128::from(self.slack()), "{verdict:?}");
    }
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        8 => (0_u32..5).prop_map(|cost| Act::Take { cost }),
        1 => (0_u32..12).prop_map(|cost| Act::Take { cost }),
        2 => (0_u32..6).prop_map(|cost| Act::Charge { cost }),
        3 => (0_usize..4).prop_map(|which| Act::GiveBack { which }),
    ]
}

/// Lengths of time in the measure of a rate: none, a part of a token, a few tokens, a window or two.
fn pause() -> impl Strategy<Value = f64> {
    prop_oneof![3 => Just(0.0), 4 => 0.0..0.2, 4 => 0.0..1.0, 1 => 1.0..3.0, 1 => Just(1.0)]
}

fn rates() -> impl Strategy<Value = Rate> {
    let lengths = prop_oneof![
        Just(Duration::from_secs(1)),
        Just(Duration::from_secs(60)),
        (1_u64..5_000_000_000).prop_map(Duration::from_nanos)
    ];
    let rates = (1_u64..30, lengths).prop_map(|(count, per)| Rate::new(count, per).unwrap());
    rates.prop_filter("one in a nanosecond at most", |rate| rate.count() <= rate.nanos() && rate.nanos() > 20)
}

fn algorithms() -> impl Strategy<Value = Algorithm> {
    prop_oneof![
        Just(Algorithm::TokenBucket),
        (0_u64..2_000).prop_map(|millis| Algorithm::LeakyBucket { max_delay: Duration::from_millis(millis) }),
        Just(Algorithm::SlidingWindow),
        Just(Algorithm::FixedWindow),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn verdicts_are_those_of_the_model(
        algorithm in algorithms(), rate in rates(), burst in 1_u64..12, single: bool, start in 0_u64..10_000_000_000,
        acts in vec((pause(), act()), 1..60),
    ) {
        let mut pair = Pair::new(algorithm, rate, burst, single);
        let mut now = start;
        for (pause, act) in acts {
            // Of a token or of the whole length, as the bits fall.
            let measure = if pause < 0.2 { rate.nanos() / rate.count() } else { rate.nanos() };
            now += (pause * measure as f64) as u64;
            pair.act(act, now);
        }
    }
}

#[test]
fn a_rate_that_no_nanosecond_divides_is_exact_in_the_long_run() {
    for (count, per) in [(3, 1_000_000_000), (7, 1_000_000_000), (999_999, 1_000_000_000), (7, 60_000_000_007)] {
        let rate = Rate::new(count, Duration::from_nanos(per)).unwrap();
        let local = Local::single(&Algorithm::TokenBucket, rate, 5);
        let step = per / count / 3;
        let admitted = (0..60_000).filter(|turn| local.take(KEY, 1, turn * step).admitted).count() as u128;
        let come = u128::from(59_999 * step) * u128::from(count) / u128::from(per);
        assert_eq!(admitted, 5 + come, "{rate:?}");
    }
}

#[test]
fn a_bucket_is_never_freed_by_what_is_given_back_late() {
    let rate = Rate::new(1, Duration::from_secs(1)).unwrap();
    let local = Local::single(&Algorithm::TokenBucket, rate, 1);
    let first = local.take(KEY, 1, 0);
    assert!(local.take(KEY, 1, 1_000_000_000).admitted);
    local.give_back(KEY, 1, first.until, 1_000_000_001);
    assert!(!local.take(KEY, 1, 1_000_000_002).admitted);
}

/// The first to be given back leaves the second with a time that is too late; what that can free is no more than comes in that time.
#[test]
fn two_that_are_given_back_at_once_free_no_more_than_comes_while_they_are_under_way() {
    let rate = Rate::new(5, Duration::from_secs(1)).unwrap();
    for after in (0..600_000_000).step_by(1_000_000) {
        let local = Local::single(&Algorithm::TokenBucket, rate, 4);
        let [first, second] = [local.take(KEY, 2, 0), local.take(KEY, 1, 0)];
        local.give_back(KEY, 2, first.until, 0);
        assert!(local.take(KEY, 1, after).admitted);
        local.give_back(KEY, 1, second.until, after);
        let used = local.look(KEY, after).reset + Duration::from_nanos(after);
        assert!(used >= Duration::from_millis(200), "{used:?} after {after}");
    }
}

#[test]
fn a_debt_is_paid_at_the_rate() {
    let rate = Rate::new(10, Duration::from_secs(1)).unwrap();
    let local = Local::new(&Algorithm::TokenBucket, rate, 5, 10);
    local.charge(KEY, 25, 0);
    let verdict = local.take(KEY, 1, 0);
    assert!(!verdict.admitted && verdict.remaining == 0);
    assert_eq!((verdict.retry_after, verdict.reset), (Duration::from_millis(2_100), Duration::from_millis(2_500)));
}

#[test]
fn windows_begin_at_multiples_of_their_length() {
    let rate = Rate::new(2, Duration::from_secs(10)).unwrap();
    let local = Local::new(&Algorithm::FixedWindow, rate, 2, 10);
    let at = |seconds: u64| local.take(KEY, 1, seconds * 1_000_000_000).admitted;
    assert_eq!([18, 19, 19, 20, 21, 29].map(at), [true, true, false, true, true, false]);
}

#[test]
fn a_sliding_window_lets_through_no_more_than_twice_its_limit_at_worst() {
    let rate = Rate::new(100, Duration::from_secs(1)).unwrap();
    let local = Local::new(&Algorithm::SlidingWindow, rate, 100, 10);
    let at_its_end = (0..200).filter(|_| local.take(KEY, 1, 999_999_999).admitted).count();
    let in_the_next = (0..1_000).filter(|milli| local.take(KEY, 1, 1_000_000_000 + milli * 999_999).admitted).count();
    assert_eq!((at_its_end, in_the_next), (100, 99));
}
