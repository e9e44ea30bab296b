//! Where a limit is counted: on this node, or in a store that nodes share.

use super::chain::Ground;
use crate::{
    config::{
        policy::limit::{Algorithm, Limit, OnStoreFailure, Sync},
        problem::{Path, Problem},
        suggest::suggest,
    },
    limit::{Counter, Id, Otherwise, Shared, Terms, Way, fleet::Law},
};

/// Settings about stores that cannot be.
pub fn refuse(config: &Limit, path: &Path, ground: &Ground<'_>, problems: &mut Vec<Problem>) {
    let Some(store) = &config.store else {
        let keys = [("sync", config.sync.is_some()), ("on_store_failure", config.on_store_failure.is_some())];
        let idle = keys.into_iter().filter(|(_, set)| *set);
        problems.extend(idle.map(|(key, _)| {
            let problem = Problem::error(path.key(key), format!("`{key}` is for limits that have a `store`"));
            problem.help("name a store, or remove it: each node counts for itself")
        }));
        return;
    };
    let loaded = ground.loaded;
    if !loaded.config.stores.contains_key(store) && !loaded.may_declare("stores", store.as_str()) {
        let problem = Problem::error(path.key("store"), format!("there is no store `{store}`"));
        problems.push(match suggest(store.as_str(), loaded.declared("stores")) {
            Some(near) => problem.help(format!("did you mean `{near}`?")),
            None => problem.help("declare it under `stores`"),
        });
    }
    if config.sync == Some(Sync::Leased) && config.algorithm == Algorithm::LeakyBucket {
        let problem = Problem::error(path.key("sync"), "nodes that take shares cannot tell whose turn it is in a `leaky_bucket`");
        problems.push(problem.help("use `exact`, or another algorithm").also(path.key("algorithm"), "the queue"));
    }
}

/// Who counts.
pub fn counter(config: &Limit, id: &Id, terms: &Terms, ground: &Ground<'_>) -> Counter {
    // A store that could not be compiled was told of where it stands; nothing compiled with it is ever used.
    let Some(store) = config.store.as_ref().and_then(|name| ground.stores.get(name)) else {
        return Counter::Local(ground.counters.local(id, terms));
    };
    let (name, law) = (id.shared(), Law::of(terms));
    let way = match config.sync.unwrap_or_default() {
        Sync::Exact => Way::Exact(ground.fleet.exact(&name, store, law)),
        Sync::Leased => Way::Leased(ground.fleet.leased(&name, store, law, config.keys as usize)),
    };
    let otherwise = match config.on_store_failure.unwrap_or_default() {
        OnStoreFailure::Local => Otherwise::Local(ground.counters.local(id, terms)),
        OnStoreFailure::Open => Otherwise::Open,
        OnStoreFailure::Closed => Otherwise::Closed,
    };
    Counter::Shared(Shared { way, otherwise, terms: *terms })
}
