//! Who a credential belongs to. Knows credentials and the consumers that have them, no request and no session.

pub mod consumers;
pub mod password;
pub mod by_claims;
pub mod identities;
pub mod jwt;
pub mod introspect;
pub mod forward;
pub mod bridge;
pub mod mint;
pub mod questions;
pub mod signature;
pub mod expression;
pub mod session;
pub mod token;
pub mod fields;
pub mod remembered;
pub mod strict;
pub mod outgoing;
#[cfg(test)]
pub mod testing;

pub use self::{by_claims::ByClaims, consumers::Consumers, identities::Identities, password::Passwords, token::Verified};
