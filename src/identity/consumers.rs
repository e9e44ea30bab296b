//! The consumers of a configuration, found by what they are known by.

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    hash::{Hash, Hasher},
    sync::Arc,
};

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;

use super::ByClaims;
use crate::{
    caller::{Consumer, Groups},
    config::{
        self,
        consumer::{ClaimValue, Credential, SigningAlgorithm, SigningKey},
        problem::{Path, Problem},
    },
    identity::signature::key::{Algorithm, Key, Keys},
    name::{ConsumerName, GroupName, IdentityName},
};

/// Every consumer, and the tables that find one by a credential.
#[derive(Debug, Default)]
pub struct Consumers {
    /// By name, ascending.
    all: Box<[Arc<Consumer>]>,
    api_keys: HashMap<Digest, u32, ahash::RandomState>,
    /// Those that tokens of an identity are of.
    by_claims: BTreeMap<IdentityName, Arc<ByClaims>>,
    signing: Keys<Arc<Consumer>>,
}

/// SHA-256 of an API key. Compared in constant time: where two digests begin to differ is told to nobody.
#[derive(Clone, Copy, Debug)]
struct Digest([u8; 32]);

impl PartialEq for Digest {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Digest {}

impl Hash for Digest {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(&self.0);
    }
}

impl Consumers {
    /// The table, and what is wrong with the credentials.
    pub fn compile(config: &BTreeMap<ConsumerName, config::Consumer>) -> (Self, Vec<Problem>) {
        let mut interned = Interned::default();
        let all: Box<[_]> = config
            .iter()
            .map(|(name, consumer)| Arc::new(Consumer { name: name.clone(), groups: interned.groups(&consumer.groups) }))
            .collect();
        let mut tables = Tables {
            consumers: Self { all, ..Self::default() },
            claims: BTreeMap::new(),
            problems: Vec::new(),
            owners: config,
            signing: HashMap::default(),
        };
        for (index, consumer) in (0..).zip(config.values()) {
            for (at, credential) in consumer.credentials.iter().enumerate() {
                tables.add(index, at, credential);
            }
        }
        tables.consumers.api_keys.shrink_to_fit();
        tables.claims();
        let signing = std::mem::take(&mut tables.signing).into_iter();
        let holder = |index: u32| tables.consumers.all.get(index as usize).cloned();
        tables.consumers.signing = Keys::new(signing.filter_map(|(id, (index, key))| Some((id.into(), key?, holder(index)?))));
        (tables.consumers, tables.problems)
    }

    pub fn named(&self, name: &ConsumerName) -> Option<&Arc<Consumer>> {
        let index = self.all.binary_search_by(|consumer| consumer.name.cmp(name)).ok()?;
        self.all.get(index)
    }

    /// The keys with which consumers sign requests.
    pub fn signing(&self) -> &Keys<Arc<Consumer>> {
        &self.signing
    }

    /// The consumer that has this API key.
    pub fn by_api_key(&self, key: &[u8]) -> Option<&Arc<Consumer>> {
        let index = self.api_keys.get(&Digest(Sha256::digest(key).into()))?;
        self.all.get(*index as usize)
    }

    /// The consumers that tokens of this identity are of.
    pub fn of_identity(&self, name: &IdentityName) -> Arc<ByClaims> {
        self.by_claims.get(name).cloned().unwrap_or_default()
    }
}

/// Groups that several consumers have are kept once.
#[derive(Default)]
struct Interned(BTreeMap<Vec<GroupName>, Arc<Groups>>);

impl Interned {
    fn groups(&mut self, names: &[GroupName]) -> Arc<Groups> {
        self.0.entry(names.to_vec()).or_insert_with_key(|names| Arc::new(Groups::new(names.clone()))).clone()
    }
}

/// The tables while they are filled.
struct Tables<'a> {
    consumers: Consumers,
    /// Consumers by the claims of their tokens.
    claims: BTreeMap<(&'a IdentityName, &'a BTreeMap<String, ClaimValue>), u32>,
    /// By key id; without the key if it could not be read.
    signing: HashMap<&'a str, (u32, Option<Key>), ahash::RandomState>,
    problems: Vec<Problem>,
    owners: &'a BTreeMap<ConsumerName, config::Consumer>,
}

impl<'a> Tables<'a> {
    fn add(&mut self, index: u32, at: usize, credential: &'a Credential) {
        match credential {
            Credential::ApiKey(key) => match self.consumers.api_keys.entry(Digest(key.sha256.0)) {
                Entry::Vacant(free) => _ = free.insert(index),
                Entry::Occupied(taken) => {
                    let (other, same) = (*taken.get(), |other: &Credential| other == credential);
                    let problem = self.duplicate(index, at, other, same);
                    self.problems.push(problem);
                }
            },
            Credential::Jwt(token) if token.claim.is_empty() => {
                let at = self.place(index, at).key("jwt").key("claim");
                let problem = Problem::error(at, "no claim is named, so every token would be of this consumer");
                self.problems.push(problem.help("name one that only its tokens have: `{ azp: acme-client }`"));
            }
            Credential::Signature(key) => self.add_signing(index, at, key),
            Credential::Jwt(token) => match self.claims.entry((&token.identity, &token.claim)) {
                std::collections::btree_map::Entry::Vacant(free) => _ = free.insert(index),
                std::collections::btree_map::Entry::Occupied(taken) => {
                    let (other, same) = (*taken.get(), |other: &Credential| other == credential);
                    let problem = self.duplicate(index, at, other, same);
                    self.problems.push(problem);
                }
            },
        }
    }

