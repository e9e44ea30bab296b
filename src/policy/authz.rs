//! `authz`: what a caller must have to pass.
//!
//! Edge ring, inward, after `auth`: scopes, roles, groups and claims are compared with what the caller proved. Whoever lacks one of them is refused
//! with 403 (RFC 6750 §3.1 for scopes).

use http::HeaderValue;
use serde_json::{Map, Value};

use super::{Policy, chain::Ground};
use crate::{
    caller::{Caller, ClaimPath, Claims, Lack, Refusal},
    config::{
        policy::{
            auth::{Auth, Mode},
            authz::{Authz as Config, OneOf, Scalar, Words},
        },
        problem::{Path, Problem},
        suggest::suggest,
    },
    exchange::{Inbound, Stop},
    identity::expression::{Expression, Scene},
    name::GroupName,
    observe::metrics::AuthzMetrics,
};

/// What is needed, and what is counted of it.
pub struct Authz {
    scopes: Option<Words>,
    roles: Option<Words>,
    groups: Option<Box<[GroupName]>>,
    claims: Box<[Claim]>,
    when: Option<Box<Expression>>,
    mode: Mode,
    /// What the holder of a token is told that lacks a scope.
    challenge: Option<HeaderValue>,
    metrics: AuthzMetrics,
}

/// A claim and the values of which it must have one.
struct Claim {
    path: ClaimPath,
    values: Box<[Value]>,
}

/// What log and metrics call the policy.
const NAME: &str = "authz";

/// Schemes whose credential is a bearer token, and whose clients know its errors.
const BEARERS: [&str; 2] = ["jwt", "introspection"];

impl Authz {
    /// `auth` is what applies on the same route.
    ///
    /// # Errors
    /// What nobody could have, on this route or at all.
    pub fn compile(config: &Config, path: &Path, auth: Option<&Auth>, ground: &Ground<'_>) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        refuse_emptiness(config, path, &mut problems);
        problems.extend(config.scopes.iter().flat_map(|scopes| odd_scopes(scopes, &path.key("scopes"))));
        match auth {
            Some(auth) => refuse_the_impossible(config, path, auth, &mut problems),
            None => problems.push(
                Problem::error(path.clone(), "without `auth` nobody is known here, so everyone would be refused")
                    .help("add `auth`, or switch `authz` off here too"),
            ),
        }
        for (at, group) in config.groups.iter().flatten().enumerate() {
            problems.extend(unknown_group(group, &path.key("groups").index(at), ground));
        }
        let when = config.when.as_deref().and_then(|text| when(text, &path.key("when"), auth, &mut problems));
        let scopes = config.scopes.as_ref().map(|scopes| scopes.listed().join(" "));
        let challenge = scopes.map(|scopes| format!("Bearer error=\"insufficient_scope\", scope=\"{scopes}\""));
        let authz = Self {
            scopes: config.scopes.clone(),
            roles: config.roles.clone(),
            groups: config.groups.as_ref().map(|groups| groups.as_slice().into()),
            claims: config.claims.iter().map(|(name, values)| Claim::new(name, values)).collect(),
            when,
            mode: config.mode,
            challenge: challenge.and_then(|challenge| HeaderValue::from_str(&challenge).ok()),
            metrics: ground.metrics.authz(ground.route, config.mode),
        };
        if problems.is_empty() { Ok(authz) } else { Err(problems) }
    }

