//! What a client's HTTP/2 connection carries, read at the level of bytes.
//!
//! The `h2` crate bounds what it buffers, but a flood of small frames costs it time before it costs it memory, and it counts
//! nothing for us. Here each frame is seen on its way: by its head alone, its payload passed over by length.

pub use self::{
    flood::Flood,
    frames::{Code, goaway},
    guard::Guard,
    watch::{Ended, Watch},
};

mod guard;
mod watch;
mod flood;
mod budget;
mod coalesce;
mod frames;
