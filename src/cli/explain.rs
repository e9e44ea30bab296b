//! `banyan explain`: which route takes a request, and why not another.

use std::{net::Ipv4Addr, process::ExitCode, time::Instant};

use clap::Args;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version, header, uri::Authority};

use super::Place;
use crate::{
    config::{
        Config,
        load::{self, Colour},
        paths::EncodedSlashes,
        route::{Scheme, Target},
    },
    exchange::{Captures, Facts, Stop},
    live::{self, Snapshot},
    route::{Route, explain::Outcome, host, path},
    stores::Stores,
};

/// Say which route takes a request, and why the others do not.
///
/// Offline: nothing is sent. Also says which policies would run.
#[derive(Args, Debug)]
pub struct Explain {
    #[command(flatten)]
    place: Place,
    /// Method of the request.
    #[arg(value_name = "METHOD", value_parser = method)]
    method: Method,
    /// URL of the request: `https://shop.example/api/orders?page=2`.
    #[arg(value_name = "URL", value_parser = url)]
    url: Uri,
    /// A header of the request, as `Name: value`. May be given again.
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = header)]
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Explain {
    pub fn execute(self) -> anyhow::Result<ExitCode> {
        let loaded = std::sync::Arc::new(load::load(self.place.path()));
        match live::compile(&loaded, &Stores::closed(&loaded.config)?, 0) {
            Ok(candidate) => super::print(loaded.sources.scrub(&self.tell(&loaded.config, &candidate.snapshot)).as_bytes()),
            Err(problems) => {
                eprint!("{}", loaded.sources.render(&problems, Colour::Never));
                Ok(ExitCode::FAILURE)
            }
        }
    }

    fn tell(&self, config: &Config, snapshot: &Snapshot) -> String {
        let asked = format!("{} {}", self.method, self.url);
        match self.facts(snapshot.slashes) {
            Ok(facts) => asked + &Story { config, snapshot, facts, headers: self.header_map() }.tell(),
            Err(rule) => asked + &format!(" is refused (400): {rule}\n"),
        }
    }

    /// What the gateway would know of the request, were it sent without a proxy in between.
    ///
    /// # Errors
    /// The rule that path or host breaks.
    fn facts(&self, slashes: EncodedSlashes) -> Result<Facts, &'static str> {
        let headers = self.header_map();
        let named = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let (host, port) = host::parse(named.or(self.url.authority().map(Authority::as_str)).unwrap_or_default())?;
        Ok(Facts {
            method: self.method.clone(),
            scheme: if self.url.scheme_str() == Some("https") { Scheme::Https } else { Scheme::Http },
            host: host.into_owned(),
            port,
            path: path::normalise(self.url.path().as_bytes(), slashes)?.into_owned(),
            query: self.url.query().map(str::to_owned),
            version: Version::HTTP_11,
            client: Ipv4Addr::LOCALHOST.into(),
            peer: (Ipv4Addr::LOCALHOST, 0).into(),
            request_id: HeaderValue::from_static("-"),
            started: Instant::now(),
        })
    }

    fn header_map(&self) -> HeaderMap {
        self.headers.iter().cloned().collect()
    }
}

/// A request and what becomes of it.
struct Story<'a> {
    config: &'a Config,
    snapshot: &'a Snapshot,
    facts: Facts,
    headers: HeaderMap,
}

impl Story<'_> {
    /// The outcome ends the line that names the request; what led to it follows.
    fn tell(&self) -> String {
        let mut told = match self.snapshot.router.find(&self.facts, &self.headers) {
            Ok((route, captures)) => self.taken(route, &captures),
            Err(Stop::MethodNotAllowed(allow)) => {
                self.unmatched(&format!("with this method (405, Allow: {})", String::from_utf8_lossy(allow.as_bytes())))
            }
            Err(_) => self.unmatched("(404)"),
        };
        self.losers(&mut told);
        told
    }

    fn taken(&self, route: &Route, captures: &Captures) -> String {
        let mut told = format!(" is taken by `{}`\n", route.name);
        let mut line = |word: &str, text: &str| told.push_str(&format!("  {word:<9} {text}\n"));
        line("path", &self.facts.path);
        for (name, value) in self.captured(route, captures) {
            line("capture", &format!("{name} = {value}"));
        }
        line("policies", &names(route));
        if self.config.routes.get(&route.name).is_some_and(|config| config.rewrite.is_some()) {
            let rewritten = route.rewrite.path_and_query(&self.facts, captures);
            line("rewritten", &rewritten.unwrap_or_else(|bad| bad.to_string().into()));
        }
        if let Some(config) = self.config.routes.get(&route.name) {
            line("to", &target(&config.to));
        }
        told
    }

    fn captured<'s>(&'s self, route: &Route, captures: &'s Captures) -> impl Iterator<Item = (&'s str, &'s str)> {
        let index = self.snapshot.router.routes().position(|known| known.name == route.name).unwrap_or_default();
        let names = u32::try_from(index).map_or(&[][..], |index| self.snapshot.router.table().capture_names(index));
        let value = |range: &std::ops::Range<u32>| self.facts.path.get(range.start as usize..range.end as usize);
        names.iter().zip(captures).map(move |(name, range)| (&**name, value(range).unwrap_or_default()))
    }

    fn unmatched(&self, outcome: &str) -> String {
        format!(
            " is taken by no route {outcome}\n  {:<9} {}\n  {:<9} {}\n",
            "path",
            self.facts.path,
            "policies",
            names(&self.snapshot.unmatched)
        )
    }

    fn losers(&self, told: &mut String) {
        let routes: Vec<&Route> = self.snapshot.router.routes().collect();
        for verdict in self.snapshot.router.table().explain(&self.facts, &self.headers) {
            if let (Outcome::Loses(why), Some(route)) = (verdict.outcome, routes.get(verdict.index as usize)) {
                told.push_str(&format!("not `{}`: {why}\n", route.name));
            }
        }
    }
}

