//! Overload: who is let in at all while there is more to carry than can be. Edge ring, inward, before all others, and before a body is held.
//!
//! What is shed is reckoned in `limit::overload`; a route only says how much it matters.

use std::sync::Arc;

use super::chain::Ground;
use crate::{
    config::route::Priority,
    exchange::Stop,
    limit::overload::{Guard, Ticket},
};

/// How much the requests of a route matter.
pub struct Overload {
    guard: Arc<Guard>,
    priority: Priority,
}

/// What a request holds until it has ended. None: it was not let in yet.
#[derive(Default)]
pub struct Memo(Option<Ticket>);

impl Overload {
    pub fn compile(ground: &Ground<'_>) -> Self {
        let route = ground.loaded.config.routes.get(ground.route);
        Self { guard: ground.guard.clone(), priority: route.map(|route| route.priority).unwrap_or_default() }
    }

    /// Lets a request in, once.
    ///
    /// # Errors
    /// It is shed.
    pub fn admit(&self, memo: &mut Memo) -> Result<(), Stop> {
        if memo.0.is_none() {
            let ticket = self.guard.admit(self.priority).map_err(|shed| Stop::Overloaded(shed.retry_after))?;
            memo.0 = Some(ticket);
        }
        Ok(())
    }
}
