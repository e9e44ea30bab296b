//! Where the requests of a route go, and what is changed on the way: upstream, split, redirect, respond.

use std::sync::Arc;

use crate::upstream::Upstream;

pub mod faults;
pub mod redirect;
pub mod respond;
pub mod rewrite;
pub mod split;
pub mod template;

pub use self::{
    redirect::Redirect,
    respond::Respond,
    rewrite::{HostRewrite, Rewrite},
    split::Split,
    template::Template,
};

/// Where the requests of a route go.
#[derive(Clone, Debug)]
pub enum Origin {
    Upstream(Arc<Upstream>),
    Split(Split),
    Redirect(Redirect),
    Respond(Respond),
    /// Where requests go that no route takes: nowhere.
    Nowhere,
}

impl Origin {
    /// The upstreams that requests may go to.
    pub fn upstreams(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        let (one, several) = match self {
            Self::Upstream(upstream) => (Some(upstream), None),
            Self::Split(split) => (None, Some(split.upstreams())),
            Self::Redirect(_) | Self::Respond(_) | Self::Nowhere => (None, None),
        };
        one.into_iter().chain(several.into_iter().flatten())
    }
}

/// Requests and upstreams to test with.
#[cfg(test)]
mod example {
    use std::{sync::Arc, time::Instant};

    use http::{HeaderValue, Method, Version};

    use crate::{
        config::{self, route::Scheme},
        exchange::{Captures, Facts},
        name::UpstreamName,
        upstream::{States, Upstream},
    };

    /// A GET of a URL, or of a path without a host.
    pub fn facts(url: &str) -> Facts {
        let (scheme, rest) = match url.split_once("://") {
            Some(("https", rest)) => (Scheme::Https, rest),
            Some((_, rest)) => (Scheme::Http, rest),
            None => (Scheme::Http, url),
        };
        let (authority, target) = rest.split_at(rest.find(['/', '*', '\\']).unwrap_or(rest.len()));
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let (host, port) = match authority.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok()) {
            Some((host, port)) => (host, port.parse().ok()),
            None => (authority, None),
        };
        Facts {
            method: Method::GET,
            scheme,
            host: host.to_lowercase(),
            port,
            path: path.to_owned(),
            query: query.map(str::to_owned),
            version: Version::HTTP_11,
            client: [127, 0, 0, 1].into(),
            peer: ([127, 0, 0, 1], 1).into(),
            request_id: HeaderValue::from_static("r1"),
            started: Instant::now(),
        }
    }

    /// Captures of these parts of the path, each searched for behind the one before.
    pub fn captures(facts: &Facts, parts: &[&str]) -> Captures {
        let mut from = 0;
        parts
            .iter()
            .map(|part| {
                let start = from + facts.path[from..].find(part).unwrap();
                from = start + part.len();
                start as u32..from as u32
            })
            .collect()
    }

    pub fn upstream(name: &str) -> Arc<Upstream> {
        let config: config::Upstream = serde_yaml::from_str("endpoints: [127.0.0.1:9001]").unwrap();
        Upstream::compile(&UpstreamName::new(name), &config, &States::default()).unwrap()
    }
}
