//! What a client sends over HTTP/1, held to the letter of RFC 9112 before anything else reads it.
//!
//! Whoever reads the same bytes must see the same requests in them: here, in Pingora's parser, and in the service. So a head is
//! collected until it is whole ([`scan::Scan`]), read strictly ([`head::check`]), and its body followed to its last byte
//! ([`head::Framing`], [`chunks::Chunks`]). What could be read in two ways is refused. Only the [`Gate`] reads a socket.

pub use self::{
    gate::{Gate, LULL, Refused, Terms},
    head::Limits,
};

pub mod scan;
pub mod head;
pub mod chunks;
pub mod refusal;
mod gate;
mod line;
#[cfg(test)]
mod testing;
