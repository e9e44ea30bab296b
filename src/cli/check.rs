//! `banyan check`: find every mistake of a configuration.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, ValueEnum};

/// Find every mistake in a configuration. Exit code 0: none but warnings; 1: errors.
#[derive(Args, Debug)]
pub struct Check {
    #[command(flatten)]
    place: Place,
    /// How mistakes are shown.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Where the configuration is: `-c FILE|DIR`, or just `FILE|DIR`.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct Place {
    /// Configuration file, or a directory of files that merge.
    #[arg(short, long, value_name = "FILE|DIR")]
    config: Option<PathBuf>,
    /// The same, without `-c`.
    #[arg(value_name = "FILE|DIR")]
    path: Option<PathBuf>,
}

/// How mistakes are shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum Format {
    /// Annotated snippets, for people.
    #[default]
    Text,
    /// One JSON document, for programs.
    Json,
}

impl Place {
    fn path(&self) -> &Path {
        self.config.as_deref().or(self.path.as_deref()).unwrap_or(Path::new(""))
    }
}

impl Check {
    pub fn execute(self) -> anyhow::Result<ExitCode> {
        anyhow::bail!("cannot check {} as {:?}: not connected", self.place.path().display(), self.format)
    }
}
