//! Which route takes a request, and what a route is.
//!
//! [`path`] and [`host`] bring what a client sent into one form; [`table`] finds the route; [`explain`] says why.
//! [`pattern`], [`regex`] and [`predicate`] are what routes are made of, `conflict` what is wrong between them.

use std::sync::Arc;

use http::HeaderMap;

use self::table::{Found, Table};
use crate::{
    config::route::RouteTimeouts,
    exchange::{Captures, Facts, Stop},
    name::RouteName,
    observe::metrics::{RouteMetrics, UpstreamMetrics},
    origin::{Origin, Rewrite, faults::Faults},
    policy::chain::Chain,
    upstream::Upstream,
};

pub mod path;
pub mod host;
pub mod table;
pub mod explain;
pub mod pattern;
pub mod predicate;
pub mod regex;

mod conflict;

/// A route, compiled: the rules its requests meet, and where they go.
pub struct Route {
    pub name: RouteName,
    pub chain: Chain,
    pub rewrite: Rewrite,
    pub timeouts: RouteTimeouts,
    /// Failures made on purpose.
    pub faults: Option<Faults>,
    pub origin: Origin,
    pub metrics: RouteMetrics,
    /// Of each upstream of the origin, in its order.
    pub upstreams: Box<[UpstreamMetrics]>,
}

impl Route {
    /// The metrics of an upstream that the origin leads to.
    pub fn metrics_of(&self, upstream: &Arc<Upstream>) -> Option<&UpstreamMetrics> {
        self.origin.upstreams().zip(&self.upstreams).find(|(known, _)| Arc::ptr_eq(known, upstream)).map(|(_, metrics)| metrics)
    }
}

/// Finds the route of a request.
pub struct Router {
    table: Table,
    /// By the table's index.
    routes: Box<[Arc<Route>]>,
}

impl Router {
    pub fn new(table: Table, routes: Vec<Arc<Route>>) -> Self {
        Self { table, routes: routes.into() }
    }

    /// The route that takes a request, with its captures.
    ///
    /// # Errors
    /// None does; or some would, with another method.
    pub fn find(&self, facts: &Facts, headers: &HeaderMap) -> Result<(&Arc<Route>, Captures), Stop> {
        match self.table.find(facts, headers) {
            Found::Route { index, captures } => {
                self.routes.get(index as usize).map(|route| (route, captures)).ok_or(Stop::NoRoute)
            }
            Found::MethodNotAllowed(allow) => Err(Stop::MethodNotAllowed(allow)),
            Found::None => Err(Stop::NoRoute),
        }
    }

    pub fn routes(&self) -> impl Iterator<Item = &Route> {
        self.routes.iter().map(Arc::as_ref)
    }

    pub fn table(&self) -> &Table {
        &self.table
    }
}