    /// What the caller lacks, if anything.
    fn lack(&self, caller: &Caller) -> Option<Lack> {
        let claims = caller.claims.as_deref();
        let groups = caller.consumer.as_ref().map_or(&[][..], |consumer| &consumer.groups.names);
        let words = |of: fn(&Claims) -> &[Box<str>]| claims.map_or(&[][..], of);
        let lacks = [
            (self.scopes.as_ref().is_some_and(|needed| !needed.are_in(words(|claims| &claims.scopes))), Lack::Scopes),
            (self.roles.as_ref().is_some_and(|needed| !needed.are_in(words(|claims| &claims.roles))), Lack::Roles),
            (self.groups.as_ref().is_some_and(|needed| !needed.iter().any(|group| groups.contains(group))), Lack::Groups),
            (!self.claims.iter().all(|claim| claims.is_some_and(|claims| claim.holds(&claims.all))), Lack::Claims),
        ];
        lacks.into_iter().find_map(|(lacks, what)| lacks.then_some(what))
    }

    /// Whether `when` is not true of the request, or has no value.
    fn forbids(&self, inbound: &Inbound<'_>) -> bool {
        let Some(when) = &self.when else { return false };
        let (facts, consumer) = (inbound.facts, inbound.caller.consumer.as_deref());
        let scene = Scene {
            method: facts.method.as_str(),
            path: &facts.path,
            host: &facts.host,
            query: facts.query.as_deref(),
            headers: &inbound.head.headers,
            client: facts.client,
            consumer: consumer.map_or("", |consumer| consumer.name.as_str()),
            groups: consumer.map_or(&[][..], |consumer| &consumer.groups.names),
            claims: inbound.caller.claims.as_deref().map(|claims| &claims.all),
        };
        match when.holds(&scene) {
            Ok(holds) => !holds,
            Err(failed) => {
                tracing::debug!(%failed, "`when` has no value");
                true
            }
        }
    }

    /// Only a scope is told: with it the client can ask for another token.
    fn told(&self, lack: Lack, caller: &Caller) -> Option<HeaderValue> {
        let is_bearer = caller.scheme.is_some_and(|scheme| BEARERS.contains(&scheme));
        self.challenge.clone().filter(|_| is_bearer && lack == Lack::Scopes)
    }
}

impl Policy for Authz {
    type Memo = ();

    async fn request(&self, inbound: &mut Inbound<'_>, (): &mut ()) -> Result<(), Stop> {
        let lack = self.lack(inbound.caller).or_else(|| self.forbids(inbound).then_some(Lack::When));
        let Some(lack) = lack else {
            self.metrics.accepted();
            return Ok(());
        };
        self.metrics.refused(lack);
        let shadow = self.mode == Mode::Shadow;
        // What the trial of `auth` would have refused is the first thing that is wrong.
        inbound.caller.refusal = inbound.caller.refusal.or(Some(Refusal { by: NAME, reason: lack.word(), shadow }));
        if shadow { Ok(()) } else { Err(Stop::Forbidden(self.told(lack, inbound.caller))) }
    }
}

impl Words {
    fn are_in(&self, had: &[Box<str>]) -> bool {
        let has = |word: &String| had.iter().any(|had| **had == **word);
        match self {
            Self::Any(needed) => needed.iter().any(has),
            Self::All(needed) => needed.iter().all(has),
        }
    }
}

impl Claim {
    fn new(path: &str, values: &OneOf) -> Self {
        let value = |scalar: &Scalar| match scalar {
            Scalar::Bool(word) => Value::from(*word),
            Scalar::Number(number) => Value::from(*number),
            Scalar::Text(text) => Value::from(text.as_str()),
        };
        Self { path: ClaimPath::new(path), values: values.0.iter().map(value).collect() }
    }

    fn holds(&self, claims: &Map<String, Value>) -> bool {
        match self.path.find(claims) {
            Some(Value::Array(items)) => items.iter().any(|item| self.values.contains(item)),
            Some(value) => self.values.contains(value),
            None => false,
        }
    }
}

