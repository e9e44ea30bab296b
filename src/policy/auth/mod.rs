//! `auth`: by what a caller proves who it is.
//!
//! Edge ring, inward: each scheme looks for its credential and says whose it is. Origin ring, inward: what proved it is taken out, so that no
//! service sees the credentials of its callers. A scheme is a file here; what it asks is in `identity`.

use std::{collections::BTreeSet, sync::Arc};

use http::{
    HeaderValue,
    header::{self, AUTHORIZATION},
};
use pingora_http::{RequestHeader, ResponseHeader};

use self::{
    api_key::ApiKey, basic::Basic, bearer::Bearer, bridge::Bridge, client_certificate::ClientCertificate, forward::Forward,
    login::Login, signature::Signature,
};
use super::{Policy, chain::Ground};
use crate::{
    caller::{Caller, Consumer, Fields, Reason, Refusal},
    config::{
        Config,
        consumer::Credential,
        load::Loaded,
        policy::{
            Switch,
            auth::{self as config, Mode, Schemes},
        },
        problem::{Path, Problem},
        suggest::suggest,
    },
    exchange::{Facts, Held, Inbound, Stop},
    identity::{forward::CHALLENGE, identities::Identity},
    name::IdentityName,
    observe::metrics::AuthMetrics,
};

pub mod api_key;
pub mod bearer;
pub mod basic;
pub mod client_certificate;
pub mod bridge;
pub mod forward;
pub mod login;
pub mod signature;

/// A scheme, compiled for the place where its credential stands. Those that need no waiting do not wait.
trait Scheme: Send + Sync {
    /// Looks for a credential and asks whose it is. Reads the request only: what proved it is taken out by `strip`.
    fn verify(&self, inbound: &Inbound<'_>) -> impl Future<Output = Verdict> + Send;

    /// What a client without a valid credential is told to bring (RFC 9110 §11.6.1), and what was wrong, where the scheme has words for it
    /// (RFC 6750 §3.1). `None`: only somebody else could say.
    fn challenge(&self, refused: Option<Reason>) -> Option<HeaderValue>;

    /// Takes the credential out of what goes to the service, unless it is kept on purpose.
    ///
    /// # Errors
    /// What is left is no request.
    fn strip(&self, head: &mut RequestHeader) -> Result<(), Stop>;
}

/// What a scheme says of a request.
enum Verdict {
    /// It has no credential of this scheme.
    Absent,
    /// It proved who calls.
    Accepted(Caller),
    /// It has a credential that proves nothing.
    Refused(Reason),
    /// The same, and it is known what the client is told.
    Answered(Reason, Stop),
    /// It has no credential of this scheme; if no other helps, the client is told this: where it can get one, say.
    Invited(Stop),
    /// It goes no further, whatever else it has.
    Stopped(Reason, Stop),
}

/// Every scheme. No pointer to one, so that what needs no waiting costs no allocation.
enum AnyScheme {
    ApiKey(ApiKey),
    Bearer(Bearer),
    Basic(Basic),
    ClientCertificate(ClientCertificate),
    Forward(Forward),
    Bridge(Bridge),
    Signature(Signature),
    Login(Login),
}

/// What the policy remembers about one request.
#[derive(Debug, Default)]
pub struct Memo {
    pub held: Held,
    /// For the browser: its session, renewed.
    pub cookies: Vec<HeaderValue>,
}

impl AnyScheme {
    fn compile(config: &config::Scheme, path: &Path, ground: &Ground<'_>) -> Result<Self, Vec<Problem>> {
        let one = |problem| vec![problem];
        match config {
            config::Scheme::ApiKey(key) => ApiKey::compile(key, path, ground.consumers).map(Self::ApiKey).map_err(one),
            config::Scheme::Basic(basic) => Basic::compile(basic, path, ground.consumers).map(Self::Basic).map_err(one),
            config::Scheme::ClientCertificate(certificate) => {
                ClientCertificate::compile(certificate, path, ground).map(Self::ClientCertificate).map_err(one)
            }
            config::Scheme::Jwt(name) | config::Scheme::Introspection(name) => {
                Bearer::compile(config.key(), name, path, ground).map(Self::Bearer)
            }
            config::Scheme::Forward(name) => Forward::compile(name, path, ground).map(Self::Forward),
            config::Scheme::SessionBridge(name) => Bridge::compile(name, path, ground).map(Self::Bridge),
            config::Scheme::Signature(signature) => {
                Signature::compile(signature, path, ground.consumers, ground.replays).map(Self::Signature)
            }
            config::Scheme::Oidc(name) => Login::compile(name, path, ground).map(Self::Login),
        }
    }

