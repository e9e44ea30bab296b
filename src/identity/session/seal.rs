//! What is kept with the browser: encrypted, so that it is neither read nor changed there.

use aws_lc_rs::{
    aead::{AES_256_GCM_SIV, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    hmac,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

/// Fewest bytes of a secret.
pub const SECRET_MIN: usize = 32;

/// The keys of an identity, newest first: the first encrypts, all decrypt.
pub struct Seals(Box<[RandomizedNonceKey]>);

/// There is no key, or one whose secret is too short.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a cookie secret has at least {SECRET_MIN} bytes, and there is at least one")]
pub struct WeakSecret;

impl Seals {
    /// Keys for one identity: with the same secrets another cannot read what this one wrote.
    ///
    /// # Errors
    /// A secret that could be guessed.
    pub fn new<'s>(identity: &str, secrets: impl IntoIterator<Item = &'s str>) -> Result<Self, WeakSecret> {
        let key = |secret: &str| {
            if secret.len() < SECRET_MIN {
                return Err(WeakSecret);
            }
            let secret = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
            let bytes = hmac::sign(&secret, format!("banyan browser session, 1: {identity}").as_bytes());
            RandomizedNonceKey::new(&AES_256_GCM_SIV, bytes.as_ref()).map_err(|_| WeakSecret)
        };
        let keys: Result<Box<[_]>, _> = secrets.into_iter().map(key).collect();
        keys.and_then(|keys| if keys.is_empty() { Err(WeakSecret) } else { Ok(Self(keys)) })
    }

    /// Seals a text for one purpose. `None`: the system gave no randomness.
    pub fn seal(&self, purpose: &str, text: &[u8]) -> Option<String> {
        let mut sealed = text.to_vec();
        let nonce = self.0.first()?.seal_in_place_append_tag(Aad::from(purpose.as_bytes()), &mut sealed).ok()?;
        let mut whole = nonce.as_ref().to_vec();
        whole.append(&mut sealed);
        Some(URL_SAFE_NO_PAD.encode(whole))
    }

    /// `None`: we did not seal it, not for this purpose, or with a key that is no longer ours.
    pub fn open(&self, purpose: &str, sealed: &str) -> Option<Vec<u8>> {
        let whole = URL_SAFE_NO_PAD.decode(sealed).ok()?;
        let (nonce, sealed) = whole.split_at_checked(NONCE_LEN)?;
        self.0.iter().find_map(|key| {
            let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
            let mut text = sealed.to_vec();
            let length = key.open_in_place(nonce, Aad::from(purpose.as_bytes()), &mut text).ok()?.len();
            text.truncate(length);
            Some(text)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "an old secret that has 32 bytes.";
    const NEW: &str = "a new secret that has 32 bytes..";

    fn seals(secrets: &[&str]) -> Seals {
        Seals::new("staff", secrets.iter().copied()).unwrap()
    }

    #[test]
    fn the_first_key_seals_and_all_open() {
        let (old, both, new) = (seals(&[OLD]), seals(&[NEW, OLD]), seals(&[NEW]));
        let (before, after) = (old.seal("session", b"text").unwrap(), both.seal("session", b"text").unwrap());
        assert_eq!(both.open("session", &before).unwrap(), b"text");
        assert_eq!(new.open("session", &after).unwrap(), b"text");
        assert_eq!((new.open("session", &before), old.open("session", &after)), (None, None));
    }

    #[test]
    fn what_was_changed_or_is_for_something_else_does_not_open() {
        let seals = seals(&[OLD]);
        let sealed = seals.seal("session", b"text").unwrap();
        assert_eq!(seals.open("login", &sealed), None);
        assert_eq!(Seals::new("other", [OLD]).unwrap().open("session", &sealed), None);
        for (at, byte) in sealed.bytes().enumerate() {
            let mut changed = sealed.clone().into_bytes();
            changed[at] = if byte == b'A' { b'B' } else { b'A' };
            assert_eq!(seals.open("session", std::str::from_utf8(&changed).unwrap()), None, "byte {at}");
        }
        for short in ["", "AAAA", &sealed[..30]] {
            assert_eq!(seals.open("session", short), None);
        }
        assert_ne!(sealed, seals.seal("session", b"text").unwrap(), "each has its own nonce");
    }

    #[test]
    fn a_secret_that_can_be_guessed_is_refused() {
        assert!(Seals::new("staff", ["short"]).is_err() && Seals::new("staff", []).is_err());
    }
}
