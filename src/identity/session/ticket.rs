//! What the browser keeps, sealed: its session, and a login that has begun.

use std::{sync::Arc, time::Duration};

use aws_lc_rs::rand;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::seal::Seals;
use crate::{
    caller::{Claims, Fields},
    identity::strict,
};

/// A session. Times are seconds of Unix time.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// Ours, not the provider's.
    pub id: String,
    /// The ID token: what it says was verified when it came, and the seal keeps it so.
    pub token: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh: Option<String>,
    pub started: u64,
    /// When it was last used, to within a part of the idle time.
    pub seen: u64,
    /// From when on it is renewed, if it can be.
    pub renew: u64,
}

/// Secrets are not shown.
impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ticket").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A login that has begun.
#[derive(Serialize, Deserialize)]
pub struct Begun {
    pub state: String,
    pub nonce: String,
    /// Of PKCE (RFC 7636).
    pub verifier: String,
    /// Where the browser wanted to go.
    pub back: String,
    pub at: u64,
}

/// What a sealed text is for.
pub const SESSION: &str = "session";
pub const LOGIN: &str = "login";

impl Ticket {
    /// When it ends, used or not.
    pub fn until(&self, lifetime: Duration, idle: Duration) -> u64 {
        let (started, seen) = (self.started.saturating_add(lifetime.as_secs()), self.seen.saturating_add(idle.as_secs()));
        started.min(seen)
    }

    pub fn sealed(&self, seals: &Seals) -> Option<String> {
        seals.seal(SESSION, &serde_json::to_vec(self).ok()?)
    }

    pub fn open(seals: &Seals, sealed: &str) -> Option<Self> {
        serde_json::from_slice(&seals.open(SESSION, sealed)?).ok()
    }

    /// What the ID token says.
    pub fn claims(&self) -> Option<Map<String, Value>> {
        let payload = self.token.split('.').nth(1)?;
        strict::object(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
    }
}

impl Begun {
    /// `None`: the system gave no randomness.
    pub fn new(back: &str, at: u64) -> Option<Self> {
        Some(Self { state: random()?, nonce: random()?, verifier: random()?, back: back.to_owned(), at })
    }

    /// The challenge of its verifier, by S256.
    pub fn challenge(&self) -> String {
        URL_SAFE_NO_PAD.encode(Sha256::digest(&self.verifier))
    }

    pub fn sealed(&self, seals: &Seals) -> Option<String> {
        seals.seal(LOGIN, &serde_json::to_vec(self).ok()?)
    }

    pub fn open(seals: &Seals, sealed: &str) -> Option<Self> {
        serde_json::from_slice(&seals.open(LOGIN, sealed)?).ok()
    }
}

/// 256 random bits as text.
pub fn random() -> Option<String> {
    let mut bytes = [0; 32];
    rand::fill(&mut bytes).ok()?;
    Some(URL_SAFE_NO_PAD.encode(bytes))
}

/// A session as the gateway uses it.
#[derive(Clone, Debug)]
pub struct Session {
    pub ticket: Ticket,
    pub claims: Arc<Claims>,
    /// What the service is told of its claims.
    pub fields: Option<Fields>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_challenge_is_that_of_the_rfc() {
        let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk".to_owned();
        let begun = Begun { state: String::new(), nonce: String::new(), verifier, back: String::new(), at: 0 };
        assert_eq!(begun.challenge(), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }

    #[test]
    fn a_session_ends_by_its_age_or_for_lack_of_use() {
        let ticket = Ticket { id: String::new(), token: String::new(), refresh: None, started: 100, seen: 150, renew: 0 };
        let until = |lifetime, idle| ticket.until(Duration::from_secs(lifetime), Duration::from_secs(idle));
        assert_eq!((until(1_000, 60), until(80, 60)), (210, 180));
    }

    #[test]
    fn a_login_is_no_session() {
        let seals = Seals::new("a", ["a secret that has thirty-two bytes"]).unwrap();
        let sealed = Begun::new("/", 0).unwrap().sealed(&seals).unwrap();
        assert!(Begun::open(&seals, &sealed).is_some() && Ticket::open(&seals, &sealed).is_none());
    }
}
