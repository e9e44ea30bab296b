//! Keys whose values name files: relative to the directory of the file that names them.

use std::path::{Path as FilePath, PathBuf};

use super::tree::{Node, Scalar, Value};

/// Keys that name a file; `*` stands for any name or position.
const FILES: &[&str] = &[
    "listeners.*.tls.certificates.*.cert",
    "listeners.*.tls.certificates.*.key",
    "upstreams.*.tls.ca",
    "upstreams.*.tls.client_certificate.cert",
    "upstreams.*.tls.client_certificate.key",
    "observe.access_log.path",
];

/// Values that stand where a path may stand, but are none.
const WORDS: [&str; 3] = ["", "-", "off"];

/// Makes every path in the tree start at the root, given the directory of each file by its number.
pub fn absolute(root: &mut Node, directories: &[PathBuf]) {
    for pattern in FILES {
        let steps: Vec<&str> = pattern.split('.').collect();
        each(root, &steps, &mut |file, scalar| {
            if let Some(directory) = directories.get(file as usize) {
                join(scalar, directory);
            }
        });
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
