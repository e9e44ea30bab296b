//! The reference for users says what the code does.

#![allow(clippy::unwrap_used, reason = "a test that cannot read its files has failed")]

use std::fs;

use banyan::config::{
    load::{Colour, from_text},
    reference::reference,
};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");

/// The line below which the page is generated begins so.
const MARK: &str = "<!-- From here on written from the source";

#[test]
fn the_reference_lists_the_keys_of_the_source() {
    let page = fs::read_to_string(PAGE).unwrap();
    let mark = page.find(MARK).expect("the page has the mark");
    let (written, generated) = page.split_at(mark + page[mark..].find('\n').unwrap() + 1);
    if std::env::var_os("BLESS").is_some() {
        return fs::write(PAGE, format!("{written}{}", reference())).unwrap();
    }
    assert!(
        generated == reference(),
        "docs/configuration.md is behind the source: BLESS=1 cargo test --test it config_reference"
    );
}

#[test]
fn every_example_of_the_reference_is_read() {
    let page = fs::read_to_string(PAGE).unwrap();
    let examples: Vec<&str> = page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(examples.len() >= 4);
    for example in examples.into_iter().map(|example| example.replace("${env:BANYAN_ADMIN_TOKEN}", "${env:PATH}")) {
        let loaded = from_text("example.yaml", &example);
        assert!(loaded.is_usable(), "{}", loaded.sources.render(&loaded.problems, Colour::Never));
    }
}