    fn add_signing(&mut self, index: u32, at: usize, signing: &'a SigningKey) {
        let algorithm = match signing.algorithm {
            SigningAlgorithm::HmacSha256 => Algorithm::HmacSha256,
            SigningAlgorithm::EcdsaP256Sha256 => Algorithm::EcdsaP256Sha256,
            SigningAlgorithm::Ed25519 => Algorithm::Ed25519,
        };
        if let Some((other, _)) = self.signing.get(&*signing.key_id) {
            let same = |other: &Credential| matches!(other, Credential::Signature(key) if key.key_id == signing.key_id);
            let problem = self.duplicate(index, at, *other, same);
            return self.problems.push(problem);
        }
        let key = Key::read(algorithm, signing.key.reveal());
        if let Err(fault) = &key {
            let at = self.place(index, at).key("signature").key("key");
            self.problems.push(Problem::error(at, fault.to_string()));
        }
        self.signing.insert(&signing.key_id, (index, key.ok()));
    }

    fn claims(&mut self) {
        let mut tables: BTreeMap<IdentityName, ByClaims> = BTreeMap::new();
        for ((identity, claims), index) in &self.claims {
            if let Some(consumer) = self.consumers.all.get(*index as usize) {
                tables.entry((*identity).clone()).or_default().add(*claims, consumer.clone());
            }
        }
        self.consumers.by_claims = tables.into_iter().map(|(identity, table)| (identity, Arc::new(table))).collect();
    }

    /// A credential that two consumers have says nothing of who calls.
    fn duplicate(&self, index: u32, at: usize, other: u32, same: impl Fn(&Credential) -> bool) -> Problem {
        let owner = self.owners.values().nth(other as usize);
        let first = owner.and_then(|owner| owner.credentials.iter().position(same)).unwrap_or_default();
        Problem::error(self.place(index, at), "this credential is there already, so it does not say who calls")
            .also(self.place(other, first), "here it is too")
    }

    fn place(&self, index: u32, at: usize) -> Path {
        let name = self.consumers.all.get(index as usize).map_or("", |consumer| consumer.name.as_str());
        Path::root().key("consumers").key(name).key("credentials").index(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::consumer::{ApiKey, Sha256 as Sum};

    fn table(consumers: &[(&str, &[&str], &[&str])]) -> (Consumers, Vec<Problem>) {
        let key = |key: &&str| Credential::ApiKey(ApiKey { sha256: Sum(Sha256::digest(key).into()) });
        let config = consumers.iter().map(|(name, groups, keys)| {
            let groups = groups.iter().map(|group| GroupName::new(group)).collect();
            (ConsumerName::new(name), config::Consumer { groups, credentials: keys.iter().map(key).collect() })
        });
        Consumers::compile(&config.collect())
    }

    fn name(found: Option<&Arc<Consumer>>) -> Option<&str> {
        found.map(|consumer| consumer.name.as_str())
    }

    #[test]
    fn a_consumer_is_found_by_each_of_its_keys_and_by_nothing_else() {
        let (consumers, problems) = table(&[("a", &["g"], &["one", "two"]), ("b", &["g"], &["three"]), ("c", &[], &[])]);
        assert_eq!(problems, []);
        for (key, expected) in [("one", Some("a")), ("two", Some("a")), ("three", Some("b")), ("four", None), ("", None)] {
            assert_eq!(name(consumers.by_api_key(key.as_bytes())), expected, "{key}");
        }
        assert_eq!(name(consumers.named(&ConsumerName::new("c"))), Some("c"));
        assert_eq!(name(consumers.named(&ConsumerName::new("d"))), None);
    }

    #[test]
    fn consumers_of_the_same_groups_share_them() {
        let (consumers, _) = table(&[("a", &["g", "h"], &[]), ("b", &["g", "h"], &[])]);
        let groups = |name: &str| &consumers.named(&ConsumerName::new(name)).unwrap().groups;
        assert!(Arc::ptr_eq(groups("a"), groups("b")));
        assert_eq!(groups("a").header.as_ref().unwrap(), "g, h");
    }

    #[test]
    fn a_key_of_two_consumers_is_told_with_both_places() {
        let (_, problems) = table(&[("a", &[], &["one", "same"]), ("b", &[], &["same"])]);
        let [problem] = problems.as_slice() else { panic!("{problems:?}") };
        assert_eq!(problem.path.to_string(), "consumers.b.credentials[0]");
        assert_eq!(problem.also[0].0.to_string(), "consumers.a.credentials[1]");
    }
}
