//! Every mistake that a configuration can have, as the user sees it.
//!
//! `tests/cases/config/NAME.yaml` is what was written, `NAME.txt` what is said about it. A line `#--- file: NAME` begins another
//! file of the same case (two or more `.yaml` files are a directory), `#--- env: NAME=VALUE` sets a variable, `#--- certificate: NAME`
//! makes `NAME.pem` and `NAME.key` (with ` expired` or ` early` behind it, one for another time; with ` nameless`, one without alternative names), `#--- large: NAME` a file of 5 MiB.
//! `#--- ocsp: FILE CERTIFICATE WORD` makes an OCSP response for a certificate that says what the word says.
//! `#--- authorities: NAME` is the system's file of authorities; such a case has a process of its own.
//! With `BLESS=1` the texts are written anew: read the difference before you keep it.

#![allow(clippy::unwrap_used, reason = "a test that cannot read its files has failed")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use banyan::{
    config::load::{Colour, Loaded, load_with},
    live::check,
};

use crate::harness::{
    gateway::{banyan, run},
    ocsp::{self, Says},
};

const CASES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cases/config");

/// What is said about a configuration: mistakes of reading and of meaning.
fn verdict(loaded: Loaded) -> String {
    let loaded = Arc::new(loaded);
    match loaded.sources.render(&check(&loaded), Colour::Never) {
        text if text.is_empty() => "no problems\n".to_owned(),
        text => text,
    }
}

/// The files and the environment of one case.
#[derive(Default)]
struct Case {
    files: BTreeMap<PathBuf, String>,
    env: BTreeMap<String, String>,
    /// Names of certificates, with the word for their time.
    certificates: Vec<(String, String)>,
    large: Vec<String>,
    /// OCSP responses: the file's name, that of the certificate, the word for what it says.
    ocsp: Vec<[String; 3]>,
    authorities: Option<String>,
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
                Some(("certificate", words)) => {
                    let (name, time) = words.split_once(' ').unwrap_or((words, ""));
                    case.certificates.push((name.to_owned(), time.to_owned()));
                }
                Some(("ocsp", words)) => {
                    let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
                    case.ocsp.push(words.try_into().expect("a file, a certificate, a word"));
                }
                Some(("authorities", name)) => case.authorities = Some(name.to_owned()),
                Some(("large", name)) => case.large.push(name.to_owned()),
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
        self.certificates.iter().for_each(|(name, time)| write_certificate(&directory.join(name), time));
        for [name, of, says] in &self.ocsp {
            let certificate = fs::read_to_string(directory.join(of).with_extension("pem")).unwrap();
            fs::write(directory.join(name), response(&certificate, says)).unwrap();
        }
        for name in &self.large {
            fs::File::create(directory.join(name)).unwrap().set_len(5 << 20).unwrap();
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
        let loaded = self.load(directory.path());
        let text = match &self.authorities {
            None => verdict(loaded),
            Some(name) => {
                let place = directory.path().join(name);
                let mut command = banyan(["check", root]);
                run(command.env("SSL_CERT_FILE", place).env_remove("SSL_CERT_DIR")).1
            }
        };
        text.replace(&format!("{root}/"), "").replace(root, ".")
    }
}

/// A certificate that vouches for itself, and its key beside it.
fn write_certificate(stem: &Path, time: &str) {
    let mut params = rcgen::CertificateParams::new(vec!["shop.example".to_owned()]).unwrap();
    match time {
        "" => {}
        "nameless" => params.subject_alt_names.clear(),
        "expired" => params.not_after = rcgen::date_time_ymd(2001, 1, 1),
        "early" => params.not_before = rcgen::date_time_ymd(3000, 1, 1),
        other => panic!("no time `{other}`"),
    }
    let key = rcgen::KeyPair::generate().unwrap();
    fs::write(stem.with_extension("pem"), params.self_signed(&key).unwrap().pem()).unwrap();
    fs::write(stem.with_extension("key"), key.serialize_pem()).unwrap();
}

