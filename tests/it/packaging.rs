//! What is installed: units, sandbox, files, credentials.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::harness::{
    Connection,
    cert::Authority,
    gateway::Start,
    tool::{said, tool},
};

/// Highest exposure that `systemd-analyze security` may find, of 10.
const EXPOSURE_MAX: f64 = 2.0;

/// What `make install` puts in place, and `make uninstall` takes away. Configuration apart.
const INSTALLED: &[&str] = &[
    "usr/bin/banyan",
    "usr/lib/systemd/system/banyan.service",
    "usr/lib/sysusers.d/banyan.conf",
    "usr/lib/tmpfiles.d/banyan.conf",
    "usr/share/bash-completion/completions/banyan",
    "usr/share/doc/banyan/configuration.md",
    "usr/share/doc/banyan/examples/banyan.socket",
    "usr/share/doc/banyan/examples/first-gateway.yaml",
    "usr/share/doc/banyan/monitoring/banyan.rules.yaml",
    "usr/share/doc/banyan/monitoring/dashboard.json",
    "usr/share/doc/banyan/operations/README.md",
    "usr/share/fish/vendor_completions.d/banyan.fish",
    "usr/share/man/man1/banyan.1",
    "usr/share/man/man1/banyan-run.1",
    "usr/share/zsh/site-functions/_banyan",
];

/// What `make uninstall` leaves: the administrator's own.
const KEPT: &[&str] = &["etc/banyan/banyan.yaml", "etc/logrotate.d/banyan"];

#[test]
fn the_units_are_valid() {
    let Some(mut analyze) = tool("systemd-analyze") else { return };
    let (_folder, service, socket) = units();
    let told = said(analyze.args(["verify", "--man=no"]).args([service, socket]));
    assert!(!told.contains("banyan"), "{told}");
}

#[test]
fn the_sandbox_leaves_little_exposed() {
    let Some(mut analyze) = tool("systemd-analyze") else { return };
    let (_folder, service, _) = units();
    let told = said(analyze.args(["security", "--offline=true", "--no-pager"]).arg(service));
    let exposure = told.split_once("Overall exposure level for banyan.service: ").and_then(|(_, rest)| rest.split(' ').next());
    let exposure: f64 = exposure.unwrap_or_else(|| panic!("no figure in {told}")).parse().unwrap();
    assert!(exposure < EXPOSURE_MAX, "{told}");
}

#[test]
fn plugins_may_compile_and_there_is_one_capability() {
    let unit = fs::read_to_string(root().join("systemd/banyan.service")).unwrap();
    assert!(!unit.lines().any(|line| line.starts_with("MemoryDenyWriteExecute")));
    for key in ["AmbientCapabilities", "CapabilityBoundingSet"] {
        let values: Vec<_> = unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect();
        assert_eq!(values, ["CAP_NET_BIND_SERVICE"], "{key}");
    }
}

#[test]
fn what_install_put_there_uninstall_removes_but_no_configuration() {
    let folder = tempfile::tempdir().unwrap();
    make("install", folder.path());
    let there = files(folder.path());
    for file in INSTALLED.iter().chain(KEPT) {
        assert!(there.contains(*file), "no {file} in {there:?}");
    }
    let unit = fs::read_to_string(folder.path().join("usr/lib/systemd/system/banyan.service")).unwrap();
    assert!(unit.contains("ExecStart=/usr/bin/banyan run") && !unit.contains("@BINDIR@"), "{unit}");
    assert!(folder.path().join("etc/banyan/credentials").is_dir());
    make("uninstall", folder.path());
    let left = files(folder.path());
    assert_eq!(left, KEPT.iter().map(ToString::to_string).collect::<BTreeSet<_>>());
}

#[test]
fn an_installation_keeps_the_configuration_that_is_there() {
    let folder = tempfile::tempdir().unwrap();
    for file in KEPT {
        let file = folder.path().join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, "mine").unwrap();
    }
    make("install", folder.path());
    for file in KEPT {
        assert_eq!(fs::read_to_string(folder.path().join(file)).unwrap(), "mine", "{file}");
    }
}

/// As systemd hands them over: a folder that only the service reads, named by a variable of the unit (`Environment=SHOP_KEY=%d/secret_shop.key`).
#[test]
fn credentials_are_read_by_variable_and_by_path() {
    let authority = Authority::new();
    let credentials = tempfile::tempdir().unwrap();
    authority.leaf(&["a"]).write(credentials.path(), "secret_shop");
    fs::write(credentials.path().join("secret_token"), "told nobody\n").unwrap();
    let path = |name: &str| credentials.path().join(name).display().to_string();
    let gateway = Start::on(&format!(
        "listeners: {{ secure: {{ address: 127.0.0.1:<secure>, tls: {{ certificates: [{{ cert: \"{}\", key: \"${{env:SHOP_KEY}}\" }}] }} }} }}
admin: {{ address: \"127.0.0.1:<admin>\", token: \"${{file:{}}}\" }}
routes: {{ all: {{ to: {{ respond: {{ body: x }} }} }} }}",
        path("secret_shop.pem"),
        path("secret_token"),
    ))
    .env("SHOP_KEY", &path("secret_shop.key"))
    .ready();
    let mut client = Connection::tls(gateway.address("secure"), "a", authority.client(&[])).unwrap();
    assert_eq!(client.ask("GET / HTTP/1.1\nHost: a").status, 200);
    let reload = |token: &str| {
        gateway
            .admin_ask(&format!("POST /reload HTTP/1.1\nHost: localhost\nContent-Length: 0\nAuthorization: Bearer {token}"))
            .status
    };
    assert_eq!((reload("told nobody"), reload("another")), (200, 401));
}

/// The service as it is installed, with a program that is there, and the socket unit.
fn units() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_banyan")).parent().unwrap().display().to_string();
    let service = fs::read_to_string(root().join("systemd/banyan.service")).unwrap().replace("@BINDIR@", &program);
    let paths = ["banyan.service", "banyan.socket"].map(|name| folder.path().join(name));
    fs::write(&paths[0], service).unwrap();
    fs::copy(root().join("systemd/banyan.socket"), &paths[1]).unwrap();
    let [service, socket] = paths;
    (folder, service, socket)
}

/// `make install` or `make uninstall` of the binary under test.
#[track_caller]
fn make(target: &str, destination: &Path) {
    let mut make = Command::new("make");
    make.current_dir(root()).args(["--no-print-directory", "PREFIX=/usr", target]);
    make.arg(format!("DESTDIR={}", destination.display())).arg(concat!("BINARY=", env!("CARGO_BIN_EXE_banyan")));
    said(make.env_remove("MAKEFLAGS").env_remove("MAKELEVEL"));
}

/// All files below a folder, relative to it.
fn files(folder: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.strip_prefix(folder).unwrap().display().to_string());
            }
        }
    }
    found
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
