//! Integration tests: the real binary, real sockets.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod harness;

mod cases;
mod connections;
mod hostile;
mod protocols;
mod timeouts;
mod upstreams;
