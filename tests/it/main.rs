//! Integration tests: the real binary, real sockets.

mod gateway_api;
mod route;
