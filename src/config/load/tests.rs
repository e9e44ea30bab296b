//! What stands on the loader from outside: places, hashes, what is shown, what is watched.

use std::fs;

use super::{super::problem::Step, *};
use crate::name::UpstreamName;

const SHOP: &str = "\
listeners:
  web: { address: 127.0.0.1:8080 }
upstreams:
  legacy:
    endpoints: [127.0.0.1:9001, { address: 127.0.0.1:9002, weight: 3 }]
  broken: { endpoint: [127.0.0.1:9001] }
routes:
  all: { to: { upstream: legacy } }
";

fn path(text: &str) -> Path {
    let step = |part: &str| part.parse().map_or_else(|_| Step::Key(part.to_owned()), Step::Index);
    text.split('.').filter(|part| !part.is_empty()).map(step).collect()
}

fn env(name: &str) -> Option<String> {
    Some(match name {
        "TOKEN" => "hunter2-hunter2".to_owned(),
        "WEIGHT" => "7".to_owned(),
        "ADDRESS" => "127.0.0.1:9009".to_owned(),
        _ => return None,
    })
}

fn load_text(text: &str) -> Loaded {
    let mut loading = Loading::new(&env);
    loading.text(FilePath::new("shop.yaml"), text.to_owned(), PathBuf::new());
    loading.finish()
}

#[test]
fn a_key_is_found_or_what_is_around_it() {
    let check = |at: &str, expected: Option<(usize, usize)>| {
        let place = load_text(SHOP).sources.locate(&path(at));
        assert_eq!(place.map(|place| (place.line, place.column)), expected, "{at}");
    };
    check("listeners.web.address", Some((2, 19)));
    check("listeners.web", Some((2, 3)));
    check("listeners.web.tls.certificates", Some((2, 3)));
    check("upstreams.legacy.endpoints.0", Some((5, 17)));
    check("upstreams.legacy.endpoints.1.weight", Some((5, 68)));
    check("upstreams.legacy.endpoints.9", Some((5, 5)));
    check("nowhere", None);
    check("", None);
}

#[test]
fn a_broken_body_is_declared_all_the_same() {
    let loaded = load_text(SHOP);
    assert_eq!(loaded.declared("upstreams").collect::<Vec<_>>(), ["legacy", "broken"]);
    assert!(loaded.config.upstreams.contains_key(&UpstreamName::new("legacy")));
    assert!(!loaded.config.upstreams.contains_key(&UpstreamName::new("broken")));
}

#[test]
fn nothing_is_concluded_from_what_is_broken() {
    let loaded = load_text(
        "routes: { a: { mathc: { path: / }, to: { upstream: x }, match: { path: 5 } }, b: { match: { path: /, hots: [x] }, to: { upstream: y } } }",
    );
    for (at, broken) in [
        ("routes", true),
        ("routes.a", true),
        ("routes.a.match", true),
        ("routes.a.match.path", true),
        ("routes.a.match.path.deeper", true),
        ("routes.a.to", false),
        ("routes.a.to.upstream", false),
        ("routes.a.rewrite", true), // not written, and `mathc` beside it is unknown
        ("routes.b.match.hosts", true),
        ("routes.b.match.path", false),
        ("routes.b.rewrite", false),
        ("upstreams", false),
    ] {
        assert_eq!(loaded.broken(&path(at)), broken, "{at}");
    }
}

#[test]
fn nothing_is_concluded_from_a_file_that_cannot_be_read() {
    let check = |text: &str, expected: bool| {
        let loaded = load_text(text);
        assert_eq!(loaded.may_declare("upstreams", "x"), expected, "{text}");
    };
    check("upstreams: { y: { endpoints: [127.0.0.1:1] } }", false);
    check("upstreams: { y: { endpoints: [5] } }", false);
    check("upstreams: { x: 5 }", true);
    check("upstreams: [x]", true);
    check("upstrems: { x: { endpoints: [127.0.0.1:1] } }", true);
    check("routes: {}\n\tupstreams: {", true);
    assert!(load_text("routes: {}\n\tupstreams: {").broken(&path("routes.a")));
}

