//! What a limit is made of.

use super::{Algorithm, Local, Unfit};
use crate::units::Rate;

/// What a limit is made of. Two of the same terms count alike.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Terms {
    pub algorithm: Algorithm,
    pub rate: Rate,
    /// Most that may come at once: the rate's count, for windows.
    pub burst: u64,
    /// How many keys are counted at the same time. Absent: there is only one.
    pub keys: Option<usize>,
}

impl Terms {
    /// # Errors
    /// It cannot be counted.
    pub fn fit(&self) -> Result<(), Unfit> {
        self.algorithm.fits(self.rate, self.burst)
    }

    pub fn local(&self) -> Local {
        match self.keys {
            Some(keys) => Local::new(&self.algorithm, self.rate, self.burst, keys),
            None => Local::single(&self.algorithm, self.rate, self.burst),
        }
    }

    /// The most that one request can take.
    pub fn most(&self) -> u32 {
        u32::try_from(self.burst).unwrap_or(u32::MAX).max(1)
    }
}
