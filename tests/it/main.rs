//! Integration tests: the real binary, real sockets.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod harness;

mod admin;
mod cases;
mod commands;
mod connections;
mod hostile;
mod load;
mod observe;
mod protocols;
mod reload;
mod timeouts;
mod upstreams;