#[test]
fn a_secret_over_several_lines_is_not_shown() {
    for text in [
        "admin: { token:\n  12345 }",
        "admin:\n  token: !x\n    hunter2",
        "admin:\n  token: [\n hunter2]",
        "admin: { token: hunter2, token: hunter3 }",
    ] {
        let loaded = load_text(text);
        let shown = loaded.sources.render(&loaded.problems, Colour::Never);
        assert!(!loaded.is_usable() && !["12345", "hunter"].iter().any(|secret| shown.contains(secret)), "{shown}");
    }
}

#[test]
fn a_value_within_another_is_not_left_over() {
    let env = |name: &str| Some(if name == "A" { "hunter2".to_owned() } else { "hunter2-and-more".to_owned() });
    let mut loading = Loading::new(&env);
    loading.text(FilePath::new("x"), "admin: { hosts: ['${env:A}', '${env:B}'] }".to_owned(), PathBuf::new());
    assert_eq!(loading.finish().sources.scrub("hunter2-and-more or hunter2"), "${env:B} or ${env:A}");
}

#[test]
fn the_same_content_has_the_same_hash() {
    let hash = |text: &str| load_text(text).sources.hash();
    let shop = hash("routes: { a: { to: { upstream: x } }, b: { to: { upstream: y } } }");
    assert_eq!(shop.len(), 64);
    assert_eq!(shop, hash("# reordered\nroutes:\n  b: {to: {upstream: 'y'}}\n  a: {to: {upstream: x}}\n"));
    assert_ne!(shop, hash("routes: { a: { to: { upstream: x } }, b: { to: { upstream: z } } }"));
    assert_eq!(hash("admin: { token: \"${env:TOKEN}\" }"), hash("admin: { token: hunter2-hunter2 }"));
    assert_ne!(hash("admin: { hosts: [a, b] }"), hash("admin: { hosts: [ab] }"));
    assert_ne!(hash("admin: { hosts: [a, b] }"), hash("admin: { hosts: [b, a] }"));
}

#[test]
fn what_is_shown_has_no_secret() {
    let loaded = load_text(
        "admin: { token: hunter2 }\nupstreams: { a: { endpoints: ['${env:ADDRESS}', { address: 127.0.0.1:1, weight: '${env:WEIGHT}' }] } }",
    );
    assert_eq!(loaded.problems, []);
    assert_eq!(loaded.config.upstreams.values().next().unwrap().endpoints[1].weight, 7);
    let shown = loaded.sources.redacted(&loaded.config);
    assert_eq!(shown["admin"]["token"], "[redacted]");
    assert_eq!(shown["admin"]["address"], "127.0.0.1:9901");
    assert_eq!(shown["upstreams"]["a"]["endpoints"][0], "${env:ADDRESS}");
    assert_eq!(shown["upstreams"]["a"]["endpoints"][1]["weight"], "${env:WEIGHT}");
    assert_eq!(shown["upstreams"]["a"]["timeouts"]["connect"], "1s");
    assert_eq!(shown["policies"], serde_json::json!({}));
}

#[test]
fn later_problems_are_scrubbed_too() {
    let loaded = load_text("admin: { token: \"${env:TOKEN}\", hosts: [\"${env:WEIGHT}\"] }");
    let problem =
        Problem::error(path("admin.token"), "`hunter2-hunter2` is weak, said hunter2-hunter2").help("not hunter2-hunter2");
    let weight = Problem::warning(path("admin.hosts.0"), "`7` of 77 hosts").also(path("admin.token"), "hunter2-hunter2");
    let problems = [problem, weight];
    for shown in [loaded.sources.render(&problems, Colour::Never), loaded.sources.to_json(&problems).to_string()] {
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(shown.contains("`${env:WEIGHT}` of 77 hosts"), "{shown}");
    }
}

#[test]
fn a_program_gets_the_same_as_a_person() {
    let loaded = load_text("upstreams:\n  a: { endpoints: [x], endpoints: [y] }\n");
    let expected = serde_json::json!([
        { "severity": "error", "file": "shop.yaml", "line": 2, "column": 20, "path": "upstreams.a.endpoints[0]",
          "message": "found `x`, expected an IP address and port such as `127.0.0.1:8080` or `[::1]:8080`", "help": null, "also": [] },
        { "severity": "error", "file": "shop.yaml", "line": 2, "column": 24, "path": "upstreams.a.endpoints",
          "message": "the key `endpoints` stands here twice", "help": null,
          "also": [{ "file": "shop.yaml", "line": 2, "column": 8, "path": "upstreams.a.endpoints", "message": "first here" }] },
    ]);
    assert_eq!(loaded.sources.to_json(&loaded.problems), expected);
}

