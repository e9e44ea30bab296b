//! Integration tests: the real binary, real sockets.

mod config_errors;
mod config_reading;
mod config_reference;
