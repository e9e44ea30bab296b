//! The keys of one issuer.

use std::sync::Arc;

use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};

use super::key::{Key, KeyError, Kind};
use crate::identity::strict;

/// Most keys that are read of a set.
const KEYS_MAX: usize = 256;

/// Keys, each checked.
#[derive(Debug, Default)]
pub struct KeySet {
    keys: Vec<Arc<Key>>,
    /// Why others of the set were left out, by their place in it.
    left_out: Vec<(usize, KeyError)>,
}

/// A text is no set of keys.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KeySetError {
    #[error("it is no JSON Web Key Set: an object with a list `keys`")]
    Malformed,
    #[error("it has more than {KEYS_MAX} keys")]
    TooMany,
}

impl KeySet {
    pub fn new(keys: impl IntoIterator<Item = Key>) -> Self {
        Self { keys: keys.into_iter().map(Arc::new).collect(), left_out: Vec::new() }
    }

    /// Reads a set of RFC 7517 §5. Keys that cannot be used are left out, as it says.
    ///
    /// # Errors
    /// It is none.
    pub fn from_jwks(text: &[u8]) -> Result<Self, KeySetError> {
        let mut set = strict::object(text).map_err(|_| KeySetError::Malformed)?;
        let Some(Value::Array(keys)) = set.remove("keys") else { return Err(KeySetError::Malformed) };
        if keys.len() > KEYS_MAX {
            return Err(KeySetError::TooMany);
        }
        let mut set = Self::default();
        for (index, key) in keys.iter().enumerate() {
            match key.as_object().ok_or(KeyError::Malformed).and_then(|jwk: &Map<String, Value>| Key::from_jwk(jwk)) {
                Ok(key) => set.keys.push(Arc::new(key)),
                Err(error) => set.left_out.push((index, error)),
            }
        }
        Ok(set)
    }

    /// Without secrets: what anyone can read is none.
    #[must_use]
    pub fn public(mut self) -> Self {
        self.keys.retain(|key| !matches!(key.kind(), Kind::Secret(_)));
        self
    }

    /// The keys that may have signed a token of this algorithm that names this key, or none.
    pub fn candidates(&self, alg: Algorithm, kid: Option<&str>) -> impl Iterator<Item = &Arc<Key>> {
        let is_named = move |key: &Key| kid.is_none() || key.id().is_none() || key.id() == kid;
        self.keys.iter().filter(move |key| key.serves(alg) && is_named(key))
    }

    /// Takes the place of another set: a key of both stays the same object, and what is missing here is withdrawn.
    #[must_use]
    pub fn in_place_of(mut self, before: &Self) -> Self {
        for key in &mut self.keys {
            if let Some(same) = before.keys.iter().find(|old| old.is_same(key)) {
                *key = same.clone();
            }
        }
        before.keys.iter().filter(|old| !self.has(old)).for_each(|old| old.withdraw());
        self
    }

    fn has(&self, key: &Key) -> bool {
        self.keys.iter().any(|one| one.is_same(key))
    }

    /// How many keys of the other are not in this.
    pub fn lacks(&self, other: &Self) -> usize {
        other.keys.iter().filter(|key| !self.has(key)).count()
    }

    /// Why keys were left out, by their place in the set.
    pub fn left_out(&self) -> &[(usize, KeyError)] {
        &self.left_out
    }

    pub fn serves(&self, alg: Algorithm) -> bool {
        self.keys.iter().any(|key| key.serves(alg))
    }

    pub fn len(&self) -> usize {
        self.keys.len()
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use Algorithm::{ES256, EdDSA, HS256, RS256};

    const ED: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";

    fn ed(kid: &str) -> Value {
        json!({ "kty": "OKP", "crv": "Ed25519", "x": ED, "kid": kid })
    }

    fn set(keys: Value) -> KeySet {
        KeySet::from_jwks(json!({ "keys": keys }).to_string().as_bytes()).unwrap()
    }

    #[test]
    fn a_set_keeps_what_it_can_use() {
        let odd = json!([ed("a"), { "kty": "OKP", "crv": "Ed448", "x": "AA" }, 7, { "kty": "EC", "crv": "secp256k1" }, ed("b")]);
        let set = set(odd);
        assert_eq!((set.len(), set.left_out().len()), (2, 3));
        assert!(set.serves(EdDSA) && !set.serves(RS256));
    }

    #[test]
    fn what_is_no_set_is_refused() {
        for text in ["", "{}", "[]", r#"{"keys":{}}"#, r#"{"keys":[],"keys":[]}"#, "<html>"] {
            assert_eq!(KeySet::from_jwks(text.as_bytes()).unwrap_err(), KeySetError::Malformed, "{text}");
        }
        let many = json!({ "keys": vec![0; KEYS_MAX + 1] }).to_string();
        assert_eq!(KeySet::from_jwks(many.as_bytes()).unwrap_err(), KeySetError::TooMany);
        assert!(set(json!([])).is_empty(), "an issuer may have no keys left");
    }

    #[test]
    fn a_token_is_tried_with_the_keys_that_it_may_mean() {
        let nameless = json!({ "kty": "OKP", "crv": "Ed25519", "x": ED });
        let set = set(json!([ed("a"), ed("b"), nameless]));
        let check = |alg, kid, expected: &[Option<&str>]| {
            assert_eq!(set.candidates(alg, kid).map(|key| key.id()).collect::<Vec<_>>(), expected, "{alg:?} {kid:?}");
        };
        check(EdDSA, Some("a"), &[Some("a"), None]);
        check(EdDSA, None, &[Some("a"), Some("b"), None]);
        check(EdDSA, Some("c"), &[None]);
        check(ES256, Some("a"), &[]);
    }

    #[test]
    fn what_anyone_can_read_is_no_secret() {
        let secret = json!({ "kty": "oct", "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow" });
        let set = set(json!([secret, ed("a")]));
        assert!(set.serves(HS256));
        let set = set.public();
        assert!(!set.serves(HS256) && set.serves(EdDSA));
    }

    #[test]
    fn a_key_that_is_missing_later_is_withdrawn_and_one_that_stays_is_the_same() {
        let before = set(json!([ed("a"), ed("b")]));
        let (a, b) = (before.keys[0].clone(), before.keys[1].clone());
        let mut renamed_use = ed("a");
        renamed_use["alg"] = json!("EdDSA");
        let after = set(json!([ed("c"), ed("b")])).in_place_of(&before);
        assert!(a.is_withdrawn() && !b.is_withdrawn() && Arc::ptr_eq(&after.keys[1], &b));
        let last = set(json!([renamed_use])).in_place_of(&after);
        assert!(b.is_withdrawn() && !last.keys[0].is_withdrawn());
    }
}
