//! Who a credential belongs to. Knows credentials and the consumers that have them, no request and no session.

pub mod consumers;
pub mod password;

pub use self::{consumers::Consumers, password::Passwords};
