//! Passwords of consumers: argon2id (RFC 9106) and bcrypt, slow on purpose, so verified away from the threads that serve.
//!
//! What a password proved is remembered with its hash: not the password, but its HMAC under a secret of this process. So a repeat is fast, and
//! no password stays in memory.

use std::{
    collections::HashMap,
    ops::RangeInclusive,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use argon2::{Argon2, PasswordHash, PasswordVerifier};
use aws_lc_rs::hmac;
use base64::Engine;
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

/// Most verifications at once: each takes a core, and tens of MiB.
const AT_ONCE_MAX: usize = 4;

/// Most that wait for one. More are turned away: passwords are no way to occupy the gateway.
const WAITING_MAX: usize = 64;

/// Longest wait for a turn.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// Wrong passwords that are remembered, so that a client with an old one costs little.
const WRONG_MAX: usize = 1024;

/// What bcrypt reads of a password, in bytes; of a longer one it would ignore the rest.
const BCRYPT_MAX: usize = 72;

/// Most memory that a hash of argon2id may ask for, in KiB (1 GiB), and the most that its passes may write, in KiB (4 GiB: seconds).
const MEMORY_MAX: u32 = 1 << 20;
const WRITTEN_MAX: u64 = 1 << 22;

/// Exponents of bcrypt's rounds: it has none below, and above it takes tens of seconds.
const COSTS: RangeInclusive<u32> = 4..=17;

/// Length of a salt as bcrypt writes it; its sum follows.
const SALT: usize = 22;

/// What a password is known by.
type UserAndHash = (Box<str>, Box<str>);

/// HMAC of who said what.
type Proof = [u8; 32];

/// The passwords that are known, and the turns in which they are verified. Outlives reloads.
pub struct Passwords {
    secret: hmac::Key,
    turns: Arc<Semaphore>,
    waiting: AtomicUsize,
    known: Mutex<HashMap<UserAndHash, Weak<Password>>>,
    /// By a part of the proof. One takes the place of another.
    wrong: Box<[ArcSwapOption<Proof>]>,
}

/// The password of a user, by its hash.
pub struct Password {
    user: Box<str>,
    hash: Box<str>,
    kind: Kind,
    /// What it was last proved by.
    proven: ArcSwapOption<Proof>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Argon2id,
    Bcrypt,
}

/// What became of a password.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    Right,
    Wrong,
    /// It was not looked at: too many are.
    Busy,
}

/// There is no randomness for the secret.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the system has no randomness")]
pub struct NoRandomness;

impl Passwords {
    /// # Errors
    /// There is no randomness.
    pub fn new() -> Result<Self, NoRandomness> {
        let secret = hmac::Key::generate(hmac::HMAC_SHA256, &aws_lc_rs::rand::SystemRandom::new()).map_err(|_| NoRandomness)?;
        let at_once = std::thread::available_parallelism().map_or(1, usize::from).min(AT_ONCE_MAX);
        Ok(Self {
            secret,
            turns: Arc::new(Semaphore::new(at_once)),
            waiting: AtomicUsize::new(0),
            known: Mutex::default(),
            wrong: (0..WRONG_MAX).map(|_| ArcSwapOption::empty()).collect(),
        })
    }

    /// A user's password, with what it proved under an earlier configuration. `None`: this is no hash that can be verified.
    pub fn known(&self, user: &str, hash: &str) -> Option<Arc<Password>> {
        let kind = kind(hash)?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (Box::from(user), Box::from(hash));
        if let Some(password) = known.get(&key).and_then(Weak::upgrade) {
            return Some(password);
        }
        let password = Arc::new(Password { user: user.into(), hash: hash.into(), kind, proven: ArcSwapOption::empty() });
        known.insert(key, Arc::downgrade(&password));
        Some(password)
    }

