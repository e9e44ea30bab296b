//! JSON Web Tokens (RFC 7519), signed (RFC 7515), as the best current practice has them (RFC 8725).
//!
//! Reading order: [`Jwt`] is the way of a token; `compact` takes it apart, `keys` has the key that it names, `rules` judge its claims. A good
//! token is remembered by its digest until it expires, so its repeat costs one SHA-256 and one probe; a bad one is not, so bad ones
//! push nothing out.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::SystemTime,
};

use super::{
    Verified,
    fields::Forward,
    remembered::{Bounds, Remembered},
    strict,
    token::{self, Moment, TokenHash, weight},
};
use crate::caller::{ClaimPath, Claims, Reason, words};

mod compact;
mod rules;
pub mod key;
pub mod key_set;
pub mod keys;
pub mod fetch;
pub mod pem;

pub use self::{key::Key, key_set::KeySet, keys::Keys, rules::Rules};
pub use jsonwebtoken::Algorithm;

/// The most tokens that one identity remembers, and the most memory for them.
const REMEMBERED: Bounds = Bounds { entries: 100_000, bytes: 64 << 20 };

/// Most keys that one token is tried with: those of a set whose keys have no names.
const TRIES_MAX: usize = 4;

/// Who vouches for callers by tokens that anyone with the key can verify.
pub struct Jwt {
    rules: Rules,
    /// Where the roles of a caller stand.
    roles: ClaimPath,
    forward: Forward,
    keys: Arc<Keys>,
    remembered: Remembered<(Arc<Verified>, Arc<Key>)>,
    /// How often keys had been withdrawn when `remembered` was last swept.
    withdrawals: AtomicU64,
}

impl Jwt {
    pub fn new(rules: Rules, roles: ClaimPath, forward: Forward, keys: Arc<Keys>) -> Self {
        Self { rules, roles, forward, keys, remembered: Remembered::new(REMEMBERED), withdrawals: AtomicU64::new(0) }
    }

    pub fn keys(&self) -> &Arc<Keys> {
        &self.keys
    }

    pub fn forward(&self) -> &Forward {
        &self.forward
    }

    /// Remembered tokens, by what they were found to be.
    pub fn remembered(&self) -> &Remembered<(Arc<Verified>, Arc<Key>)> {
        &self.remembered
    }

    /// Judges a token as it came. A key that is not known is asked for, once in a while, and waited for; that rare way is on the heap, so that
    /// it takes no room in each request.
    ///
    /// # Errors
    /// Why it is not good.
    pub async fn authenticate(&self, token: &[u8], clock: impl Fn() -> SystemTime) -> Result<Arc<Verified>, Reason> {
        match self.verify(token, clock()) {
            Err(Reason::UnknownKey | Reason::Unavailable) if Box::pin(self.keys.renewed()).await => self.verify(token, clock()),
            judged => judged,
        }
    }

    /// Judges a token with the keys that are known.
    ///
    /// # Errors
    /// Why it is not good.
    pub fn verify(&self, token: &[u8], now: SystemTime) -> Result<Arc<Verified>, Reason> {
        let (hash, now) = (TokenHash::of(token), Moment::from(now));
        match self.remembered.find(&hash, now) {
            Some((verified, key)) if !key.is_withdrawn() => Ok(verified),
            _ => self.judge(token, hash, now),
        }
    }

    /// Tokens of keys that were withdrawn are good no longer from that moment on; here their memory is given back.
    fn forget_withdrawn(&self) {
        let withdrawals = self.keys.withdrawals();
        if self.withdrawals.swap(withdrawals, Relaxed) != withdrawals {
            self.remembered.retain(|(_, key)| !key.is_withdrawn());
        }
    }

    fn judge(&self, token: &[u8], hash: TokenHash, now: Moment) -> Result<Arc<Verified>, Reason> {
        self.forget_withdrawn();
        let parts = compact::Parts::read(token::text(token)?)?;
        self.rules.admit(&parts.header)?;
        let key = self.key(&parts)?;
        let all = strict::object(&compact::decoded(parts.payload)?).map_err(|_| Reason::Unreadable)?;
        let until = self.rules.judge(&all, now)?;
        let mut claims = Claims::new(all);
        claims.roles = self.roles.find(&claims.all).map(words).unwrap_or_default();
        let fields = self.forward.fields(&claims.all);
        let weight =
            weight(&claims.all) + fields.iter().flat_map(|f| f.iter()).map(|(_, value)| 128 + value.len()).sum::<usize>();
        let verified = Arc::new(Verified { claims: Arc::new(claims), fields });
        self.remembered.remember(hash, (verified.clone(), key), until, weight, now);
        Ok(verified)
    }

    /// The key that signed the token.
    fn key(&self, parts: &compact::Parts<'_>) -> Result<Arc<Key>, Reason> {
        let set = self.keys.current().ok_or(Reason::Unavailable)?;
        let mut candidates = set.candidates(parts.header.alg, parts.header.kid.as_deref()).take(TRIES_MAX).peekable();
        if candidates.peek().is_none() {
            return Err(Reason::UnknownKey);
        }
        let signed = |key: &&Arc<Key>| key.verifies(parts.header.alg, parts.message.as_bytes(), parts.signature);
        candidates.find(signed).cloned().ok_or(Reason::Signature)
    }
}

#[cfg(test)]
mod tests;
