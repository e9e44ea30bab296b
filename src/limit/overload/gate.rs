//! What a request reads: one word.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::{Priority, Reason, controller::Pressure};

/// Shares that are shed, 16 bits each by priority from the lowest; then a bit for the reason, and one if requests in flight are counted.
#[derive(Debug, Default)]
pub struct Gate(AtomicU64);

/// All of a share.
const WHOLE: u64 = 0xffff;

const OF_MEMORY: u64 = 1 << 48;
const COUNTS: u64 = 1 << 49;

impl Gate {
    /// Nothing is shed, nothing counted: by far the most frequent answer.
    pub fn is_open(&self) -> bool {
        self.0.load(Relaxed) == 0
    }

    /// Whether requests in flight are counted.
    pub fn counts(&self) -> bool {
        self.0.load(Relaxed) & COUNTS != 0
    }

    pub fn count(&self, counts: bool) {
        match counts {
            true => self.0.fetch_or(COUNTS, Relaxed),
            false => self.0.fetch_and(!COUNTS, Relaxed),
        };
    }

    /// Whether a request of this priority draws a blank, and why.
    pub fn draw(&self, priority: Priority) -> Option<Reason> {
        let word = self.0.load(Relaxed);
        let share = word >> (16 * priority as u32) & WHOLE;
        let blank = share > 0 && fastrand::u64(0..WHOLE) < share;
        blank.then_some(if word & OF_MEMORY == 0 { Reason::Lag } else { Reason::Memory })
    }

    /// Each third of the pressure is one priority's.
    pub fn set(&self, pressure: Pressure) {
        let (most, reason) = if pressure.memory > pressure.lag { (pressure.memory, OF_MEMORY) } else { (pressure.lag, 0) };
        let share = |before: f64| ((most * 3.0 - before).clamp(0.0, 1.0) * WHOLE as f64).ceil() as u64;
        let shares = share(0.0) | share(1.0) << 16 | share(2.0) << 32;
        let word = if shares == 0 { 0 } else { shares | reason };
        let _ = self.0.fetch_update(Relaxed, Relaxed, |now| Some(now & COUNTS | word));
    }
}
