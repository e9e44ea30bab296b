//! The process: Pingora's server with the gateway, the keeper of the configuration and, if configured, the admin listener.

use std::sync::Arc;

use anyhow::Context;
use pingora_core::{
    server::{RunArgs, Server, configuration::ServerConf},
    services::{background::background_service, listening::Service},
};

use self::{
    activation::Inherited,
    keeper::Keeper,
    signals::Signals,
    sockets::{Files, Opened, Sockets},
};
use tokio::signal::unix::SignalKind;

use crate::{
    admin::{self, App},
    config::{self, Config, address::ListenAddress, process::Threads},
    edge::{self, Doors},
    live::{Live, Source},
    observe::metrics::Endpoint,
    proxy::Gateway,
    upstream::client,
};

mod activation;
mod fault;
mod files;
mod keeper;
mod signals;
mod sockets;
mod watch;

pub use fault::Fault;

/// Threads of the admin listener, which carries no traffic.
const ADMIN_THREADS: usize = 1;

/// Idle connections to services that are kept, on each thread.
const POOL_SIZE: usize = 512;

/// Serves a configuration until a signal ends the process.
///
/// # Errors
/// The first configuration is refused, or what it names cannot be had.
pub fn run(source: Source) -> anyhow::Result<()> {
    let mut inherited = Inherited::of_this_process();
    let files_max = files::prepare()?;
    hold_signals()?;
    client::system_roots_readable().map_err(Fault::Authorities)?;
    let live = Arc::new(Live::start(source)?);
    let config = live.started_with();
    files::warn_if_few(files_max, config);
    let mut files = Files::default();
    let signals = Signals::new(live.clone());
    let sockets = Sockets::of_listeners(config, &mut inherited, &mut files)?;
    let mut server = Server::new_with_opt_and_conf(None, server_conf(config));
    server.bootstrap();
    let conf = server.configuration.clone();
    let gateway = Gateway::new(live.clone(), live.stores().clone());
    let (service, doors) = edge::service(&live, &conf, gateway);
    let traffic = Opened::new(service, sockets, signals.listeners());
    server.add_service(traffic.holding(live.stores().hold()));
    if let Some(admin) = &config.admin {
        let sockets = Sockets::of_admin(admin, &mut inherited, &mut files)?;
        server.add_service(Opened::new(admin_service(admin, &live, doors), sockets, signals.admin()));
    }
    inherited.warn_of_the_rest();
    server.add_service(background_service("keeper", Keeper::new(live.clone())));
    tell(config);
    server.run(RunArgs { shutdown_signal: Box::new(signals) });
    if let Some(log) = &live.stores().access_log {
        log.close(signals::LOG_PATIENCE);
    }
    Ok(())
}

fn admin_service(config: &config::Admin, live: &Arc<Live>, doors: Doors) -> Service<App> {
    let live = || live.clone();
    let (ready, active, metrics, reload) = (live(), live(), live(), live());
    let door = admin::Gateway {
        not_ready: Box::new(move || [ready.unready(), doors.overloaded()].concat()),
        active: Box::new(move || told(&active)),
        metrics: Box::new(move || exposition(&metrics)),
        reload: Box::new(move || reload.reload()),
    };
    let mut service = Service::new("admin".to_owned(), App::new(config, door));
    service.threads = Some(ADMIN_THREADS);
    service.add_listener(edge::ports::at(&config.address, None));
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
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context(Fault::Runtime)?;
    let _inside = runtime.enter();
    drop(signals::listen(SignalKind::hangup()));
    drop(signals::listen(SignalKind::user_defined1()));
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
        graceful_shutdown_timeout_seconds: Some(0),
        ..ServerConf::default()
    }
}

fn tell(config: &Config) {
    for (name, listener) in &config.listeners {
        let scheme = if listener.tls.is_some() { "https" } else { "http" };
        tracing::info!(listener = name.as_str(), "listening on {}", shown(scheme, &listener.address));
    }
    if let Some(admin) = &config.admin {
        tracing::info!("admin on {}", shown("http", &admin.address));
    }
}

/// An address as a client would write it.
fn shown(scheme: &str, address: &ListenAddress) -> String {
    match address {
        ListenAddress::Tcp(address) => format!("{scheme}://{address}"),
        ListenAddress::Unix(_) => format!("{address} ({scheme})"),
    }
}
