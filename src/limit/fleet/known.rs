//! The stores in use and the limits that they count, which outlive reloads.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use super::{Exact, Law, Leased, Settings, SettingsError, Store};
use crate::name::StoreName;

/// The stores in use and the limits that they count. Each is kept as long as a configuration has it.
#[derive(Debug, Default)]
pub struct Fleet(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    stores: HashMap<StoreName, Vec<Weak<Store>>>,
    exact: HashMap<String, Vec<Weak<Exact>>>,
    leased: HashMap<String, Vec<Weak<Leased>>>,
}

impl Fleet {
    /// The store of this name with these settings: the one in use if there is one.
    ///
    /// # Errors
    /// The settings make no connection.
    pub fn store(&self, name: &StoreName, settings: Settings) -> Result<Arc<Store>, SettingsError> {
        let mut known = self.known();
        known.stores.retain(|_, stores| stores.iter().any(|store| store.strong_count() > 0));
        let stores = known.stores.entry(name.clone()).or_default();
        let found = stores.iter().filter_map(Weak::upgrade).find(|store| *store.settings() == settings);
        match found {
            Some(store) => Ok(store),
            None => {
                let store = Store::new(settings)?;
                stores.push(Arc::downgrade(&store));
                Ok(store)
            }
        }
    }

    /// The limit of this name. `name` is the same on every node.
    pub fn exact(&self, name: &str, store: &Arc<Store>, law: Law) -> Arc<Exact> {
        let is_same = |limit: &Exact| limit.is_of(store, law);
        kept(&mut self.known().exact, name, is_same, || Exact::new(store.clone(), name, law))
    }

    /// The same in shares, for so many keys at once.
    pub fn leased(&self, name: &str, store: &Arc<Store>, law: Law, keys: usize) -> Arc<Leased> {
        let is_same = |limit: &Leased| limit.is_of(store, law, keys);
        kept(&mut self.known().leased, name, is_same, || Leased::new(Exact::new(store.clone(), name, law), keys))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Several of one name while a configuration takes the place of another, or is tried.
fn kept<T>(
    known: &mut HashMap<String, Vec<Weak<T>>>,
    name: &str,
    is_same: impl Fn(&T) -> bool,
    new: impl FnOnce() -> T,
) -> Arc<T> {
    known.retain(|_, limits| limits.iter().any(|limit| limit.strong_count() > 0));
    let limits = known.entry(name.to_owned()).or_default();
    limits.iter().filter_map(Weak::upgrade).find(|limit| is_same(limit)).unwrap_or_else(|| {
        let limit = Arc::new(new());
        limits.push(Arc::downgrade(&limit));
        limit
    })
}