/// An OCSP response for a certificate.
fn response(certificate: &str, says: &str) -> Vec<u8> {
    const LONG_AGO: i64 = 1_000_000_000;
    const FAR_AWAY: i64 = 32_503_680_000;
    let good = |from, until| ocsp::response(certificate, Says::Good, from, Some(until));
    match says {
        "expired" => good(LONG_AGO, LONG_AGO + 1),
        "early" => good(FAR_AWAY, FAR_AWAY + 1),
        "revoked" => ocsp::response(certificate, Says::Revoked, LONG_AGO, None),
        "unknown" => ocsp::response(certificate, Says::Unknown, LONG_AGO, None),
        "stranger" => ocsp::for_serial(&[1], Says::Good, LONG_AGO, None),
        "odd" => ocsp::odd(good(LONG_AGO, FAR_AWAY)),
        "long" => [good(LONG_AGO, FAR_AWAY), vec![0; 20_000]].concat(),
        "later" => ocsp::try_later(),
        other => panic!("no word `{other}`"),
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

/// What no case can provoke, each with the reason.
const UNHEARD: [(&str, &str); 20] = [
    ("`{}` is not the status of a redirect", REFUSED_BEFORE),
    ("one of 301, 302, 303, 307, 308", REFUSED_BEFORE),
    ("`{}` is not a status from 200 to 599", REFUSED_BEFORE),
    ("no slash at the start of the path", REFUSED_BEFORE),
    ("the regular expression cannot be compiled: {error}", REFUSED_BEFORE),
    ("the regular expressions of this host together: {why}", "the bound grows with their number"),
    ("an encoded slash or backslash in the path", "a pattern may spell them, whatever requests may"),
    ("a section is malformed", "for errors of the PEM reader that are to come"),
    ("a NUL character, which text cannot hold", "a case with one would be no text; a unit test of the reader has it"),
    ("the rewritten path is not a valid path", OF_REQUESTS),
    ("Origin, Access-Control-Request-Method, Access-Control-Request-Headers", OF_REQUESTS),
    ("text/plain; charset=utf-8", OF_REQUESTS),
    ("public, max-age=300", OF_REQUESTS),
    ("ApiKey header={name}", OF_REQUESTS),
    ("Basic realm={realm}, charset=UTF-8", OF_REQUESTS),
    ("Bearer error=insufficient_scope, scope={scopes}", OF_REQUESTS),
    ("ApiKey query={name}", OF_REQUESTS),
    ("Signature covered={}", OF_REQUESTS),
    ("a target that is not UTF-8", OF_REQUESTS),
    ("BEGIN ENCRYPTED PRIVATE KEY", "looked for in files"),
];

const REFUSED_BEFORE: &str = "an earlier stage refuses it";
const OF_REQUESTS: &str = "said to clients and services";

/// Files whose texts users read because of a configuration: those that make problems, and those that problems take their words from.
fn is_of_problems(path: &Path, text: &str) -> bool {
    let words = ["certs.rs", "certs/staple.rs", "route/host.rs", "route/path.rs", "route/regex.rs", "origin/template.rs"];
    let makes = ["Problem::error(", "Problem::warning(", "Misread::new("].iter().any(|call| text.contains(call));
    makes && !path.ends_with("tests.rs") && !path.ends_with("config/problem.rs") || words.iter().any(|end| path.ends_with(end))
}

/// The sentences in a source: literals of more than one word, outside of comments, tests, logs and what only requests cause.
fn sentences(text: &str) -> Vec<String> {
    const ELSEWHERE: [&str; 7] = ["//", "Stop::", "anyhow", "expect(", "reason = ", "tracing::", "#[doc"];
    let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let lines = code.lines().filter(|line| !ELSEWHERE.iter().any(|word| line.contains(word)));
    let literals = lines.flat_map(|line| {
        let line = line.replace("'\"'", "").replace("\\\"", "");
        line.split('"').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>()
    });
    literals.filter(|literal| literal.trim().contains(' ')).collect()
}

/// The longest piece of a format string that is the same in all its texts. A configuration says itself whether it speaks of host or path.
fn characteristic(literal: &str) -> String {
    let literal = literal.replace(" in the host", "").replace(" in the path", "").replace("{{", "\u{1}").replace("}}", "\u{2}");
    let pieces = literal.split('{').enumerate().map(|(at, piece)| match at {
        0 => piece,
        _ => piece.split_once('}').map_or("", |(_, rest)| rest),
    });
    pieces.max_by_key(|piece| piece.len()).unwrap_or_default().replace('\u{1}', "{").replace('\u{2}', "}")
}

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => sources(&path, found),
            false => found.push(path),
        }
    }
}

#[test]
fn no_mistake_is_without_a_case() {
    if bless() {
        // The texts are being written.
        return;
    }
    let mut files = Vec::new();
    sources(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")), &mut files);
    let mut texts = Vec::new();
    sources(Path::new(CASES), &mut texts);
    texts.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    let told: String = texts.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let read = files.iter().map(|path| (path, fs::read_to_string(path).unwrap()));
    let said: Vec<(&PathBuf, String)> = read
        .filter(|(path, text)| is_of_problems(path, text))
        .flat_map(|(path, text)| sentences(&text).into_iter().map(move |sentence| (path, sentence)))
        .collect();
    assert!(said.len() > 100, "the sentences are found: {}", said.len());
    let is_unheard = |sentence: &str| UNHEARD.iter().any(|(unheard, _)| *unheard == sentence);
    let is_told = |sentence: &str| told.contains(sentence) || told.contains(&characteristic(sentence));
    let missing: Vec<String> = said
        .iter()
        .filter(|(_, sentence)| !is_unheard(sentence) && !is_told(sentence))
        .map(|(path, sentence)| format!("{}: {sentence}", path.display()))
        .collect();
    assert!(missing.is_empty(), "no case in {CASES} provokes\n{}", missing.join("\n"));
    let stale: Vec<&str> = UNHEARD
        .iter()
        .map(|(unheard, _)| *unheard)
        .filter(|unheard| !said.iter().any(|(_, sentence)| sentence == unheard))
        .collect();
    assert!(stale.is_empty(), "no longer said: {stale:?}");
}