    async fn verify(&self, inbound: &Inbound<'_>, memo: &mut Memo) -> Verdict {
        match self {
            Self::ApiKey(scheme) => scheme.verify(inbound).await,
            Self::Bearer(scheme) => scheme.verify(inbound).await,
            Self::Basic(scheme) => scheme.verify(inbound).await,
            Self::ClientCertificate(scheme) => scheme.verify(inbound).await,
            Self::Forward(scheme) => scheme.verify(inbound).await,
            Self::Bridge(scheme) => scheme.verify(inbound).await,
            Self::Signature(scheme) => scheme.verify(inbound, &memo.held),
            Self::Login(scheme) => scheme.verify(inbound, memo).await,
        }
    }

    fn challenge(&self, refused: Option<Reason>) -> Option<HeaderValue> {
        match self {
            Self::ApiKey(scheme) => scheme.challenge(refused),
            Self::Bearer(scheme) => scheme.challenge(refused),
            Self::Basic(scheme) => scheme.challenge(refused),
            Self::ClientCertificate(scheme) => scheme.challenge(refused),
            Self::Forward(scheme) => scheme.challenge(refused),
            Self::Bridge(scheme) => scheme.challenge(refused),
            Self::Signature(scheme) => Some(scheme.challenge()),
            Self::Login(scheme) => Some(scheme.challenge()),
        }
    }

    fn strip(&self, head: &mut RequestHeader) -> Result<(), Stop> {
        match self {
            Self::ApiKey(scheme) => scheme.strip(head),
            Self::Bearer(scheme) => scheme.strip(head),
            Self::Basic(scheme) => scheme.strip(head),
            Self::ClientCertificate(scheme) => scheme.strip(head),
            Self::Forward(scheme) => scheme.strip(head),
            Self::Bridge(scheme) => scheme.strip(head),
            Self::Signature(scheme) => {
                scheme.strip(head);
                Ok(())
            }
            Self::Login(scheme) => scheme.strip(head),
        }
    }

    const fn may_hold(&self) -> bool {
        matches!(self, Self::Signature(_) | Self::Login(_))
    }

    fn wants_body(&self, inbound: &Inbound<'_>, memo: &Memo) -> bool {
        match self {
            Self::ApiKey(_)
            | Self::Bearer(_)
            | Self::Basic(_)
            | Self::ClientCertificate(_)
            | Self::Forward(_)
            | Self::Bridge(_) => false,
            Self::Signature(scheme) => scheme.wants_body(inbound, &memo.held),
            Self::Login(scheme) => scheme.wants_body(inbound),
        }
    }
}

/// The schemes of a route, in the order in which they are tried.
pub struct Auth {
    schemes: Box<[Counted]>,
    needs: Needs,
    anonymous: Option<Arc<Consumer>>,
    mode: Mode,
    /// Requests without any credential.
    bare: AuthMetrics,
}

/// A scheme and what is counted of it.
struct Counted {
    name: &'static str,
    scheme: AnyScheme,
    metrics: AuthMetrics,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Needs {
    Any,
    All,
}

/// Why a request proves nothing.
struct Refused {
    /// The scheme at fault, by its place; none if there is no credential at all.
    by: Option<usize>,
    reason: Reason,
    /// What the client is told in the place of challenges.
    stop: Option<Stop>,
}

/// The scheme of a request that is taken for the anonymous consumer's.
const ANONYMOUS: &str = "anonymous";

/// The scheme of a request without any credential.
const NO_SCHEME: &str = "-";

impl Auth {
    /// # Errors
    /// A list without a scheme, one that can add nothing, a consumer that is not there, a place that is none.
    pub fn compile(config: &config::Auth, path: &Path, ground: &Ground<'_>) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let (needs, listed) = listed(&config.schemes, path, &mut problems);
        let mut schemes = Vec::with_capacity(listed.len());
        for (at, scheme) in listed {
            match AnyScheme::compile(scheme, &at.key(scheme.key()), ground) {
                Ok(compiled) => schemes.push(Counted {
                    name: scheme.key(),
                    scheme: compiled,
                    metrics: ground.metrics.auth(ground.route, scheme.key(), config.mode),
                }),
                Err(found) => problems.extend(found),
            }
        }
        let anonymous = config.anonymous.as_ref().and_then(|name| {
            let found = ground.consumers.named(name).cloned();
            if found.is_none() && !ground.loaded.may_declare("consumers", name.as_str()) {
                problems.push(unknown_consumer(name.as_str(), &path.key("anonymous"), ground));
            }
            found
        });
        let bare = if anonymous.is_some() { ANONYMOUS } else { NO_SCHEME };
        let bare = ground.metrics.auth(ground.route, bare, config.mode);
        let auth = Self { schemes: schemes.into(), needs, anonymous, mode: config.mode, bare };
        if problems.is_empty() { Ok(auth) } else { Err(problems) }
    }

