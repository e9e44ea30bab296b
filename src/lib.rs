//! Banyan, an API gateway on Pingora.
//!
//! A request's way through the modules: `edge` accepts it, `proxy` drives it through Pingora's hooks, `live` holds the
//! current snapshot, `route` finds its route, `policy` lets it pass, `origin` says where it goes, `upstream` picks an
//! endpoint; `reply` writes our own answers and `observe` tells what happened. `config` is what all of it is compiled from.
//! `docs/architecture.md` is the plan of the house.

pub mod cli;
pub mod server;
pub mod edge;
pub mod admin;
pub mod proxy;
pub mod live;
pub mod route;
pub mod policy;
pub mod origin;
pub mod upstream;
pub mod identity;
pub mod limit;
pub mod certs;
pub mod proxy_protocol;
pub mod observe;
pub mod reply;
pub mod deadline;
pub mod stores;
pub mod exchange;
pub mod caller;
pub mod query;
pub mod config;
pub mod name;
pub mod units;
