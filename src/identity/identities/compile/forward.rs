//! From the settings of a service that is asked about requests to the service.

use std::sync::Arc;

use http::{HeaderName, header};

use super::{Found, address, is_free, outgoing};
use crate::{
    config::{
        identity::{Forward, forward::By},
        problem::{Path, Problem},
    },
    identity::{
        forward::{self, ForwardAuth, Settings},
        outgoing::PlainText,
    },
    name::IdentityName,
};

/// Fields that every client sends or that say what a body is: whoever fills them for one route must not take them from all others.
const COMMON: [HeaderName; 6] = [
    header::COOKIE,
    header::ACCEPT,
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::USER_AGENT,
    HeaderName::from_static("x-request-id"),
];

pub fn service(name: &IdentityName, settings: &Forward, at: &Path, found: Found<'_>) -> Option<Arc<ForwardAuth>> {
    let plain = if settings.allow_http { PlainText::Anywhere } else { PlainText::OnLoopback };
    let is_asked = |name: &HeaderName| is_free(name) && *name != HeaderName::from_static("x-request-id");
    let is_copied = |name: &HeaderName| is_free(name) && !COMMON.contains(name);
    let headers = names(&settings.headers, &at.key("headers"), is_asked, found);
    let copy = names(&settings.copy, &at.key("copy"), is_copied, found);
    let consumer = settings.consumer.as_ref().and_then(|field| {
        let problem = |_| Problem::error(at.key("consumer"), format!("`{field}` is no name of a header field"));
        HeaderName::try_from(field).map_err(|error| found.push(problem(error).help("such as `X-Consumer-Name`"))).ok()
    });
    let url = address(&settings.url, plain, &at.key("url"), found)?;
    let outgoing = outgoing(&url, false, settings.ca.as_deref(), settings.timeout, at, found)?;
    let cache = settings.cache.map(|cache| forward::Cache {
        ttl: cache.ttl.as_std(),
        by: match cache.by {
            By::Request => forward::By::Request,
            By::Credentials => forward::By::Credentials,
        },
    });
    Some(ForwardAuth::new(name.as_str(), Settings { url, outgoing, headers, copy, consumer, relay: settings.relay, cache }))
}

fn names(listed: &[String], at: &Path, is_free: impl Fn(&HeaderName) -> bool, found: Found<'_>) -> Box<[HeaderName]> {
    let mut names: Vec<HeaderName> = Vec::with_capacity(listed.len());
    for (index, text) in listed.iter().enumerate() {
        let problem = |message: String| Problem::error(at.index(index), message);
        match HeaderName::try_from(text) {
            Err(_) => found.push(problem(format!("`{text}` is no name of a header field"))),
            Ok(name) if !is_free(&name) => {
                let help = "it means something else to everyone, or is written by the gateway itself";
                found.push(problem(format!("`{text}` cannot be in this list")).help(help));
            }
            Ok(name) if names.contains(&name) => found.push(problem(format!("`{text}` is in the list already"))),
            Ok(name) => names.push(name),
        }
    }
    names.into()
}
