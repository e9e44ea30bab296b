//! What a reload does not change.

use std::collections::BTreeSet;

use crate::config::{self, Config};

/// Keys whose value differs between what the process was started with and what it should be now, and that only a restart changes.
pub fn waits_for_restart(started: &Config, now: &Config) -> Vec<String> {
    let mut waits: Vec<String> = started
        .listeners
        .keys()
        .chain(now.listeners.keys())
        .collect::<BTreeSet<_>>()
        .into_iter()
        .filter(|name| !is_same_listener(started.listeners.get(*name), now.listeners.get(*name)))
        .map(|name| format!("listeners.{name}"))
        .collect();
    let (log, log_now) = (&started.observe.access_log, &now.observe.access_log);
    let sections = [
        ("admin", started.admin != now.admin),
        ("process.threads", started.process.threads != now.process.threads),
        ("process.state", started.process.state != now.process.state),
        ("observe.access_log.path", log.path != log_now.path),
        ("observe.access_log.queue", log.queue != log_now.queue),
        ("observe.metrics", started.observe.metrics != now.observe.metrics),
    ];
    waits.extend(sections.into_iter().filter(|(_, changed)| *changed).map(|(key, _)| key.to_owned()));
    waits
}

/// What a TLS listener says of TLS changes without a restart; whether it has TLS, and all the rest, does not.
fn is_same_listener(started: Option<&config::Listener>, now: Option<&config::Listener>) -> bool {
    match (started, now) {
        (Some(started), Some(now)) if started.tls.is_some() == now.tls.is_some() => {
            *started == config::Listener { tls: started.tls.clone(), ..now.clone() }
        }
        _ => false,
    }
}
