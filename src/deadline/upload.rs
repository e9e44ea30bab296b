//! How slow and how silent a request body may be.

use std::{
    num::NonZeroU64,
    time::{Duration, Instant},
};

use super::Silence;

/// Time that an upload has before its rate counts. Source: Apache's mod_reqtimeout gives 20 s and as much as the bytes earn.
const UPLOAD_GRACE: Duration = Duration::from_secs(10);

/// A request body on its way.
#[derive(Clone, Copy, Debug)]
pub struct Upload {
    /// Fewest bytes a second, if that counts.
    rate: Option<NonZeroU64>,
    began: Instant,
    bytes: u64,
    silence: Silence,
}

impl Upload {
    /// Begins now.
    pub fn of(rate: Option<NonZeroU64>, longest: Duration) -> Self {
        let now = Instant::now();
        Self { rate, began: now, bytes: 0, silence: Silence { longest, ends: now + longest } }
    }

    /// When it will have been too slow, or silent for too long, if nothing more comes.
    pub fn ends(&self) -> Instant {
        let Some(rate) = self.rate else { return self.silence.ends };
        let earned = Duration::from_millis(self.bytes.saturating_mul(1000) / rate);
        self.silence.ends.min(self.began + UPLOAD_GRACE + earned)
    }

    /// So many bytes more came.
    pub fn moved(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes as u64);
        self.silence.ends = Instant::now() + self.silence.longest;
    }

    /// The measure of the rate is taken anew; a silence goes on.
    pub fn excuse(&mut self) {
        (self.began, self.bytes) = (Instant::now(), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An upload that began so many seconds ago, of so many bytes, of which the last came now: how many seconds it has left.
    fn seconds_left(rate: u64, ago: u64, bytes: u64) -> u64 {
        let mut upload = Upload::of(NonZeroU64::new(rate), Duration::from_secs(60));
        let now = upload.began;
        upload.began = now - Duration::from_secs(ago);
        upload.bytes = bytes;
        upload.ends().saturating_duration_since(now).as_secs()
    }

    #[test]
    fn an_upload_has_ten_seconds_and_what_its_bytes_earn() {
        assert_eq!(seconds_left(240, 0, 0), 10);
        assert_eq!(seconds_left(240, 9, 0), 1);
        assert_eq!(seconds_left(240, 10, 240), 1);
        assert_eq!(seconds_left(240, 100, 240 * 90), 0);
        assert_eq!(seconds_left(240, 0, u64::MAX), 60, "a silence ends the fastest upload too");
        assert_eq!(seconds_left(0, 10_000, 1), 60, "no rate is asked for");
    }

    #[test]
    fn a_measure_that_begins_anew_does_not_forget_the_silence() {
        let mut upload = Upload::of(NonZeroU64::new(240), Duration::from_secs(60));
        upload.silence.ends -= Duration::from_secs(55);
        upload.excuse();
        assert!(upload.ends() <= Instant::now() + Duration::from_secs(5));
    }
}
