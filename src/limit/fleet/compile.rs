//! From the `redis` of the file to the settings of a store.

use std::path::Path as FilePath;

use super::{Address, Place, Settings, Tls};
use crate::{
    certs,
    config::{
        problem::{Path, Problem},
        store::{self, HostPort, Redis},
    },
};

impl Settings {
    /// Reads the certificates and keys that the file names. `at` is where its `redis` stands.
    ///
    /// # Errors
    /// Files that cannot be used, an empty list, TLS that contradicts the URL.
    pub fn compile(config: &Redis, at: &Path) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        problems.extend(nowhere(&config.place, at));
        problems.extend(contradiction(config, at));
        let tls = config.tls.as_ref().map(|tls| tls_of(tls, &at.key("tls"), &mut problems));
        let settings = Self {
            place: place(&config.place),
            username: config.username.clone(),
            password: config.password.as_ref().map(|password| password.reveal().to_owned()),
            tls,
            database: if let store::Place::Url(url) = &config.place { url.database } else { 0 },
            timeout: config.timeout.as_std(),
            prefix: config.prefix.clone(),
            connections: usize::from(config.connections),
        };
        if problems.is_empty() { Ok(settings) } else { Err(problems) }
    }
}

fn place(config: &store::Place) -> Place {
    match config {
        store::Place::Url(url) => Place::Server(address(&url.address)),
        store::Place::Sentinel(sentinel) => Place::Sentinels {
            addresses: sentinel.addresses.iter().map(address).collect(),
            master: sentinel.master.clone(),
            username: sentinel.username.clone(),
            password: sentinel.password.as_ref().map(|password| password.reveal().to_owned()),
        },
        store::Place::Cluster(nodes) => Place::Cluster(nodes.iter().map(address).collect()),
    }
}

fn address(HostPort { host, port }: &HostPort) -> Address {
    Address { host: host.clone(), port: *port }
}

fn nowhere(place: &store::Place, at: &Path) -> Option<Problem> {
    let at = match place {
        store::Place::Cluster(nodes) if nodes.is_empty() => at.key("cluster"),
        store::Place::Sentinel(sentinel) if sentinel.addresses.is_empty() => at.key("sentinel").key("addresses"),
        _ => return None,
    };
    Some(Problem::error(at, "the list is empty").help("name a server with its port, such as `redis-1.internal:6379`"))
}

fn contradiction(config: &Redis, at: &Path) -> Option<Problem> {
    match &config.place {
        store::Place::Url(url) if !url.tls && config.tls.is_some() => {
            let problem = Problem::error(at.key("url"), "the URL is one without TLS, and there is `tls`");
            Some(problem.help(format!("write `rediss://{}`", url.address)).also(at.key("tls"), "TLS here"))
        }
        _ => None,
    }
}

/// Every file is parsed before it is given away: a mistake is told with its place.
fn tls_of(config: &store::Tls, at: &Path, problems: &mut Vec<Problem>) -> Tls {
    let ca = config.ca.as_ref().and_then(|file| {
        let checked = certs::authorities(file).map_err(|error| error.problem(at.key("ca")));
        checked.map_err(|problem| problems.push(problem)).ok().and_then(|_| text(file, &at.key("ca"), problems))
    });
    let at = at.key("client_certificate");
    let client = config.client_certificate.as_ref().and_then(|own| {
        let of = |error: &certs::CertError| at.key(if error.is_of_key(&own.key) { "key" } else { "cert" });
        certs::presentable(&own.cert, &own.key).map_err(|error| problems.push(error.problem(of(&error)))).ok()?;
        Some((text(&own.cert, &at.key("cert"), problems)?, text(&own.key, &at.key("key"), problems)?))
    });
    Tls { ca, client }
}

/// What was read a moment ago can be gone by now.
fn text(file: &FilePath, at: &Path, problems: &mut Vec<Problem>) -> Option<Vec<u8>> {
    let gone = |source| certs::CertError::Unreadable { path: file.into(), source }.problem(at.clone());
    std::fs::read(file).map_err(|error| problems.push(gone(error))).ok()
}
