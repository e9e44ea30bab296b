//! From the settings of an identity to the identity: what cannot be enforced is refused here.

use std::{collections::BTreeMap, io::Read, path::Path as FilePath, sync::Arc};

use http::{HeaderName, header};
use reqwest::Url;
use rustls::RootCertStore;

use super::Identity;
use crate::{
    caller::ClaimPath,
    certs,
    config::{
        self,
        identity::{self as settings, Algorithm},
        problem::{Path, Problem},
        secret::Secret,
    },
    identity::{
        fields::Forward,
        introspect::{self, Introspection},
        jwt::{
            self, Jwt, Key, KeySet, Keys, Rules,
            fetch::Place,
            key::Material,
            keys::{Pace, Source},
            pem,
        },
        outgoing::{self, Outgoing, PlainText, UrlError},
    },
    name::IdentityName,
    units::Duration,
};

mod bridge;
mod forward;
mod oidc;

/// Longest wait for a key set or a discovery document.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// Largest file of keys.
const FILE_MAX: u64 = 1 << 20;

/// Fields that mean something else to everyone, or that the gateway itself writes.
const TAKEN: [HeaderName; 14] = [
    header::HOST,
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::TE,
    header::TRAILER,
    header::UPGRADE,
    header::EXPECT,
    header::FORWARDED,
    header::VIA,
    HeaderName::from_static("x-consumer"),
    HeaderName::from_static("x-consumer-groups"),
    HeaderName::from_static("client-cert"),
    HeaderName::from_static("client-cert-chain"),
];

/// The beginning of what the gateway says of a client's way.
const FORWARDED: &str = "x-forwarded-";

/// What is compiled of an identity as far as it can be; what is wrong with it is gathered beside.
type Found<'p> = &'p mut Vec<Problem>;

/// `before`: what the same files and name were before, and which settings made it.
pub fn identity(
    name: &IdentityName,
    settings: &config::Identity,
    before: Option<(&config::Identity, &Identity)>,
    at: &Path,
) -> Result<Identity, Vec<Problem>> {
    if let Some((_, same)) = before.filter(|(earlier, _)| *earlier == settings) {
        return Ok(same.clone());
    }
    let mut problems = Vec::new();
    let identity = match settings {
        config::Identity::Jwt(jwt) => {
            let same_keys = match before {
                Some((config::Identity::Jwt(earlier), Identity::Jwt(same))) if has_same_keys(earlier, jwt) => Some(same.keys()),
                _ => None,
            };
            of_jwt(name, jwt, same_keys, at, &mut problems).map(Identity::Jwt)
        }
        config::Identity::Introspection(settings) => {
            of_introspection(name, settings, at, &mut problems).map(Identity::Introspection)
        }
        config::Identity::Forward(settings) => forward::service(name, settings, at, &mut problems).map(Identity::Forward),
        config::Identity::SessionBridge(settings) => bridge::bridge(name, settings, at, &mut problems).map(Identity::Bridge),
        config::Identity::Oidc(settings) => {
            let ended = match before {
                Some((_, Identity::Oidc(login))) => Some(login.ended().clone()),
                _ => None,
            };
            oidc::login(name, settings, ended, at, &mut problems).map(Identity::Oidc)
        }
    };
    identity.filter(|_| problems.is_empty()).ok_or(problems)
}

/// Whether keys of the one are keys of the other.
fn has_same_keys(one: &settings::Jwt, other: &settings::Jwt) -> bool {
    one.keys == other.keys && one.issuer == other.issuer
}

fn of_jwt(name: &IdentityName, jwt: &settings::Jwt, same: Option<&Arc<Keys>>, at: &Path, found: Found<'_>) -> Option<Arc<Jwt>> {
    if jwt.issuer.is_empty() {
        found.push(Problem::error(at.key("issuer"), "the issuer is empty").help("write what `iss` is in its tokens"));
    }
    if jwt.algorithms.is_empty() {
        let help = "name those that the issuer signs with: `[RS256]`";
        found.push(Problem::error(at.key("algorithms"), "no algorithm is listed").help(help));
    }
    let forward = forward(&jwt.forward, &at.key("forward"), found);
    let keys = match same {
        Some(keys) => {
            let set = keys.current().filter(|_| !keys.is_fetched());
            fits(jwt, set.as_deref(), at, found).then(|| keys.clone())
        }
        None => keys(name, jwt, at, found),
    };
    let rules = Rules {
        issuer: jwt.issuer.as_str().into(),
        audience: boxed(&jwt.audience),
        algorithms: jwt.algorithms.iter().map(|alg| algorithm(*alg)).collect(),
        leeway: jwt.leeway.as_std(),
        typ: jwt.typ.as_deref().map(Box::from),
        required: boxed(&jwt.required_claims),
    };
    Some(Arc::new(Jwt::new(rules, ClaimPath::new(&jwt.roles), forward, keys?)))
}

