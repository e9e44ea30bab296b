//! Which route takes a request.
//!
//! [`path`] and [`host`] bring what a client sent into one form; [`table`] finds the route; [`explain`] says why.
//! [`pattern`], [`regex`] and [`predicate`] are what routes are made of, `conflict` what is wrong between them.

pub mod path;

pub mod host;

pub mod table;

pub mod explain;

pub mod pattern;

pub mod predicate;

pub mod regex;

mod conflict;
