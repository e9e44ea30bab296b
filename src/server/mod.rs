//! The process: Pingora's server with the gateway, the keeper of the configuration and, if configured, the admin listener.

use std::{net::TcpListener, sync::Arc};

use anyhow::Context;
use pingora_core::{
    server::{RunArgs, Server, configuration::ServerConf},
    services::{background::background_service, listening::Service},
};

use self::{doors::Doors, keeper::Keeper, signals::Signals};
use tokio::signal::unix::SignalKind;

use crate::{
    admin::{self, App},
    config::{self, Config, process::Threads},
    edge,
    live::{Live, Source},
    observe::metrics::Endpoint,
    proxy::Gateway,
    upstream::client,
};

mod doors;
mod keeper;
mod signals;
mod watch;

/// Threads of the admin listener, which carries no traffic.
const ADMIN_THREADS: usize = 1;

/// Idle connections to services that are kept, on each thread.
const POOL_SIZE: usize = 512;

/// Serves a configuration until a signal ends the process.
///
/// # Errors
/// The first configuration is refused, or what it names cannot be had.
pub fn run(source: Source) -> anyhow::Result<()> {
    hold_signals()?;
    client::system_roots_readable().map_err(anyhow::Error::msg)?;
    let live = Arc::new(Live::start(source)?);
    let config = live.started_with();
    addresses_are_free(config)?;
    let mut server = Server::new_with_opt_and_conf(None, server_conf(config));
    server.bootstrap();
    let conf = server.configuration.clone();
    let gateway = Gateway::new(live.clone(), live.stores().clone());
    server.add_service(edge::service(&live, &conf, gateway));
    if let Some(admin) = &config.admin {
        server.add_service(admin_service(admin, &live));
    }
    let signals = Signals::new(live.clone());
    server.add_service(background_service("keeper", Keeper::new(live.clone())));
    tell(config);
    server.run(RunArgs { shutdown_signal: Box::new(signals) });
    if let Some(log) = &live.stores().access_log {
        log.close(signals::LOG_PATIENCE);
    }
    Ok(())
}

fn admin_service(config: &config::Admin, live: &Arc<Live>) -> Service<App> {
    let doors = Doors::of(live.started_with());
    let live = || live.clone();
    let (ready, active, metrics, reload) = (live(), live(), live(), live());
    let door = admin::Gateway {
        not_ready: Box::new(move || doors.closed().into_iter().chain(ready.unready()).collect()),
        active: Box::new(move || told(&active)),
        metrics: Box::new(move || exposition(&metrics)),
        reload: Box::new(move || reload.reload()),
    };
    let mut service = Service::new("admin".to_owned(), App::new(config, door));
    service.threads = Some(ADMIN_THREADS);
    service.add_tcp(&config.address.to_string());
    service
}

/// What the admin listener tells of the configuration in force.
fn told(live: &Live) -> admin::Active {
    let (snapshot, status) = (live.snapshot(), live.status());
    admin::Active {
        generation: snapshot.generation,
        hash: snapshot.hash.clone(),
        config: snapshot.redacted(),
        loaded_at: status.at,
        error: status.error.clone(),
        waits_for_restart: status.waits_for_restart.clone(),
    }
}

fn exposition(live: &Live) -> String {
    let snapshot = live.snapshot();
    let endpoints = snapshot.upstreams.iter().flat_map(|(name, upstream)| {
        upstream.endpoints().map(move |endpoint| Endpoint {
            upstream: name,
            address: endpoint.address,
            healthy: endpoint.healthy,
            turned: endpoint.turned,
            in_flight: endpoint.in_flight,
            faults: endpoint.faults,
        })
    });
    live.stores().metrics.render(endpoints)
}

/// From here on SIGHUP and SIGUSR1 do not end the process, though no one listens for them yet. The keeper loads once more when it
/// does, and the log was opened just before.
fn hold_signals() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start a runtime")?;
    let _inside = runtime.enter();
    drop(signals::listen(SignalKind::hangup()));
    drop(signals::listen(SignalKind::user_defined1()));
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
