//! Keys whose values name files: relative to the directory of the file that names them.

use std::path::{Path as FilePath, PathBuf};

use super::{
    super::address::UNIX,
    tree::{Node, Scalar, Value},
};

/// Keys that name a file; `*` stands for any name or position.
const FILES: &[&str] = &[
    "listeners.*.tls.certificates.*.cert",
    "listeners.*.tls.certificates.*.key",
    "listeners.*.tls.certificates.*.ocsp",
    "listeners.*.tls.client_auth.ca",
    "identity.*.jwt.keys.file",
    "identity.*.jwt.keys.ca",
    "identity.*.introspection.ca",
    "identity.*.forward.ca",
    "identity.*.session_bridge.key",
    "identity.*.session_bridge.other_keys.*",
    "identity.*.session_bridge.ca",
    "upstreams.*.tls.ca",
    "upstreams.*.tls.client_certificate.cert",
    "upstreams.*.tls.client_certificate.key",
    "observe.access_log.path",
    "process.state",
];

/// Keys that may name a Unix socket, by its file.
const SOCKETS: &[&str] = &["listeners.*.address", "admin.address"];

/// Values that stand where a path may stand, but are none.
const WORDS: [&str; 3] = ["", "-", "off"];

/// Makes every path in the tree start at the root, given the directory of each file by its number.
pub fn absolute(root: &mut Node, directories: &[PathBuf]) {
    for (patterns, join) in [(FILES, join as fn(&mut Scalar, &FilePath)), (SOCKETS, join_socket)] {
        for pattern in patterns {
            let steps: Vec<&str> = pattern.split('.').collect();
            each(root, &steps, &mut |file, scalar| {
                if let Some(directory) = directories.get(file as usize) {
                    join(scalar, directory);
                }
            });
        }
    }
}

fn join_socket(scalar: &mut Scalar, directory: &FilePath) {
    let path = scalar.text.strip_prefix(UNIX).filter(|path| !path.is_empty());
    if let Some(joined) = path.map(|path| directory.join(path)).as_deref().and_then(FilePath::to_str) {
        scalar.text = format!("{UNIX}{joined}");
    }
}

fn join(scalar: &mut Scalar, directory: &FilePath) {
    if WORDS.contains(&scalar.text.as_str()) || scalar.plain && !super::scalar::is_text(&scalar.text) {
        return;
    }
    if let Some(joined) = directory.join(&scalar.text).to_str() {
        scalar.text = joined.to_owned();
    }
}

fn each(node: &mut Node, pattern: &[&str], visit: &mut impl FnMut(u32, &mut Scalar)) {
    let file = node.span.file;
    match (&mut node.value, pattern) {
        (Value::Scalar(scalar), []) => visit(file, scalar),
        (Value::Map(map), [name, rest @ ..]) => {
            map.values_mut().filter(|(key, _)| *name == "*" || key == name).for_each(|(_, value)| each(value, rest, visit));
        }
        (Value::List(items), ["*", rest @ ..]) => items.iter_mut().for_each(|item| each(item, rest, visit)),
        _ => {}
    }
}
