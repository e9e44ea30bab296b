//! What a request is counted under: parts of it, hashed under a secret of the process.
//!
//! Each part is written with its kind and its length, so that no two requests of different parts can read the same. A request that does not have a
//! part counts with all others that do not have it.

use std::{
    hash::{BuildHasher, DefaultHasher, Hasher, RandomState},
    net::IpAddr,
};

use http::{HeaderName, header};
use serde_json::Value;
use smallvec::SmallVec;

use crate::{
    caller::{Caller, ClaimPath, Claims},
    exchange::Inbound,
    name::RouteName,
    query,
};

/// A key: SipHash 1-3 of its parts.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Key(u64);

impl Key {
    pub const fn new(hash: u64) -> Self {
        Self(hash)
    }

    pub const fn hash(self) -> u64 {
        self.0
    }
}

/// The secret of the process, drawn at random: who does not know it cannot make keys that meet.
#[derive(Clone, Debug, Default)]
pub struct Secret(RandomState);

impl Secret {
    /// The key of a request.
    pub fn key(&self, parts: &Parts, inbound: &Inbound<'_>) -> Key {
        let mut hasher = Hashing(self.0.build_hasher());
        parts.write(inbound, &mut hasher);
        Key(hasher.0.finish())
    }
}

/// Takes the parts of a key one after the other.
pub trait Sink {
    fn part(&mut self, kind: Kind, bytes: &[u8]);
}

struct Hashing(DefaultHasher);

impl Sink for Hashing {
    fn part(&mut self, kind: Kind, bytes: &[u8]) {
        // Kind and length in one word: a length of 2^56 is none.
        self.0.write_u64((bytes.len() as u64) << 8 | kind as u64);
        self.0.write(bytes);
    }
}

/// What a part is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    /// The request does not have it.
    Absent,
    /// After the last of several values.
    End,
    V4,
    V6,
    Consumer,
    Scheme,
    Credential,
    Plan,
    Route,
    Value,
    Null,
    Bool,
    Number,
    Text,
    List,
    Map,
}

/// The parts of a key, in their order.
#[derive(Clone, PartialEq, Debug)]
pub struct Parts(pub Box<[Part]>);

impl Parts {
    /// Whether all requests of one route have the same.
    pub fn is_of_route(&self) -> bool {
        self.0.iter().all(|part| matches!(part, Part::Route(_)))
    }
}

/// A part of a request.
#[derive(Clone, PartialEq, Debug)]
pub enum Part {
    /// The client's address; of an IPv6 address the bits of this mask.
    ClientIp {
        v6: u128,
    },
    Consumer,
    /// By what the caller is known.
    Credential,
    Plan,
    Route(RouteName),
    Header(HeaderName),
    Cookie(Box<str>),
    Query(Box<str>),
    Claim(ClaimPath),
}

impl Parts {
    /// Writes what a request has of the parts.
    pub fn write(&self, inbound: &Inbound<'_>, out: &mut impl Sink) {
        for part in &self.0 {
            part.write(inbound, out);
        }
    }
}

impl Part {
    /// The first `prefix` bits of an IPv6 address, 1 to 128.
    pub const fn client_ip(prefix: u8) -> Self {
        Self::ClientIp { v6: u128::MAX << (128 - prefix as u32) }
    }

    fn write(&self, inbound: &Inbound<'_>, out: &mut impl Sink) {
        match self {
            Self::ClientIp { v6 } => match inbound.facts.client.to_canonical() {
                IpAddr::V4(address) => out.part(Kind::V4, &address.octets()),
                IpAddr::V6(address) => out.part(Kind::V6, &(address.to_bits() & v6).to_be_bytes()),
            },
            Self::Consumer => text(Kind::Consumer, consumer(inbound.caller).map(|consumer| consumer.name.as_str()), out),
            Self::Credential => credential(inbound.caller, out),
            Self::Plan => {
                let plan = consumer(inbound.caller).and_then(|consumer| consumer.plan.as_ref());
                text(Kind::Plan, plan.map(|plan| plan.name.as_str()), out);
            }
            Self::Route(name) => out.part(Kind::Route, name.as_str().as_bytes()),
            Self::Header(name) => values(inbound.head.headers.get_all(name).iter().map(http::HeaderValue::as_bytes), out),
            Self::Cookie(name) => value(cookie(&inbound.head.headers, name), out),
            Self::Query(name) => value(parameter(inbound.facts.query.as_deref().unwrap_or_default(), name).as_deref(), out),
            Self::Claim(path) => claim(claims(inbound.caller).and_then(|claims| path.find(&claims.all)), out),
        }
    }
}

