//! From the settings of a browser login to the login.

use std::sync::Arc;

use reqwest::Url;

use super::{Found, address, algorithm, boxed, forward, outgoing};
use crate::{
    caller::ClaimPath,
    config::{
        identity::Oidc,
        problem::{Path, Problem},
    },
    identity::{
        jwt::{
            Jwt, Keys, Rules,
            fetch::Place,
            keys::{Pace, Source},
        },
        outgoing::PlainText,
        session::{
            Login, Parts, Settings,
            cookie::Name,
            ended::Ended,
            provider::{Client, Provider},
            seal::Seals,
        },
    },
    name::IdentityName,
    units::Duration,
};

/// How often the provider's keys are fetched.
const REFRESH: Duration = Duration::from_secs(600);

/// Where a discovery document is (OpenID Connect Discovery 1.0 §4).
const WELL_KNOWN: &str = "/.well-known/openid-configuration";

/// `ended`: the sessions that ended early under other settings.
pub fn login(name: &IdentityName, oidc: &Oidc, ended: Option<Arc<Ended>>, at: &Path, found: Found<'_>) -> Option<Arc<Login>> {
    let plain = if oidc.allow_http { PlainText::Anywhere } else { PlainText::OnLoopback };
    let document = match &oidc.discovery {
        Some(text) => address(text, plain, &at.key("discovery"), found),
        None => address(&format!("{}{WELL_KNOWN}", oidc.issuer.trim_end_matches('/')), plain, &at.key("issuer"), found),
    };
    let redirect = address(&oidc.redirect_url, plain, &at.key("redirect_url"), found);
    let after_logout = oidc.after_logout.as_ref().map(|text| address(text, plain, &at.key("after_logout"), found));
    check(oidc, redirect.as_ref(), at, found);
    let forward = forward(&oidc.forward, &at.key("forward"), found);
    // Who signed in elsewhere, or for another client, is nobody here.
    let holder = format!("{name} {} {}", oidc.issuer, oidc.client_id);
    let seals = Seals::new(&holder, oidc.cookie_secrets.iter().map(|secret| secret.reveal()));
    let weak = |weak: crate::identity::session::seal::WeakSecret| {
        Problem::error(at.key("cookie_secrets"), weak.to_string()).help("make one: `openssl rand -base64 48`")
    };
    let seals = seals.map_err(|error| found.push(weak(error))).ok();
    let document = document?;
    let ask = outgoing(&document, true, oidc.ca.as_deref(), oidc.timeout, at, found)?;
    let place = Place::Discovery { document: document.clone(), issuer: oidc.issuer.as_str().into(), plain };
    let keys = Keys::fetched(name.as_str(), Source { place, outgoing: ask.clone(), pace: Pace::every(REFRESH.as_std()) });
    let scopes = std::iter::once("openid").chain(oidc.scopes.iter().map(String::as_str).filter(|scope| *scope != "openid"));
    let roles = ClaimPath::new(&oidc.roles);
    Some(Login::new(Parts {
        id_tokens: jwt(oidc, None, &["sub", "iat"], &keys),
        logout_tokens: jwt(oidc, Some("logout+jwt"), &["jti", "iat", "events"], &keys),
        seals: seals?,
        client: Client { id: oidc.client_id.as_str().into(), secret: oidc.client_secret.reveal().into() },
        provider: Provider::new(&oidc.issuer, document, plain, ask),
        ended: ended.unwrap_or_default(),
        settings: Settings {
            scopes: scopes.collect::<Vec<_>>().join(" ").into(),
            redirect: redirect?,
            logout: oidc.logout_path.as_deref().map(Box::from),
            after_logout: after_logout.flatten(),
            backchannel: oidc.backchannel_logout_path.as_deref().map(Box::from),
            cookie: Name::new(&oidc.cookie),
            lifetime: oidc.lifetime.as_std(),
            idle: oidc.idle.as_std(),
            leeway: oidc.leeway.as_std(),
            roles,
            forward,
        },
    }))
}

fn jwt(oidc: &Oidc, typ: Option<&str>, required: &[&str], keys: &Arc<Keys>) -> Jwt {
    let rules = Rules {
        issuer: oidc.issuer.as_str().into(),
        audience: boxed(std::slice::from_ref(&oidc.client_id)),
        algorithms: oidc.algorithms.iter().map(|alg| algorithm(*alg)).collect(),
        leeway: oidc.leeway.as_std(),
        typ: typ.map(Box::from),
        required: required.iter().map(|name| Box::from(*name)).collect(),
    };
    Jwt::new(rules, ClaimPath::new(&oidc.roles), Default::default(), keys.clone())
}

/// What reads well and cannot work.
fn check(oidc: &Oidc, redirect: Option<&Url>, at: &Path, found: Found<'_>) {
    if oidc.algorithms.is_empty() {
        found.push(
            Problem::error(at.key("algorithms"), "no algorithm is listed")
                .help("name those that the provider signs with: `[RS256]`"),
        );
    }
    for (index, alg) in oidc.algorithms.iter().enumerate().filter(|(_, alg)| alg.is_secret()) {
        found.push(Problem::error(
            at.key("algorithms").index(index),
            format!("`{alg:?}` needs a secret, and the provider's keys are public"),
        ));
    }
    if !is_cookie_name(&oidc.cookie) {
        let problem = Problem::error(at.key("cookie"), format!("`{}` is no name of a cookie", oidc.cookie));
        found.push(problem.help("letters, digits and `_`, such as `banyan_session`"));
    }
    let paths = [("logout_path", &oidc.logout_path), ("backchannel_logout_path", &oidc.backchannel_logout_path)];
    let mut taken = vec![redirect.map_or("", Url::path)];
    for (key, path) in paths.into_iter().filter_map(|(key, path)| Some((key, path.as_deref()?))) {
        if !path.starts_with('/') || path.contains(['?', '#', '%', '*']) {
            found.push(Problem::error(at.key(key), format!("`{path}` is no path")).help("such as `/logout`"));
        }
        if taken.contains(&path) {
            found.push(Problem::error(at.key(key), format!("`{path}` is taken by another step of the login")));
        }
        taken.push(path);
    }
}

/// Without `-` and `.`, which part its pieces and logins from it.
fn is_cookie_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 64 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}
