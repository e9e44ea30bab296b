//! Integration tests: the real binary, real sockets.

mod route;