fn consumer(caller: &Caller) -> Option<&crate::caller::Consumer> {
    caller.consumer.as_deref()
}

fn claims(caller: &Caller) -> Option<&Claims> {
    caller.claims.as_deref()
}

/// Claims by which a token's holder is known to who issued it, the best first (RFC 7519 §4.1.2, RFC 8693 §4.3).
const SUBJECTS: [&str; 3] = ["sub", "client_id", "azp"];

/// What tells a credential from others: what its scheme says of it, else whom its claims speak of. A token is not its own: its holder gets others.
fn credential(caller: &Caller, out: &mut impl Sink) {
    text(Kind::Scheme, caller.scheme, out);
    if let Some(credential) = &caller.credential {
        return out.part(Kind::Credential, credential.bytes());
    }
    let all = claims(caller).map(|claims| &claims.all);
    let subject = all.and_then(|all| SUBJECTS.iter().find_map(|name| all.get(*name)));
    if subject.is_some() {
        claim(all.and_then(|all| all.get("iss")), out);
        return claim(subject, out);
    }
    text(Kind::Consumer, consumer(caller).map(|consumer| consumer.name.as_str()), out);
}

fn text(kind: Kind, text: Option<&str>, out: &mut impl Sink) {
    match text {
        Some(text) => out.part(kind, text.as_bytes()),
        None => out.part(Kind::Absent, b""),
    }
}

fn value(value: Option<&[u8]>, out: &mut impl Sink) {
    match value {
        Some(value) => out.part(Kind::Value, value),
        None => out.part(Kind::Absent, b""),
    }
}

/// All values of a field: who repeats it is not the one who sends the first alone.
fn values<'v>(values: impl Iterator<Item = &'v [u8]>, out: &mut impl Sink) {
    let mut any = false;
    for value in values {
        out.part(Kind::Value, value);
        any = true;
    }
    out.part(if any { Kind::End } else { Kind::Absent }, b"");
}

/// The value of a cookie. Of two of one name the first counts, as it does for services.
fn cookie<'h>(headers: &'h http::HeaderMap, name: &str) -> Option<&'h [u8]> {
    let pairs = headers.get_all(header::COOKIE).iter().flat_map(|field| field.as_bytes().split(|byte| *byte == b';'));
    let mut named = pairs.filter_map(|pair| pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"="));
    named.next()
}

/// The value of a query parameter, decoded. Of two of one name the first counts.
fn parameter(query: &str, name: &str) -> Option<SmallVec<[u8; 64]>> {
    let mut named = query::parameters(query).filter(|(other, _)| query::decoded(other).eq(name.bytes()));
    named.next().map(|(_, value)| query::decoded(value).collect())
}

fn claim(value: Option<&Value>, out: &mut impl Sink) {
    match value {
        None => out.part(Kind::Absent, b""),
        Some(Value::Null) => out.part(Kind::Null, b""),
        Some(Value::Bool(word)) => out.part(Kind::Bool, &[u8::from(*word)]),
        Some(Value::Number(number)) => out.part(Kind::Number, &number_bytes(number)),
        Some(Value::String(text)) => out.part(Kind::Text, text.as_bytes()),
        Some(Value::Array(items)) => {
            out.part(Kind::List, &items.len().to_le_bytes());
            items.iter().for_each(|item| claim(Some(item), out));
        }
        Some(Value::Object(map)) => {
            out.part(Kind::Map, &map.len().to_le_bytes());
            for (name, value) in map {
                out.part(Kind::Text, name.as_bytes());
                claim(Some(value), out);
            }
        }
    }
}

