//! Watches the files of the configuration.
//!
//! The directories on the way to them are watched, not they: editors and `mv` put a new file or directory in the old one's place,
//! deployments turn a link to another release, and Kubernetes swaps a link beside the file (`..data`).

use std::{
    collections::{BTreeMap, BTreeSet},
    os::unix::fs::MetadataExt,
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

/// Most links that are followed at once; a system refuses more than 40 on the way to a file.
const LINKS_MAX: usize = 40;

/// What the watcher's thread compares events with.
#[derive(Default, PartialEq)]
struct Followed {
    /// As they were named, and by their real names.
    files: BTreeSet<PathBuf>,
    /// Everything on the way to them: directories, links, what links lead to, and they themselves.
    way: BTreeSet<PathBuf>,
    /// The directories on the way, each with the device and inode it is: another one may take its name.
    directories: BTreeMap<PathBuf, (u64, u64)>,
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
        let (before, now) = (self.followed.load_full(), Followed::of(files));
        if *before == now {
            return false;
        }
        if let Some(watcher) = &mut self.watcher {
            for gone in before.directories.iter().filter(|(path, id)| now.directories.get(*path) != Some(id)) {
                // Gone from the disk too, perhaps.
                let _ = watcher.unwatch(gone.0);
            }
            for new in now.directories.iter().filter(|(path, id)| before.directories.get(*path) != Some(id)) {
                if let Err(error) = watcher.watch(new.0, RecursiveMode::NonRecursive) {
                    tracing::warn!(%error, directory = %new.0.display(), "a directory cannot be watched");
                }
            }
        }
        self.followed.store(Arc::new(now));
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

fn is_change(result: &notify::Result<Event>, followed: &Followed) -> bool {
    let Ok(event) = result else { return true };
    let changes = match event.kind {
        EventKind::Access(access) => access == AccessKind::Close(AccessMode::Write),
        _ => true,
    };
    changes && (event.need_rescan() || event.paths.iter().any(|path| followed.concerns(path)))
}

impl Followed {
    fn of(files: &[PathBuf]) -> Self {
        let files: BTreeSet<PathBuf> =
            files.iter().map(|file| std::path::absolute(file).unwrap_or_else(|_| file.clone())).collect();
        let real: Vec<PathBuf> = files.iter().filter_map(|file| std::fs::canonicalize(file).ok()).collect();
        let files: BTreeSet<PathBuf> = files.into_iter().chain(real).collect();
        let way: BTreeSet<PathBuf> = files.iter().flat_map(|file| way(file)).collect();
        let directories = way.iter().filter_map(|path| {
            // By its real name only: the system takes two names of one directory for one, and would forget both with either.
            let real = std::fs::canonicalize(path).ok().filter(|real| real == path)?;
            let found = std::fs::metadata(&real).ok().filter(std::fs::Metadata::is_dir)?;
            Some((real, (found.dev(), found.ino())))
        });
        let directories = directories.collect();
        Self { files, way, directories }
    }

    /// Whether a change of this path may change what is followed: it lies on the way to it, stands in a followed directory, or is
    /// one of the links that Kubernetes swaps.
    fn concerns(&self, path: &Path) -> bool {
        let is_swapped = |name: &std::ffi::OsStr| name.as_encoded_bytes().starts_with(b"..");
        self.way.contains(path)
            || path.parent().is_some_and(|parent| self.files.contains(parent))
            || path.file_name().is_some_and(is_swapped)
    }
}

/// Every directory and link that is passed on the way to a file, and what the links lead to.
fn way(file: &Path) -> BTreeSet<PathBuf> {
    let mut way = BTreeSet::new();
    let mut open = vec![file.to_owned()];
    while let Some(path) = open.pop() {
        for part in path.ancestors().filter(|part| !part.as_os_str().is_empty()) {
            if !way.insert(part.to_owned()) {
                continue;
            }
            if let Ok(target) = std::fs::read_link(part) {
                let rest = path.strip_prefix(part).unwrap_or(Path::new(""));
                let target = part.parent().unwrap_or(Path::new("/")).join(target);
                open.push(target.join(rest));
            }
        }
        open.truncate(LINKS_MAX);
    }
    way
}
