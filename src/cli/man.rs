//! `banyan man`: our man pages.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::Args;

/// Print the man page, or write one for each command.
#[derive(Args, Debug)]
pub struct Man {
    /// Write the pages of all commands into this directory instead of printing the first.
    #[arg(value_name = "DIR")]
    directory: Option<PathBuf>,
}

impl Man {
    pub fn execute(self) -> anyhow::Result<ExitCode> {
        match self.directory {
            None => super::print(&page()?),
            Some(directory) => {
                clap_mangen::generate_to(super::command_line(), &directory)
                    .with_context(|| format!("cannot write man pages into {}", directory.display()))?;
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

fn page() -> std::io::Result<Vec<u8>> {
    let mut page = Vec::new();
    clap_mangen::Man::new(super::command_line()).render(&mut page)?;
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_names_each_command() {
        let page = String::from_utf8(page().unwrap()).unwrap();
        for command in super::super::command_line().get_subcommands() {
            assert!(page.contains(&format!("banyan\\-{}", command.get_name())), "{}", command.get_name());
        }
    }
}