/// The expression, if it is one that can be true on this route.
fn when(text: &str, at: &Path, auth: Option<&Auth>, problems: &mut Vec<Problem>) -> Option<Box<Expression>> {
    let expression = match Expression::compile(text) {
        Ok(expression) => expression,
        Err(fault) => {
            problems.push(Problem::error(at.clone(), fault.to_string()));
            return None;
        }
    };
    if expression.speaks_of_claims() && auth.is_some_and(|auth| !auth.schemes.iter().any(|scheme| scheme.gives_claims())) {
        let problem = Problem::error(at.clone(), "no scheme of `auth` on this route gives claims");
        problems.push(problem.help("consumers have `groups`"));
    }
    Some(Box::new(expression))
}

/// Nothing would be asked for, or something that nobody can have.
fn refuse_emptiness(config: &Config, path: &Path, problems: &mut Vec<Problem>) {
    let words = |words: &Option<Words>| words.as_ref().is_some_and(|words| words.listed().is_empty());
    let empty = [
        (words(&config.scopes), "scopes"),
        (words(&config.roles), "roles"),
        (config.groups.as_ref().is_some_and(Vec::is_empty), "groups"),
    ];
    let lists = empty.into_iter().filter(|(empty, _)| *empty).map(|(_, key)| path.key(key));
    let claims = config.claims.iter().filter(|(_, values)| values.0.is_empty()).map(|(name, _)| path.key("claims").key(name));
    problems.extend(
        lists.chain(claims).map(|at| Problem::error(at, "the list is empty").help("name what is needed, or remove the key")),
    );
    if *config == (Config { mode: config.mode, ..Config::default() }) {
        problems.push(
            Problem::error(path.clone(), "nothing is asked of the caller")
                .help("add `scopes`, `roles`, `groups`, `claims` or `when`"),
        );
    }
}

/// What no token can have: its scopes are apart by spaces (RFC 6749 §3.3).
fn odd_scopes(scopes: &Words, path: &Path) -> Vec<Problem> {
    let at = path.key(match scopes {
        Words::Any(_) => "any",
        Words::All(_) => "all",
    });
    let is_scope = |text: &str| !text.is_empty() && text.bytes().all(|b| matches!(b, b'!' | b'#'..=b'[' | b']'..=b'~'));
    let odd = scopes.listed().iter().enumerate().filter(|(_, scope)| !is_scope(scope));
    let problem = |(index, scope): (usize, &String)| {
        Problem::error(at.index(index), format!("`{scope}` is no scope"))
            .help("a scope is printable ASCII without spaces, quotes and backslashes")
    };
    odd.map(problem).collect()
}

/// A trial that refuses, and claims where no scheme gives any.
fn refuse_the_impossible(config: &Config, path: &Path, auth: &Auth, problems: &mut Vec<Problem>) {
    if auth.mode == Mode::Shadow && config.mode == Mode::Enforce {
        let problem =
            Problem::error(path.clone(), "`auth` is in its trial here, so whoever it does not know would be refused by `authz`");
        problems.push(problem.help("give `authz` `mode: shadow` too"));
    }
    if auth.schemes.iter().any(|scheme| scheme.gives_claims()) {
        return;
    }
    let asked = [(config.scopes.is_some(), "scopes"), (config.roles.is_some(), "roles"), (!config.claims.is_empty(), "claims")];
    for (_, key) in asked.into_iter().filter(|(asked, _)| *asked) {
        let problem =
            Problem::error(path.key(key), format!("no scheme of `auth` on this route gives {key}, so everyone would be refused"));
        problems.push(problem.help("consumers have `groups`"));
    }
}

fn unknown_group(group: &GroupName, at: &Path, ground: &Ground<'_>) -> Option<Problem> {
    let known = || ground.loaded.config.consumers.values().flat_map(|consumer| &consumer.groups);
    if known().any(|known| known == group) {
        return None;
    }
    let problem = Problem::error(at.clone(), format!("no consumer is in a group `{group}`"));
    Some(match suggest(group.as_str(), known().map(GroupName::as_str)) {
        Some(near) => problem.help(format!("did you mean `{near}`?")),
        None => problem.help("add it to the `groups` of a consumer"),
    })
}

#[cfg(test)]
mod tests;
