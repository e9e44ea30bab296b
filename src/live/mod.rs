//! The configuration in force: compiled whole, published at once, replaced while requests run.
//!
//! A reload compiles a candidate; if any part fails, the running snapshot stays and the error says where. A request pins its
//! route, never the snapshot, so it never sees two generations and an old snapshot goes as soon as its last request has.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime},
};

use arc_swap::{ArcSwap, Guard};
use ipnet::IpNet;
use tokio::{runtime::Handle, sync::watch};

use crate::{
    config::{
        Config,
        load::{self, Loaded},
        observe::LogFormat,
        paths::EncodedSlashes,
        problem::Problem,
        process::Drain,
    },
    limit::overload::Settings,
    name::UpstreamName,
    policy::{introduction::Guarded, quota::Quotas},
    route::{Route, Router},
    stores::{Stores, StoresError},
    upstream::Upstream,
};

mod compile;
mod stage;
mod usage;

pub use compile::{Candidate, check, compile};
pub use stage::Stage;

/// Longest that the first round of health checks is waited for. Each check has its own timeout, which may be longer: one service that
/// hangs must not keep all others unserved. What was not checked takes traffic.
const FIRST_ROUND_MAX: Duration = Duration::from_secs(10);

/// Everything that requests need, compiled. Immutable.
pub struct Snapshot {
    /// Counts configurations since the start, from 1.
    pub generation: u64,
    /// Content hash of the configuration and of the files it names.
    pub hash: String,
    /// What it was compiled from.
    loaded: Arc<Loaded>,
    pub router: Router,
    /// What requests meet that no route takes: the gateway's own policies.
    pub unmatched: Arc<Route>,
    pub slashes: EncodedSlashes,
    pub log_format: LogFormat,
    pub upstreams: BTreeMap<UpstreamName, Arc<Upstream>>,
    /// What no client may say, and no log may show.
    pub guarded: Arc<Guarded>,
    /// What consumers have used and may use.
    pub quotas: Arc<Quotas>,
    trusted: Box<[IpNet]>,
}

/// Where a configuration comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A file, or a directory of files that merge.
    Path(PathBuf),
}

/// How the last load went.
#[derive(Clone, Debug)]
pub struct ReloadStatus {
    pub at: SystemTime,
    /// Why the last candidate was refused, as text for people. None: it is in force.
    pub error: Option<String>,
    /// Keys that changed but wait for a restart.
    pub waits_for_restart: Vec<String>,
}

/// The configuration in force, and the way to the next one.
pub struct Live {
    source: Source,
    stores: Arc<Stores>,
    current: ArcSwap<Snapshot>,
    status: ArcSwap<ReloadStatus>,
    /// What the process was started with: what cannot change without a restart is compared with this.
    started_with: Config,
    /// Files and directories to watch, after the last load, whether it was published or not.
    watched: ArcSwap<Vec<PathBuf>>,
    one_at_a_time: Mutex<()>,
    runtime: OnceLock<Handle>,
    /// When the first health checks began.
    checking_since: OnceLock<Instant>,
    progress: stage::Progress,
    /// The first health checks are done. Those that a reload brings do not make the gateway unready again.
    checked: AtomicBool,
}

/// The first configuration could not be put in force.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The problems, rendered for people.
    #[error("{0}")]
    Refused(String),
    /// The file or folder cannot be opened, rendered for people.
    #[error("{0}")]
    Unreadable(String),
    #[error(transparent)]
    Stores(#[from] StoresError),
}

impl Snapshot {
    /// The effective configuration, without secrets. Made when asked for: it costs as much as half a compilation.
    pub fn redacted(&self) -> serde_json::Value {
        self.loaded.sources.redacted(&self.loaded.config)
    }

    /// How the process ends, when it is told to.
    pub fn drain(&self) -> Drain {
        self.loaded.config.process.drain
    }

    pub fn is_trusted(&self, address: &IpAddr) -> bool {
        let address = address.to_canonical();
        self.trusted.iter().any(|net| net.contains(&address))
    }
}

impl Source {
    pub fn load(&self) -> Loaded {
        match self {
            Self::Path(path) => load::load(path),
        }
    }

    fn can_be_opened(&self) -> bool {
        match self {
            Self::Path(path) => std::fs::File::open(path).is_ok(),
        }
    }
}