    /// Whether a request's body may be needed before it is judged.
    pub fn may_hold(&self) -> bool {
        self.schemes.iter().any(|counted| counted.scheme.may_hold())
    }

    pub fn wants_body(&self, inbound: &Inbound<'_>, memo: &Memo) -> bool {
        self.schemes.iter().any(|counted| counted.scheme.wants_body(inbound, memo))
    }

    /// The first scheme that is satisfied decides. A wrong credential beside a right one is nobody's harm. What could not be looked at may have
    /// been right, so it goes before what was wrong.
    async fn any(&self, inbound: &Inbound<'_>, memo: &mut Memo) -> Result<(usize, Caller), Refused> {
        let mut refused = Refused { by: None, reason: Reason::Missing, stop: None };
        for (at, counted) in self.schemes.iter().enumerate() {
            match counted.scheme.verify(inbound, memo).await {
                Verdict::Accepted(caller) => return Ok((at, caller)),
                Verdict::Stopped(reason, stop) => return Err(Refused { by: Some(at), reason, stop: Some(stop) }),
                Verdict::Refused(reason) if refused.by.is_none() || reason.is_undecided() => {
                    refused = Refused { by: Some(at), reason, stop: None };
                }
                Verdict::Answered(reason, stop) if refused.by.is_none() => {
                    refused = Refused { by: Some(at), reason, stop: Some(stop) };
                }
                Verdict::Invited(stop) if refused.by.is_none() && refused.stop.is_none() => refused.stop = Some(stop),
                Verdict::Refused(_) | Verdict::Answered(..) | Verdict::Absent | Verdict::Invited(_) => {}
            }
        }
        Err(refused)
    }

    /// Every scheme must be satisfied, and none may speak of another consumer than the others.
    async fn all(&self, inbound: &Inbound<'_>, memo: &mut Memo) -> Result<(usize, Caller), Refused> {
        let mut together: Option<Caller> = None;
        let (mut absent, mut invited) = (None, None);
        for (at, counted) in self.schemes.iter().enumerate() {
            let refused = |reason| Refused { by: Some(at), reason, stop: None };
            match counted.scheme.verify(inbound, memo).await {
                Verdict::Accepted(caller) => {
                    together = Some(joined(together, caller).ok_or_else(|| refused(Reason::Conflict))?);
                }
                Verdict::Refused(reason) => return Err(refused(reason)),
                Verdict::Answered(reason, stop) | Verdict::Stopped(reason, stop) => {
                    return Err(Refused { stop: Some(stop), ..refused(reason) });
                }
                Verdict::Absent => absent = absent.or(Some(at)),
                Verdict::Invited(stop) => (absent, invited) = (absent.or(Some(at)), invited.or(Some(stop))),
            }
        }
        match (together, absent) {
            (Some(caller), None) => Ok((0, caller)),
            (together, absent) => {
                Err(Refused { by: absent.filter(|_| together.is_some()), reason: Reason::Missing, stop: invited })
            }
        }
    }

    fn refuse(&self, mut refused: Refused, inbound: &mut Inbound<'_>) -> Result<(), Stop> {
        let by = refused.by.and_then(|at| self.schemes.get(at));
        if let (None, Some(consumer)) = (by, &self.anonymous) {
            self.bare.accepted();
            *inbound.caller = Caller::consumer(ANONYMOUS, consumer.clone());
            return Ok(());
        }
        by.map_or(&self.bare, |by| &by.metrics).refused(refused.reason);
        let shadow = self.mode == Mode::Shadow;
        let refusal = Refusal { by: by.map_or(NO_SCHEME, |by| by.name), reason: refused.reason.word(), shadow };
        inbound.caller.refusal = Some(refusal);
        match (refused.stop.take(), refused.reason) {
            _ if shadow => Ok(()),
            (Some(Stop::Unauthenticated(known)), _) => Err(Stop::Unauthenticated(self.challenges(&refused, known))),
            (Some(stop), _) => Err(stop),
            (None, reason) if reason.is_undecided() => Err(Stop::Undecided),
            (None, _) => Err(Stop::Unauthenticated(self.challenges(&refused, Vec::new()))),
        }
    }

