//! The files by which Unix sockets are found.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Files that are ours to remove: removed when dropped.
#[derive(Default)]
pub struct Files(Book);

/// What [`Files`] will remove. An upgrade hands files over, and takes them over, while the process runs.
#[derive(Clone, Default)]
pub struct Book(Arc<Mutex<Vec<SocketFile>>>);

struct SocketFile {
    path: PathBuf,
    /// Device and number. A file that another process has put in its place since is not ours.
    id: (u64, u64),
}

impl Files {
    pub fn book(&self) -> Book {
        self.0.clone()
    }
}

impl Book {
    /// This file is ours now, as it is now.
    ///
    /// # Errors
    /// There is none.
    pub fn own(&self, path: &Path) -> io::Result<()> {
        let file = SocketFile { path: path.to_owned(), id: id(path)? };
        self.files().push(file);
        Ok(())
    }

    /// The file is another's now.
    pub fn disown(&self, path: &Path) {
        self.files().retain(|file| file.path != path);
    }

    pub fn owns(&self, path: &Path) -> bool {
        self.files().iter().any(|file| file.path == path)
    }

    fn files(&self) -> MutexGuard<'_, Vec<SocketFile>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn id(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}

impl Drop for Files {
    fn drop(&mut self) {
        for file in self.0.files().drain(..) {
            if id(&file.path).is_ok_and(|now| now == file.id) {
                // One that stays is found to be stale at the next start.
                let _ = fs::remove_file(&file.path);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the file is there when `Files` is gone that owned it and then met this.
    fn stays(meets: impl FnOnce(&Path, &Files)) -> bool {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        fs::write(&path, "").unwrap();
        let files = Files::default();
        files.book().own(&path).unwrap();
        meets(&path, &files);
        drop(files);
        path.exists()
    }

    #[test]
    fn what_is_ours_goes_with_us() {
        assert!(!stays(|_, _| ()));
    }

    #[test]
    fn what_was_handed_over_stays() {
        assert!(stays(|path, files| files.book().disown(path)));
    }

    #[test]
    fn what_another_has_put_in_its_place_stays() {
        assert!(stays(|path, _| {
            fs::write(path.with_extension("next"), "").unwrap();
            fs::rename(path.with_extension("next"), path).unwrap();
        }));
    }
}
