//! Who calls: what authentication found out about a request, for the policies after it, the service and the log.

mod claim;

use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use serde_json::{Map, Value};

pub use self::claim::ClaimPath;
use crate::name::{ConsumerName, GroupName, PlanName};

/// Someone who calls, as the configuration knows them. Compiled once, shared by all of its requests.
#[derive(PartialEq, Debug)]
pub struct Consumer {
    pub name: ConsumerName,
    /// Its place among the consumers of the configuration, by which what is kept of each is found.
    pub index: usize,
    pub groups: Arc<Groups>,
    pub plan: Option<Arc<Plan>>,
}

/// What consumers may use. Those of one plan share it.
#[derive(PartialEq, Debug)]
pub struct Plan {
    pub name: PlanName,
    /// Its place among the plans of the configuration, by which limits find what it allows.
    pub index: usize,
}

/// The groups of a consumer. Consumers of the same groups share them.
#[derive(PartialEq, Debug, Default)]
pub struct Groups {
    pub names: Box<[GroupName]>,
    /// As services are told them: `partners, first-party`. Absent: none.
    pub header: Option<HeaderValue>,
}

impl Groups {
    pub fn new(names: Vec<GroupName>) -> Self {
        let list = names.iter().map(GroupName::as_str).collect::<Vec<_>>().join(", ");
        let header = (!list.is_empty()).then(|| HeaderValue::from_str(&list).ok()).flatten();
        Self { names: names.into(), header }
    }
}

/// What a token or a session says of its holder.
#[derive(PartialEq, Debug, Default)]
pub struct Claims {
    /// Every claim, as it was signed.
    pub all: Map<String, Value>,
    pub scopes: Box<[Box<str>]>,
    pub roles: Box<[Box<str>]>,
}

impl Claims {
    /// Scopes are those of `scope` (RFC 8693 §4.2: a text with spaces) or `scp`, roles those of `roles`; each may be a text or a list.
    pub fn new(all: Map<String, Value>) -> Self {
        let scopes = all.get("scope").or_else(|| all.get("scp")).map(words).unwrap_or_default();
        let roles = all.get("roles").map(words).unwrap_or_default();
        Self { all, scopes, roles }
    }
}

/// The words of a text, or the texts of a list.
pub fn words(value: &Value) -> Box<[Box<str>]> {
    match value {
        Value::String(text) => text.split(' ').filter(|word| !word.is_empty()).map(Box::from).collect(),
        Value::Array(items) => items.iter().filter_map(Value::as_str).map(Box::from).collect(),
        _ => Box::default(),
    }
}

/// What tells one credential from another of its scheme, and is no secret: the first half of a digest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Credential([u8; 16]);

impl Credential {
    pub fn new(digest: &[u8; 32]) -> Self {
        let (halves, _) = digest.as_chunks();
        Self(halves.first().copied().unwrap_or_default())
    }

    pub const fn bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// Header fields by which a service is told of its caller.
pub type Fields = Arc<[(HeaderName, HeaderValue)]>;

/// Who calls, as far as a request proved it.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Caller {
    pub consumer: Option<Arc<Consumer>>,
    /// The scheme that vouches for it, as the file calls it. Absent: nobody was asked, or nobody could tell.
    pub scheme: Option<&'static str>,
    pub claims: Option<Arc<Claims>>,
    /// Which of the consumer's credentials it was, if its claims do not tell.
    pub credential: Option<Credential>,
    /// What the service is told beside the consumer and its groups.
    pub fields: Option<Fields>,
    /// The last refusal of the request: one that only the log was told of too.
    pub refusal: Option<Refusal>,
}

impl Caller {
    /// A consumer that a scheme vouches for.
    pub fn consumer(scheme: &'static str, consumer: Arc<Consumer>) -> Self {
        Self { consumer: Some(consumer), scheme: Some(scheme), ..Self::default() }
    }

    /// The same, by a credential of this digest.
    pub fn known_by(scheme: &'static str, consumer: Arc<Consumer>, digest: &[u8; 32]) -> Self {
        Self { credential: Some(Credential::new(digest)), ..Self::consumer(scheme, consumer) }
    }
}

/// Why a caller was refused, for the log: fixed words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// The scheme, or `authz`; `-` if no credential came.
    pub by: &'static str,
    pub reason: &'static str,
    /// Only noted: the policy is in its trial.
    pub shadow: bool,
}