fn keys(name: &IdentityName, jwt: &settings::Jwt, at: &Path, found: Found<'_>) -> Option<Arc<Keys>> {
    let (name, keys, here) = (name.as_str(), &jwt.keys, at.key("keys"));
    let set = match (&keys.file, &keys.secret) {
        (Some(file), _) => Some(of_file(file, &here.key("file"))),
        (_, Some(secret)) => Some(of_secret(secret, &here.key("secret"))),
        _ => None,
    };
    match set {
        Some(Ok(set)) => fits(jwt, Some(&set), at, found).then(|| Keys::fixed(name, set)),
        Some(Err(problem)) => {
            found.push(problem);
            None
        }
        None => {
            let has_keys = fits(jwt, None, at, found);
            let source = source(jwt, &here, found)?;
            has_keys.then(|| Keys::fetched(name, source))
        }
    }
}

/// Whether there is a key for each algorithm; without a set, which is then to be fetched, whether there can be one.
fn fits(jwt: &settings::Jwt, set: Option<&KeySet>, at: &Path, found: Found<'_>) -> bool {
    let before = found.len();
    for (index, alg) in jwt.algorithms.iter().enumerate() {
        if !set.map_or(!alg.is_secret(), |set| set.serves(algorithm(*alg))) {
            found.push(misfit(*alg, jwt, at, index));
        }
    }
    found.len() == before
}

fn misfit(alg: Algorithm, jwt: &settings::Jwt, at: &Path, index: usize) -> Problem {
    let problem = |message: String| Problem::error(at.key("algorithms").index(index), message);
    let keys = at.key("keys");
    match (&jwt.keys.secret, &jwt.keys.file) {
        (Some(_), _) if alg.is_secret() => {
            problem(format!("`{alg:?}` needs a secret as long as its hash")).also(keys.key("secret"), "this one is shorter")
        }
        (Some(_), _) => problem(format!("`{alg:?}` needs a public key")).also(keys.key("secret"), "this is a secret"),
        (_, Some(_)) => problem(format!("no key is one for `{alg:?}`")).also(keys.key("file"), "of the keys in this file"),
        _ => problem(format!("`{alg:?}` needs a secret")).also(keys, "what is published is none"),
    }
}

fn of_file(file: &FilePath, at: &Path) -> Result<KeySet, Problem> {
    pem::keys(&text_of(file, at)?).map_err(|error| Problem::error(at.clone(), format!("`{}` {error}", file.display())))
}

/// What a file of keys says.
fn text_of(file: &FilePath, at: &Path) -> Result<Vec<u8>, Problem> {
    let mut text = Vec::new();
    let read = std::fs::File::open(file).and_then(|file| file.take(FILE_MAX + 1).read_to_end(&mut text));
    if let Err(error) = read {
        let problem = Problem::error(at.clone(), format!("cannot read `{}`: {error}", file.display()));
        return Err(problem.help("a relative path starts at the directory of the file that names it"));
    }
    if text.len() as u64 > FILE_MAX {
        return Err(Problem::error(at.clone(), format!("`{}` is larger than 1 MiB", file.display())));
    }
    Ok(text)
}

fn of_secret(secret: &Secret, at: &Path) -> Result<KeySet, Problem> {
    if secret.reveal().contains("-----BEGIN ") {
        return Err(Problem::error(at.clone(), "this is a key or a certificate, and no secret")
            .help("name its file with `file`: with a public key as the secret, anybody could make tokens"));
    }
    let key = Key::new(None, None, Material::Secret(secret.reveal().as_bytes()));
    let problem =
        |_| Problem::error(at.clone(), "the secret is shorter than 256 bits").help("make one: `openssl rand -base64 48`");
    key.map(|key| KeySet::new([key])).map_err(problem)
}

fn source(jwt: &settings::Jwt, at: &Path, found: Found<'_>) -> Option<Source> {
    let keys = &jwt.keys;
    let plain = if keys.allow_http { PlainText::Anywhere } else { PlainText::OnLoopback };
    let (text, key) = match (&keys.jwks_url, &keys.discovery) {
        (Some(url), _) => (url, "jwks_url"),
        (_, Some(url)) => (url, "discovery"),
        _ => return None,
    };
    let url = address(text, plain, &at.key(key), found);
    let outgoing = outgoing(url.as_ref()?, keys.discovery.is_some(), keys.ca.as_deref(), FETCH_TIMEOUT, at, found);
    let place = match key {
        "jwks_url" => Place::Jwks(url?),
        _ => Place::Discovery { document: url?, issuer: jwt.issuer.as_str().into(), plain },
    };
    Some(Source { place, outgoing: outgoing?, pace: Pace::every(keys.refresh.as_std()) })
}

