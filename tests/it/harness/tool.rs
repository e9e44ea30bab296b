//! Programs that are not ours: what `.ci/setup tests` installs.

use std::{
    path::PathBuf,
    process::{Command, Output},
};

/// A command of this name, of `target/tools` or of the system. `None`: it is not there, and the test is left out.
///
/// # Panics
/// When it is not there and `CI` is set: then nothing may be left out.
pub fn tool(name: &str) -> Option<Command> {
    let own = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/tools/bin").join(name);
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Debian's paths of administrators are not in everybody's.
    let system = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]).map(|folder| folder.join(name));
    let found = [own].into_iter().chain(system).find(|file| file.is_file());
    if found.is_none() {
        assert!(std::env::var_os("CI").is_none(), "no {name}: run .ci/setup tests");
        eprintln!("left out: no {name} on this machine (.ci/setup tests installs it)");
    }
    found.map(Command::new)
}

/// Runs it, and gives all that it said.
///
/// # Panics
/// When it fails.
#[track_caller]
pub fn said(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().expect("it starts");
    let said = String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{command:?}:\n{said}");
    said
}
