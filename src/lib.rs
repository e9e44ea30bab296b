//! Banyan, an API gateway on Pingora.
//!
//! A request's way through the modules: `edge` accepts it, `proxy` drives it through Pingora's hooks, `live` holds the
//! current snapshot, `route` finds its route, `policy` lets it pass, `origin` says where it goes, `upstream` picks an
//! endpoint; `reply` writes our own answers and `observe` tells what happened. `config` is what all of it is compiled from.
//! `docs/architecture.md` is the plan of the house.

pub mod certs;
pub mod cli;
pub mod config;
pub mod deadline;
pub mod edge;
pub mod exchange;
pub mod live;
pub mod name;
pub mod observe;
pub mod origin;
pub mod policy;
pub mod proxy;
pub mod reply;
pub mod route;
pub mod server;
pub mod stores;
pub mod units;
pub mod upstream;