/// A number as one: whole numbers by their value, others by that of their bits.
fn number_bytes(number: &serde_json::Number) -> [u8; 16] {
    let whole = number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from));
    match (whole, number.as_f64()) {
        (Some(whole), _) => whole.to_le_bytes(),
        // Above every whole number that JSON is read into.
        (None, float) => (u128::from(float.unwrap_or_default().to_bits()) | 1 << 127).to_le_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, sync::Arc};

    use serde_json::json;

    use super::*;
    use crate::{
        caller::{Consumer, Groups, Plan},
        exchange::testing,
        name::{ConsumerName, PlanName},
    };

    fn key(secret: &Secret, parts: &[Part], path: &str, headers: &[(&'static str, &str)], caller: &Caller) -> Key {
        let (mut head, facts, mut caller) = (testing::head("GET", path, headers), testing::facts("GET", path), caller.clone());
        let inbound = Inbound { head: &mut head, facts: &facts, tls: None, caller: &mut caller };
        secret.key(&Parts(parts.into()), &inbound)
    }

    /// How many keys these callers have.
    fn of_callers<const N: usize>(part: Part, callers: [Caller; N]) -> usize {
        let (secret, part) = (Secret::default(), [part]);
        callers.iter().map(|caller| key(&secret, &part, "/", &[], caller)).collect::<HashSet<_>>().len()
    }

    fn holder(claims: Value) -> Caller {
        let claims = Claims::new(claims.as_object().unwrap().clone());
        Caller { scheme: Some("jwt"), claims: Some(Arc::new(claims)), ..Caller::default() }
    }

    fn consumer(name: &str, plan: Option<&str>, digest: u8) -> Caller {
        let plan = plan.map(|name| Arc::new(Plan { name: PlanName::new(name), index: 0 }));
        let consumer = Consumer { name: ConsumerName::new(name), index: 0, groups: Arc::new(Groups::default()), plan };
        Caller::known_by("api_key", Arc::new(consumer), &[digest; 32])
    }

    #[test]
    fn callers_are_told_apart_by_consumer_credential_and_plan() {
        let callers =
            || [consumer("a", Some("p"), 1), consumer("a", Some("p"), 2), consumer("b", Some("p"), 3), Caller::default()];
        assert_eq!(of_callers(Part::Consumer, callers()), 3);
        assert_eq!(of_callers(Part::Credential, callers()), 4);
        assert_eq!(of_callers(Part::Plan, callers()), 2);
        assert_eq!(of_callers(Part::Plan, [consumer("a", None, 1), consumer("b", None, 1)]), 1);
    }

    #[test]
    fn a_new_token_of_the_same_subject_is_no_new_credential() {
        let token = |issuer: &str, subject: &str, id: &str| holder(json!({ "iss": issuer, "sub": subject, "jti": id }));
        assert_eq!(of_callers(Part::Credential, [token("i", "s", "1"), token("i", "s", "2")]), 1);
        assert_eq!(of_callers(Part::Credential, [token("i", "s", "1"), token("j", "s", "1"), token("i", "t", "1")]), 3);
        assert_eq!(of_callers(Part::Credential, [holder(json!({ "client_id": "c" })), holder(json!({ "client_id": "d" }))]), 2);
    }

    #[test]
    fn claims_of_different_kinds_and_shapes_do_not_meet() {
        let values = [
            json!(null),
            json!(false),
            json!(0),
            json!(-1),
            json!(u64::MAX),
            json!(0.5),
            json!("0"),
            json!(""),
            json!([]),
            json!({}),
            json!(["a", "b"]),
            json!(["ab"]),
            json!([["a"], "b"]),
            json!([["a", "b"]]),
            json!({ "a": "b" }),
            json!({ "b": "a" }),
        ];
        let secret = Secret::default();
        let keys: HashSet<_> = values
            .iter()
            .map(|value| key(&secret, &[Part::Claim(ClaimPath::new("c"))], "/", &[], &holder(json!({ "c": value }))))
            .chain([key(&secret, &[Part::Claim(ClaimPath::new("c"))], "/", &[], &holder(json!({})))])
            .collect();
        assert_eq!(keys.len(), values.len() + 1);
    }

    #[test]
    fn points_lead_into_a_claim() {
        let secret = Secret::default();
        let of = |name: &str, claims: Value| key(&secret, &[Part::Claim(ClaimPath::new(name))], "/", &[], &holder(claims));
        assert_eq!(of("org.id", json!({ "org": { "id": "x" } })), of("c", json!({ "c": "x" })));
        assert_eq!(of("org.none", json!({ "org": { "id": "x" } })), of("c", json!({})));
    }

    #[test]
    fn a_query_is_read_decoded_and_a_cookie_by_its_whole_name() {
        let secret = Secret::default();
        let query = |path: &str| key(&secret, &[Part::Query("id".into())], path, &[], &Caller::default());
        assert_eq!(query("/?id=a%20b"), query("/?x=1&%69d=a+b&id=c"));
        assert_ne!(query("/?id="), query("/"));
        let cookie = |field: &str| key(&secret, &[Part::Cookie("id".into())], "/", &[("cookie", field)], &Caller::default());
        assert_eq!(cookie("id=1"), cookie("xid=2; id=1 ;id=3"));
        assert_eq!(cookie("idx=1"), cookie("x=1"));
    }

    #[test]
    fn each_process_has_its_own_keys() {
        let parts = [Part::client_ip(64)];
        let of = |secret: &Secret| key(secret, &parts, "/", &[], &Caller::default());
        let secret = Secret::default();
        assert_eq!(of(&secret), of(&secret));
        assert_ne!(of(&secret), of(&Secret::default()));
    }
}
