//! A breaker's state in one word: its mode, its round, and the counts of its probes.

use super::Counts;

/// Bits from the lowest: mode 2, round 22, probes sent 10, ended 10, failed 10, slow 10.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Word(pub u64);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Requests pass.
    Closed,
    /// None passes.
    Open,
    /// Some pass, to find out.
    Probing,
}

const ROUND: u32 = 2;
const ROUND_BITS: u64 = (1 << 22) - 1;
const SENT: u32 = 24;
const ENDED: u32 = 34;
const FAILED: u32 = 44;
const SLOW: u32 = 54;
const COUNT_BITS: u64 = (1 << 10) - 1;

impl Word {
    pub const fn mode(self) -> Mode {
        match self.0 & 3 {
            0 => Mode::Closed,
            1 => Mode::Open,
            _ => Mode::Probing,
        }
    }

    /// Grows with each change of mode, and comes round after four million.
    pub const fn round(self) -> u32 {
        (self.0 >> ROUND & ROUND_BITS) as u32
    }

    pub fn is_probing_in(self, round: u32) -> bool {
        self.mode() == Mode::Probing && self.round() == round
    }

    pub const fn closed(self) -> Self {
        self.next(0)
    }

    pub const fn open(self) -> Self {
        self.next(1)
    }

    pub const fn probing(self) -> Self {
        self.next(2)
    }

    pub const fn sent(self) -> Self {
        Self(self.0 + (1 << SENT))
    }

    pub const fn unsent(self) -> Self {
        Self(self.0 - (1 << SENT))
    }

    pub const fn ended(self, failed: bool, slow: bool) -> Self {
        Self(self.0 + (1 << ENDED) + ((failed as u64) << FAILED) + ((slow as u64) << SLOW))
    }

    pub const fn sent_count(self) -> u16 {
        self.count(SENT)
    }

    pub const fn ended_count(self) -> u16 {
        self.count(ENDED)
    }

    pub const fn counts(self) -> Counts {
        Counts { requests: self.count(ENDED) as u64, failed: self.count(FAILED) as u64, slow: self.count(SLOW) as u64 }
    }

    const fn next(self, mode: u64) -> Self {
        let round = (self.round() as u64 + 1) & ROUND_BITS;
        Self(round << ROUND | mode)
    }

    const fn count(self, at: u32) -> u16 {
        (self.0 >> at & COUNT_BITS) as u16
    }
}
