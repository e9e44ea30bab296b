//! What the limits of a route count apart: the `key` of the file, compiled to the parts of a request.

use http::HeaderName;

use crate::{
    caller::ClaimPath,
    config::{
        policy::{
            auth::Auth,
            limit::{Key, Part as Config, Word},
        },
        problem::{Path, Problem},
    },
    limit::key::{Part, Parts},
    name::RouteName,
};

/// Where a limit stands.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// `-` for requests that no route takes.
    pub route: &'a RouteName,
    pub knows: Knows<'a>,
}

/// What is known of the caller there.
#[derive(Clone, Copy)]
pub enum Knows<'a> {
    /// It was not asked yet.
    NothingYet,
    /// What this policy found out, if there is one.
    By(Option<&'a Auth>),
}

/// Leading bits of an IPv6 address that are one client, if the file does not say.
const IPV6_PREFIX: u8 = 64;

/// The parts of a key.
///
/// # Errors
/// No part, one that stands there twice, one that no request has there.
pub fn compile(key: &Key, ipv6_prefix: Option<u8>, path: &Path, place: Place<'_>) -> Result<Parts, Vec<Problem>> {
    let mut problems = Vec::new();
    let at = path.key("key");
    let at_part = |index: usize| if key.0.len() == 1 { at.clone() } else { at.index(index) };
    if key.0.is_empty() {
        problems.push(Problem::error(at.clone(), "the list is empty").help("name what is counted apart, such as `client_ip`"));
    }
    for (index, part) in key.0.iter().enumerate() {
        problems.extend(unknowable(part, &at_part(index), place));
        if let Some(first) = key.0.iter().take(index).position(|earlier| earlier == part) {
            let problem = Problem::error(at.index(index), "this part is in the list already");
            problems.push(problem.also(at.index(first), "here it is too"));
        }
    }
    if ipv6_prefix.is_some() && !key.0.contains(&Config::Word(Word::ClientIp)) {
        let problem = Problem::error(path.key("ipv6_prefix"), "`ipv6_prefix` is for keys with `client_ip`");
        problems.push(problem.also(at.clone(), "this key has none"));
    }
    let parts = key.0.iter().enumerate();
    let parts = parts.filter_map(|(index, part)| {
        let compiled = self::part(part, ipv6_prefix.unwrap_or(IPV6_PREFIX), &at_part(index), place.route);
        compiled.map_err(|problem| problems.push(problem)).ok()
    });
    let parts = Parts(parts.collect());
    if problems.is_empty() { Ok(parts) } else { Err(problems) }
}

fn part(part: &Config, ipv6_prefix: u8, at: &Path, route: &RouteName) -> Result<Part, Problem> {
    match part {
        Config::Word(Word::ClientIp) => Ok(Part::client_ip(ipv6_prefix)),
        Config::Word(Word::Consumer) => Ok(Part::Consumer),
        Config::Word(Word::Credential) => Ok(Part::Credential),
        Config::Word(Word::Plan) => Ok(Part::Plan),
        Config::Word(Word::Route) => Ok(Part::Route(route.clone())),
        Config::Header(name) => header_name(name, &at.key("header")).map(Part::Header),
        Config::Cookie(name) if is_token(name) => Ok(Part::Cookie(name.as_str().into())),
        Config::Cookie(name) => Err(Problem::error(at.key("cookie"), format!("`{name}` is no name of a cookie"))),
        Config::Query(name) if name.is_empty() => Err(Problem::error(at.key("query"), "the name is empty")),
        Config::Query(name) => Ok(Part::Query(name.as_str().into())),
        Config::Claim(name) if name.is_empty() => Err(Problem::error(at.key("claim"), "the name is empty")),
        Config::Claim(name) => Ok(Part::Claim(ClaimPath::new(name))),
    }
}

/// The name of a header field.
///
/// # Errors
/// It is none.
pub fn header_name(name: &str, at: &Path) -> Result<HeaderName, Problem> {
    let no_name = |_| Problem::error(at.clone(), format!("`{name}` is no name of a header field"));
    HeaderName::from_bytes(name.as_bytes()).map_err(no_name)
}

/// RFC 6265 §4.1.1 takes the names of cookies from the tokens of HTTP, as header fields have them.
fn is_token(name: &str) -> bool {
    HeaderName::from_bytes(name.as_bytes()).is_ok()
}

/// What a part asks of the caller that nobody will know. Requests that no route takes are counted together then: a route that has the same policy
/// may know more.
fn unknowable(part: &Config, at: &Path, place: Place<'_>) -> Option<Problem> {
    let (word, of_token) = match part {
        Config::Word(Word::Consumer) => ("consumer", false),
        Config::Word(Word::Credential) => ("credential", false),
        Config::Word(Word::Plan) => ("plan", false),
        Config::Claim(_) => ("claim", true),
        Config::Word(Word::ClientIp | Word::Route) | Config::Header(_) | Config::Cookie(_) | Config::Query(_) => return None,
    };
    match place.knows {
        Knows::NothingYet => {
            let problem = Problem::error(at.clone(), format!("`{word}` is not known yet: `throttle` comes before `auth`"));
            Some(problem.help("count the client's address, or use `rate_limit`"))
        }
        Knows::By(None) if place.route.as_str() == "-" => None,
        Knows::By(None) => {
            let problem = Problem::error(at.clone(), format!("without `auth` no caller of route `{}` is known", place.route));
            Some(problem.help("add `auth`, or count something else here, such as `client_ip`"))
        }
        Knows::By(Some(auth)) if of_token && !auth.schemes.iter().any(|scheme| scheme.gives_claims()) => {
            let told = format!("no scheme of `auth` on route `{}` gives claims", place.route);
            Some(Problem::error(at.clone(), told).help("consumers are told apart by `consumer`"))
        }
        Knows::By(Some(_)) => None,
    }
}
