//! Which files a configuration is made of, and their texts.

use std::{
    fs, io,
    io::Read as _,
    path::{Path as FilePath, PathBuf},
};

/// Largest configuration file, in bytes. 100,000 routes are about a third of it.
const FILE_MAX: u64 = 64 << 20;

/// Largest file that a `${file:…}` stands for, in bytes. Secrets are short.
const SECRET_MAX: u64 = 1 << 20;

/// Why a file gives no text.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    #[error("{0}")]
    System(#[from] io::Error),
    #[error("larger than {} bytes", .0)]
    TooLarge(u64),
    #[error("not UTF-8 text")]
    NotText,
}

/// The files of a configuration: the file itself, or the `*.yaml` and `*.yml` of a directory by name. Hidden ones do not count: with
/// them directories are swapped. Links are followed.
pub fn list(path: &FilePath) -> io::Result<Vec<PathBuf>> {
    if !fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path)? {
        let name = PathBuf::from(entry?.file_name());
        if is_configuration(&name) && !path.join(&name).is_dir() {
            files.push(path.join(name));
        }
    }
    files.sort();
    Ok(files)
}

fn is_configuration(name: &FilePath) -> bool {
    let hidden = name.to_string_lossy().starts_with('.');
    !hidden && name.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
}

/// The text of a configuration file, without its byte order mark.
pub fn configuration(path: &FilePath) -> Result<String, Unreadable> {
    let mut text = read(path, FILE_MAX)?;
    if text.starts_with('\u{feff}') {
        text.remove(0);
    }
    Ok(text)
}

/// The text that a `${file:…}` stands for: one newline at the end is dropped, as editors add it.
pub fn secret(path: &FilePath) -> Result<String, Unreadable> {
    let mut text = read(path, SECRET_MAX)?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}

fn read(path: &FilePath, max: u64) -> Result<String, Unreadable> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max {
        return Err(Unreadable::TooLarge(max));
    }
    String::from_utf8(bytes).map_err(|_| Unreadable::NotText)
}
