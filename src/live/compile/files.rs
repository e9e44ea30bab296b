//! The files of a configuration: those that it was read from, and those that it names.

use std::path::PathBuf;

use sha2::{Digest, Sha256};

use crate::config::{self, Config, load::Loaded};

/// Every file that a configuration was read from or names.
pub fn watched(loaded: &Loaded) -> Vec<PathBuf> {
    loaded.sources.files().iter().cloned().chain(named_files(&loaded.config)).collect()
}

fn named_files(config: &Config) -> impl Iterator<Item = PathBuf> {
    let tls = || config.listeners.values().filter_map(|listener| listener.tls.as_ref());
    let shown = tls().flat_map(|tls| &tls.certificates);
    let shown = shown.flat_map(|pair| [Some(&pair.cert), Some(&pair.key), pair.ocsp.as_ref()]).flatten().cloned();
    let of_clients = tls().filter_map(|tls| Some(tls.client_auth.as_ref()?.ca.clone()));
    let upstreams = || config.upstreams.values().filter_map(|upstream| upstream.tls.as_ref());
    let own = upstreams().filter_map(|tls| tls.client_certificate.as_ref());
    let own = own.flat_map(|pair| [pair.cert.clone(), pair.key.clone()]);
    let of_upstreams = upstreams().filter_map(|tls| tls.ca.clone());
    let of_identities = config.identity.values().flat_map(config::Identity::files).cloned();
    shown.chain(of_clients).chain(own).chain(of_upstreams).chain(of_identities)
}

/// The identity of a configuration: what the files say, and what the files say that they name.
pub fn hash(loaded: &Loaded) -> String {
    let mut digest = Sha256::new();
    digest.update(loaded.sources.hash());
    for file in named_files(&loaded.config) {
        digest.update(std::fs::read(file).unwrap_or_default());
        digest.update([0]);
    }
    format!("{:x}", digest.finalize())
}