/// The policies that would run, in their order.
fn names(route: &Route) -> String {
    let names = route.chain.names();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn target(target: &Target) -> String {
    match target {
        Target::Upstream(upstream) => format!("upstream {upstream}"),
        Target::Split(shares) => {
            let shares: Vec<String> = shares.iter().map(|share| format!("{} ({})", share.upstream, share.weight)).collect();
            format!("one of the upstreams, by weight: {}", shares.join(", "))
        }
        Target::Redirect(redirect) => format!("redirect {} to {}", redirect.status, redirect.location),
        Target::Respond(respond) => format!("respond {}", respond.status),
        Target::Jwks(identity) => format!("the public keys of {identity}"),
    }
}

fn method(text: &str) -> Result<Method, String> {
    Method::from_bytes(text.as_bytes()).map_err(|_| "expected a method such as `GET`".to_owned())
}

fn url(text: &str) -> Result<Uri, String> {
    let expected = || "expected a URL such as `https://shop.example/api/orders`".to_owned();
    let uri: Uri = text.parse().map_err(|_| expected())?;
    match uri.scheme_str() {
        Some("http" | "https") if uri.host().is_some_and(|host| !host.is_empty()) => Ok(uri),
        _ => Err(expected()),
    }
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let expected = || "expected `Name: value`".to_owned();
    let (name, value) = text.split_once(':').ok_or_else(expected)?;
    let name = name.trim().parse().map_err(|_| expected())?;
    let value = value.trim().parse().map_err(|_| expected())?;
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "
listeners: { web: { address: 127.0.0.1:8080 } }
upstreams: { shop: { endpoints: [127.0.0.1:9001] } }
policies: { request_limits: { body: 1MiB } }
routes:
  item: { match: { path: \"/api/{id}\" }, rewrite: { path: \"/items/{id}\" }, to: { upstream: shop } }
  api: { match: { path: \"/api/**\" }, policies: { request_limits: off }, to: { respond: {} } }
  get: { match: { path: /only, methods: [GET] }, to: { respond: {} } }
";

    fn check(method: &str, url: &str, expected: &str) {
        use clap::Parser;

        let loaded = std::sync::Arc::new(load::from_text("a.yaml", CONFIG));
        let candidate = live::compile(&loaded, &Stores::closed(&loaded.config).unwrap(), 0)
            .map_err(|problems| loaded.sources.render(&problems, Colour::Never))
            .unwrap_or_else(|error| panic!("{error}"));
        let cli = super::super::Cli::parse_from(["banyan", "explain", "-c", "a.yaml", method, url]);
        let super::super::Command::Explain(explain) = cli.command else { panic!("not explain") };
        assert_eq!(explain.tell(&loaded.config, &candidate.snapshot), expected);
    }

    #[test]
    fn the_winner_comes_first_and_the_losers_say_why() {
        check(
            "GET",
            "http://a/api/../api/7?q=1",
            "GET http://a/api/../api/7?q=1 is taken by `item`
  path      /api/7
  capture   id = 7
  policies  request_limits
  rewritten /items/7?q=1
  to        upstream shop
not `api`: less specific than `item`, which names the path more closely
not `get`: the path does not match
",
        );
    }

    #[test]
    fn no_route_and_no_method_are_told_apart() {
        check(
            "GET",
            "http://a/none",
            "GET http://a/none is taken by no route (404)
  path      /none
  policies  request_limits
not `api`: the path does not match
not `get`: the path does not match
not `item`: the path does not match
",
        );
        check(
            "POST",
            "http://a/only",
            "POST http://a/only is taken by no route with this method (405, Allow: GET, HEAD)
  path      /only
  policies  request_limits
not `get`: the method POST does not match, all else does
not `api`: the path does not match
not `item`: the path does not match
",
        );
        check(
            "GET",
            "http://a/%2e%2e%2fx",
            "GET http://a/%2e%2e%2fx is refused (400): an encoded slash or backslash in the path\n",
        );
    }

    #[test]
    fn a_url_names_scheme_and_host() {
        for good in ["http://a/", "https://shop.example:8443/api?x=1", "http://[::1]:80/"] {
            assert!(url(good).is_ok(), "{good}");
        }
        for bad in ["", "/api", "shop.example", "ftp://a/", "http://"] {
            assert!(url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_header_is_a_name_and_a_value() {
        let (name, value) = header("X-Report-Version: 2").unwrap();
        assert_eq!((name.as_str(), value.as_bytes()), ("x-report-version", &b"2"[..]));
        assert_eq!(header("Host: a:80").unwrap().1, "a:80");
        for bad in ["", "no colon", ": value", "a b: c", "a: \u{1}"] {
            assert!(header(bad).is_err(), "{bad:?}");
        }
    }
}
