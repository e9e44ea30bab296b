//! Every mistake that a configuration can have, as the user sees it.
//!
//! `tests/cases/config/NAME.yaml` is what was written, `NAME.txt` what is said about it. A line `#--- file: NAME` begins another
//! file of the same case (two or more `.yaml` files are a directory), `#--- env: NAME=VALUE` sets a variable. With `BLESS=1` the
//! texts are written anew: read the difference before you keep it.

#![allow(clippy::unwrap_used, reason = "a test that cannot read its files has failed")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use banyan::config::load::{Colour, Loaded, load_with};

const CASES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cases/config");

/// What is said about a configuration. Stages after the reading add their problems here.
fn verdict(loaded: &Loaded) -> String {
    match loaded.sources.render(&loaded.problems, Colour::Never) {
        text if text.is_empty() => "no problems\n".to_owned(),
        text => text,
    }
}

/// The files and the environment of one case.
#[derive(Default)]
struct Case {
    files: BTreeMap<PathBuf, String>,
    env: BTreeMap<String, String>,
}

impl Case {
    fn read(text: &str) -> Self {
        let mut case = Self::default();
        let mut file = PathBuf::from("banyan.yaml");
        for line in text.split_inclusive('\n') {
            match line.trim_end().strip_prefix("#--- ").map(|header| header.split_once(": ").expect("a header is `key: value`")) {
                Some(("file", name)) => {
                    file = name.into();
                    case.files.entry(file.clone()).or_default();
                }
                Some(("env", variable)) => {
                    let (name, value) = variable.split_once('=').expect("a variable is `NAME=value`");
                    case.env.insert(name.to_owned(), value.to_owned());
                }
                Some((other, _)) => panic!("no header `{other}`"),
                None => case.files.entry(file.clone()).or_default().push_str(line),
            }
        }
        case
    }

    fn load(&self, directory: &Path) -> Loaded {
        for (name, text) in &self.files {
            let path = directory.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let configuration: Vec<_> = self.files.keys().filter(|name| name.extension().is_some_and(|e| e == "yaml")).collect();
        let path = match configuration.as_slice() {
            [only] => directory.join(only),
            _ => directory.to_owned(),
        };
        load_with(&path, &|name| self.env.get(name).cloned())
    }

    fn verdict(&self) -> String {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().to_str().unwrap();
        verdict(&self.load(directory.path())).replace(&format!("{root}/"), "").replace(root, ".")
    }
}

fn bless() -> bool {
    std::env::var_os("BLESS").is_some()
}

/// Compares with the text beside the case, or writes it. Says what differs.
fn compare(path: &Path, verdict: &str) -> Option<String> {
    if bless() {
        fs::write(path, verdict).unwrap();
        return None;
    }
    let expected = fs::read_to_string(path).unwrap_or_default();
    (expected != verdict).then(|| format!("{}\n--- expected\n{expected}\n--- found\n{verdict}", path.display()))
}

#[test]
fn every_mistake_is_told_as_expected() {
    let mut inputs: Vec<PathBuf> = fs::read_dir(CASES).unwrap().map(|entry| entry.unwrap().path()).collect();
    inputs.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    inputs.sort();
    assert!(inputs.len() > 20, "the cases are in {CASES}");
    let case = |input: &PathBuf| Case::read(&fs::read_to_string(input).unwrap());
    let differences: Vec<String> =
        inputs.iter().filter_map(|input| compare(&input.with_extension("txt"), &case(input).verdict())).collect();
    assert!(differences.is_empty(), "{} cases differ; BLESS=1 accepts\n\n{}", differences.len(), differences.join("\n\n"));
}

/// The language as it is meant to be: what of it is still refused, and nothing else.
#[test]
fn the_contract_is_refused_only_where_it_is_not_built_yet() {
    let cases = Path::new(CASES).with_file_name("contract.yaml");
    let env = |name: &str| Some(format!("value of {name}"));
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("banyan.yaml");
    fs::copy(&cases, &file).unwrap();
    fs::create_dir(directory.path().join("secrets")).unwrap();
    fs::write(directory.path().join("secrets/acme.argon2"), "$argon2id$v=19$x").unwrap();
    let refused: String =
        load_with(&file, &env).problems.iter().map(|problem| format!("{}: {}\n", problem.path, problem.message)).collect();
    let difference = compare(&cases.with_file_name("contract-refused.txt"), &refused);
    assert!(difference.is_none(), "{}", difference.unwrap_or_default());
    let unexpected = refused.lines().find(|line| !line.ends_with("is not supported yet"));
    assert_eq!(unexpected, None);
}
