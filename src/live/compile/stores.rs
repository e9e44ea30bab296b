//! The stores that a configuration names.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    config::{
        Config,
        policy::{Policies, Switch},
        problem::{Path, Problem},
    },
    limit::fleet::{Fleet, Settings, Store},
    name::StoreName,
};

/// The stores by name, those in use among them; with what is wrong with them.
pub fn compile(config: &Config, fleet: &Fleet) -> (BTreeMap<StoreName, Arc<Store>>, Vec<Problem>) {
    let (mut stores, mut problems) = (BTreeMap::new(), Vec::new());
    for (name, store) in &config.stores {
        let at = Path::root().key("stores").key(name.as_str());
        problems.extend(idle(name, config, &at));
        let at = at.key("redis");
        let made = Settings::compile(&store.redis, &at)
            .and_then(|settings| fleet.store(name, settings).map_err(|error| vec![Problem::error(at, error.to_string())]));
        match made {
            Ok(store) => drop(stores.insert(name.clone(), store)),
            Err(found) => problems.extend(found),
        }
    }
    (stores, problems)
}

/// A store that nothing is counted in.
fn idle(name: &StoreName, config: &Config, at: &Path) -> Option<Problem> {
    let names = |policies: &Policies| match &policies.rate_limit {
        Switch::On(limits) => limits.0.values().any(|limit| limit.store.as_ref() == Some(name)),
        Switch::Off | Switch::Inherited => false,
    };
    let used = config.routes.values().map(|route| &route.policies).chain([&config.policies]).any(names);
    (!used).then(|| {
        Problem::warning(at.clone(), format!("no limit is counted in store `{name}`")).help("name it as `store` of a limit")
    })
}