#[test]
fn paths_are_relative_to_the_file_that_names_them() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("shop.yaml");
    fs::write(
        &file,
        "observe: { access_log: { path: log/access.log } }\n\
         listeners: { web: { address: 127.0.0.1:1, tls: { certificates: [{ cert: tls/a.pem, key: /etc/a.key }] } } }\n\
         upstreams: { a: { endpoints: [127.0.0.1:1], tls: { server_name: a, ca: ca.pem } } }\n",
    )
    .unwrap();
    let loaded = load_with(&file, &env);
    assert_eq!(loaded.problems, []);
    let certificate = &loaded.config.listeners.values().next().unwrap().tls.as_ref().unwrap().certificates[0];
    assert_eq!(certificate.cert, directory.path().join("tls/a.pem"));
    assert_eq!(certificate.key, FilePath::new("/etc/a.key"));
    assert_eq!(loaded.config.observe.access_log.path, directory.path().join("log/access.log").to_str().unwrap());
    assert_eq!(loaded.config.upstreams.values().next().unwrap().tls.as_ref().unwrap().ca, Some(directory.path().join("ca.pem")));
    let standard = load_text("observe: { access_log: { path: '-' } }");
    assert_eq!(standard.config.observe.access_log.path, "-");
}

#[test]
#[cfg(unix)]
fn a_directory_of_links_is_read_as_kubernetes_mounts_it() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    fs::create_dir_all(root.join("..2026")).unwrap();
    fs::write(root.join("..2026/b.yaml"), "upstreams: { b: { endpoints: ['${file:address}'] } }").unwrap();
    fs::write(root.join("..2026/a.yml"), "upstreams: { a: { endpoints: [127.0.0.1:1] } }").unwrap();
    fs::write(root.join("address"), "127.0.0.1:2\n").unwrap();
    fs::write(root.join("notes.txt"), "not: [read").unwrap();
    std::os::unix::fs::symlink("..2026", root.join("..data")).unwrap();
    std::os::unix::fs::symlink("..data/b.yaml", root.join("b.yaml")).unwrap();
    std::os::unix::fs::symlink("..data/a.yml", root.join("a.yml")).unwrap();
    let loaded = load_with(root, &env);
    assert_eq!(loaded.problems, []);
    assert_eq!(loaded.declared("upstreams").collect::<Vec<_>>(), ["a", "b"]);
    let expected = [root.to_owned(), root.join("a.yml"), root.join("b.yaml"), root.join("address")];
    assert_eq!(loaded.sources.files(), expected);
}

#[test]
fn what_cannot_be_read_is_a_problem() {
    let directory = tempfile::tempdir().unwrap();
    let check = |path: &FilePath, expected: &str| {
        let loaded = load_with(path, &env);
        assert!(!loaded.is_usable());
        let text = loaded.sources.render(&loaded.problems, Colour::Never);
        assert!(text.contains(expected), "{text}");
    };
    check(&directory.path().join("none.yaml"), "none.yaml`: No such file or directory");
    check(directory.path(), "no `*.yaml` file in the directory");
    fs::write(directory.path().join("x.yaml"), [0xff, 0xfe]).unwrap();
    check(directory.path(), "x.yaml`: not UTF-8 text");
    fs::write(directory.path().join("x.yaml"), "listeners: {}\0routes: 5").unwrap();
    check(directory.path(), "x.yaml:1:14");
}

#[test]
fn a_byte_order_mark_and_dos_lines_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("x.yaml");
    fs::write(&file, "\u{feff}listeners:\r\n  web: { adress: 127.0.0.1:1 }\r\n").unwrap();
    let loaded = load_with(&file, &env);
    let text = loaded.sources.render(&loaded.problems, Colour::Never);
    assert!(text.contains("x.yaml:2:10"), "{text}");
}

#[test]
fn mistakes_in_one_body_do_not_cost_the_file() {
    let mut text = String::from("routes:\n");
    for n in 0..2_000 {
        text += &format!("  r{n}: {{ match: {{ path: /p{n}, hots: [a] }}, to: {{ upstream: a }} }}\n");
    }
    let loaded = load_text(&text);
    assert_eq!(loaded.problems.len(), typed::PROBLEMS_MAX + 1);
}
