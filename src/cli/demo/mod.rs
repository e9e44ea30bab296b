//! `banyan demo`: a shop in one process, with the gateway in front of it.
//!
//! It runs on `conf/banyan.yaml`, moved to free ports, with certificates made for the occasion. The file as it is served
//! stands in a private temporary directory, so it can be edited while the demo runs.

use std::process::ExitCode;

use clap::Args;

use self::stage::Stage;
use crate::{live::Source, server};

mod certificates;
mod services;
mod stage;

/// Show the gateway at work, with no file and no service needed.
///
/// Starts a small legacy shop and new services in this process, and the gateway in front of them. Prints five requests to
/// try. Ctrl-C ends it.
#[derive(Args, Debug)]
pub struct Demo {}

impl Demo {
    pub fn execute(self) -> anyhow::Result<ExitCode> {
        let stage = Stage::set()?;
        services::start(stage.config(), &stage.tls())?;
        super::print(stage.invitation()?.as_bytes())?;
        server::run(Source::Path(stage.file()), server::Start::Afresh)?;
        Ok(ExitCode::SUCCESS)
    }
}
