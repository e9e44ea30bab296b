//! The process: Pingora's server with the gateway, the keeper of the configuration and, if configured, the admin listener.

use std::{net::TcpListener, sync::Arc};

use anyhow::Context;
use pingora_core::{
    server::{RunArgs, Server, configuration::ServerConf},
    services::background::background_service,
};

use self::{keeper::Keeper, signals::Signals};
use crate::{
    config::{Config, process::Threads},
    edge,
    live::{Live, Source},
    proxy::Gateway,
    upstream::client,
};

mod keeper;
mod signals;
mod watch;

/// Idle connections to services that are kept, on each thread.
const POOL_SIZE: usize = 512;

/// Serves a configuration until a signal ends the process.
///
/// # Errors
/// The first configuration is refused, or what it names cannot be had.
pub fn run(source: Source) -> anyhow::Result<()> {
    client::system_roots_readable().map_err(anyhow::Error::msg)?;
    let live = Arc::new(Live::start(source)?);
    let config = live.started_with();
    addresses_are_free(config)?;
    let mut server = Server::new_with_opt_and_conf(None, server_conf(config));
    server.bootstrap();
    let conf = server.configuration.clone();
    let gateway = Gateway::new(live.clone(), live.stores().clone());
    let service = edge::service(config, live.stores(), &conf, gateway);
    server.add_service(service.map_err(|error| anyhow::anyhow!("cannot listen: {error}"))?);
    let signals = Signals::new(live.clone());
    server.add_service(background_service("keeper", Keeper::new(live.clone())));
    tell(config);
    server.run(RunArgs { shutdown_signal: Box::new(signals) });
    if let Some(log) = &live.stores().access_log {
        log.close(signals::LOG_PATIENCE);
    }
    Ok(())
}

/// Pingora panics when it cannot bind, in a thread of its own; so each address is tried first.
fn addresses_are_free(config: &Config) -> anyhow::Result<()> {
    let listeners = config.listeners.iter().map(|(name, listener)| (format!("listeners.{name}"), listener.address));
    let admin = config.admin.iter().map(|admin| ("admin".to_owned(), admin.address));
    for (key, address) in listeners.chain(admin) {
        TcpListener::bind(address).with_context(|| format!("cannot listen on {address} ({key}.address)"))?;
    }
    Ok(())
}

fn server_conf(config: &Config) -> ServerConf {
    let threads = match config.process.threads {
        Threads::Fixed(threads) => threads.get(),
        Threads::Auto => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
    };
    ServerConf {
        threads,
        upstream_keepalive_pool_size: POOL_SIZE,
        // The drain is over when Pingora is told to stop.
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(1),
        ..ServerConf::default()
    }
}

fn tell(config: &Config) {
    for (name, listener) in &config.listeners {
        let scheme = if listener.tls.is_some() { "https" } else { "http" };
        tracing::info!(listener = name.as_str(), "listening on {scheme}://{}", listener.address);
    }
    if let Some(admin) = &config.admin {
        tracing::info!("admin on http://{}", admin.address);
    }
}