impl Live {
    /// Loads the first configuration.
    ///
    /// # Errors
    /// It has errors, or what it names cannot be opened.
    pub fn start(source: Source) -> Result<Self, StartError> {
        let loaded = Arc::new(source.load());
        let kind = if source.can_be_opened() { StartError::Refused } else { StartError::Unreadable };
        let refused = |problems: &[Problem]| kind(loaded.sources.render(problems, load::Colour::Never));
        let problems = check(&loaded);
        if problems.iter().any(Problem::is_error) {
            return Err(refused(&problems));
        }
        warn(&loaded, &problems);
        let stores = Arc::new(Stores::open(&loaded.config)?);
        let mut candidate = compile(&loaded, &stores, 1).map_err(|problems| refused(&problems))?;
        warn_of_quotas_not_kept(&stores, &loaded.config);
        candidate.snapshot.loaded = Arc::new(loaded.slimmed());
        candidate.show_certificates(&stores);
        stores.identities.store(candidate.identities);
        let now = SystemTime::now();
        stores.metrics.published(1, now);
        let status = ReloadStatus { at: now, error: None, waits_for_restart: Vec::new() };
        Ok(Self {
            watched: ArcSwap::from_pointee(compile::watched(&loaded)),
            current: ArcSwap::from_pointee(candidate.snapshot),
            status: ArcSwap::from_pointee(status),
            // Who may call changes without a restart.
            started_with: Config { consumers: BTreeMap::new(), ..loaded.config.clone() },
            one_at_a_time: Mutex::default(),
            runtime: OnceLock::new(),
            checking_since: OnceLock::new(),
            progress: stage::Progress::default(),
            checked: AtomicBool::new(false),
            source,
            stores,
        })
    }

    pub fn stores(&self) -> &Arc<Stores> {
        &self.stores
    }

    /// What the process was started with.
    pub fn started_with(&self) -> &Config {
        &self.started_with
    }

    /// Starts the health checks, here and after each reload, on this runtime.
    pub fn run_on(&self, runtime: Handle) {
        let runtime = self.runtime.get_or_init(|| runtime);
        let _inside = runtime.enter();
        self.start_upstreams(&self.current.load());
        self.stores.identities.load().start();
        self.checking_since.get_or_init(Instant::now);
    }

    /// The snapshot in force. Not to be held across an await.
    pub fn snapshot(&self) -> Guard<Arc<Snapshot>> {
        self.current.load()
    }

    pub fn status(&self) -> Arc<ReloadStatus> {
        self.status.load_full()
    }

    /// The process is on its way to its end, so far.
    pub fn enter(&self, stage: Stage) {
        self.progress.enter(stage);
    }

    /// Whether the process is so far on its way to its end.
    pub fn is(&self, stage: Stage) -> bool {
        self.progress.is(stage)
    }

    /// For who waits for a stage.
    pub fn stages(&self) -> watch::Receiver<Stage> {
        self.progress.follow()
    }

    /// What a consumer has used of its quota and its rate limits. `None`: there is no such consumer.
    pub fn usage(&self, consumer: &str) -> Option<serde_json::Value> {
        usage::usage(&self.current.load(), consumer, self.stores.ledger.status().kept)
    }

    /// Forgets it, and gives what there is then. `None`: there is no such consumer.
    pub fn reset_usage(&self, consumer: &str) -> Option<serde_json::Value> {
        usage::reset(&self.current.load(), consumer)?;
        self.usage(consumer)
    }

    /// Why the gateway should not get new traffic; empty if it should.
    pub fn unready(&self) -> Vec<String> {
        let draining = self.is(Stage::Leaving).then(|| "draining".to_owned());
        draining.into_iter().chain(self.unchecked()).collect()
    }

    fn unchecked(&self) -> Vec<String> {
        if self.checked.load(Relaxed) {
            return Vec::new();
        }
        let snapshot = self.current.load();
        let unchecked = snapshot.upstreams.values().filter(|upstream| !upstream.first_round_done());
        let unchecked = unchecked.map(|u| format!("upstream `{}` was not checked yet", u.name()));
        let identities = self.stores.identities.load();
        let unasked = identities.unasked().map(|name| format!("the keys of identity `{name}` were not asked for yet"));
        let unchecked: Vec<_> = unchecked.chain(unasked).collect();
        let too_long = self.checking_since.get().is_some_and(|since| since.elapsed() >= FIRST_ROUND_MAX);
        self.checked.store(unchecked.is_empty() || too_long, Relaxed);
        if too_long && !unchecked.is_empty() {
            tracing::warn!("ready without waiting longer: {}", unchecked.join(", "));
            return Vec::new();
        }
        unchecked
    }

