//! Integration tests: the real binary, real sockets.

mod config_errors;
