//! What came out, as JSON, as a Markdown table and as a page. They are written after each scenario, so that a run that is broken off
//! leaves what it had.

mod markdown;
mod page;
mod targets;

use std::{fs, path::PathBuf};

use serde::Serialize;

use super::{cli::Arguments, compare::Ground, machine::Machine, party, section::Section};

/// A run's results, and where they are written.
#[derive(Serialize)]
pub struct Report {
    /// UTC.
    date: String,
    machine: Machine,
    revision: String,
    contestants: Vec<(String, String)>,
    pairs: u16,
    seconds: f64,
    connections: u16,
    is_pinned: bool,
    sections: Vec<Section>,
    /// Scenarios whose premise did not hold.
    broken: Vec<String>,
    #[serde(skip)]
    stem: PathBuf,
}

impl Report {
    /// # Errors
    /// The folder of the results cannot be made.
    pub fn begin(arguments: &Arguments, ground: &Ground) -> anyhow::Result<Self> {
        let now = jiff::Timestamp::now();
        fs::create_dir_all(&arguments.out)?;
        let name = arguments.name.clone().unwrap_or_else(|| now.strftime("%Y-%m-%d-%H%M").to_string());
        Ok(Self {
            date: now.strftime("%Y-%m-%d %H:%M UTC").to_string(),
            machine: Machine::new(),
            revision: revision(),
            contestants: ground.contestants.iter().map(|who| (who.name.clone(), party::version(who))).collect(),
            pairs: arguments.pairs,
            seconds: arguments.duration.as_secs_f64(),
            connections: arguments.connections,
            is_pinned: !arguments.no_pin,
            sections: Vec::new(),
            broken: Vec::new(),
            stem: arguments.out.join(name),
        })
    }

    /// # Errors
    /// The files cannot be written.
    pub fn add(&mut self, section: Section) -> anyhow::Result<()> {
        self.sections.push(section);
        self.write()
    }

    /// Tells where everything is.
    ///
    /// # Errors
    /// The files cannot be written.
    pub fn end(&mut self, broken: &[&str]) -> anyhow::Result<()> {
        self.broken = broken.iter().map(|name| (*name).to_owned()).collect();
        self.write()?;
        println!("{}", markdown::text(self));
        eprintln!("{}.json, .md and .html", self.stem.display());
        Ok(())
    }

    fn write(&self) -> anyhow::Result<()> {
        let file = |ending: &str| PathBuf::from(format!("{}.{ending}", self.stem.display()));
        fs::write(file("json"), serde_json::to_string(self)? + "\n")?;
        fs::write(file("md"), markdown::text(self))?;
        fs::write(file("html"), page::text(self))?;
        Ok(())
    }
}

fn revision() -> String {
    let output = std::process::Command::new("git").args(["describe", "--always", "--dirty"]).output();
    output.map(|out| String::from_utf8_lossy(&out.stdout).trim().to_owned()).unwrap_or_default()
}

/// The headings and cells of a section's table: a row for each contestant.
fn table(section: &Section) -> (Vec<&'static str>, Vec<(String, Vec<String>)>) {
    let has = |key: &str| section.rows.iter().any(|row| row.figures.contains_key(key));
    let figures: Vec<_> = super::section::FIGURES.into_iter().filter(|figure| has(figure.0)).collect();
    let cell = |row: &super::section::Row, figure: &super::section::Figure| match row.figures.get(figure.0) {
        None => String::new(),
        Some(found) if found.each.len() < 2 => number(found.median, figure.2),
        Some(found) => {
            let shown = |value| number(value, figure.2);
            format!("{} ({}–{})", shown(found.median), shown(found.low), shown(found.high))
        }
    };
    let headings = figures.iter().map(|figure| figure.1).chain(["errors"]).collect();
    let row = |row: &super::section::Row| {
        let errors = match &row.error {
            Some(error) => format!("{} of {}: {error}", row.failed, row.answered + row.failed),
            None => row.failed.to_string(),
        };
        (row.party.clone(), figures.iter().map(|figure| cell(row, figure)).chain([errors]).collect())
    };
    (headings, section.rows.iter().map(row).collect())
}

/// With a comma at the thousands.
fn number(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let (sign, digits) = whole.split_at(usize::from(whole.starts_with('-')));
    let mut grouped = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    format!("{sign}{grouped}{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_commas_at_the_thousands() {
        for (value, decimals, shown) in
            [(1234567.0, 0, "1,234,567"), (-1234.56, 1, "-1,234.6"), (999.0, 0, "999"), (0.5, 2, "0.50")]
        {
            assert_eq!(number(value, decimals), shown);
        }
    }
}
