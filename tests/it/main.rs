//! Integration tests: the real binary, real sockets.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod harness;

mod cases;
mod connections;
mod ports;
mod process;
mod drain;
mod session_bridge;
mod start;
mod protocols;
mod http2;
mod tls;
mod upstreams;
mod retries;
mod resilience;
mod upstream_tls;
mod upgrades;
mod upstream_proxy_protocol;
mod timeouts;
mod carried;
mod edge_heads;
mod edge_bodies;
mod edge_limits;
mod fleet_store;
mod fleet;
mod edge_proxied;
mod edge_http2;
mod hostile;
mod observe;
mod rotation;
mod admin;
mod auth;
mod signed;
mod limits;
mod login;
mod jwt;
mod forward;
mod introspection;
mod oidc_provider;
mod attacks;
mod quota;
mod overload;
mod edge_floods;
mod reload;
mod load;
mod loadtest;
mod packaging;
mod monitoring;
mod systemd;
mod upgrade;
mod commands;

mod config_errors;
mod config_reading;
mod config_reference;
mod docs;
mod examples;
mod floors;
mod fuzz;
mod gateway_api;
mod route;
