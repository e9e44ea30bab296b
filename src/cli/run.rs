//! `banyan run`: serve a configuration.

use std::{path::Path, process::ExitCode};

use clap::Args;

use super::Place;
use crate::{
    live::Source,
    server::{self, Start},
};

/// Serve a configuration until told to stop.
///
/// SIGHUP or a change of the files reloads it; SIGTERM and SIGINT end the process.
#[derive(Args, Debug)]
pub struct Run {
    #[command(flatten)]
    place: Place,
    /// Take the place of the process that runs, with its sockets, once it gets SIGQUIT. `banyan reload` does both.
    #[arg(long)]
    upgrade: bool,
}

impl Run {
    pub fn execute(self) -> anyhow::Result<ExitCode> {
        let start = if self.upgrade { Start::Upgrade } else { Start::Afresh };
        server::run(Source::Path(self.path().to_owned()), start)?;
        Ok(ExitCode::SUCCESS)
    }

    /// Where the configuration is.
    pub fn path(&self) -> &Path {
        self.place.path()
    }
}
