//! `banyan version`: what this binary was made of.

use std::process::ExitCode;

use clap::Args;

/// The Pingora that we are built on. A test holds it to `Cargo.lock`.
pub const PINGORA: &str = "0.9.1";

/// Git revision and compiler, as the Makefile tells them to the build.
const REVISION: Option<&str> = option_env!("BANYAN_REVISION");
const COMPILER: Option<&str> = option_env!("BANYAN_RUSTC");

/// Print the version and what the binary was built from.
#[derive(Args, Debug)]
pub struct Version {}

impl Version {
    pub fn execute(self) -> anyhow::Result<ExitCode> {
        super::print(text().as_bytes())
    }
}

fn text() -> String {
    let known = |value: Option<&'static str>| value.filter(|value| !value.is_empty()).unwrap_or("unknown");
    format!("banyan {}\nrevision {}\nrustc {}\npingora {PINGORA}\n", env!("CARGO_PKG_VERSION"), known(REVISION), known(COMPILER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pingora_named_is_the_one_locked() {
        let lock = include_str!("../../Cargo.lock");
        assert!(lock.contains(&format!("name = \"pingora\"\nversion = \"{PINGORA}\"\n")));
    }

    #[test]
    fn each_line_names_one_part() {
        let parts: Vec<_> = text().lines().filter_map(|line| Some(line.split_once(' ')?.0.to_owned())).collect();
        assert_eq!(parts, ["banyan", "revision", "rustc", "pingora"]);
    }
}
