//! From a configuration to a snapshot: every regex, template, header and handle is built here, and what cannot be enforced is
//! refused.

use std::{collections::BTreeMap, sync::Arc};

use super::Snapshot;
use crate::{
    caller::Plan,
    certs,
    config::{
        self,
        address::ListenAddress,
        consumer::Credential,
        load::Loaded,
        problem::{Path, Problem},
        route::{Share, Target},
        suggest::suggest,
    },
    identity::{Consumers, Identities, identities::Identity},
    limit::fleet::Store,
    name::{ConsumerName, IdentityName, ListenerName, RouteName, StoreName, UpstreamName},
    origin::{Origin, Redirect, Respond, Rewrite, Split, faults::Faults},
    policy::{
        auth,
        chain::{Chain, Ground},
        introduction::Guarded,
        quota::Quotas,
        rate_limit::plans,
    },
    route::{Route, Router, table::Table},
    stores::Stores,
    upstream::Upstream,
};

mod files;
mod restart;
mod stores;
mod tls;

pub use self::{files::watched, restart::waits_for_restart};

/// A snapshot that is not in force yet.
pub struct Candidate {
    pub snapshot: Snapshot,
    pub warnings: Vec<Problem>,
    /// What they learn outlives reloads; see [`Stores::identities`].
    pub identities: Arc<Identities>,
    offers: BTreeMap<ListenerName, certs::Offer>,
}

impl Candidate {
    /// Shows the certificates to new connections, on the listeners that exist since the start.
    pub fn show_certificates(&self, stores: &Stores) {
        for (listener, offer) in &self.offers {
            if let Some(Err(error)) = stores.showcases.get(listener).map(|showcase| showcase.show(offer)) {
                tracing::error!(%listener, %error, "the listener's TLS cannot be renewed; what it was stays");
            }
        }
    }
}

/// Every problem of a configuration: those of reading and those of meaning.
pub fn check(loaded: &Arc<Loaded>) -> Vec<Problem> {
    match Stores::closed(&loaded.config) {
        Ok(stores) => match compile(loaded, &stores, 0) {
            Ok(candidate) => candidate.warnings,
            Err(problems) => problems,
        },
        Err(error) => vec![Problem::error(Path::root().key("observe"), error.to_string())],
    }
}

/// Compiles a configuration.
///
/// # Errors
/// All problems, warnings among them, if one is an error.
pub fn compile(loaded: &Arc<Loaded>, stores: &Stores, generation: u64) -> Result<Candidate, Vec<Problem>> {
    let guarded = Arc::new(Guarded::of(&loaded.config));
    let problems = loaded.problems.clone();
    let (consumers, identities, quotas, shared) = (Arc::default(), Arc::default(), Arc::default(), BTreeMap::new());
    let mut compiler = Compiler { loaded, stores, generation, consumers, identities, quotas, shared, guarded, problems };
    let candidate = compiler.candidate();
    match candidate {
        Some(mut candidate) if !compiler.problems.iter().any(Problem::is_error) => {
            candidate.warnings = compiler.problems;
            Ok(candidate)
        }
        _ => Err(compiler.problems),
    }
}

struct Compiler<'a> {
    loaded: &'a Arc<Loaded>,
    stores: &'a Stores,
    generation: u64,
    consumers: Arc<Consumers>,
    identities: Arc<Identities>,
    quotas: Arc<Quotas>,
    /// What nodes count in together.
    shared: BTreeMap<StoreName, Arc<Store>>,
    guarded: Arc<Guarded>,
    problems: Vec<Problem>,
}

