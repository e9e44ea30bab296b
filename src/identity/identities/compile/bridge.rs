//! From the settings of a session bridge to the bridge, with its keys.

use std::{path::Path as FilePath, sync::Arc};

use bytes::Bytes;
use http::{HeaderName, header};
use serde_json::{Map, Value};

use super::{Found, address, forward, is_free, outgoing, text_of};
use crate::{
    caller::ClaimPath,
    config::{
        identity::SessionBridge,
        problem::{Path, Problem},
    },
    identity::{
        bridge::{Bridge, Settings},
        fields::Forward,
        mint::{
            Minter, OWN, SigningKey,
            signing_key::{self, SigningKeyError},
        },
        outgoing::PlainText,
    },
    name::IdentityName,
};

pub fn bridge(name: &IdentityName, settings: &SessionBridge, at: &Path, found: Found<'_>) -> Option<Arc<Bridge>> {
    check(settings, at, found);
    let plain = if settings.allow_http { PlainText::Anywhere } else { PlainText::OnLoopback };
    let forward = forward(&settings.forward, &at.key("forward"), found);
    let header = field(&settings.header, &forward, &at.key("header"), found);
    let key = key(settings, &at.key("key"), found);
    let others = others(settings, &at.key("other_keys"), found);
    let url = address(&settings.url, plain, &at.key("url"), found)?;
    let outgoing = outgoing(&url, false, settings.ca.as_deref(), settings.timeout, at, found)?;
    let key = key?;
    let published = signing_key::set([key.public().clone()].into_iter().chain(others));
    let claims = settings.claims.iter().map(|(claim, path)| (claim.as_str().into(), ClaimPath::new(path)));
    Some(Bridge::new(
        name.as_str(),
        Settings {
            url,
            outgoing,
            cookie: settings.cookie.as_str().into(),
            cache: settings.cache.as_std(),
            minter: Minter::new(key, &settings.issuer, &settings.audience, settings.lifetime.as_std()),
            subject: ClaimPath::new(&settings.subject),
            claims: claims.collect(),
            header: header?,
            forward,
            published: Bytes::from(published),
        },
    ))
}

/// What reads well and cannot work.
fn check(settings: &SessionBridge, at: &Path, found: Found<'_>) {
    if !is_cookie_name(&settings.cookie) {
        let problem = Problem::error(at.key("cookie"), format!("`{}` is no name of a cookie", settings.cookie));
        found.push(problem.help("such as `PHPSESSID`"));
    }
    if settings.issuer.is_empty() {
        let problem = Problem::error(at.key("issuer"), "the issuer is empty");
        found.push(problem.help("write what services shall expect in `iss`"));
    }
    if settings.audience.is_empty() {
        let problem = Problem::error(at.key("audience"), "no audience is listed");
        found.push(problem.help("name the services that the tokens are for: `[orders]`"));
    }
    for claim in settings.claims.keys().filter(|claim| OWN.contains(&claim.as_str())) {
        found.push(Problem::error(at.key("claims").key(claim), format!("`{claim}` is the gateway's own to say")));
    }
}

/// A token of RFC 9110 §5.6.2 (RFC 6265 §4.1.1).
fn is_cookie_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 128 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

fn field(text: &str, forward: &Forward, at: &Path, found: Found<'_>) -> Option<HeaderName> {
    let problem = |message: String| Problem::error(at.clone(), message).help("`Authorization`, or one such as `X-Identity`");
    match HeaderName::try_from(text) {
        Err(_) => found.push(problem(format!("`{text}` is no name of a header field"))),
        Ok(name) if !is_free(&name) || name == header::COOKIE => {
            found.push(problem(format!("`{text}` is not free for tokens")));
        }
        Ok(name) if forward.names().any(|taken| *taken == name) => {
            found.push(problem(format!("a claim would be told in `{text}` too")));
        }
        Ok(name) => return Some(name),
    }
    None
}

fn key(settings: &SessionBridge, at: &Path, found: Found<'_>) -> Option<SigningKey> {
    let text = text_of(&settings.key, at).map_err(|problem| found.push(problem)).ok()?;
    let key = SigningKey::read(&text, settings.algorithm);
    key.map_err(|error| found.push(unusable(&settings.key, &error, settings, at))).ok()
}

fn others(settings: &SessionBridge, at: &Path, found: Found<'_>) -> Vec<Map<String, Value>> {
    let mut all = Vec::new();
    for (index, file) in settings.other_keys.iter().enumerate() {
        let at = at.index(index);
        match text_of(file, &at).map(|text| signing_key::public(&text)) {
            Ok(Ok(keys)) => all.extend(keys),
            Ok(Err(error)) => found.push(unusable(file, &error, settings, &at)),
            Err(problem) => found.push(problem),
        }
    }
    all
}

fn unusable(file: &FilePath, error: &SigningKeyError, settings: &SessionBridge, at: &Path) -> Problem {
    use crate::config::identity::session_bridge::SigningAlgorithm::{ES256, EdDSA, RS256};
    let problem = Problem::error(at.clone(), format!("`{}` {error}", file.display()));
    match error {
        SigningKeyError::NoKey | SigningKeyError::Unfit(_) => problem.help(match settings.algorithm {
            ES256 => "make one: `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256`",
            RS256 => "make one: `openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048`",
            EdDSA => "make one: `openssl genpkey -algorithm ED25519`",
        }),
        SigningKeyError::NotPublic | SigningKeyError::Key(_) => problem,
    }
}
