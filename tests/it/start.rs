//! A start that fails: one clear line, a code that tells a supervisor whether to try again, and nothing left half started.

use std::{
    fs,
    net::TcpListener,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
    process::Command,
};

use crate::harness::{
    gateway::{banyan, run},
    port,
};

const OF: &str = "routes: { all: { to: { respond: { body: here } } } }";

/// A folder with a configuration, which everyone may read.
fn folder(listeners: &str, rest: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(dir.path().join("banyan.yaml"), format!("listeners: {{ {listeners} }}\n{rest}\n{OF}\n")).unwrap();
    dir
}

/// Starts a gateway that is to fail: its code, and what it said, which has no more lines than this one besides what is logged.
#[track_caller]
fn fails(dir: &Path) -> (i32, String) {
    let (code, _, said) = run(&mut banyan(["run", "-c", dir.join("banyan.yaml").to_str().unwrap()]));
    assert_eq!(said.lines().filter(|line| line.starts_with("banyan: ")).count(), 1, "{said}");
    assert!(!said.contains("panicked"), "{said}");
    (code, said)
}

#[track_caller]
fn check(listeners: &str, rest: &str, code: i32, says: &str) {
    let dir = folder(listeners, rest);
    let (found, said) = fails(dir.path());
    assert_eq!(found, code, "{said}");
    assert!(said.contains(says), "{says}: {said}");
}

fn web() -> String {
    format!("web: {{ address: \"127.0.0.1:{}\" }}", port::free())
}

#[test]
fn what_is_taken_is_unavailable() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap();
    let says = format!("cannot listen on {taken} (listeners.web.address): Address already in use");
    check(&format!("web: {{ address: \"{taken}\" }}"), "", 69, &says);
    let says = format!("cannot listen on {taken} (admin.address)");
    check(&web(), &format!("admin: {{ address: \"{taken}\" }}"), 69, &says);
    // Source: RFC 5737, an address of nobody.
    check("web: { address: \"192.0.2.1:8080\" }", "", 69, "(listeners.web.address): Cannot assign requested address");
}

#[test]
fn a_wrong_configuration_is_told_from_one_that_is_not_there() {
    check("web: { adress: \"127.0.0.1:1\" }", "", 78, "unknown key `adress`");
    let dir = tempfile::tempdir().unwrap();
    let (code, said) = fails(dir.path());
    assert_eq!(code, 66, "{said}");
    assert!(said.contains("banyan.yaml"), "{said}");
}

#[test]
fn what_cannot_be_made_is_told_and_nothing_stays() {
    let dir = folder("a: { address: \"unix:a.sock\" }, b: { address: \"unix:none/b.sock\" }", "");
    let (code, said) = fails(dir.path());
    assert_eq!(code, 73, "{said}");
    assert!(said.contains("(listeners.b.address): No such file or directory"), "{said}");
    assert!(!dir.path().join("a.sock").exists());
    check(&web(), "observe: { access_log: { path: none/access.log } }", 73, "cannot open access log");
}

/// Runs it as nobody, if we are root, to whom nothing is denied. None: nobody cannot reach the binary.
fn as_nobody(dir: &Path) -> Option<(i32, String)> {
    let mut command = banyan(["run", "-c", dir.join("banyan.yaml").to_str().unwrap()]);
    if fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0) {
        command.uid(65534).gid(65534);
        let mut probe = banyan(["version"]);
        probe.uid(65534).gid(65534).output().ok()?;
    }
    let (code, _, said) = run(&mut command);
    Some((code, said))
}

#[test]
fn a_right_that_is_missing_is_told() {
    let check = |listeners: &str, rest: &str, says: &str| {
        let dir = folder(listeners, rest);
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o555)).unwrap();
        let Some((code, said)) = as_nobody(dir.path()) else { return };
        assert_eq!(code, 77, "{said}");
        assert!(said.contains(says) && said.contains("Permission denied"), "{said}");
    };
    check("web: { address: \"unix:web.sock\" }", "", "cannot listen on unix:");
    check(&web(), "observe: { access_log: { path: access.log } }", "cannot open access log");
    let first_free = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
    if first_free.trim().parse::<u32>().unwrap() > 81 {
        check("web: { address: \"127.0.0.1:81\" }", "", "cannot listen on 127.0.0.1:81 (listeners.web.address)");
    }
}

/// `banyan run` under a limit of open files.
fn limited(limit: &str, dir: &Path) -> Command {
    let mut command = Command::new("sh");
    let script = format!("{limit}; exec \"$0\" run -c \"$1\"");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_banyan")]).arg(dir.join("banyan.yaml")).env("NO_COLOR", "1");
    command
}

#[test]
fn too_few_files_are_told_before_anything_starts() {
    let dir = folder("web: { address: \"unix:web.sock\" }", "");
    let (code, _, said) = run(&mut limited("ulimit -n 40", dir.path()));
    assert_eq!(code, 71, "{said}");
    assert!(said.contains("may open only 40 files, and needs"), "{said}");
    assert!(!said.contains("panicked") && !dir.path().join("web.sock").exists(), "{said}");
}

#[test]
fn the_limit_of_files_is_raised_and_one_too_low_is_warned_of() {
    let dir = folder("web: { address: \"unix:none/web.sock\", limits: { connections: 100 } }", "");
    let (_, _, said) = run(&mut limited("ulimit -Sn 100; ulimit -Hn 150", dir.path()));
    assert!(said.contains("raised the limit of open files before=100 now=150"), "{said}");
    assert!(said.contains("fewer files may be opened") && said.contains("needed=200"), "{said}");
    let (_, _, said) = run(&mut limited("ulimit -Sn 100; ulimit -Hn 200", dir.path()));
    assert!(!said.contains("fewer files"), "{said}");
}