impl Compiler<'_> {
    fn candidate(&mut self) -> Option<Candidate> {
        let config = &self.loaded.config;
        // Before the files are read for use: one that changes in between is then seen as changed by the next load.
        let hash = files::hash(self.loaded);
        self.listeners();
        self.admin_hosts();
        self.drain();
        let offers = self.offers();
        let upstreams = self.upstreams();
        self.identities();
        self.consumers();
        self.quotas();
        self.shared();
        let router = self.router(&upstreams);
        let unmatched = self.unmatched();
        Some(Candidate {
            snapshot: Snapshot {
                generation: self.generation,
                hash,
                loaded: self.loaded.clone(),
                router: router?,
                unmatched: Arc::new(unmatched?),
                slashes: config.paths.encoded_slashes,
                log_format: config.observe.access_log.format,
                upstreams,
                shared: self.shared.clone(),
                guarded: self.guarded.clone(),
                quotas: self.quotas.clone(),
                trusted: config.trusted_proxies.iter().map(|network| network.0).collect(),
            },
            warnings: Vec::new(),
            identities: self.identities.clone(),
            offers,
        })
    }

    /// Adds problems of meaning, but for those that only follow from a mistake that was reported already, and those that were reported
    /// themselves: every route that inherits a policy finds the same in it.
    fn meaning(&mut self, find: impl FnOnce(&Self, &mut Vec<Problem>)) {
        let mut found = Vec::new();
        find(self, &mut found);
        let follows = |problem: &Problem| {
            problem.also.iter().map(|(path, _)| path).chain([&problem.path]).any(|path| self.loaded.broken(path))
        };
        found.retain(|problem| !follows(problem) && !self.problems.contains(problem));
        self.problems.extend(found);
    }

    /// A gateway without a listener serves no one; two listeners cannot share an address.
    fn listeners(&mut self) {
        let listeners = &self.loaded.config.listeners;
        let at = Path::root().key("listeners");
        if listeners.is_empty() {
            let problem = Problem::error(at.clone(), "there is no listener")
                .help("add one: `listeners: { web: { address: 127.0.0.1:8080 } }`");
            self.meaning(|_, found| found.push(problem));
        }
        let (mut found, mut taken) = (Vec::new(), Vec::new());
        if let Some(admin) = &self.loaded.config.admin {
            taken.push((&admin.address, false, Path::root().key("admin").key("address")));
        }
        for (name, listener) in listeners {
            let here = at.key(name.as_str());
            found.extend(idle_option(listener, &here));
            let (address, here) = (&listener.address, here.key("address"));
            if let Some((other, _, there)) = taken.iter().find(|(other, only, _)| address.meets(listener.ipv6_only, other, *only))
            {
                found.push(clash(address, &here, other, there));
            }
            taken.push((address, listener.ipv6_only, here));
        }
        self.meaning(|_, problems| problems.extend(found));
    }

    /// A host that could never be asked for would be an option that does nothing.
    fn admin_hosts(&mut self) {
        let Some(admin) = &self.loaded.config.admin else { return };
        let at = Path::root().key("admin").key("hosts");
        let is_bare = |host: &str| matches!(crate::route::host::parse(host), Ok((_, None)));
        let odd = admin.hosts.iter().enumerate().filter(|(_, host)| !is_bare(host));
        let odd: Vec<_> = odd
            .map(|(index, host)| {
                Problem::error(at.index(index), format!("`{host}` is not the name of a host"))
                    .help("write it without scheme and port: `ops.example`")
            })
            .collect();
        self.meaning(|_, found| found.extend(odd));
    }

    /// A delay that outlasts the deadline would leave no time for what is in flight.
    fn drain(&mut self) {
        let drain = self.loaded.config.process.drain;
        if drain.delay < drain.deadline {
            return;
        }
        let at = Path::root().key("process").key("drain");
        let problem =
            Problem::error(at.key("delay"), "`delay` must be shorter than `deadline`, which is counted from the same moment")
                .also(at.key("deadline"), "the deadline");
        self.meaning(|_, found| found.push(problem));
    }

    /// What each TLS listener shows and asks for.
    fn offers(&mut self) -> BTreeMap<ListenerName, certs::Offer> {
        let mut offers = BTreeMap::new();
        for (name, listener) in &self.loaded.config.listeners {
            let Some(tls) = &listener.tls else { continue };
            let at = Path::root().key("listeners").key(name.as_str()).key("tls");
            let mut found = Vec::new();
            let offer = tls::offer(tls, &at, &mut found);
            self.meaning(|_, problems| problems.extend(found));
            offers.extend(offer.map(|offer| (name.clone(), offer)));
        }
        offers
    }

    fn upstreams(&mut self) -> BTreeMap<UpstreamName, Arc<Upstream>> {
        let mut compiled = BTreeMap::new();
        for (name, upstream) in &self.loaded.config.upstreams {
            match Upstream::compile(name, upstream, &self.stores.upstreams) {
                Ok(upstream) => {
                    self.meaning(|_, problems| problems.extend_from_slice(upstream.warnings()));
                    compiled.insert(name.clone(), upstream);
                }
                Err(found) => self.meaning(|_, problems| problems.extend(found)),
            }
        }
        compiled
    }

    fn identities(&mut self) {
        let (identities, found) = Identities::compile(&self.loaded.config.identity, &self.stores.identities.load());
        self.identities = Arc::new(identities);
        self.meaning(|_, problems| problems.extend(found));
    }

    fn consumers(&mut self) {
        let config = &self.loaded.config;
        let plans: Vec<_> =
            config.plans.keys().zip(0..).map(|(name, index)| Arc::new(Plan { name: name.clone(), index })).collect();
        let (consumers, found) = Consumers::compile(&config.consumers, &plans, &self.stores.passwords);
        self.consumers = Arc::new(consumers);
        let found: Vec<_> = found.into_iter().chain(auth::warnings(config)).chain(plans::problems(self.loaded)).collect();
        self.meaning(|_, problems| problems.extend(found));
        let unknown = unknown_identities(self.loaded);
        self.meaning(|_, problems| problems.extend(unknown));
    }

    fn quotas(&mut self) {
        let (quotas, found) = Quotas::compile(self.loaded, &self.consumers, &self.stores.ledger);
        self.quotas = Arc::new(quotas);
        self.meaning(|_, problems| problems.extend(found));
    }

    fn shared(&mut self) {
        let (shared, found) = stores::compile(&self.loaded.config, &self.stores.fleet);
        self.shared = shared;
        self.meaning(|_, problems| problems.extend(found));
    }

    /// What the policies of a route are compiled with.
    fn ground<'a>(&'a self, route: &'a RouteName) -> Ground<'a> {
        let Self { loaded, consumers, identities, quotas, guarded, stores, .. } = self;
        Ground {
            loaded,
            route,
            consumers,
            identities,
            guarded,
            metrics: &stores.metrics,
            replays: &stores.replays,
            counters: &stores.counters,
            quotas,
            guard: &stores.guard,
            fleet: &stores.fleet,
            stores: &self.shared,
        }
    }

    fn router(&mut self, upstreams: &BTreeMap<UpstreamName, Arc<Upstream>>) -> Option<Router> {
        let config = &self.loaded.config;
        let (table, found) = Table::compile(config.routes.iter().map(|(name, route)| (name, &route.matches)));
        self.meaning(|_, problems| problems.extend(found));
        let mut routes = Vec::with_capacity(config.routes.len());
        for ((name, route), index) in config.routes.iter().zip(0..) {
            let at = Path::root().key("routes").key(name.as_str());
            match self.route(name, route, table.capture_names(index), upstreams, &at) {
                Ok((route, found)) => {
                    routes.push(Arc::new(route));
                    self.meaning(|_, problems| problems.extend(found));
                }
                Err(mut found) => {
                    if self.captures_unknown(&at.key("match")) {
                        let templates = [at.key("rewrite").key("path"), at.key("to").key("redirect").key("location")];
                        found.retain(|problem| !templates.contains(&problem.path));
                    }
                    self.meaning(|_, problems| problems.extend(found));
                }
            }
        }
        (routes.len() == config.routes.len()).then(|| Router::new(table, routes))
    }

    /// Whether a mistake in the path of a match hides which captures there are.
    fn captures_unknown(&self, matches: &Path) -> bool {
        let misread = |path: &Path| self.problems.iter().any(|problem| problem.is_error() && problem.path == *path);
        ["path", "path_regex"].map(|key| matches.key(key)).iter().any(|path| self.loaded.broken(path) || misread(path))
    }

    fn route(
        &self,
        name: &RouteName,
        route: &config::Route,
        captures: &[Arc<str>],
        upstreams: &BTreeMap<UpstreamName, Arc<Upstream>>,
        at: &Path,
    ) -> Result<(Route, Vec<Problem>), Vec<Problem>> {
        let mut problems = Vec::new();
        let chain = Chain::compile(&route.policies, &at.key("policies"), &self.ground(name));
        let (chain, found) = chain.map_or_else(|found| (None, found), |(chain, found)| (Some(chain), found));
        problems.extend(found);
        let origin = self.origin(&route.to, captures, upstreams, &at.key("to")).map_err(|found| problems.extend(found)).ok();
        let rewrite = match &route.rewrite {
            Some(rewrite) => Rewrite::compile(rewrite, captures, &at.key("rewrite")),
            None => Ok(Rewrite::default()),
        };
        let rewrite = rewrite.map_err(|found| problems.extend(found)).ok();
        let faults = route.faults.as_ref().map(|faults| Faults::compile(faults, &at.key("faults"))).transpose();
        let faults = faults.map_err(|found| problems.push(found)).ok().flatten();
        match (chain, origin, rewrite) {
            (Some(chain), Some(origin), Some(rewrite)) if !problems.iter().any(Problem::is_error) => {
                let route = Route {
                    name: name.clone(),
                    timeouts: route.timeouts,
                    faults,
                    metrics: self.stores.metrics.route(name),
                    upstreams: origin.upstreams().map(|upstream| self.stores.metrics.upstream(upstream.name())).collect(),
                    chain,
                    origin,
                    rewrite,
                };
                Ok((route, problems))
            }
            _ => Err(problems),
        }
    }

    fn origin(
        &self,
        target: &Target,
        captures: &[Arc<str>],
        upstreams: &BTreeMap<UpstreamName, Arc<Upstream>>,
        at: &Path,
    ) -> Result<Origin, Vec<Problem>> {
        match target {
            Target::Upstream(name) => self.upstream(name, upstreams, &at.key("upstream")).map(Origin::Upstream),
            Target::Split(shares) => self.split(shares, upstreams, &at.key("split")).map(Origin::Split),
            Target::Redirect(redirect) => Redirect::compile(redirect, captures, &at.key("redirect")).map(Origin::Redirect),
            Target::Respond(respond) => Respond::compile(respond, &at.key("respond")).map(Origin::Respond),
            Target::Jwks(name) => self.published(name, &at.key("jwks")).map(Origin::Respond),
        }
    }

    /// The public keys of an identity that signs.
    fn published(&self, name: &IdentityName, at: &Path) -> Result<Respond, Vec<Problem>> {
        match (self.loaded.config.identity.get(name), self.identities.named(name)) {
            (Some(config::Identity::SessionBridge(_)), Some(Identity::Bridge(bridge))) => {
                let made = Respond::keys(bridge.settings().published.clone());
                made.map_err(|error| vec![Problem::error(at.clone(), error.to_string())])
            }
            (Some(config), _) if config.key() != "session_bridge" => {
                let problem = Problem::error(at.clone(), format!("`{name}` signs nothing, so it has no keys to publish"));
                Err(vec![problem.help("name an identity of kind `session_bridge`")])
            }
            // What is wrong with it is told where it stands.
            _ if self.loaded.may_declare("identity", name.as_str()) => Err(Vec::new()),
            _ => Err(vec![auth::unknown_identity(self.loaded, name, at)]),
        }
    }

    fn split(
        &self,
        shares: &[Share],
        upstreams: &BTreeMap<UpstreamName, Arc<Upstream>>,
        at: &Path,
    ) -> Result<Split, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut known = Vec::with_capacity(shares.len());
        for (index, share) in shares.iter().enumerate() {
            match self.upstream(&share.upstream, upstreams, &at.index(index).key("upstream")) {
                Ok(upstream) => known.push((upstream, share.weight)),
                Err(found) => problems.extend(found),
            }
        }
        if known.len() < shares.len() {
            return Err(problems);
        }
        Split::compile(known, at).map_err(|problem| vec![problem])
    }

    /// The upstream of a name. One that is written, but broken, was reported where it stands.
    fn upstream(
        &self,
        name: &UpstreamName,
        upstreams: &BTreeMap<UpstreamName, Arc<Upstream>>,
        at: &Path,
    ) -> Result<Arc<Upstream>, Vec<Problem>> {
        if let Some(upstream) = upstreams.get(name) {
            return Ok(upstream.clone());
        }
        if self.loaded.may_declare("upstreams", name.as_str()) {
            return Err(Vec::new());
        }
        let problem = Problem::error(at.clone(), format!("there is no upstream `{name}`"));
        Err(vec![match suggest(name.as_str(), self.loaded.declared("upstreams")) {
            Some(near) => problem.help(format!("did you mean `{near}`?")),
            None => problem.help("declare it under `upstreams`"),
        }])
    }

    fn unmatched(&mut self) -> Option<Route> {
        let (own, name) = (config::Policies::default(), RouteName::new("-"));
        match Chain::compile(&own, &Path::root().key("policies"), &self.ground(&name)) {
            Ok((chain, _)) => Some(Route {
                name,
                timeouts: config::route::RouteTimeouts::default(),
                faults: None,
                metrics: self.stores.metrics.no_route(),
                upstreams: Box::default(),
                chain,
                origin: Origin::Nowhere,
                rewrite: Rewrite::default(),
            }),
            Err(found) => {
                self.meaning(|_, problems| problems.extend(found));
                None
            }
        }
    }
}

