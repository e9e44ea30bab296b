//! The process: Pingora's server with the gateway, the keeper of the configuration and, if configured, the admin listener.

use std::sync::Arc;

use anyhow::Context;
use pingora_core::{
    server::{RunArgs, Server, configuration::ServerConf},
    services::{background::background_service, listening::Service},
};

use self::{
    activation::Inherited,
    herald::{Errand, Failure, Herald},
    keeper::Keeper,
    notify::Supervisor,
    signals::Signals,
    socket_files::Files,
    sockets::{Opened, Shutters, Sockets},
    upgrade::{Bequest, Handover},
};
use tokio::signal::unix::SignalKind;

use crate::{
    admin::{self, App},
    config::{self, Config, address::ListenAddress},
    edge::{self, Doors},
    identity::{identities, jwt::keys},
    live::{Live, Source},
    observe::metrics::{self, Endpoint},
    proxy::Gateway,
    upstream::client,
};

mod activation;
mod asker;
mod fault;
mod files;
mod herald;
mod keeper;
mod notify;
mod signals;
mod socket_files;
mod sockets;
mod upgrade;
mod upstreams;
mod watch;
mod watchdog;

pub use self::{
    asker::{Asker, Wish, tell as tell_asker},
    fault::Fault,
    upgrade::{runtime_directory, runtime_directory_of},
};

/// How the process comes to its sockets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    /// It opens them.
    Afresh,
    /// From the process whose place it takes.
    Upgrade,
}

/// Threads of the admin listener, which carries no traffic.
const ADMIN_THREADS: usize = 1;

/// Idle connections to services that are kept, on each thread.
const POOL_SIZE: usize = 512;

/// Serves a configuration until a signal ends the process.
///
/// # Errors
/// The first configuration is refused, or what it names cannot be had.
pub fn run(source: Source, start: Start) -> anyhow::Result<()> {
    let mut inherited = Inherited::of_this_process();
    let files_max = files::prepare()?;
    hold_signals()?;
    client::system_roots_readable().map_err(Fault::Authorities)?;
    let live = Arc::new(Live::start(source)?);
    let config = live.started_with();
    let bequest = bequeathed(start, &mut inherited)?;
    files::warn_if_few(files_max, config);
    let files = Files::default();
    let signals = Signals::new(live.clone());
    let supervisor = Arc::new(Supervisor::of_environment());
    let shutters = Arc::new(Shutters::new(1 + usize::from(config.admin.is_some())));
    let (canary, probe) = watchdog::pair().context("cannot watch over the data path")?;
    let mut sockets = Sockets::of_listeners(config, &mut inherited, &files)?;
    let mut spare = sockets.spare();
    let mut server = Server::new_with_opt_and_conf(None, server_conf(config));
    server.bootstrap();
    let conf = server.configuration.clone();
    let gateway = Gateway::new(live.clone(), live.stores().clone());
    let (service, doors) = edge::service(&live, &conf, gateway);
    let traffic = Opened::new(service, sockets, shutters.clone(), signals.listeners());
    server.add_service(traffic.holding(live.stores().hold()).watched(canary).measured(live.stores().guard.clone()));
    if let Some(admin) = &config.admin {
        let mut sockets = Sockets::of_admin(admin, &mut inherited, &files)?;
        spare.extend(sockets.spare());
        server.add_service(Opened::new(
            admin_service(admin, &live, doors, &supervisor),
            sockets,
            shutters.clone(),
            signals.admin(),
        ));
    }
    inherited.close_the_rest();
    server.add_service(background_service("keeper", Keeper::new(live.clone(), supervisor.clone())));
    let taken = spare.iter().map(|spare| spare.address.clone()).collect();
    let errand = Errand {
        probe,
        accession: bequest.map(|bequest| bequest.accession(taken, files.book())),
        handover: Handover { live: live.clone(), supervisor, spare, files: files.book(), watchdog: None },
    };
    let failure = Failure::default();
    let herald = Herald::new(live.clone(), shutters, signals.ender(), failure.clone(), errand);
    server.add_service(background_service("herald", herald));
    tell(config);
    server.run(RunArgs { shutdown_signal: Box::new(signals) });
    if !live.stores().ledger.close(signals::LOG_PATIENCE) {
        tracing::error!("what was used of quotas last could not be written in time");
    }
    if let Some(log) = &live.stores().access_log {
        log.close(signals::LOG_PATIENCE);
    }
    failure.get().map_or(Ok(()), |reason| Err(anyhow::anyhow!("no upgrade: {reason}")))
}

/// What a predecessor leaves, whose sockets are inherited.
fn bequeathed(start: Start, inherited: &mut Inherited) -> anyhow::Result<Option<Bequest>> {
    if start == Start::Afresh {
        return Ok(None);
    }
    let (bequest, sockets) = Bequest::await_one().context("no upgrade")?;
    inherited.add(sockets);
    Ok(Some(bequest))
}

fn admin_service(config: &config::Admin, live: &Arc<Live>, doors: Doors, supervisor: &Arc<Supervisor>) -> Service<App> {
    let (live, supervisor) = (|| live.clone(), supervisor.clone());
    let (ready, active, metrics, reload, limits, reset) = (live(), live(), live(), live(), live(), live());
    let (shown, tended) = (live(), live());
    let door = admin::Gateway {
        not_ready: Box::new(move || [ready.unready(), doors.overloaded()].concat()),
        active: Box::new(move || told(&active)),
        metrics: Box::new(move || exposition(&metrics)),
        upstreams: Box::new(move || upstreams::shown(&shown)),
        tend: Box::new(move |tend| upstreams::tend(&tended, tend)),
        limits: Box::new(move |consumer| limits.usage(consumer)),
        reset_limits: Box::new(move |consumer| reset.reset_usage(consumer)),
        reload: Box::new(move || supervisor.during_reload(&reload, || reload.reload())),
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
            healthy: endpoint.healthy && endpoint.ejection.is_none() && !endpoint.draining,
            turned: endpoint.turned,
            in_flight: endpoint.in_flight,
            faults: endpoint.faults,
        })
    });
    let identities = live.stores().identities.load();
    let identities: Vec<_> = identities.statuses().map(|(name, status)| identity(name.as_str(), status)).collect();
    let limiting = metrics::Limiting { overload: live.stores().guard.status(), quotas: live.stores().ledger.status() };
    let stores: Vec<_> = snapshot.shared.iter().map(|(name, store)| (name, &**store)).collect();
    live.stores().metrics.render(endpoints, &identities, &stores, &limiting)
}

fn identity(name: &str, status: identities::Status) -> metrics::Identity<'_> {
    let keys = |keys: keys::Status| metrics::Keys { keys: keys.keys, answers: (keys.fetched, keys.failed), good: keys.good };
    metrics::Identity {
        name,
        tokens: status.tokens,
        looks: status.looks,
        keys: status.keys.map(keys),
        questions: status.questions,
    }
}

/// From here on SIGHUP, SIGUSR1, SIGUSR2 and SIGQUIT do not end the process, though no one listens for them yet. The keeper loads once more when it
/// does, and the log was opened just before.
fn hold_signals() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context(Fault::Runtime)?;
    let _inside = runtime.enter();
    drop(signals::listen(SignalKind::hangup()));
    drop(signals::listen(SignalKind::user_defined1()));
    drop(signals::listen(SignalKind::user_defined2()));
    drop(signals::listen(SignalKind::quit()));
    Ok(())
}

fn server_conf(config: &Config) -> ServerConf {
    ServerConf {
        threads: config.process.threads.count(),
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
