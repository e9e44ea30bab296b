//! `banyan check`: find every mistake of a configuration.

use std::{
    io::{self, IsTerminal},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use clap::{Args, ValueEnum};
use serde_json::json;

use crate::{
    config::{
        Config,
        load::{self, Colour, Loaded},
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
        let loaded = Arc::new(load::load(self.place.path()));
        let problems = live::check(&loaded);
        let text = match self.format {
            Format::Text => text(&loaded, &problems, self.place.path()),
            Format::Json => json(&loaded, &problems),
        };
        super::print(text.as_bytes())?;
        Ok(if is_good(&problems) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn is_good(problems: &[Problem]) -> bool {
    !problems.iter().any(Problem::is_error)
}

/// The problems, and if there is no error what was found good.
fn text(loaded: &Loaded, problems: &[Problem], path: &Path) -> String {
    let colourful = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let found = loaded.sources.render(problems, if colourful { Colour::Always } else { Colour::Never });
    match is_good(problems) {
        true => format!("{found}{} is good: {}\n", path.display(), contents(&loaded.config)),
        false => found,
    }
}

fn json(loaded: &Loaded, problems: &[Problem]) -> String {
    let report = json!({ "good": is_good(problems), "problems": loaded.sources.to_json(problems) });
    format!("{report:#}\n")
}

fn contents(config: &Config) -> String {
    let count = |number: usize, thing: &str| format!("{number} {thing}{}", if number == 1 { "" } else { "s" });
    [count(config.listeners.len(), "listener"), count(config.upstreams.len(), "upstream"), count(config.routes.len(), "route")]
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "upstreams: { a: { endpoints: [127.0.0.1:1] } }\nroutes: { b: { to: { upstream: a } } }\n";

    #[test]
    fn what_is_good_is_counted() {
        let loaded = load::from_text("a.yaml", GOOD);
        assert_eq!(contents(&loaded.config), "0 listeners, 1 upstream, 1 route");
    }

    #[test]
    fn a_program_reads_whether_it_is_good_and_what_is_not() {
        let report = |text: &str| -> serde_json::Value {
            let loaded = load::from_text("a.yaml", text);
            serde_json::from_str(&json(&loaded, &loaded.problems)).unwrap()
        };
        assert_eq!(report(GOOD), json!({ "good": true, "problems": [] }));
        let bad = report("rotes: {}\n");
        assert_eq!((&bad["good"], &bad["problems"][0]["line"]), (&json!(false), &json!(1)));
    }
}
