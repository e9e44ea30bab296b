//! Limits that nodes share, counted in Redis or Valkey.
//!
//! Reading order: [`store`] is the server with its connections and its breaker; `link` connects, `keeper` watches, `script` is the one
//! atomic decision (`take.lua`, on the server's clock); [`Exact`] asks it about each request; [`Leased`] takes shares ahead.
//! Whatever cannot be answered within the store's timeout is [`Unanswered`]: what then holds is said by who asked.

pub mod store;
mod breaker;
mod compile;
mod exact;
mod figures;
mod keeper;
mod known;
mod law;
mod leased;
mod link;
mod refusals;
mod script;
mod text;

pub use self::{
    exact::{Ask, Exact, take_all},
    figures::{Figures, Histogram},
    known::Fleet,
    law::Law,
    leased::{Bound, Leased},
    link::{Address, Place, Settings, SettingsError, Tls},
    store::{Store, Unanswered},
    text::text,
};

/// Whom a limit is asked about.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Under a secret of this process.
    pub hash: u64,
    /// The same on every node.
    pub text: &'a str,
}