fn address(text: &str, plain: PlainText, at: &Path, found: Found<'_>) -> Option<Url> {
    let problem = |error: UrlError| {
        let problem = Problem::error(at.clone(), error.to_string());
        match error {
            UrlError::PlainText(_) => {
                problem.help("use `https://`, or say `allow_http: true` if you trust all who are on the way")
            }
            UrlError::Malformed(_) | UrlError::Extra => problem.help("such as `https://idp.example/jwks.json`"),
        }
    };
    outgoing::url(text, plain).map_err(|error| found.push(problem(error))).ok()
}

/// Who asks. Authorities are read only if TLS may be needed: `elsewhere` if what is asked may name another address.
fn outgoing(
    url: &Url,
    elsewhere: bool,
    ca: Option<&FilePath>,
    timeout: Duration,
    at: &Path,
    found: Found<'_>,
) -> Option<Outgoing> {
    let roots = match ca {
        Some(file) => certs::roots(file).map_err(|error| error.problem(at.key("ca"))),
        None if url.scheme() == "http" && !elsewhere => Ok(RootCertStore::empty()),
        None => match certs::system_roots() {
            Ok(roots) if roots.is_empty() && url.scheme() == "https" => {
                let problem =
                    Problem::error(at.clone(), "the system has no certificate authorities, so nobody could be verified");
                Err(problem.help("name a PEM file of the authorities to trust with `ca`"))
            }
            Ok(roots) => Ok(roots),
            Err(reason) => Err(Problem::error(at.clone(), reason)),
        },
    };
    let made = roots
        .and_then(|roots| Outgoing::new(roots, timeout.as_std()).map_err(|error| Problem::error(at.clone(), error.to_string())));
    made.map_err(|problem| found.push(problem)).ok()
}

fn of_introspection(
    name: &IdentityName,
    settings: &settings::Introspection,
    at: &Path,
    found: Found<'_>,
) -> Option<Arc<Introspection>> {
    let plain = if settings.allow_http { PlainText::Anywhere } else { PlainText::OnLoopback };
    let forward = forward(&settings.forward, &at.key("forward"), found);
    let url = address(&settings.url, plain, &at.key("url"), found)?;
    let outgoing = outgoing(&url, false, settings.ca.as_deref(), settings.timeout, at, found)?;
    let issuer = settings.issuer.as_deref().map(Box::from);
    let made = introspect::Settings {
        url,
        credentials: introspect::credentials(&settings.client_id, settings.client_secret.reveal()),
        outgoing,
        cache: settings.cache.as_std(),
        rules: introspect::Rules { issuer, audience: boxed(&settings.audience) },
        roles: ClaimPath::new(&settings.roles),
        forward,
    };
    Some(Introspection::new(name.as_str(), made))
}

/// Whether nobody else has a meaning for the field.
fn is_free(name: &HeaderName) -> bool {
    !TAKEN.contains(name) && !name.as_str().starts_with(FORWARDED)
}

fn forward(claims: &BTreeMap<String, String>, at: &Path, found: Found<'_>) -> Forward {
    let mut fields: Vec<(ClaimPath, HeaderName)> = Vec::with_capacity(claims.len());
    for (claim, field) in claims {
        let problem = |message: String| Problem::error(at.key(claim), message);
        match HeaderName::try_from(field) {
            Err(_) => found.push(problem(format!("`{field}` is no name of a header field")).help("such as `X-User-Id`")),
            Ok(name) if !is_free(&name) => {
                let help = "services take it for something else; such as `X-User-Id`";
                found.push(problem(format!("`{field}` is not free for claims")).help(help));
            }
            Ok(name) if fields.iter().any(|(_, taken)| *taken == name) => {
                found.push(problem(format!("two claims would be told in `{field}`")));
            }
            Ok(name) => fields.push((ClaimPath::new(claim), name)),
        }
    }
    Forward::new(fields)
}

fn boxed(texts: &[String]) -> Box<[Box<str>]> {
    texts.iter().map(|text| text.as_str().into()).collect()
}

const fn algorithm(alg: Algorithm) -> jwt::Algorithm {
    match alg {
        Algorithm::RS256 => jwt::Algorithm::RS256,
        Algorithm::RS384 => jwt::Algorithm::RS384,
        Algorithm::RS512 => jwt::Algorithm::RS512,
        Algorithm::PS256 => jwt::Algorithm::PS256,
        Algorithm::PS384 => jwt::Algorithm::PS384,
        Algorithm::PS512 => jwt::Algorithm::PS512,
        Algorithm::ES256 => jwt::Algorithm::ES256,
        Algorithm::ES384 => jwt::Algorithm::ES384,
        Algorithm::EdDSA => jwt::Algorithm::EdDSA,
        Algorithm::HS256 => jwt::Algorithm::HS256,
        Algorithm::HS384 => jwt::Algorithm::HS384,
        Algorithm::HS512 => jwt::Algorithm::HS512,
    }
}