    /// Files and directories whose change may change the configuration.
    pub fn watched(&self) -> Arc<Vec<PathBuf>> {
        self.watched.load_full()
    }

    /// Loads the configuration again and puts it in force, unless it is what is in force already.
    ///
    /// Blocks while it reads and compiles.
    ///
    /// # Errors
    /// Why the candidate was refused, as text for people. The running snapshot stays.
    pub fn reload(&self) -> Result<u64, String> {
        let _one = self.one_at_a_time.lock().unwrap_or_else(PoisonError::into_inner);
        let _inside = self.runtime.get().map(Handle::enter);
        let loaded = Arc::new(self.source.load());
        self.watched.store(Arc::new(compile::watched(&loaded)));
        let running = self.current.load_full();
        match compile(&loaded, &self.stores, running.generation + 1) {
            Ok(candidate) if candidate.snapshot.hash == running.hash => {
                self.stores.metrics.published(running.generation, SystemTime::now());
                self.note(None, &loaded.config);
                Ok(running.generation)
            }
            Ok(candidate) => Ok(self.publish(candidate, &loaded)),
            Err(problems) => {
                let error = loaded.sources.render(&problems, load::Colour::Never);
                tracing::error!("configuration refused; generation {} stays in force\n{error}", running.generation);
                self.stores.metrics.refused(SystemTime::now());
                self.retain(&running);
                self.note(Some(error.clone()), &running.loaded.config);
                Err(error)
            }
        }
    }

    fn publish(&self, mut candidate: Candidate, loaded: &Loaded) -> u64 {
        warn(loaded, &candidate.warnings);
        candidate.snapshot.loaded = Arc::new(loaded.slimmed());
        candidate.show_certificates(&self.stores);
        let snapshot = Arc::new(candidate.snapshot);
        self.start_upstreams(&snapshot);
        if self.runtime.get().is_some() {
            candidate.identities.start();
        }
        self.stores.identities.store(candidate.identities);
        self.keep_quotas(&loaded.config);
        self.stores.guard.set(Settings::of(&loaded.config.overload, loaded.config.process.threads));
        self.current.store(snapshot.clone());
        self.stores.passwords.tidy();
        self.stores.metrics.published(snapshot.generation, SystemTime::now());
        self.retain(&snapshot);
        let waits = self.note(None, &loaded.config);
        tracing::info!(generation = snapshot.generation, hash = snapshot.hash, "configuration in force");
        if !waits.is_empty() {
            tracing::warn!(waits_for_restart = waits.join(", "), "changed, but only a restart applies it");
        }
        snapshot.generation
    }

    /// A reload may bring the first quota. One whose use cannot be kept is counted all the same.
    fn keep_quotas(&self, config: &Config) {
        warn_of_quotas_not_kept(&self.stores, config);
        if config.has_quotas()
            && let Err(error) = self.stores.ledger.open()
        {
            tracing::error!(reason = %error.reason(), "{error}: a restart forgets it");
        }
        self.stores.ledger.tidy();
    }

    fn start_upstreams(&self, snapshot: &Snapshot) {
        snapshot.upstreams.values().for_each(|upstream| upstream.start(&self.stores.upstreams));
    }

    fn retain(&self, snapshot: &Snapshot) {
        let routes: BTreeSet<_> = snapshot.router.routes().map(|route| &route.name).collect();
        self.stores.metrics.retain(&routes, &snapshot.upstreams.keys().collect());
    }

    fn note(&self, error: Option<String>, config: &Config) -> Vec<String> {
        let waits = compile::waits_for_restart(&self.started_with, config);
        self.status.store(Arc::new(ReloadStatus { at: SystemTime::now(), error, waits_for_restart: waits.clone() }));
        waits
    }
}

fn warn_of_quotas_not_kept(stores: &Stores, config: &Config) {
    if config.has_quotas() && !stores.ledger.status().kept {
        tracing::warn!(
            "a restart forgets what was used of quotas: set `process.state`, or have the service manager give a STATE_DIRECTORY"
        );
    }
}

fn warn(loaded: &Loaded, problems: &[Problem]) {
    let warnings: Vec<Problem> = problems.iter().filter(|problem| !problem.is_error()).cloned().collect();
    if !warnings.is_empty() {
        tracing::warn!("configuration has warnings\n{}", loaded.sources.render(&warnings, load::Colour::Never));
    }
}
