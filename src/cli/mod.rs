//! The command line: one file a command.
//!
//! Exit codes: 0 done; 1 the command failed, or `check` found errors; 2 the command line itself is wrong; of a gateway that cannot
//! start those of sysexits.h, see `exit`.

use std::{
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use clap::{Args, CommandFactory, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

pub mod check;
pub mod completions;
pub mod demo;
mod exit;
pub mod explain;
pub mod key;
pub mod limits;
pub mod man;
pub mod reload;
pub mod run;
pub mod schema;
pub mod version;

/// An API gateway: one front door for many services.
///
/// `banyan demo` shows it at work, with no file and no service needed. `banyan run -c FILE` serves a configuration,
/// `banyan check FILE` finds every mistake in one.
#[derive(Parser, Debug)]
#[command(
    name = "banyan",
    version,
    after_help = "Logs go to standard error; BANYAN_LOG sets what is logged: `info` (default, without what clients could fill it with), `debug`, `warn,banyan=trace`."
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Run(run::Run),
    Reload(reload::Reload),
    Check(check::Check),
    Explain(explain::Explain),
    Demo(demo::Demo),
    Key(key::Key),
    Limits(limits::Limits),
    Schema(schema::Schema),
    Version(version::Version),
    Completions(completions::Completions),
    Man(man::Man),
}

/// What is logged unless BANYAN_LOG says otherwise: of Pingora only what went wrong.
/// What is logged if nobody asks for something else. Left out is what a client or a service can write at will, and our own log or metrics tell:
/// clients that leave in their HTTP/2 preface, pooled connections that a service closes, floods that `h2` ends.
const LOGGED: &str = "info,pingora=warn,pingora_core::apps=off,pingora_core::connectors=off,h2=error,rustls=error";

/// Where a configuration is.
#[derive(Args, Debug)]
pub struct Place {
    /// Configuration file, or a directory of files that merge.
    #[arg(short, long, value_name = "FILE|DIR")]
    config: PathBuf,
}

impl Place {
    pub fn path(&self) -> &Path {
        &self.config
    }
}

/// Does what the command line asks for.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match prepare().and_then(|()| cli.command.execute()) {
        Ok(code) => code,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("banyan: {error:#}");
            ExitCode::from(exit::code(&error))
        }
    }
}

impl Command {
    fn execute(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Run(run) => run.execute(),
            Self::Reload(reload) => reload.execute(),
            Self::Check(check) => check.execute(),
            Self::Explain(explain) => explain.execute(),
            Self::Demo(demo) => demo.execute(),
            Self::Key(key) => key.execute(),
            Self::Limits(limits) => limits.execute(),
            Self::Schema(schema) => schema.execute(),
            Self::Version(version) => version.execute(),
            Self::Completions(completions) => completions.execute(),
            Self::Man(man) => man.execute(),
        }
    }
}

/// Installs what the whole process has one of: the TLS provider, before Pingora installs another, and the log.
fn prepare() -> anyhow::Result<()> {
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("another TLS provider is installed already"))?;
    let words = std::env::var("BANYAN_LOG").unwrap_or_else(|_| LOGGED.to_owned());
    let filter = EnvFilter::builder().parse(&words).with_context(|| format!("BANYAN_LOG cannot be read: `{words}`"))?;
    let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(colours)
        .try_init()
        .map_err(|error| anyhow::anyhow!("the log cannot be opened: {error}"))
}

/// Writes the outcome of a command to standard output.
pub(crate) fn print(text: &[u8]) -> anyhow::Result<ExitCode> {
    let mut out = io::stdout().lock();
    out.write_all(text)?;
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// The reader of our output went away, as `head` does: not a failure of ours.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// The command line as clap sees it, for completions and man pages.
fn command_line() -> clap::Command {
    Cli::command()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command_line().debug_assert();
    }

    #[test]
    fn every_command_says_what_it_does() {
        for command in command_line().get_subcommands() {
            assert!(command.get_about().is_some(), "{} has no description", command.get_name());
        }
    }

    #[test]
    fn a_reader_that_left_is_no_failure() {
        let broken = io::Error::from(io::ErrorKind::BrokenPipe);
        assert!(is_broken_pipe(&broken.into()));
        assert!(!is_broken_pipe(&anyhow::anyhow!("broken pipe")));
    }
}
