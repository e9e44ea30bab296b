//! The corpora of the fuzz targets, through the same properties. See `fuzz/README.md`.

use std::{fs, path::Path};

#[path = "../../fuzz/properties.rs"]
pub mod properties;

/// Checks every input of a corpus, of which there are at least this many.
fn replay(target: &str, least: usize, property: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let inputs: Vec<_> = fs::read_dir(corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(inputs.len() >= least, "{target} has {} inputs", inputs.len());
    for input in inputs {
        let data = fs::read(&input).unwrap();
        if std::panic::catch_unwind(|| property(&data)).is_err() {
            panic!("the property does not hold for {}", input.display());
        }
    }
}

#[test]
fn paths() {
    replay("path", 25, properties::path);
}

#[test]
fn hosts() {
    replay("host", 20, properties::host);
}

#[test]
fn configurations() {
    replay("config", 15, properties::config);
}

#[test]
fn proxy_headers() {
    replay("proxy_protocol", 20, properties::proxy_protocol);
}

#[test]
fn heads() {
    replay("head", 25, properties::head);
}

#[test]
fn chunked_bodies() {
    replay("chunks", 20, properties::chunks);
}

#[test]
fn tokens() {
    replay("token", 12, properties::credentials::token);
}

#[test]
fn signatures() {
    replay("signature", 10, properties::credentials::signature);
}
