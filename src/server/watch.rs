//! Watches the files of the configuration.
//!
//! Their directories are watched, not they: editors and `mv` put a new file in the old one's place, and Kubernetes swaps a
//! symbolic link beside it (`..data`).

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode},
};
use tokio::sync::mpsc;

/// Changes that follow each other within this time count as one. Every event starts it, whatever its kind: of a file that came
/// and went in between, one must have been read and the other seen.
const SETTLE: Duration = Duration::from_millis(100);

/// After this many changes in a row we load although there may be more.
const SETTLES_MAX: usize = 20;

/// What the watcher's thread compares events with.
#[derive(Default)]
struct Followed {
    files: BTreeSet<PathBuf>,
    directories: BTreeSet<PathBuf>,
}

/// Tells when a followed file may have changed.
pub struct Watch {
    watcher: Option<RecommendedWatcher>,
    followed: Arc<ArcSwap<Followed>>,
    changes: mpsc::Receiver<()>,
}

impl Watch {
    /// Without a watcher, if the system refuses one: SIGHUP still reloads.
    pub fn new() -> Self {
        let (tell, changes) = mpsc::channel(1);
        let followed = Arc::<ArcSwap<Followed>>::default();
        let known = followed.clone();
        let told = move |result: notify::Result<Event>| {
            if is_change(&result, &known.load()) {
                // A change that waits to be read already covers this one.
                let _ = tell.try_send(());
            }
        };
        let watcher = notify::recommended_watcher(told);
        let watcher = watcher.inspect_err(|error| tracing::error!(%error, "files cannot be watched; reload with SIGHUP")).ok();
        Self { watcher, followed, changes }
    }

    /// Follows these files, and the entries of these directories. Says whether that is something new.
    pub fn follow(&mut self, files: &[PathBuf]) -> bool {
        let files: BTreeSet<PathBuf> =
            files.iter().map(|file| std::path::absolute(file).unwrap_or_else(|_| file.clone())).collect();
        let directories: BTreeSet<PathBuf> = files.iter().flat_map(|file| directories(file)).collect();
        let before = self.followed.load_full();
        if before.files == files && before.directories == directories {
            return false;
        }
        if let Some(watcher) = &mut self.watcher {
            for gone in before.directories.difference(&directories) {
                // Gone from the disk too, perhaps.
                let _ = watcher.unwatch(gone);
            }
            for new in directories.difference(&before.directories) {
                if let Err(error) = watcher.watch(new, RecursiveMode::NonRecursive) {
                    tracing::warn!(%error, directory = %new.display(), "a directory cannot be watched");
                }
            }
        }
        self.followed.store(Arc::new(Followed { files, directories }));
        true
    }

    /// Returns when something followed may have changed, and nothing more did for a moment.
    pub async fn changed(&mut self) {
        if self.changes.recv().await.is_none() {
            std::future::pending().await
        }
        for _ in 0..SETTLES_MAX {
            if tokio::time::timeout(SETTLE, self.changes.recv()).await.is_err() {
                return;
            }
        }
    }
}

/// The directory that a file stands in; the directory itself; and those that symbolic links on the way lead to.
fn directories(file: &Path) -> impl Iterator<Item = PathBuf> {
    let own = if file.is_dir() { Some(file.to_owned()) } else { None };
    let parent = file.parent().map(Path::to_owned);
    let real = std::fs::canonicalize(file).ok().and_then(|real| real.parent().map(Path::to_owned));
    [own, parent, real].into_iter().flatten().filter(|directory| directory.is_dir())
}

fn is_change(result: &notify::Result<Event>, followed: &Followed) -> bool {
    let Ok(event) = result else { return true };
    let changes = match event.kind {
        EventKind::Access(access) => access == AccessKind::Close(AccessMode::Write),
        _ => true,
    };
    changes && (event.need_rescan() || event.paths.iter().any(|path| followed.concerns(path)))
}

impl Followed {
    /// Whether a change of this path may change what is followed: it is followed, stands in a followed directory, is one of the
    /// links that Kubernetes swaps, or is a link to a followed file.
    fn concerns(&self, path: &Path) -> bool {
        let named = |name: &std::ffi::OsStr| name.as_encoded_bytes().starts_with(b"..");
        self.files.contains(path)
            || path.parent().is_some_and(|parent| self.files.contains(parent))
            || path.file_name().is_some_and(named)
            || self.files.iter().any(|file| std::fs::canonicalize(file).is_ok_and(|real| real == path))
    }
}
