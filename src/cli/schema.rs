//! `banyan schema`: the configuration language as JSON Schema.

use std::process::ExitCode;

use clap::Args;

use crate::config::Config;

/// Print the JSON Schema of the configuration, for editors.
#[derive(Args, Debug)]
pub struct Schema {}

impl Schema {
    pub fn execute(self) -> anyhow::Result<ExitCode> {
        super::print(text()?.as_bytes())
    }
}

/// The schema, indented, with a newline at its end.
///
/// # Errors
/// None that we know of: a schema is plain JSON.
pub fn text() -> serde_json::Result<String> {
    let mut schema = schemars::schema_for!(Config);
    schema.insert("title".to_owned(), "Banyan configuration".into());
    Ok(serde_json::to_string_pretty(&schema)? + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_section_is_described() {
        let schema: serde_json::Value = serde_json::from_str(&text().unwrap()).unwrap();
        let sections = schema["properties"].as_object().unwrap();
        assert!(sections.contains_key("routes"));
        for (name, section) in sections {
            assert!(section["description"].is_string(), "{name} has no description");
        }
    }
}
