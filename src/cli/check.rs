//! `banyan check`: find every mistake of a configuration.

use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, ValueEnum};

use crate::{
    config::{
        load::{self, Colour},
        problem::Problem,
    },
    live,
};

/// Find every mistake in a configuration.
///
/// Exit code 0: none but warnings; 1: errors.
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
        let loaded = load::load(self.place.path());
        let problems = live::check(&loaded);
        match self.format {
            Format::Text if problems.is_empty() => super::print(b"no problems\n")?,
            Format::Text => super::print(loaded.sources.render(&problems, colour()).as_bytes())?,
            Format::Json => super::print(format!("{:#}\n", loaded.sources.to_json(&problems)).as_bytes())?,
        };
        Ok(if problems.iter().any(Problem::is_error) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

/// Colours for people at a terminal who did not refuse them (<https://no-color.org>).
fn colour() -> Colour {
    let wanted = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    if wanted { Colour::Always } else { Colour::Never }
}
