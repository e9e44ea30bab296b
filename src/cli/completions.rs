//! `banyan completions`: a script that completes our command line in a shell.

use std::process::ExitCode;

use clap::Args;
use clap_complete::Shell;

/// Print a script that completes the command line in a shell.
#[derive(Args, Debug)]
pub struct Completions {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

impl Completions {
    pub fn execute(self) -> anyhow::Result<ExitCode> {
        super::print(&script(self.shell))
    }
}

fn script(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut super::command_line(), "banyan", &mut script);
    script
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn each_shell_learns_each_command() {
        for shell in Shell::value_variants() {
            let script = String::from_utf8(script(*shell)).unwrap();
            for command in ["run", "check", "explain", "demo", "schema", "completions", "man"] {
                assert!(script.contains(command), "{shell} does not know {command}");
            }
        }
    }
}
