//! Integration tests: the real binary, real sockets.
