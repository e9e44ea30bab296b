//! The load-test suite: what every hop costs, beside other proxies. See `loadtests/README.md`.
//!
//! `scenarios` says what is asked and what must hold; `compare` takes the contestants in turns; `generator` loads one of them;
//! `report` writes what came out. Everything runs on loopback, and no process outlives this one.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a measurement fails by panicking")]

pub mod cli;
mod scenarios;
mod compare;
mod disturb;
mod section;
pub mod stats;
mod generator;
mod client;
mod origin;
mod party;
mod filling;
mod process;
mod identity;
mod machine;
mod report;

use std::process::ExitCode;

use clap::Parser;

pub fn main() -> ExitCode {
    let arguments = cli::Arguments::parse();
    if arguments.list {
        scenarios::list();
        return ExitCode::SUCCESS;
    }
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("loadtest: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs what was asked for, and writes the results after each scenario.
///
/// # Errors
/// A scenario's premise did not hold; the others were run all the same. Or what they stand on could not be started.
pub fn run(arguments: &cli::Arguments) -> anyhow::Result<()> {
    let chosen = scenarios::chosen(&arguments.scenarios)?;
    if !arguments.no_pin {
        machine::pin();
    }
    let ground = compare::Ground::new(arguments)?;
    machine::end_tidily(ground.folder());
    let mut report = report::Report::begin(arguments, &ground)?;
    eprintln!("{}", ground.told(chosen.len()));
    let mut broken = Vec::new();
    for (at, scenario) in chosen.iter().enumerate() {
        eprintln!("[{}/{}] {}: {}", at + 1, chosen.len(), scenario.name(), scenario.about());
        match ground.run(*scenario) {
            Ok(section) => report.add(section)?,
            Err(error) => {
                eprintln!("  FAILED: {error:#}");
                broken.push(scenario.name());
            }
        }
    }
    report.end(&broken)?;
    anyhow::ensure!(broken.is_empty(), "the premise did not hold: {}", broken.join(", "));
    Ok(())
}
