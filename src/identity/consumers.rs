//! The consumers of a configuration, found by what they are known by.

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    hash::{Hash, Hasher},
    sync::Arc,
};

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{
    ByClaims,
    password::{Outcome, Password, Passwords},
};
use crate::{
    caller::{Consumer, Groups, Plan},
    certs::{self, AltName},
    config::{
        self,
        consumer::{ClaimValue, ClientCertificate, Credential, SigningAlgorithm, SigningKey},
        problem::{Path, Problem},
    },
    identity::signature::key::{Algorithm, Key, Keys},
    name::{ConsumerName, GroupName, IdentityName, PlanName},
};

/// Every consumer, and the tables that find one by a credential.
#[derive(Debug, Default)]
pub struct Consumers {
    /// By name, ascending.
    all: Box<[Arc<Consumer>]>,
    api_keys: HashMap<Digest, u32, ahash::RandomState>,
    /// Those that tokens of an identity are of.
    by_claims: BTreeMap<IdentityName, Arc<ByClaims>>,
    certificates: Certificates,
    /// By name, ascending.
    users: Vec<User>,
    /// Where passwords are verified. Absent: nobody has one.
    passwords: Option<Arc<Passwords>>,
    signing: Keys<Arc<Consumer>>,
}

/// Someone with a password.
#[derive(Debug)]
struct User {
    name: Box<str>,
    consumer: u32,
    password: Arc<Password>,
}

/// Why a password says nothing of who calls.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failure {
    /// There is no such user.
    Unknown,
    Wrong,
    /// Too many are being looked at.
    Busy,
}

/// Consumers by what their certificates say.
#[derive(Debug, Default)]
struct Certificates {
    fingerprints: HashMap<[u8; 32], u32>,
    names: HashMap<AltName, u32>,
    subjects: HashMap<Box<str>, u32>,
}

