//! What a service is told of a request that it is asked about.

use std::net::IpAddr;

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{COOKIE, GetAll},
};
use sha2::{Digest, Sha256};

use super::By;
use crate::{exchange::Facts, identity::token::TokenHash};

const METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A request, as far as somebody is asked about it.
#[derive(Clone, Copy)]
pub struct Question<'a> {
    pub headers: &'a HeaderMap,
    /// What routed the request is what is asked about: the path is the normalised one.
    pub facts: &'a Facts,
}

impl<'a> Question<'a> {
    /// Whether the request has none of these fields.
    pub fn is_bare(&self, credentials: &[HeaderName]) -> bool {
        !credentials.iter().any(|name| self.headers.contains_key(name))
    }

    /// What the answer may be remembered by. `None`: there are no credentials, so that it may be anybody's.
    pub fn hash(&self, credentials: &[HeaderName], by: By) -> Option<TokenHash> {
        if self.is_bare(credentials) {
            return None;
        }
        let mut digest = Parts(Sha256::new());
        for name in credentials {
            self.all(name).iter().for_each(|value| digest.add(value.as_bytes()));
            digest.end();
        }
        if by == By::Request {
            let facts = self.facts;
            let parts = [facts.method.as_str(), facts.scheme.as_str(), &facts.host, &facts.path];
            parts.iter().for_each(|part| digest.add(part.as_bytes()));
            digest.add(&facts.port.unwrap_or_default().to_be_bytes());
            facts.query.iter().for_each(|query| digest.add(query.as_bytes()));
            digest.end();
            match facts.client {
                IpAddr::V4(address) => digest.add(&address.octets()),
                IpAddr::V6(address) => digest.add(&address.octets()),
            }
        }
        Some(TokenHash(digest.0.finalize().into()))
    }

    /// The fields of the question: the credentials as they came, and who asks for what, in our own words.
    pub fn fields(&self, credentials: &[HeaderName]) -> HeaderMap {
        let mut fields = HeaderMap::with_capacity(8 + credentials.len());
        for name in credentials {
            for value in &self.all(name) {
                fields.append(name, sensitive(value));
            }
        }
        join_cookies(&mut fields);
        let facts = self.facts;
        let text = |text: &str| HeaderValue::from_str(text).ok();
        let uri = facts.query.as_ref().map_or_else(|| facts.path.clone(), |query| format!("{}?{query}", facts.path));
        let host = facts.port.map_or_else(|| facts.host.clone(), |port| format!("{}:{port}", facts.host));
        let about = [
            (METHOD, text(facts.method.as_str())),
            (PROTO, text(facts.scheme.as_str())),
            (HOST, text(&host).filter(|_| !facts.host.is_empty())),
            // A path or query beyond ASCII is sent as its bytes.
            (URI, HeaderValue::from_bytes(uri.as_bytes()).ok()),
            (FOR, text(&facts.client.to_string())),
            (REQUEST_ID, Some(facts.request_id.clone())),
        ];
        fields.extend(about.into_iter().filter_map(|(name, value)| Some((name, value?))));
        fields
    }

    fn all(&self, name: &HeaderName) -> GetAll<'a, HeaderValue> {
        self.headers.get_all(name)
    }
}

fn sensitive(value: &HeaderValue) -> HeaderValue {
    let mut value = value.clone();
    value.set_sensitive(true);
    value
}

/// HTTP/2 may split cookies over several fields; elsewhere they are one (RFC 9113 §8.2.3).
fn join_cookies(fields: &mut HeaderMap) {
    let lines: Vec<&[u8]> = fields.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if lines.len() > 1
        && let Ok(mut joined) = HeaderValue::from_bytes(&lines.join(&b"; "[..]))
    {
        joined.set_sensitive(true);
        fields.insert(COOKIE, joined);
    }
}

/// Parts of a digest, each with its length before it: two lists of parts never give the same bytes.
struct Parts(Sha256);

impl Parts {
    fn add(&mut self, part: &[u8]) {
        self.0.update((part.len() as u64).to_be_bytes());
        self.0.update(part);
    }

    /// The end of a list.
    fn end(&mut self) {
        self.0.update(u64::MAX.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use http::header::AUTHORIZATION;

    use super::*;
    use crate::exchange::testing;

    const CREDENTIALS: [HeaderName; 2] = [AUTHORIZATION, COOKIE];

    fn told(target: &str, fields: &[(&'static str, &str)]) -> String {
        let (head, facts) = (testing::head("GET", "/", fields), testing::facts("POST", target));
        let fields = Question { headers: &head.headers, facts: &facts }.fields(&CREDENTIALS);
        let lines: Vec<_> =
            fields.iter().map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes()))).collect();
        lines.join("\n")
    }

    fn hash(method: &str, target: &str, fields: &[(&'static str, &str)], by: By) -> Option<[u8; 32]> {
        let (head, facts) = (testing::head("GET", "/", fields), testing::facts(method, target));
        Question { headers: &head.headers, facts: &facts }.hash(&CREDENTIALS, by).map(|hash| hash.0)
    }

    #[test]
    fn what_a_client_says_of_its_way_is_not_believed() {
        let said = [
            ("authorization", "Bearer a"),
            ("cookie", "s=1"),
            ("cookie", "t=2"),
            ("x-forwarded-uri", "/public"),
            ("x-forwarded-for", "6.6.6.6"),
            ("x-request-id", "mine"),
            ("x-other", "1"),
        ];
        assert_eq!(
            told("/a?b=c", &said),
            "authorization: Bearer a\ncookie: s=1; t=2\nx-forwarded-method: POST\nx-forwarded-proto: http\n\
             x-forwarded-host: shop.example\nx-forwarded-uri: /a?b=c\nx-forwarded-for: 127.0.0.1\nx-request-id: id"
        );
        assert!(told("/ü", &[]).contains("x-forwarded-uri: /ü\n"));
    }

    #[test]
    fn another_question_has_another_name() {
        let token: &[(&str, &str)] = &[("authorization", "a")];
        let base = hash("GET", "/a?b", token, By::Request);
        assert!(base.is_some() && base == hash("GET", "/a?b", token, By::Request));
        for other in [
            hash("POST", "/a?b", token, By::Request),
            hash("GET", "/b?b", token, By::Request),
            hash("GET", "/a?c", token, By::Request),
            hash("GET", "/a", token, By::Request),
            hash("GET", "/a?b", &[("authorization", "b")], By::Request),
            hash("GET", "/a?b", &[("cookie", "a")], By::Request),
            hash("GET", "/a?b", &[("authorization", "a"), ("authorization", "")], By::Request),
            hash("GET", "/a?b", token, By::Credentials),
        ] {
            assert!(other.is_some() && other != base);
        }
        assert_eq!(hash("GET", "/a", token, By::Credentials), hash("POST", "/b", token, By::Credentials));
        assert_eq!(hash("GET", "/a", &[("x-other", "1")], By::Credentials), None, "without credentials it may be anybody");
    }
}