    /// Forgets those that no configuration has any more.
    pub fn tidy(&self) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, password| password.strong_count() > 0);
    }

    /// Whether this is the user's password. Said by another user it never is, but takes as long.
    pub async fn verify(&self, password: &Arc<Password>, user: &str, said: Zeroizing<Vec<u8>>) -> Outcome {
        let proof = self.proof(password, user, &said);
        let is_theirs = *password.user == *user;
        if is_theirs && password.proven.load().as_ref().is_some_and(|proven| is_same(proven, &proof)) {
            return Outcome::Right;
        }
        let wrong = self.wrong_at(&proof);
        if wrong.is_some_and(|wrong| wrong.load().as_ref().is_some_and(|known| is_same(known, &proof))) {
            return Outcome::Wrong;
        }
        match self.in_turn(password.clone(), said).await {
            Some(true) if is_theirs => {
                password.proven.store(Some(Arc::new(proof)));
                Outcome::Right
            }
            Some(_) => {
                if let Some(wrong) = wrong {
                    wrong.store(Some(Arc::new(proof)));
                }
                Outcome::Wrong
            }
            None => Outcome::Busy,
        }
    }

    /// Which of several passwords stands in for that of a user who is not there: always the same one, so that it takes as long each time.
    pub fn stand_in(&self, user: &str, of: usize) -> usize {
        let [a, b, c, d, ..] = self.digest(&[user.as_bytes()]);
        u32::from_be_bytes([a, b, c, d]) as usize % of.max(1)
    }

    /// Whether it matches, once there is a turn. The turn lasts until it is known, though nobody should wait for it any more.
    async fn in_turn(&self, password: Arc<Password>, said: Zeroizing<Vec<u8>>) -> Option<bool> {
        let waiting = Waiting::among(&self.waiting)?;
        let turn = tokio::time::timeout(WAIT_MAX, self.turns.clone().acquire_owned()).await.ok()?.ok()?;
        drop(waiting);
        let verified = tokio::task::spawn_blocking(move || {
            let matches = password.matches(&said);
            drop(turn);
            matches
        });
        verified.await.ok()
    }

    fn proof(&self, password: &Password, user: &str, said: &[u8]) -> Proof {
        self.digest(&[user.as_bytes(), password.hash.as_bytes(), said])
    }

    /// Each part with its length before it, so that none runs into the next.
    fn digest(&self, parts: &[&[u8]]) -> Proof {
        let mut context = hmac::Context::with_key(&self.secret);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut digest = Proof::default();
        // HMAC-SHA256 is as long.
        digest.copy_from_slice(context.sign().as_ref());
        digest
    }

    fn wrong_at(&self, proof: &Proof) -> Option<&ArcSwapOption<Proof>> {
        let [.., high, low] = proof;
        self.wrong.get(usize::from(u16::from_be_bytes([*high, *low])) % WRONG_MAX)
    }
}

impl std::fmt::Debug for Passwords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Passwords")
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Password of {}", self.user)
    }
}

impl Password {
    fn matches(&self, said: &[u8]) -> bool {
        match self.kind {
            Kind::Argon2id => {
                PasswordHash::new(&self.hash).is_ok_and(|hash| Argon2::default().verify_password(said, &hash).is_ok())
            }
            // What bcrypt would not read in full is not compared with it, but takes as long.
            Kind::Bcrypt => bcrypt::verify(said, &self.hash).unwrap_or(false) && said.len() < BCRYPT_MAX,
        }
    }
}

/// Counts as waiting until it is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn among(waiting: &'a AtomicUsize) -> Option<Self> {
        let guard = Self(waiting);
        (waiting.fetch_add(1, Relaxed) < WAITING_MAX).then_some(guard)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

fn is_same(one: &Proof, other: &Proof) -> bool {
    one.ct_eq(other).into()
}

/// Which kind of hash it is, if it can be verified within our bounds.
fn kind(hash: &str) -> Option<Kind> {
    match hash.parse::<bcrypt::HashParts>() {
        Ok(parts) => (COSTS.contains(&parts.get_cost()) && is_decodable(hash)).then_some(Kind::Bcrypt),
        Err(_) => PasswordHash::new(hash).is_ok_and(|hash| is_argon2id(&hash)).then_some(Kind::Argon2id),
    }
}

/// Salt and sum of bcrypt can be read. What it parses it has not decoded yet.
fn is_decodable(hash: &str) -> bool {
    let both = hash.rsplit('$').next().and_then(|both| both.split_at_checked(SALT));
    both.is_some_and(|(salt, sum)| [salt, sum].iter().all(|part| bcrypt::BASE_64.decode(part).is_ok()))
}

