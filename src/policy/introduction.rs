//! What a service is told of its caller: `X-Consumer` and `X-Consumer-Groups`, and what an identity passes on.
//!
//! Origin ring, on every route: these fields are the gateway's word, so what a client sends by their names never passes, whoever it is.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use pingora_http::RequestHeader;

use crate::{
    caller::Caller,
    config::{
        self, Config, Identity,
        policy::{
            Policies, Switch,
            auth::{Place, Scheme},
        },
    },
    query,
};

/// The consumer that called.
const CONSUMER: &str = "x-consumer";
/// Its groups, with `, ` between them.
const GROUPS: &str = "x-consumer-groups";

/// The certificate of the client (RFC 9440 §2.2), and the others that it sent (§2.3).
pub const CLIENT_CERT: &str = "client-cert";
pub const CLIENT_CERT_CHAIN: &str = "client-cert-chain";

/// What no client may say, and what no log may show, over all routes of a configuration.
#[derive(Debug, Default)]
pub struct Guarded {
    /// Header fields by which services are told of their callers.
    fields: Box<[HeaderName]>,
    /// Query parameters that are credentials on some route.
    pub parameters: Box<[Box<str>]>,
}

impl Guarded {
    pub fn of(config: &Config) -> Self {
        let around = std::iter::once(&config.policies);
        let policies = around.chain(config.routes.values().map(|route| &route.policies));
        let parameters = policies.flat_map(schemes).filter_map(|scheme| match scheme {
            Scheme::ApiKey(key) => match &key.place {
                Place::Query(name) => Some(name.as_str().into()),
                Place::Header(_) => None,
            },
            Scheme::Jwt(_)
            | Scheme::Introspection(_)
            | Scheme::Basic(_)
            | Scheme::ClientCertificate(_)
            | Scheme::Forward(_)
            | Scheme::SessionBridge(_)
            | Scheme::Signature(_)
            | Scheme::Oidc(_) => None,
        });
        let mut parameters: Vec<_> = parameters.collect();
        // With which the provider sends people back.
        let has_logins = config.identity.values().any(|identity| matches!(identity, Identity::Oidc(_)));
        parameters.extend(has_logins.then(|| Box::from("code")));
        parameters.sort();
        parameters.dedup();
        let told = config.identity.values().flat_map(config::Identity::told);
        // Of this field a service judges what it believes. Where the gateway fills it, the scheme takes out what the client sent.
        let told = told.filter_map(|field| HeaderName::try_from(field).ok()).filter(|name| *name != header::AUTHORIZATION);
        let mut fields: Vec<_> =
            [CONSUMER, GROUPS, CLIENT_CERT, CLIENT_CERT_CHAIN].map(HeaderName::from_static).into_iter().chain(told).collect();
        fields.sort_by(|one, other| one.as_str().cmp(other.as_str()));
        fields.dedup();
        Self { fields: fields.into(), parameters: parameters.into() }
    }

    /// An address, or what was sent in the place of one, as a log may show it.
    pub fn shown<'a>(&self, address: &'a str) -> Cow<'a, str> {
        let Some((path, query)) = address.split_once('?') else { return Cow::Borrowed(address) };
        match query::masked(query, &self.parameters) {
            Cow::Borrowed(_) => Cow::Borrowed(address),
            Cow::Owned(query) => Cow::Owned(format!("{path}?{query}")),
        }
    }

    /// Writes what is known of the caller in the place of what the client said.
    ///
    /// # Errors
    /// A field cannot be sent; those that are known can.
    pub fn introduce(&self, head: &mut RequestHeader, caller: &Caller) -> pingora_core::Result<()> {
        for name in self.claimed(&head.headers) {
            head.remove_header(&name);
        }
        if let Some(consumer) = &caller.consumer {
            head.insert_header(CONSUMER, consumer.name.as_str())?;
            if let Some(groups) = &consumer.groups.header {
                head.insert_header(GROUPS, groups.clone())?;
            }
        }
        let mut fields = caller.fields.iter().flat_map(|fields| fields.iter());
        fields.try_for_each(|(name, value)| head.insert_header(name.clone(), value.clone()))
    }

    /// What a client claims to be, in the spelling with underscores too: CGI and WSGI take the two for one. Nearly always nothing.
    fn claimed(&self, headers: &HeaderMap<HeaderValue>) -> Vec<HeaderName> {
        let is_claimed = |name: &&HeaderName| self.fields.iter().any(|field| same_to_cgi(field.as_str(), name.as_str()));
        headers.keys().filter(is_claimed).cloned().collect()
    }
}

/// Whether CGI takes two names, in lower case both, for one.
fn same_to_cgi(one: &str, other: &str) -> bool {
    let plain = |byte: u8| if byte == b'_' { b'-' } else { byte };
    one.len() == other.len() && one.bytes().zip(other.bytes()).all(|(a, b)| plain(a) == plain(b))
}

fn schemes(policies: &Policies) -> Vec<&Scheme> {
    match &policies.auth {
        Switch::On(auth) => auth.schemes.iter().collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::testing;

    #[test]
    fn what_a_client_says_of_itself_never_passes() {
        let said = [
            ("host", "a"),
            ("X-Consumer", "admin"),
            ("x_consumer", "admin"),
            ("X-Consumer_Groups", "root"),
            ("x-consumers", "1"),
        ];
        let mut head = testing::head("GET", "/", &said);
        Guarded::of(&Config::default()).introduce(&mut head, &Caller::default()).unwrap();
        let left: Vec<_> = head.headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["host", "x-consumers"]);
    }
}