/// What a credential says of different consumers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Conflict;

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
    ///
    /// `plans` by name, ascending. One that is not among them is none: that is told where all names are known.
    pub fn compile(
        config: &BTreeMap<ConsumerName, config::Consumer>,
        plans: &[Arc<Plan>],
        passwords: &Arc<Passwords>,
    ) -> (Self, Vec<Problem>) {
        let mut interned = Interned::default();
        let plan = |named: &PlanName| plans.get(plans.binary_search_by(|plan| plan.name.cmp(named)).ok()?).cloned();
        let all: Box<[_]> = config
            .iter()
            .enumerate()
            .map(|(index, (name, consumer))| {
                let (groups, plan) = (interned.groups(&consumer.groups), consumer.plan.as_ref().and_then(plan));
                Arc::new(Consumer { name: name.clone(), index, groups, plan })
            })
            .collect();
        let mut tables = Tables {
            passwords,
            usernames: HashMap::new(),
            consumers: Self { all, passwords: Some(passwords.clone()), ..Self::default() },
            claims: BTreeMap::new(),
            signing: HashMap::default(),
            problems: Vec::new(),
            owners: config,
        };
        for (index, consumer) in (0..).zip(config.values()) {
            for (at, credential) in consumer.credentials.iter().enumerate() {
                tables.add(index, at, credential);
            }
        }
        tables.consumers.api_keys.shrink_to_fit();
        tables.claims();
        tables.signing();
        tables.consumers.users.sort_by(|one, other| one.name.cmp(&other.name));
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

    /// The consumer of a user with this password. Whether there is such a user takes as long to say as whether the password is right.
    ///
    /// # Errors
    /// There is no such user, it is not the password, or there was no time to look.
    pub async fn by_password(&self, user: &str, said: Zeroizing<Vec<u8>>) -> Result<&Arc<Consumer>, Failure> {
        let passwords = self.passwords.as_ref().ok_or(Failure::Unknown)?;
        let found = self.users.binary_search_by(|known| (*known.name).cmp(user));
        let at = found.unwrap_or_else(|_| passwords.stand_in(user, self.users.len()));
        let known = self.users.get(at).ok_or(Failure::Unknown)?;
        match passwords.verify(&known.password, user, said).await {
            Outcome::Right => self.all.get(known.consumer as usize).ok_or(Failure::Unknown),
            Outcome::Wrong if found.is_err() => Err(Failure::Unknown),
            Outcome::Wrong => Err(Failure::Wrong),
            Outcome::Busy => Err(Failure::Busy),
        }
    }

    /// The consumer of a certificate: by its fingerprint, else by a name, else by its subject.
    ///
    /// # Errors
    /// Its names are of different consumers.
    pub fn by_certificate(&self, client: &certs::Client) -> Result<Option<&Arc<Consumer>>, Conflict> {
        let tables = &self.certificates;
        let mut named = client.names.iter().filter_map(|name| tables.names.get(name));
        let name = named.next();
        if named.any(|other| Some(other) != name) {
            return Err(Conflict);
        }
        let subject = || tables.subjects.get(client.subject.as_str());
        let index = tables.fingerprints.get(&client.fingerprint).or(name).or_else(subject);
        Ok(index.and_then(|index| self.all.get(*index as usize)))
    }

    /// The consumer that has this API key, and the key's digest.
    pub fn by_api_key(&self, key: &[u8]) -> Option<(&Arc<Consumer>, [u8; 32])> {
        let digest = Digest(Sha256::digest(key).into());
        let index = self.api_keys.get(&digest)?;
        Some((self.all.get(*index as usize)?, digest.0))
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
    passwords: &'a Passwords,
    usernames: HashMap<&'a str, u32>,
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
        let tables = &mut self.consumers;
        let taken = match credential {
            Credential::ApiKey(key) => taken(tables.api_keys.entry(Digest(key.sha256.0)), index),
            Credential::Jwt(token) if token.claim.is_empty() => return self.no_claim(index, at),
            Credential::Jwt(token) => {
                let claims = (&token.identity, &token.claim);
                let taken = self.claims.get(&claims).copied();
                self.claims.entry(claims).or_insert(index);
                taken
            }
            Credential::Signature(key) => self.sign_by(index, at, key),
            Credential::Basic(basic) => {
                let Some(password) = self.passwords.known(&basic.username, basic.password_hash.reveal()) else {
                    return self.odd_hash(index, at);
                };
                tables.users.push(User { name: basic.username.as_str().into(), consumer: index, password });
                taken(self.usernames.entry(&basic.username), index)
            }
            Credential::ClientCertificate(ClientCertificate::Fingerprint(sum)) => {
                taken(tables.certificates.fingerprints.entry(sum.0), index)
            }
            Credential::ClientCertificate(ClientCertificate::San(text)) => match AltName::parse(text) {
                Some(name) => taken(tables.certificates.names.entry(name), index),
                None => return self.odd_name(index, at, text),
            },
            Credential::ClientCertificate(ClientCertificate::Subject(text)) => match certs::subject::normal(text) {
                Some(subject) => taken(tables.certificates.subjects.entry(subject.into()), index),
                None => return self.odd_subject(index, at, text),
            },
        };
        if let Some(other) = taken {
            let problem = self.duplicate(index, at, other, credential);
            self.problems.push(problem);
        }
    }

    /// Another owner of the key's id, if it has one.
    fn sign_by(&mut self, index: u32, at: usize, signing: &'a SigningKey) -> Option<u32> {
        if let Some((other, _)) = self.signing.get(&*signing.key_id) {
            return Some(*other);
        }
        let key = Key::read(algorithm(signing.algorithm), signing.key.reveal());
        if let Err(fault) = &key {
            let at = self.place(index, at).key("signature").key("key");
            self.problems.push(Problem::error(at, fault.to_string()));
        }
        self.signing.insert(&signing.key_id, (index, key.ok()));
        None
    }

    fn signing(&mut self) {
        let all = &self.consumers.all;
        let held = std::mem::take(&mut self.signing).into_iter();
        let keys = held.filter_map(|(id, (index, key))| Some((id.into(), key?, all.get(index as usize)?.clone())));
        self.consumers.signing = Keys::new(keys);
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

    fn no_claim(&mut self, index: u32, at: usize) {
        let at = self.place(index, at).key("jwt").key("claim");
        let problem = Problem::error(at, "no claim is named, so every token would be of this consumer");
        self.problems.push(problem.help("name one that only its tokens have: `{ azp: acme-client }`"));
    }

    fn odd_hash(&mut self, index: u32, at: usize) {
        let at = self.place(index, at).key("basic").key("password_hash");
        let problem = Problem::error(at, "this is no hash of argon2id or bcrypt, or one that would cost too much to verify");
        self.problems.push(problem.help("write the whole of it: `$argon2id$v=19$m=19456,t=2,p=1$…` or `$2b$12$…`"));
    }

    fn odd_name(&mut self, index: u32, at: usize, text: &str) {
        let problem = Problem::error(
            self.place(index, at).key("client_certificate").key("san"),
            format!("`{text}` is no alternative name"),
        );
        self.problems.push(problem.help("write its kind before it: `DNS:…`, `URI:…`, `email:…` or `IP:…`"));
    }

    fn odd_subject(&mut self, index: u32, at: usize, text: &str) {
        let at = self.place(index, at).key("client_certificate").key("subject");
        let problem = Problem::error(at, format!("`{text}` is no distinguished name"));
        self.problems.push(problem.help(
            "write the whole of it, its most specific part first: `CN=acme,O=Acme Ltd`; a type other than CN, L, ST, O, OU, C, STREET, DC and UID by its number and the bytes of its value: `1.2.840.113549.1.9.1=#1603612e62`",
        ));
    }

    /// A credential that two consumers have says nothing of who calls.
    fn duplicate(&self, index: u32, at: usize, other: u32, credential: &Credential) -> Problem {
        let owner = self.owners.values().nth(other as usize);
        let first = owner.and_then(|owner| owner.credentials.iter().position(|other| is_same(other, credential)));
        Problem::error(self.place(index, at), "this credential is there already, so it does not say who calls")
            .also(self.place(other, first.unwrap_or_default()), "here it is too")
    }

    fn place(&self, index: u32, at: usize) -> Path {
        let name = self.consumers.all.get(index as usize).map_or("", |consumer| consumer.name.as_str());
        Path::root().key("consumers").key(name).key("credentials").index(at)
    }
}

/// Puts a consumer in, or gives the one that is there.
fn taken<K>(entry: Entry<'_, K, u32>, index: u32) -> Option<u32> {
    match entry {
        Entry::Occupied(taken) => Some(*taken.get()),
        Entry::Vacant(free) => {
            free.insert(index);
            None
        }
    }
}

const fn algorithm(named: SigningAlgorithm) -> Algorithm {
    match named {
        SigningAlgorithm::HmacSha256 => Algorithm::HmacSha256,
        SigningAlgorithm::EcdsaP256Sha256 => Algorithm::EcdsaP256Sha256,
        SigningAlgorithm::Ed25519 => Algorithm::Ed25519,
    }
}

/// Whether two credentials are one, however they are written.
fn is_same(one: &Credential, other: &Credential) -> bool {
    use ClientCertificate::{San, Subject};
    use Credential::ClientCertificate as Certificate;
    match (one, other) {
        (Credential::Basic(one), Credential::Basic(other)) => one.username == other.username,
        (Credential::Signature(one), Credential::Signature(other)) => one.key_id == other.key_id,
        (Certificate(San(one)), Certificate(San(other))) => AltName::parse(one) == AltName::parse(other),
        (Certificate(Subject(one)), Certificate(Subject(other))) => certs::subject::normal(one) == certs::subject::normal(other),
        _ => one == other,
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
            (ConsumerName::new(name), config::Consumer { plan: None, groups, credentials: keys.iter().map(key).collect() })
        });
        Consumers::compile(&config.collect(), &[], &Arc::new(Passwords::new().unwrap()))
    }

    fn name(found: Option<&Arc<Consumer>>) -> Option<&str> {
        found.map(|consumer| consumer.name.as_str())
    }

    #[test]
    fn a_consumer_is_found_by_each_of_its_keys_and_by_nothing_else() {
        let (consumers, problems) = table(&[("a", &["g"], &["one", "two"]), ("b", &["g"], &["three"]), ("c", &[], &[])]);
        assert_eq!(problems, []);
        for (key, expected) in [("one", Some("a")), ("two", Some("a")), ("three", Some("b")), ("four", None), ("", None)] {
            assert_eq!(name(consumers.by_api_key(key.as_bytes()).map(|(consumer, _)| consumer)), expected, "{key}");
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