    /// What each scheme asks for, once: several may ask for the same. `known` is what somebody else asks for.
    fn challenges(&self, refused: &Refused, known: Vec<HeaderValue>) -> Vec<HeaderValue> {
        let told = |at| (refused.by == Some(at)).then_some(refused.reason);
        let mut challenges = known;
        for (at, counted) in self.schemes.iter().enumerate() {
            challenges.extend(counted.scheme.challenge(told(at)).filter(|challenge| !challenges.contains(challenge)));
        }
        if challenges.is_empty() {
            challenges.push(CHALLENGE);
        }
        challenges
    }
}

impl Policy for Auth {
    type Memo = Memo;

    async fn request(&self, inbound: &mut Inbound<'_>, memo: &mut Memo) -> Result<(), Stop> {
        let judged = match self.needs {
            Needs::Any => self.any(inbound, memo).await,
            Needs::All => self.all(inbound, memo).await,
        };
        match judged {
            Ok((at, caller)) => {
                self.schemes.get(at).map_or(&self.bare, |counted| &counted.metrics).accepted();
                *inbound.caller = match self.mode {
                    Mode::Enforce => caller,
                    Mode::Shadow => on_trial(caller),
                };
                Ok(())
            }
            Err(refused) => self.refuse(refused, inbound),
        }
    }

    /// A session that was renewed goes to the browser, and into no cache.
    fn response(&self, head: &mut ResponseHeader, _: &Facts, memo: &mut Memo) -> Result<(), Stop> {
        let fault = |error| Stop::Fault(anyhow::anyhow!("cookies: {error}"));
        if !memo.cookies.is_empty() {
            head.insert_header(header::CACHE_CONTROL, "no-store").map_err(fault)?;
        }
        for cookie in memo.cookies.drain(..) {
            head.append_header(header::SET_COOKIE, cookie).map_err(fault)?;
        }
        Ok(())
    }

