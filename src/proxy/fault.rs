//! What an error of Pingora means: whose fault it is, and what the client is told.

use pingora_core::{
    Error, ErrorSource,
    ErrorType::{ConnectionClosed, H2Error, ReadError, ReadTimedout, WriteError, WriteTimedout},
};

use crate::{
    exchange::{Stop, UpstreamFault},
    upstream::client,
};

/// What an error means for the client.
pub enum Meaning {
    /// There is no one left to tell.
    ClientGone,
    Stop(Stop),
}

/// Reads an error of Pingora. `head_came` says whether the response head was there.
pub fn meaning(error: &Error, head_came: bool) -> Meaning {
    match error.esource() {
        ErrorSource::Downstream => downstream(error),
        ErrorSource::Upstream => Meaning::Stop(upstream(error, head_came).into()),
        ErrorSource::Internal | ErrorSource::Unset => Meaning::Stop(Stop::Fault(anyhow::anyhow!("{error}"))),
    }
}

fn downstream(error: &Error) -> Meaning {
    match error.etype() {
        ReadTimedout => Meaning::Stop(Stop::ClientTimeout),
        WriteError | WriteTimedout | ReadError | ConnectionClosed | H2Error => Meaning::ClientGone,
        _ => Meaning::Stop(Stop::Malformed("The request breaks the protocol.")),
    }
}

/// How a service failed us.
pub fn upstream(error: &Error, head_came: bool) -> UpstreamFault {
    match client::fault(error).unwrap_or(UpstreamFault::Protocol) {
        UpstreamFault::ResponseTimeout if head_came => UpstreamFault::IdleTimeout,
        fault => fault,
    }
}
