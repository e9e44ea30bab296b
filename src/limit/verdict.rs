//! What a limit says of one request.

use std::time::Duration;

/// What a limit says of one request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Verdict {
    pub admitted: bool,
    /// The most that can be taken when nothing is used: the burst of a bucket, the count of a window.
    pub limit: u64,
    /// What can still be taken at once, after this request.
    pub remaining: u64,
    /// Until all of it is there again, if nothing more is taken.
    pub reset: Duration,
    /// Refused: when the same may be asked again. One whose cost is over the limit is never admitted; what it is told is more than zero.
    pub retry_after: Duration,
    /// Leaky bucket: admitted, but to be sent on only after this.
    pub wait: Duration,
    /// Until when what was taken counts, in the algorithm's own measure: [`Local::give_back`] asks for it.
    ///
    /// [`Local::give_back`]: super::Local::give_back
    pub until: u64,
}
