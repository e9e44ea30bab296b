//! The configuration language: what the file says, as types.
//!
//! This is the only module that knows the format. Reading order: [`load`] turns files into a [`Config`] and
//! reports every mistake with its place; the other files mirror one section each.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::name::{ConsumerName, IdentityName, ListenerName, PlanName, RouteName, UpstreamName};

pub mod load;

pub mod address;
pub mod admin;
pub mod consumer;
pub mod identity;
pub mod listener;
pub mod observe;
pub mod overload;
pub mod paths;
pub mod plan;
pub mod policy;
pub mod problem;
pub mod process;
pub mod reference;
pub mod route;
pub mod schema;
pub mod secret;
pub mod suggest;
pub mod upstream;

pub use self::{
    address::Network, admin::Admin, consumer::Consumer, identity::Identity, listener::Listener, observe::Observe,
    overload::Overload, paths::Paths, plan::Plan, policy::Policies, process::Process, route::Route, upstream::Upstream,
};

/// The whole configuration of a gateway.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where clients connect, by name.
    #[serde(default)]
    pub listeners: BTreeMap<ListenerName, Listener>,
    /// The operator's side door: health, readiness, metrics, active configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin: Option<Admin>,
    /// Threads and life cycle of the process.
    #[serde(default)]
    pub process: Process,
    /// Peers whose `X-Forwarded-*`, `Forwarded` and `X-Request-Id` headers are believed, as networks in CIDR notation.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub trusted_proxies: Vec<Network>,
    /// How request paths are normalised before anything matches them.
    #[serde(default)]
    pub paths: Paths,
    /// Access log and metrics.
    #[serde(default)]
    pub observe: Observe,
    /// What is refused so that the rest can be carried; on unless it is `off`.
    #[serde(default, skip_serializing_if = "policy::Switch::is_inherited")]
    pub overload: policy::Switch<Overload>,
    /// The services behind the gateway, by name.
    #[serde(default)]
    pub upstreams: BTreeMap<UpstreamName, Upstream>,
    /// Who vouches for callers, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub identity: BTreeMap<IdentityName, Identity>,
    /// What consumers may use, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub plans: BTreeMap<PlanName, Plan>,
    /// Who may call, by name, and by what they are known.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub consumers: BTreeMap<ConsumerName, Consumer>,
    /// Policies of the whole gateway. A route's own replaces it whole; `off` removes it.
    #[serde(default)]
    pub policies: Policies,
    /// Which requests go where, by name. The most specific match wins; the order in the file means nothing.
    #[serde(default)]
    pub routes: BTreeMap<RouteName, Route>,
}

impl Config {
    /// Whether a plan has a quota, whose use is to be kept.
    pub fn has_quotas(&self) -> bool {
        self.plans.values().any(|plan| plan.quota.is_some())
    }
}
