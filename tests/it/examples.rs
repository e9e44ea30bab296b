//! Every configuration in `conf/` compiles without a problem, with the files it names in place.

use std::{
    fs,
    path::{Path, PathBuf},
};

use banyan::{
    config::load::{self, Colour},
    live,
};
use rcgen::{CertificateParams, KeyPair};
use serde_yaml::Value;

#[test]
fn every_example_loads_without_a_problem() {
    let examples = files("conf/examples");
    assert!(examples.len() >= 5, "{examples:?}");
    for example in examples {
        loads(&example);
    }
}

#[test]
fn the_configuration_of_the_demo_loads() {
    loads(&root().join("conf/banyan.yaml"));
}

#[test]
fn the_configurations_of_the_packages_load() {
    for file in ["packaging/banyan.yaml", "packaging/docker.yaml"] {
        loads(&root().join(file));
    }
}

/// A page shows whole configurations or sections of them: what a section leaves out is added.
#[test]
fn the_configurations_on_the_pages_load() {
    let mut shown = 0;
    for page in files("docs/operations") {
        let text = fs::read_to_string(&page).unwrap();
        for block in text.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()) {
            // Only an authority makes an OCSP response; tests of TLS have one.
            text_loads(&page.display().to_string(), &whole(&block.replace(", ocsp: tls/shop.ocsp.der", "")));
            shown += 1;
        }
    }
    assert!(shown >= 7, "{shown} configurations");
}

fn whole(block: &str) -> String {
    let has = |section: &str| block.lines().any(|line| line.starts_with(section));
    let listeners = if has("listeners:") { "" } else { "listeners: { web: { address: 127.0.0.1:8080 } }\n" };
    let routes = if has("routes:") { "" } else { "routes: { all: { to: { respond: {} } } }\n" };
    // Variables of the environment that a test has.
    let block = block.split("${env:").enumerate().map(|(n, part)| match part.split_once('}') {
        Some((_, rest)) if n > 0 => format!("a-secret{rest}"),
        _ => part.to_owned(),
    });
    format!("{listeners}{routes}{}", block.collect::<String>())
}

#[test]
fn the_readmes_first_gateway_loads() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let (_, block) = readme.split_once("```yaml\n").unwrap();
    text_loads("README.md", block.split_once("```").unwrap().0);
}

fn loads(example: &Path) {
    text_loads(&example.display().to_string(), &fs::read_to_string(example).unwrap());
}

fn text_loads(name: &str, text: &str) {
    let folder = tempfile::tempdir().unwrap();
    furnish(folder.path(), &serde_yaml::from_str(text).unwrap());
    let copy = folder.path().join("banyan.yaml");
    fs::write(&copy, text).unwrap();
    let loaded = std::sync::Arc::new(load::load(&copy));
    let problems = live::check(&loaded);
    assert!(problems.is_empty(), "{name}:\n{}", loaded.sources.render(&problems, Colour::Never));
}

/// Makes the files that a configuration names: certificates with their keys, authorities, secrets.
fn furnish(folder: &Path, value: &Value) {
    match value {
        Value::Mapping(map) => {
            if let (Some(cert), Some(key)) = (word(map.get("cert")), word(map.get("key"))) {
                let (chain, private) = certificate();
                put(folder, cert, &chain);
                put(folder, key, &private);
            }
            if let (Some(key), true) = (word(map.get("key")), map.contains_key("algorithm")) {
                put(folder, key, &certificate().1);
            }
            if let Some(ca) = word(map.get("ca")) {
                put(folder, ca, &certificate().0);
            }
            map.values().for_each(|value| furnish(folder, value));
        }
        Value::Sequence(items) => items.iter().for_each(|item| furnish(folder, item)),
        Value::String(text) => {
            if let Some(file) = text.strip_prefix("${file:").and_then(|rest| rest.strip_suffix('}')) {
                put(folder, file, "a secret\n");
            }
        }
        _ => {}
    }
}

fn word(value: Option<&Value>) -> Option<&str> {
    value.and_then(Value::as_str)
}

fn put(folder: &Path, name: &str, content: &str) {
    let file = folder.join(name);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, content).unwrap();
}

fn certificate() -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["shop.example".to_owned()]).unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

fn files(folder: &str) -> Vec<PathBuf> {
    fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path()).collect()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
