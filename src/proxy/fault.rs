//! What an error of Pingora means: whose fault it is, and what the client is told.

use pingora_core::{
    Error, ErrorSource,
    ErrorType::{
        AcceptError, BindError, ConnectError, ConnectNoRoute, ConnectProxyFailure, ConnectRefused, ConnectTimedout,
        ConnectionClosed, H1Error, H2Downgrade, H2Error, HandshakeError, InvalidCert, InvalidH2, InvalidHTTPHeader, ReadError,
        ReadTimedout, SocketError, TLSHandshakeFailure, TLSHandshakeTimedout, TLSWantX509Lookup, WriteError, WriteTimedout,
    },
};

use crate::exchange::{Stop, UpstreamFault};

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
    match error.etype() {
        ConnectTimedout | TLSHandshakeTimedout => UpstreamFault::ConnectTimeout,
        ConnectRefused | ConnectNoRoute | ConnectError | BindError | SocketError | AcceptError | ConnectProxyFailure => {
            UpstreamFault::Connect
        }
        TLSHandshakeFailure | TLSWantX509Lookup | InvalidCert | HandshakeError => UpstreamFault::Tls,
        ReadTimedout | WriteTimedout if head_came => UpstreamFault::IdleTimeout,
        ReadTimedout | WriteTimedout => UpstreamFault::ResponseTimeout,
        ConnectionClosed | ReadError | WriteError => UpstreamFault::Reset,
        InvalidHTTPHeader | H1Error | InvalidH2 | H2Downgrade => UpstreamFault::Protocol,
        H2Error => UpstreamFault::Reset,
        _ => UpstreamFault::Protocol,
    }
}