/// Identities that are not there, where consumers are known by their tokens.
fn unknown_identities(loaded: &Loaded) -> Vec<Problem> {
    let credentials = |(name, consumer): (&ConsumerName, &config::Consumer)| {
        let at = Path::root().key("consumers").key(name.as_str()).key("credentials");
        let named = |(index, credential): (usize, &Credential)| match credential {
            Credential::Jwt(token) if !loaded.may_declare("identity", token.identity.as_str()) => {
                Some(auth::unknown_identity(loaded, &token.identity, &at.index(index).key("jwt").key("identity")))
            }
            _ => None,
        };
        consumer.credentials.iter().enumerate().filter_map(named).collect::<Vec<_>>()
    };
    loaded.config.consumers.iter().flat_map(credentials).collect()
}

/// An option that has no meaning for the kind of address.
fn idle_option(listener: &config::Listener, at: &Path) -> Option<Problem> {
    match &listener.address {
        address if listener.ipv6_only && !address.is_ipv6_wildcard() => {
            Some(Problem::error(at.key("ipv6_only"), "`ipv6_only` is for `[::]`, which serves IPv4 too without it"))
        }
        ListenAddress::Unix(_) if listener.reuse_port => {
            Some(Problem::error(at.key("reuse_port"), "a Unix socket cannot be shared by processes"))
        }
        ListenAddress::Tcp(_) if listener.mode.is_some() => {
            Some(Problem::error(at.key("mode"), "`mode` is for Unix sockets, whose files have permissions"))
        }
        _ => None,
    }
}

fn clash(address: &ListenAddress, at: &Path, other: &ListenAddress, there: &Path) -> Problem {
    let problem =
        Problem::error(at.clone(), format!("the address `{address}` is taken already")).also(there.clone(), "taken here");
    let is_v4 = |address: &ListenAddress| address.tcp().is_some_and(|tcp| tcp.ip().to_canonical().is_ipv4());
    match is_v4(address) != is_v4(other) {
        true => problem.help("`[::]` serves IPv4 too, unless it has `ipv6_only: true`"),
        false => problem,
    }
}