    /// In its trial the policy changes nothing for the service, which may still look at the credentials itself.
    fn upstream_request(&self, head: &mut RequestHeader, _: &Facts, _: &mut Memo) -> Result<(), Stop> {
        match self.mode {
            Mode::Enforce => self.schemes.iter().try_for_each(|counted| counted.scheme.strip(head)),
            Mode::Shadow => Ok(()),
        }
    }
}

/// In its trial the policy takes out no credential of the client, so it puts none in the place of one.
fn on_trial(caller: Caller) -> Caller {
    let told = |fields: Fields| fields.iter().filter(|(name, _)| *name != AUTHORIZATION).cloned().collect();
    Caller { fields: caller.fields.map(told), ..caller }
}

/// One caller of what two schemes say; none if they speak of different consumers. What the first says goes before.
fn joined(first: Option<Caller>, second: Caller) -> Option<Caller> {
    let Some(first) = first else { return Some(second) };
    match (&first.consumer, &second.consumer) {
        (Some(one), Some(other)) if one.name != other.name => None,
        _ => Some(Caller {
            consumer: first.consumer.or(second.consumer),
            scheme: first.scheme,
            claims: first.claims.or(second.claims),
            credential: first.credential.or(second.credential),
            fields: match (first.fields, second.fields) {
                (Some(one), Some(other)) => Some(one.iter().chain(other.iter()).cloned().collect()),
                (one, other) => one.or(other),
            },
            refusal: None,
        }),
    }
}

/// The schemes with the places where they stand.
fn listed<'a>(schemes: &'a Schemes, path: &Path, problems: &mut Vec<Problem>) -> (Needs, Vec<(Path, &'a config::Scheme)>) {
    let (needs, at, listed) = match schemes {
        Schemes::One(one) => return (Needs::Any, vec![(path.clone(), one)]),
        Schemes::Any(listed) => (Needs::Any, path.key("any_of"), listed),
        Schemes::All(listed) => (Needs::All, path.key("all_of"), listed),
    };
    if listed.is_empty() {
        problems.push(Problem::error(at.clone(), "there is no scheme in the list").help("name one, or switch the policy `off`"));
    }
    for (index, scheme) in listed.iter().enumerate() {
        if let Some(first) = listed.iter().take(index).position(|earlier| earlier == scheme) {
            let problem = Problem::error(at.index(index), "this scheme is in the list already");
            problems.push(problem.also(at.index(first), "here it is too"));
        }
    }
    (needs, listed.iter().enumerate().map(|(index, scheme)| (at.index(index), scheme)).collect())
}

/// The only one; else what none or several of them say. Of two credentials nobody knows which one another reader would take.
fn only<T>(found: impl IntoIterator<Item = T>) -> Result<T, Verdict> {
    let mut found = found.into_iter();
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        (None, _) => Err(Verdict::Absent),
        (Some(_), Some(_)) => Err(Verdict::Refused(Reason::Repeated)),
    }
}

/// What should be mended in the policies of a configuration, though it works.
pub fn warnings(config: &Config) -> Vec<Problem> {
    let routes = Path::root().key("routes");
    let around = (Path::root().key("policies"), &config.policies);
    let of_routes = config.routes.iter().map(|(name, route)| (routes.key(name.as_str()).key("policies"), &route.policies));
    let credentials = config.consumers.values().flat_map(|consumer| &consumer.credentials);
    let had: BTreeSet<&str> = credentials.map(Credential::key).collect();
    let has_tls = config.listeners.values().any(|listener| listener.tls.is_some()) || !config.trusted_proxies.is_empty();
    let mut found = Vec::new();
    for (path, policies) in std::iter::once(around).chain(of_routes) {
        let Switch::On(auth) = &policies.auth else { continue };
        for (at, scheme) in listed(&auth.schemes, &path.key("auth"), &mut Vec::new()).1 {
            let at = at.key(scheme.key());
            found.extend(nobody(scheme, &at, &had));
            found.extend(readable(scheme, &at).filter(|_| !has_tls));
        }
    }
    found
}

/// No consumer can be known by the scheme, and whoever is no consumer neither.
fn nobody(scheme: &config::Scheme, at: &Path, had: &BTreeSet<&str>) -> Option<Problem> {
    let told = || format!("no consumer has a credential `{}`, so nobody passes by it", scheme.key());
    (!had.contains(scheme.key()) && !scheme.gives_claims()).then(|| Problem::warning(at.clone(), told()))
}

/// The credential can be read on its way.
fn readable(scheme: &config::Scheme, at: &Path) -> Option<Problem> {
    let problem = Problem::warning(at.clone(), "no listener has TLS, so anyone on the way can read the passwords")
        .help("give a listener `tls`, or name the proxies before it that have it in `trusted_proxies`");
    matches!(scheme, config::Scheme::Basic(_)).then_some(problem)
}

/// An identity that a scheme names, which must be of its kind.
fn identity<'g>(scheme: &str, name: &IdentityName, path: &Path, ground: &Ground<'g>) -> Result<&'g Identity, Vec<Problem>> {
    match (ground.loaded.config.identity.get(name), ground.identities.named(name)) {
        (Some(config), _) if config.key() != scheme => {
            let help = format!("write `{}: {name}`", config.key());
            Err(vec![Problem::error(path.clone(), format!("`{name}` is an identity of another kind")).help(help)])
        }
        (Some(_), Some(identity)) => Ok(identity),
        // What is wrong with it is told where it stands.
        _ if ground.loaded.may_declare("identity", name.as_str()) => Err(Vec::new()),
        _ => Err(vec![unknown_identity(ground.loaded, name, path)]),
    }
}

/// A name that no identity has.
pub fn unknown_identity(loaded: &Loaded, name: &IdentityName, path: &Path) -> Problem {
    let problem = Problem::error(path.clone(), format!("there is no identity `{name}`"));
    match suggest(name.as_str(), loaded.declared("identity")) {
        Some(near) => problem.help(format!("did you mean `{near}`?")),
        None => problem.help("declare it under `identity`"),
    }
}

fn unknown_consumer(name: &str, at: &Path, ground: &Ground<'_>) -> Problem {
    let problem = Problem::error(at.clone(), format!("there is no consumer `{name}`"));
    match suggest(name, ground.loaded.declared("consumers")) {
        Some(near) => problem.help(format!("did you mean `{near}`?")),
        None => problem.help("declare it under `consumers`"),
    }
}

#[cfg(test)]
mod tests;
