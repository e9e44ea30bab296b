//! `banyan run`: serve a configuration.

use std::process::ExitCode;

use clap::Args;

use super::Place;
use crate::{live::Source, server};

/// Serve a configuration until told to stop.
///
/// SIGHUP or a change of the files reloads it; SIGTERM and SIGINT end the process.
#[derive(Args, Debug)]
pub struct Run {
    #[command(flatten)]
    place: Place,
}

impl Run {
    pub fn execute(self) -> anyhow::Result<ExitCode> {
        server::run(Source::Path(self.place.path().to_owned()))?;
        Ok(ExitCode::SUCCESS)
    }
}
