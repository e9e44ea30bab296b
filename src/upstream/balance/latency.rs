//! What an endpoint's answers say of it: how long they take and how many fail, both forgotten with time.
//!
//! The latency is Finagle's peak EWMA (`com.twitter.finagle.loadbalancer.PeakEwma`): a worse answer counts at once and whole, better ones bring the
//! average down over the decay time, and an endpoint that is not asked is forgiven at the same pace, so that it is tried again. An average is one
//! word, so an answer is one exchange of it.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// How an endpoint answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    Good,
    /// No answer, or one that says that the endpoint is at fault.
    Fault,
}

/// How fast the past is forgotten.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Decay {
    /// Per unit of a stamp.
    rate: f32,
}

/// After this, an answer counts for 1/e. Finagle, linkerd and ingress-nginx have the same.
const DECAY_DEFAULT: Duration = Duration::from_secs(10);

/// A stamp counts 2^20 ns, about a millisecond, and wraps after 52 days; then an endpoint that nobody asked for so long seems fresh.
const STAMP_SHIFT: u32 = 20;

/// How much the last answer counts in the share of failures.
const FAILURE_STEP: f32 = 1.0 / 32.0;

/// Nanoseconds to the response head.
#[derive(Debug, Default)]
pub(in super::super) struct Latency(Fading);

/// Share of failures among answers, 0 to 1.
#[derive(Debug, Default)]
pub(in super::super) struct Failures(Fading);

/// A number and when it was written, in one word. 0 is none.
#[derive(Debug, Default)]
struct Fading(AtomicU64);

impl Default for Decay {
    fn default() -> Self {
        Self::of(DECAY_DEFAULT)
    }
}

impl Decay {
    pub fn of(time: Duration) -> Self {
        let stamps = (time.as_nanos() as f32 / (1_u32 << STAMP_SHIFT) as f32).max(1.0);
        Self { rate: -1.0 / stamps }
    }

    /// What is left after so many stamps.
    fn left(self, stamps: u32) -> f32 {
        if stamps == 0 { 1.0 } else { (stamps as f32 * self.rate).exp() }
    }
}

impl Latency {
    /// A fault may raise the average, when it took long. It never lowers it: who refuses fast is not fast.
    pub fn observe(&self, answer: Answer, took: Duration, now: u64, decay: Decay) {
        let sample = (took.as_nanos() as f32).max(1.0);
        self.0.change(now, decay, |before, left| match answer {
            Answer::Good if sample < before => sample + (before - sample) * left,
            Answer::Good => sample,
            Answer::Fault if before > 0.0 => sample.max(before),
            Answer::Fault => before,
        });
    }

    /// `None` if there was no good answer yet.
    pub fn read(&self, now: u64, decay: Decay) -> Option<f32> {
        self.0.read(now, decay)
    }
}

impl Failures {
    pub fn observe(&self, answer: Answer, now: u64, decay: Decay) {
        let failed = f32::from(u8::from(answer == Answer::Fault));
        if failed > 0.0 || !self.0.is_none() {
            self.0.change(now, decay, |before, _| before + (failed - before) * FAILURE_STEP);
        }
    }

    pub fn read(&self, now: u64, decay: Decay) -> f32 {
        self.0.read(now, decay).unwrap_or(0.0)
    }
}

impl Fading {
    fn is_none(&self) -> bool {
        self.0.load(Relaxed) == 0
    }

    fn read(&self, now: u64, decay: Decay) -> Option<f32> {
        let word = self.0.load(Relaxed);
        (word != 0).then(|| value(word) * decay.left(age(word, now)))
    }

    /// Writes what `next` makes of the faded number (0: none yet) and of what time has left of it.
    fn change(&self, now: u64, decay: Decay, next: impl Fn(f32, f32) -> f32) {
        let renew = |word| {
            let left = decay.left(age(word, now));
            Some(pack(next(value(word) * left, left), now))
        };
        // It never gives up, since `renew` always has an answer.
        let _ = self.0.fetch_update(Relaxed, Relaxed, renew);
    }
}

fn stamp(now: u64) -> u32 {
    (now >> STAMP_SHIFT) as u32
}

/// Stamps since it was written. One from the future, of another thread's clock, is fresh.
fn age(word: u64, now: u64) -> u32 {
    let age = stamp(now).wrapping_sub(word as u32);
    if age > u32::MAX / 2 { 0 } else { age }
}

fn value(word: u64) -> f32 {
    f32::from_bits((word >> 32) as u32)
}

/// A number that has faded to nothing is none.
fn pack(value: f32, now: u64) -> u64 {
    if value < f32::MIN_POSITIVE { 0 } else { u64::from(value.to_bits()) << 32 | u64::from(stamp(now)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn millis(latency: &Latency, now: u64) -> u64 {
        latency.read(now, Decay::default()).map_or(0, |nanos| (nanos / 1e6).round() as u64)
    }

    fn observe(latency: &Latency, answer: Answer, millis: u64, now: u64) {
        latency.observe(answer, Duration::from_millis(millis), now, Decay::default());
    }

    #[test]
    fn a_worse_answer_counts_at_once_and_fades_over_the_decay_time() {
        let latency = Latency::default();
        assert_eq!(latency.read(0, Decay::default()), None);
        observe(&latency, Answer::Good, 10, 0);
        observe(&latency, Answer::Good, 1000, 0);
        assert_eq!(millis(&latency, 0), 1000);
        assert!((366..=370).contains(&millis(&latency, 10 * SECOND)), "1/e, to the stamp");
    }

    #[test]
    fn better_answers_bring_it_down_slowly() {
        let latency = Latency::default();
        observe(&latency, Answer::Good, 1000, 0);
        let mut before = millis(&latency, 0);
        for tenth in 1..=600 {
            observe(&latency, Answer::Good, 10, tenth * SECOND / 10);
            let now = millis(&latency, tenth * SECOND / 10);
            assert!(now <= before && now >= 10, "{now} after {before}");
            before = now;
        }
        assert_eq!(before, 10);
    }

    #[test]
    fn a_fast_refusal_makes_no_one_fast() {
        let latency = Latency::default();
        observe(&latency, Answer::Fault, 1, 0);
        assert_eq!(latency.read(0, Decay::default()), None);
        observe(&latency, Answer::Good, 50, 0);
        observe(&latency, Answer::Fault, 1, 0);
        assert_eq!(millis(&latency, 0), 50);
        observe(&latency, Answer::Fault, 900, 0);
        assert_eq!(millis(&latency, 0), 900);
    }

    #[test]
    fn the_share_of_failures_follows_the_answers_and_fades() {
        let failures = Failures::default();
        let read = |now| failures.read(now, Decay::default());
        failures.observe(Answer::Good, 0, Decay::default());
        assert_eq!(read(0), 0.0);
        (0..200).for_each(|_| failures.observe(Answer::Fault, 0, Decay::default()));
        assert!(read(0) > 0.99);
        assert!((0.36..0.38).contains(&read(10 * SECOND)));
        (0..200).for_each(|_| failures.observe(Answer::Good, 0, Decay::default()));
        assert!(read(0) < 0.01);
    }

    #[test]
    fn a_clock_that_is_a_little_behind_finds_it_fresh() {
        let latency = Latency::default();
        observe(&latency, Answer::Good, 10, 10 * SECOND);
        assert_eq!(millis(&latency, 9 * SECOND), 10);
    }
}
