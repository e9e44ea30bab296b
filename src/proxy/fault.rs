//! What an error of Pingora means: whose fault it is, and what the client is told.

use pingora_core::{
    Error, ErrorSource,
    ErrorType::{ConnectionClosed, H2Error, ReadError, ReadTimedout, WriteError, WriteTimedout},
};

use crate::{
    deadline::Expired,
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

/// How a service failed us when a deadline passed and its connection was ended for it. Of a body that did not move on it is not to
/// blame: the client may have been silent; nor of a call for which the client gave too little time.
pub fn of_silence(expired: Expired) -> Option<UpstreamFault> {
    match expired {
        Expired::Request | Expired::Response => Some(UpstreamFault::ResponseTimeout),
        Expired::Idle => Some(UpstreamFault::IdleTimeout),
        Expired::Upload | Expired::Call => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_not_blamed_for_a_client_that_stops_sending() {
        assert_eq!(of_silence(Expired::Upload), None);
        assert_eq!(of_silence(Expired::Call), None);
        assert_eq!(of_silence(Expired::Response), Some(UpstreamFault::ResponseTimeout));
        assert_eq!(of_silence(Expired::Idle), Some(UpstreamFault::IdleTimeout));
    }
}