fn is_argon2id(hash: &PasswordHash<'_>) -> bool {
    let is_known = hash.version.is_none_or(|version| argon2::Version::try_from(version).is_ok());
    let is_affordable = |params: argon2::Params| {
        params.m_cost() <= MEMORY_MAX && u64::from(params.m_cost()) * u64::from(params.t_cost()) <= WRITTEN_MAX
    };
    hash.algorithm == argon2::ARGON2ID_IDENT
        && hash.hash.is_some()
        && is_known
        && argon2::Params::try_from(hash).is_ok_and(is_affordable)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of `secret`, with little work.
    fn argon() -> String {
        use argon2::{Algorithm, Params, PasswordHasher, Version, password_hash::SaltString};
        let little = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(8, 1, 1, None).unwrap());
        little.hash_password(b"secret", &SaltString::from_b64("c2FsdHNhbHQ").unwrap()).unwrap().to_string()
    }

    fn bcrypt() -> String {
        bcrypt::hash("secret", 4).unwrap()
    }

    fn verify(passwords: &Passwords, password: &Arc<Password>, user: &str, said: &str) -> Outcome {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(passwords.verify(password, user, Zeroizing::new(said.into())))
    }

    #[test]
    fn both_kinds_of_hash_are_verified_and_a_repeat_is_remembered() {
        let passwords = Passwords::new().unwrap();
        for hash in [argon(), bcrypt()] {
            let password = passwords.known("acme", &hash).unwrap();
            assert_eq!(verify(&passwords, &password, "acme", "Secret"), Outcome::Wrong, "{hash}");
            assert!(password.proven.load().is_none());
            assert_eq!(verify(&passwords, &password, "acme", "secret"), Outcome::Right, "{hash}");
            assert!(password.proven.load().is_some());
            passwords.turns.forget_permits(AT_ONCE_MAX);
            assert_eq!(verify(&passwords, &password, "acme", "secret"), Outcome::Right, "without another look: {hash}");
            assert_eq!(verify(&passwords, &password, "acme", "Secret"), Outcome::Wrong, "without another look: {hash}");
            passwords.turns.add_permits(1);
        }
    }

    #[test]
    fn a_password_is_of_its_user_alone() {
        let passwords = Passwords::new().unwrap();
        let password = passwords.known("acme", &argon()).unwrap();
        assert_eq!(verify(&passwords, &password, "other", "secret"), Outcome::Wrong);
        assert_eq!(verify(&passwords, &password, "acme", "secret"), Outcome::Right);
        assert_eq!(verify(&passwords, &password, "other", "secret"), Outcome::Wrong);
    }

    #[test]
    fn what_was_proven_outlives_a_reload_but_not_a_new_hash() {
        let passwords = Passwords::new().unwrap();
        let password = passwords.known("acme", &argon()).unwrap();
        assert_eq!(verify(&passwords, &password, "acme", "secret"), Outcome::Right);
        assert!(Arc::ptr_eq(&password, &passwords.known("acme", &argon()).unwrap()));
        assert!(passwords.known("acme", &bcrypt()).unwrap().proven.load().is_none());
        drop(password);
        passwords.tidy();
        assert!(passwords.known.lock().unwrap().is_empty());
    }

    #[test]
    fn a_password_that_bcrypt_would_cut_is_wrong() {
        let passwords = Passwords::new().unwrap();
        let long = "x".repeat(BCRYPT_MAX);
        let password = passwords.known("acme", &bcrypt::hash(&long, 4).unwrap()).unwrap();
        assert_eq!(verify(&passwords, &password, "acme", &long), Outcome::Wrong);
    }

    #[test]
    fn too_many_at_once_are_turned_away() {
        let passwords = Passwords::new().unwrap();
        let password = passwords.known("acme", &argon()).unwrap();
        passwords.waiting.store(WAITING_MAX, Relaxed);
        assert_eq!(verify(&passwords, &password, "acme", "secret"), Outcome::Busy);
        assert_eq!(passwords.waiting.load(Relaxed), WAITING_MAX, "who was turned away waits no more");
    }

    #[test]
    fn only_hashes_that_can_be_verified_are_taken() {
        let (argon, bcrypt) = (argon(), "$2b$04$......................oHDYXgeRLGzE1t7uvJLuTjGpvnl1dOW".to_owned());
        assert_eq!((kind(&argon), kind(&bcrypt)), (Some(Kind::Argon2id), Some(Kind::Bcrypt)));
        for (good, odd) in
            [("argon2id", "argon2i"), ("v=19", "v=18"), ("m=8", "m=1048577"), ("m=8,t=1", "m=1024,t=4097"), ("p=1", "p=2")]
        {
            assert_eq!(kind(&argon.replace(good, odd)), None, "{odd}");
        }
        for (good, odd) in [("$04$", "$03$"), ("$04$", "$18$"), ("2b", "1"), (".o", "/o"), ("dOW", "dO!"), ("dOW", "dO")] {
            assert_eq!(kind(&bcrypt.replace(good, odd)), None, "{odd}");
        }
        for odd in ["", "secret", "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ"] {
            assert_eq!(kind(odd), None, "{odd}");
        }
    }
}
