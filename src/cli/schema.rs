//! `banyan schema`: the configuration language as JSON Schema.

use std::process::ExitCode;

use clap::Args;

use crate::config::schema::schema;

/// Print the JSON Schema of the configuration, for editors.
#[derive(Args, Debug)]
pub struct Schema {}

impl Schema {
    pub fn execute(self) -> anyhow::Result<ExitCode> {
        super::print(format!("{:#}\n", schema()).as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_section_is_described() {
        let schema = schema();
        let sections = schema["properties"].as_object().unwrap();
        assert!(sections.contains_key("routes"));
        for (name, section) in sections {
            assert!(section["description"].is_string(), "{name} has no description");
        }
    }
}
