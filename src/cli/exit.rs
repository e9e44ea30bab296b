//! Exit codes of a start that failed, by sysexits.h: a supervisor can tell what is worth another try.

use std::io::{self, ErrorKind};

use nix::errno::Errno;

use crate::{live::StartError, server::Fault, stores::StoresError};

const NOINPUT: u8 = 66;
const UNAVAILABLE: u8 = 69;
const OSERR: u8 = 71;
const OSFILE: u8 = 72;
const CANTCREAT: u8 = 73;
const NOPERM: u8 = 77;
const CONFIG: u8 = 78;

/// What every other command ends with that fails.
const FAILED: u8 = 1;

/// The code of an error.
pub fn code(error: &anyhow::Error) -> u8 {
    match (error.downcast_ref::<StartError>(), error.downcast_ref::<Fault>()) {
        (Some(StartError::Unreadable(_)), _) => NOINPUT,
        (Some(StartError::Refused(_) | StartError::Stores(StoresError::Metrics(_))), _) => CONFIG,
        (Some(StartError::Stores(StoresError::AccessLog(open))), _) => of_system(open.reason(), CANTCREAT),
        (Some(StartError::Stores(StoresError::Quota(open))), _) => of_system(open.reason(), CANTCREAT),
        (_, Some(Fault::Authorities(_))) => OSFILE,
        (_, Some(Fault::Listen { .. })) => reason(error).map_or(OSERR, |reason| of_system(reason, OSERR)),
        (_, Some(_)) => OSERR,
        _ => FAILED,
    }
}

fn reason(error: &anyhow::Error) -> Option<&io::Error> {
    error.chain().find_map(|cause| cause.downcast_ref())
}

fn of_system(reason: &io::Error, otherwise: u8) -> u8 {
    match reason.kind() {
        ErrorKind::PermissionDenied => NOPERM,
        ErrorKind::AddrInUse | ErrorKind::AddrNotAvailable => UNAVAILABLE,
        ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::AlreadyExists | ErrorKind::ReadOnlyFilesystem => CANTCREAT,
        ErrorKind::InvalidInput => CONFIG,
        _ if is_exhausted(reason) => OSERR,
        _ => otherwise,
    }
}

fn is_exhausted(reason: &io::Error) -> bool {
    [Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM].iter().any(|errno| reason.raw_os_error() == Some(*errno as i32))
}
