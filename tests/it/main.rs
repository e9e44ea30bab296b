//! Integration tests: the real binary, real sockets.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod config_errors;
mod docs;
mod examples;
mod floors;
mod config_reading;
mod config_reference;
mod fuzz;
mod gateway_api;
mod route;