/// Why a credential does not prove who calls. For logs and metrics; a client is not told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// There is no credential.
    Missing,
    /// It is not written as one.
    Malformed,
    /// It comes more than once.
    Repeated,
    /// Nobody has it.
    Unknown,
    /// It is not the one of who is named.
    Wrong,
    /// Two credentials are of different consumers.
    Conflict,
    /// It could not be looked at: too many are.
    Busy,
    /// Longer than any that is read.
    TooLarge,
    /// A token that is no signed token of three parts, with JSON in which no key stands twice.
    Unreadable,
    /// A token of an algorithm that is not configured, `none` among them.
    Algorithm,
    /// A token whose header asks for what we do not do: `crit`, `b64`, encryption.
    Header,
    /// A token that says that it is for another use.
    Type,
    /// No key of the issuer has the token's `kid` and fits its algorithm.
    UnknownKey,
    /// It was not signed by the key that it names.
    Signature,
    /// A token of another issuer.
    Issuer,
    /// A token for another service.
    Audience,
    Expired,
    NotYetValid,
    /// A token without a claim that must be there.
    MissingClaim,
    /// Its issuer says that it is not, or no longer, good.
    Inactive,
    /// Who vouches for it could not be asked, or was never reached.
    Unavailable,
    /// A signature that does not cover all that has to be signed.
    Coverage,
    /// It was signed too long ago, or ahead of time.
    Window,
    /// The body is not the one that was signed.
    Digest,
    /// It was used before.
    Replayed,
    /// So many were used that no more can be remembered.
    Full,
    /// Who vouches for callers said no.
    Denied,
}

impl Reason {
    /// Every reason, in the order of declaration.
    pub const ALL: [Self; 27] = [
        Self::Missing,
        Self::Malformed,
        Self::Repeated,
        Self::Unknown,
        Self::Wrong,
        Self::Conflict,
        Self::Busy,
        Self::TooLarge,
        Self::Unreadable,
        Self::Algorithm,
        Self::Header,
        Self::Type,
        Self::UnknownKey,
        Self::Signature,
        Self::Issuer,
        Self::Audience,
        Self::Expired,
        Self::NotYetValid,
        Self::MissingClaim,
        Self::Inactive,
        Self::Unavailable,
        Self::Coverage,
        Self::Window,
        Self::Digest,
        Self::Replayed,
        Self::Full,
        Self::Denied,
    ];

    /// Whether it says nothing of the credential: another time it may be a good one.
    pub const fn is_undecided(self) -> bool {
        matches!(self, Self::Busy | Self::Unavailable | Self::Full)
    }

    /// The word in logs and metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Repeated => "repeated",
            Self::Unknown => "unknown",
            Self::Wrong => "wrong",
            Self::Conflict => "conflict",
            Self::Busy => "busy",
            Self::TooLarge => "too_large",
            Self::Unreadable => "unreadable",
            Self::Algorithm => "algorithm",
            Self::Header => "header",
            Self::Type => "type",
            Self::UnknownKey => "unknown_key",
            Self::Signature => "signature",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::MissingClaim => "missing_claim",
            Self::Inactive => "inactive",
            Self::Unavailable => "unavailable",
            Self::Coverage => "coverage",
            Self::Window => "window",
            Self::Digest => "digest",
            Self::Replayed => "replayed",
            Self::Full => "full",
            Self::Denied => "denied",
        }
    }
}

/// What a caller would need to do what it asked for. For logs and metrics.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lack {
    Scopes,
    Roles,
    Groups,
    Claims,
    /// The expression of `when` is not true.
    When,
}

impl Lack {
    /// Every one, in the order of declaration.
    pub const ALL: [Self; 5] = [Self::Scopes, Self::Roles, Self::Groups, Self::Claims, Self::When];

    /// The word in logs and metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Scopes => "scopes",
            Self::Roles => "roles",
            Self::Groups => "groups",
            Self::Claims => "claims",
            Self::When => "when",
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claims(value: Value) -> Claims {
        Claims::new(value.as_object().unwrap().clone())
    }

    fn check(value: Value, scopes: &[&str], roles: &[&str]) {
        let claims = claims(value);
        assert_eq!(claims.scopes.iter().map(AsRef::as_ref).collect::<Vec<_>>(), scopes);
        assert_eq!(claims.roles.iter().map(AsRef::as_ref).collect::<Vec<_>>(), roles);
    }

    #[test]
    fn scopes_and_roles_are_read_as_providers_write_them() {
        check(json!({ "scope": "orders  stock", "roles": ["clerk"] }), &["orders", "stock"], &["clerk"]);
        check(json!({ "scp": ["orders", 7], "roles": "clerk" }), &["orders"], &["clerk"]);
        check(json!({ "scope": { "orders": true } }), &[], &[]);
    }

    #[test]
    fn reasons_stand_at_their_index() {
        for (index, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index, "{reason:?}");
        }
        for (index, lack) in Lack::ALL.into_iter().enumerate() {
            assert_eq!(lack as usize, index, "{lack:?}");
        }
    }
}
