//! The identities of a configuration. What one has learnt (keys, remembered tokens) outlives reloads that do not change it.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use sha2::{Digest, Sha256};

use super::{
    bridge::Bridge,
    forward::ForwardAuth,
    introspect::Introspection,
    jwt::{Jwt, Keys},
    remembered::Remembered,
    session::Login,
};
use crate::{
    config::{
        self,
        problem::{Path, Problem},
    },
    name::IdentityName,
};

mod compile;

/// Every identity, by name.
#[derive(Default)]
pub struct Identities(BTreeMap<IdentityName, Kept>);

/// An identity with what it was made from: equal settings and files make the same.
struct Kept {
    settings: config::Identity,
    files: [u8; 32],
    identity: Identity,
}

/// Someone who vouches for callers.
#[derive(Clone)]
pub enum Identity {
    Jwt(Arc<Jwt>),
    Introspection(Arc<Introspection>),
    Forward(Arc<ForwardAuth>),
    Bridge(Arc<Bridge>),
    Oidc(Arc<Login>),
}

/// What is known of an identity, for metrics.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Status {
    /// Tokens that are remembered.
    pub tokens: usize,
    /// How often a token was remembered, and how often not.
    pub looks: (u64, u64),
    /// Of its keys, if it fetches them.
    pub keys: Option<super::jwt::keys::Status>,
    /// Questions that were answered, and those that were not, of one that asks about requests or sessions.
    pub questions: Option<(u64, u64)>,
}

impl Identities {
    /// Those of a configuration, and what is wrong with it. What did not change since `before` is taken over.
    pub fn compile(config: &BTreeMap<IdentityName, config::Identity>, before: &Self) -> (Self, Vec<Problem>) {
        let (mut all, mut problems) = (BTreeMap::new(), Vec::new());
        for (name, settings) in config {
            let at = Path::root().key("identity").key(name.as_str()).key(settings.key());
            let files = digest(settings);
            let before = before.0.get(name).filter(|kept| kept.files == files);
            match compile::identity(name, settings, before.map(|kept| (&kept.settings, &kept.identity)), &at) {
                Ok(identity) => _ = all.insert(name.clone(), Kept { settings: settings.clone(), files, identity }),
                Err(found) => problems.extend(found),
            }
        }
        (Self(all), problems)
    }

    pub fn named(&self, name: &IdentityName) -> Option<&Identity> {
        self.0.get(name).map(|kept| &kept.identity)
    }

    /// Begins to fetch keys, on the runtime that this is called in. Those that are fetched already go on.
    pub fn start(&self) {
        self.keys().for_each(|(_, keys)| keys.start());
    }

    /// Identities whose issuer was not asked for its keys yet.
    pub fn unasked(&self) -> impl Iterator<Item = &IdentityName> {
        self.keys().filter(|(_, keys)| !keys.was_asked()).map(|(name, _)| name)
    }

    pub fn statuses(&self) -> impl Iterator<Item = (&IdentityName, Status)> {
        self.0.iter().map(|(name, kept)| (name, kept.identity.status()))
    }

    fn keys(&self) -> impl Iterator<Item = (&IdentityName, &Arc<Keys>)> {
        self.0.iter().filter_map(|(name, kept)| match &kept.identity {
            Identity::Jwt(jwt) => Some((name, jwt.keys())),
            Identity::Oidc(login) => Some((name, login.keys())),
            Identity::Introspection(_) | Identity::Forward(_) | Identity::Bridge(_) => None,
        })
    }
}

impl Identity {
    fn status(&self) -> Status {
        match self {
            Self::Jwt(jwt) => {
                let keys = jwt.keys().is_fetched().then(|| jwt.keys().status());
                Status { keys, ..Status::of(jwt.remembered()) }
            }
            Self::Oidc(login) => Status { tokens: 0, looks: (0, 0), keys: Some(login.keys().status()), questions: None },
            Self::Introspection(introspection) => Status::of(introspection.remembered()),
            Self::Forward(service) => Status { questions: Some(service.outcomes().counts()), ..Status::of(service.remembered()) },
            Self::Bridge(bridge) => Status { questions: Some(bridge.outcomes().counts()), ..Status::of(bridge.remembered()) },
        }
    }
}

impl Status {
    fn of<V: Clone>(remembered: &Remembered<V>) -> Self {
        Self { tokens: remembered.len(), looks: remembered.looks(), keys: None, questions: None }
    }
}

/// What the files say that an identity names.
fn digest(settings: &config::Identity) -> [u8; 32] {
    let mut digest = Sha256::new();
    let mut add = |file: &PathBuf| {
        let text = std::fs::read(file).unwrap_or_default();
        digest.update((text.len() as u64).to_be_bytes());
        digest.update(text);
    };
    settings.files().for_each(&mut add);
    digest.finalize().into()
}

#[cfg(test)]
mod tests;
