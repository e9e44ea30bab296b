//! Sessions that were ended before their time: by their user, or by the provider (OpenID Connect Back-Channel Logout 1.0).

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use ahash::RandomState;
use sha2::{Digest, Sha256};

/// Most ends that are remembered, each until no session can be that old. About 7 MiB when full.
pub const ENDED_MAX: usize = 100_000;

/// What was ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Which<'a> {
    /// A session of ours.
    Own(&'a str),
    /// All of one session at the provider, its `sid`.
    Sid(&'a str),
    /// All of one person, its `sub`.
    Sub(&'a str),
}

impl Which<'_> {
    fn key(self) -> [u8; 32] {
        let (kind, text) = match self {
            Self::Own(text) => (b'o', text),
            Self::Sid(text) => (b'i', text),
            Self::Sub(text) => (b'u', text),
        };
        Sha256::new().chain_update([kind]).chain_update(text).finalize().into()
    }
}

/// The ends, bounded. When there is no room, every session that began before then is ended: people sign in once more, and nobody stays
/// who was to go.
#[derive(Debug)]
pub struct Ended {
    table: Mutex<Table>,
    max: usize,
}

#[derive(Debug, Default)]
struct Table {
    /// The second of Unix time at which it was ended, and the one from which on it need not be known.
    ends: HashMap<[u8; 32], (u64, u64), RandomState>,
    /// Sessions that began before this second are ended.
    horizon: u64,
}

impl Default for Ended {
    fn default() -> Self {
        Self::new(ENDED_MAX)
    }
}

impl Ended {
    pub fn new(max: usize) -> Self {
        Self { table: Mutex::default(), max }
    }

    /// Ends sessions that began at `at` or before. `until`: from when on no session can be that old.
    pub fn end(&self, which: Which<'_>, at: u64, until: u64, now: u64) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if table.ends.len() >= self.max {
            table.ends.retain(|_, (_, until)| *until > now);
        }
        if table.ends.len() >= self.max {
            tracing::warn!(max = self.max, "too many ended sessions to remember: all sessions are ended");
            table.ends.clear();
            table.horizon = now.saturating_add(1);
        }
        let (known, forget) = table.ends.entry(which.key()).or_default();
        (*known, *forget) = ((*known).max(at), (*forget).max(until));
    }

    /// Whether a session that began at `started` and is all of these was ended.
    pub fn is_ended<'a>(&self, started: u64, is: impl IntoIterator<Item = Which<'a>>) -> bool {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if started < table.horizon {
            return true;
        }
        !table.ends.is_empty() && is.into_iter().any(|which| table.ends.get(&which.key()).is_some_and(|(at, _)| *at >= started))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_of_sessions_that_began_before() {
        let ended = Ended::default();
        ended.end(Which::Sub("ada"), 10, 100, 10);
        assert!(ended.is_ended(10, [Which::Sid("s"), Which::Sub("ada")]));
        assert!(!ended.is_ended(11, [Which::Sub("ada")]), "signed in again");
        assert!(!ended.is_ended(5, [Which::Sub("eve"), Which::Sid("ada"), Which::Own("ada")]));
        ended.end(Which::Sub("ada"), 5, 50, 10);
        assert!(ended.is_ended(8, [Which::Sub("ada")]), "an earlier end takes nothing back");
    }

    #[test]
    fn a_full_table_forgets_what_has_passed() {
        let ended = Ended::new(2);
        ended.end(Which::Sid("a"), 10, 20, 10);
        ended.end(Which::Sid("b"), 10, 100, 10);
        ended.end(Which::Sid("c"), 30, 100, 30);
        assert!(ended.is_ended(5, [Which::Sid("b")]) && ended.is_ended(5, [Which::Sid("c")]));
        assert!(!ended.is_ended(5, [Which::Sid("d")]));
    }

    #[test]
    fn a_table_without_room_ends_all_sessions() {
        let ended = Ended::new(1);
        ended.end(Which::Sid("a"), 10, 100, 10);
        ended.end(Which::Sid("b"), 11, 100, 11);
        assert!(ended.is_ended(11, [Which::Own("x")]) && ended.is_ended(5, [Which::Sid("a")]));
        assert!(!ended.is_ended(12, [Which::Own("x")]));
    }
}
