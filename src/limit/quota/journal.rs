//! The file in which use is kept, shared by the processes of one gateway: while one takes the other's place, both count.
//!
//! Whoever writes holds the lock (`quota.lock`), and has read before what others wrote. The file only ever grows, by whole [`record`]s, until it is
//! compacted: then another takes its name, and who has the old one open notices.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions, Permissions, TryLockError},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{
    account::Used,
    record::{self, Key},
};

/// Only we may read who calls how much.
const MODE: u32 = 0o600;

/// Longest line that may be one of ours, in bytes: a name has 64.
const LINE_MAX: usize = 256;

/// Most records that are kept: of as many consumers, configured now or of late. About 150 bytes each in memory.
const RECORDS_MAX: usize = 1_000_000;

/// A file is compacted only when it is larger than this, in bytes …
const COMPACT_MIN: u64 = 256 << 10;

/// … and than so many times what would remain.
const COMPACT_FACTOR: u64 = 4;

/// Longest wait for the lock. Who has it reads and writes some lines.
const LOCK_MAX: Duration = Duration::from_secs(2);

/// How often the lock is tried.
const LOCK_LOOK: Duration = Duration::from_millis(5);

/// What all processes have counted, by what is in the file.
pub type Counts = BTreeMap<Key, Used>;

/// The open file.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    lock: File,
    file: File,
    /// Read up to here.
    offset: u64,
    /// What follows `offset` is no whole line.
    torn: bool,
    /// Lines that say nothing, so far.
    skipped: u64,
}

/// A record that others wrote: what the file said before, and what it says now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    pub key: Key,
    pub before: Used,
    pub now: Used,
}

impl Journal {
    /// Opens the file in a directory, or makes it.
    ///
    /// # Errors
    /// The directory is not there, or not ours to write in.
    pub fn open(directory: &Path) -> io::Result<Self> {
        let path = directory.join("quota.journal");
        let lock = opened(&directory.join("quota.lock"))?;
        let file = opened(&path)?;
        Ok(Self { path, lock, file, offset: 0, torn: false, skipped: 0 })
    }

    /// Lines that said nothing: torn by a crash, or rotten.
    pub const fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Whether others may have written since we last read.
    pub fn is_behind(&self) -> bool {
        !self.is_current() || self.file.metadata().is_ok_and(|file| file.len() != self.offset)
    }

    /// Does something while nobody else writes.
    ///
    /// # Errors
    /// Another process has the lock for too long; or what is done fails.
    pub fn locked<T>(&mut self, done: impl FnOnce(&mut Self) -> io::Result<T>) -> io::Result<T> {
        let until = Instant::now() + LOCK_MAX;
        loop {
            match self.lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < until => std::thread::sleep(LOCK_LOOK),
                Err(TryLockError::WouldBlock) => {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "another process holds its lock"));
                }
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        let outcome = done(self);
        self.lock.unlock()?;
        outcome
    }

    /// Reads what was written since the last time, into `counts`. Gives what changed in it.
    pub fn read(&mut self, counts: &mut Counts) -> io::Result<Vec<Change>> {
        let is_new = !self.is_current() || self.file.metadata()?.len() < self.offset;
        if is_new {
            self.file = opened(&self.path)?;
            self.offset = 0;
        }
        let mut found = Counts::new();
        self.read_lines(&mut found)?;
        if is_new {
            // What a file does not say that took the place of another must be written again.
            counts.retain(|key, _| found.contains_key(key));
        }
        Ok(found.into_iter().filter_map(|(key, now)| changed(counts, key, now)).collect())
    }

    fn read_lines(&mut self, found: &mut Counts) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(self.offset))?;
        let mut lines = Lines::default();
        let mut space = [0; 16 << 10];
        loop {
            match self.file.read(&mut space) {
                Ok(0) => break,
                Ok(read) => lines.feed(space.get(..read).unwrap_or_default(), |line| match record::read(line) {
                    Some((key, used)) if found.len() < RECORDS_MAX || found.contains_key(&key) => drop(found.insert(key, used)),
                    _ if line.is_empty() => {}
                    _ => self.skipped += 1,
                }),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.offset += lines.whole;
        self.torn = lines.fed > lines.whole;
        Ok(())
    }

    /// Adds records and has them on the disk when it returns. To be called under the lock, after [`read`](Self::read).
    pub fn append(&mut self, records: &[(Key, Used)]) -> io::Result<()> {
        let mut lines = Vec::with_capacity(64 * (records.len() + 1));
        if self.torn {
            // What a crash has torn ends here.
            lines.push(b'\n');
        }
        records.iter().for_each(|(key, used)| record::write(&mut lines, key, *used));
        let end = self.file.seek(SeekFrom::End(0))?;
        if let Err(error) = self.file.write_all(&lines) {
            // What was written of it would be read as what others have counted: too much, not too little, if it cannot be taken back.
            self.file.set_len(end)?;
            return Err(error);
        }
        (self.offset, self.torn) = (end + lines.len() as u64, false);
        self.file.sync_data()
    }

    /// Whether so much of the file is out of date that it should be written anew.
    pub fn is_bloated(&self, counts: &Counts) -> bool {
        let worth: usize = counts.keys().map(|key| key.consumer.len() + 48).sum();
        self.offset > COMPACT_MIN.max(worth as u64 * COMPACT_FACTOR)
    }

    /// Puts a file in its place that says the same in fewer lines. To be called under the lock, after [`read`](Self::read).
    pub fn compact(&mut self, counts: &Counts) -> io::Result<()> {
        let next = self.path.with_extension("journal.new");
        // One that a crash left behind.
        let _ = fs::remove_file(&next);
        let mut file = opened(&next)?;
        let mut lines = Vec::new();
        counts.iter().for_each(|(key, used)| record::write(&mut lines, key, *used));
        file.write_all(&lines)?;
        file.sync_all()?;
        fs::rename(&next, &self.path)?;
        (self.file, self.offset, self.torn) = (file, lines.len() as u64, false);
        // The new name must outlive a power loss as its content does.
        self.path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
    }

    /// The file that we have open is the one that has the name.
    fn is_current(&self) -> bool {
        let same = |named: fs::Metadata, ours: fs::Metadata| (named.dev(), named.ino()) == (ours.dev(), ours.ino());
        fs::symlink_metadata(&self.path).and_then(|named| Ok(same(named, self.file.metadata()?))).unwrap_or(false)
    }
}

/// Opens a file of ours, or makes it. What somebody else has put in its place is not followed.
fn opened(path: &Path) -> io::Result<File> {
    if fs::symlink_metadata(path).is_ok_and(|there| !there.is_file()) {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("`{}` is no file", path.display())));
    }
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(MODE).open(path)?;
    if file.metadata()?.mode() & 0o777 != MODE {
        file.set_permissions(Permissions::from_mode(MODE))?;
    }
    Ok(file)
}

fn changed(counts: &mut Counts, key: Key, now: Used) -> Option<Change> {
    let before = counts.insert(key.clone(), now).unwrap_or_default();
    (before != now).then_some(Change { key, before, now })
}

/// Cuts what is read into lines. One that is too long is passed over, whatever its length.
#[derive(Default)]
struct Lines {
    rest: Vec<u8>,
    too_long: bool,
    /// Bytes so far, and those up to the last line feed.
    fed: u64,
    whole: u64,
}

impl Lines {
    fn feed(&mut self, bytes: &[u8], mut line: impl FnMut(&[u8])) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.fed += part.len() as u64;
            let (content, ends) = part.strip_suffix(b"\n").map_or((part, false), |content| (content, true));
            self.too_long |= self.rest.len() + content.len() > LINE_MAX;
            if !self.too_long {
                self.rest.extend_from_slice(content);
            }
            if ends {
                self.whole = self.fed;
                line(if self.too_long { b"?" } else { &self.rest });
                self.rest.clear();
                self.too_long = false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Unit, *};

    fn key(consumer: &str) -> Key {
        Key { consumer: consumer.into(), unit: Unit::Day }
    }

    const fn used(amount: u64) -> Used {
        Used { start: 3_000_000, amount }
    }

    /// A directory with a journal of one record.
    fn journal() -> (tempfile::TempDir, Journal) {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(dir.path()).unwrap();
        journal.append(&[(key("acme"), used(5))]).unwrap();
        (dir, journal)
    }

    fn content(dir: &tempfile::TempDir) -> Counts {
        let mut counts = Counts::new();
        Journal::open(dir.path()).unwrap().read(&mut counts).unwrap();
        counts
    }

    fn file(dir: &tempfile::TempDir) -> PathBuf {
        dir.path().join("quota.journal")
    }

    #[test]
    fn the_last_record_counts() {
        let (dir, mut journal) = journal();
        journal.append(&[(key("acme"), used(9)), (key("shop"), used(1))]).unwrap();
        assert_eq!(content(&dir), [(key("acme"), used(9)), (key("shop"), used(1))].into());
    }

    #[test]
    fn only_its_owner_may_read_the_journal() {
        let (dir, _) = journal();
        let mode = |name: &str| fs::metadata(dir.path().join(name)).unwrap().mode() & 0o777;
        assert_eq!((mode("quota.journal"), mode("quota.lock")), (0o600, 0o600));
        fs::set_permissions(file(&dir), Permissions::from_mode(0o644)).unwrap();
        Journal::open(dir.path()).unwrap();
        assert_eq!(mode("quota.journal"), 0o600);
    }

    #[test]
    fn a_journal_that_was_cut_off_anywhere_says_what_was_whole() {
        let (dir, mut journal) = journal();
        let first = fs::read(file(&dir)).unwrap().len();
        journal.append(&[(key("acme"), used(9))]).unwrap();
        let whole = fs::read(file(&dir)).unwrap();
        for cut in 0..=whole.len() {
            fs::write(file(&dir), &whole[..cut]).unwrap();
            let expected = if cut < first {
                None
            } else if cut < whole.len() {
                Some(used(5))
            } else {
                Some(used(9))
            };
            assert_eq!(content(&dir).get(&key("acme")).copied(), expected, "{cut}");
            let mut torn = Journal::open(dir.path()).unwrap();
            torn.read(&mut Counts::new()).unwrap();
            torn.append(&[(key("shop"), used(2))]).unwrap();
            assert_eq!(content(&dir).get(&key("shop")), Some(&used(2)), "what is written behind it is read, {cut}");
        }
    }

    #[test]
    fn bad_content_is_passed_over() {
        let (dir, mut journal) = journal();
        let mut bad = fs::read(file(&dir)).unwrap();
        bad.extend_from_slice(b"q1 0000000000000000 1 1d 7 acme\n\xff\xfe\0\n\nq2 from a later version\n");
        bad.extend(std::iter::repeat_n(b'x', 100_000));
        fs::write(file(&dir), &bad).unwrap();
        let mut counts = Counts::new();
        journal.read(&mut counts).unwrap();
        journal.append(&[(key("shop"), used(2))]).unwrap();
        assert_eq!(content(&dir), [(key("acme"), used(5)), (key("shop"), used(2))].into());
        assert_eq!(journal.skipped(), 3);
    }

    #[test]
    fn what_others_write_is_read_once() {
        let (dir, mut one) = journal();
        let (mut other, mut seen) = (Journal::open(dir.path()).unwrap(), Counts::new());
        other.read(&mut seen).unwrap();
        assert!(!other.is_behind());
        one.append(&[(key("acme"), used(9))]).unwrap();
        assert!(other.is_behind());
        let change = Change { key: key("acme"), before: used(5), now: used(9) };
        assert_eq!(other.read(&mut seen).unwrap(), [change]);
        assert_eq!(other.read(&mut seen).unwrap(), []);
    }

    #[test]
    fn a_file_that_took_the_place_of_another_is_followed() {
        let (dir, mut one) = journal();
        let (mut other, mut seen) = (Journal::open(dir.path()).unwrap(), Counts::new());
        other.read(&mut seen).unwrap();
        one.compact(&seen).unwrap();
        one.append(&[(key("acme"), used(9))]).unwrap();
        assert!(other.is_behind());
        assert_eq!(other.read(&mut seen).unwrap(), [Change { key: key("acme"), before: used(5), now: used(9) }]);
        other.append(&[(key("shop"), used(1))]).unwrap();
        assert_eq!(content(&dir), [(key("acme"), used(9)), (key("shop"), used(1))].into());
    }

    #[test]
    fn what_a_new_file_does_not_say_is_known_to_be_missing() {
        let (dir, mut journal) = journal();
        let mut seen = [(key("acme"), used(5))].into();
        fs::remove_file(file(&dir)).unwrap();
        assert_eq!(journal.read(&mut seen).unwrap(), []);
        assert_eq!(seen, Counts::new());
        journal.append(&[(key("acme"), used(6))]).unwrap();
        assert_eq!(content(&dir), [(key("acme"), used(6))].into());
    }

    #[test]
    fn a_journal_is_compacted_when_most_of_it_is_out_of_date() {
        let (dir, mut journal) = journal();
        let counts: Counts = [(key("acme"), used(5))].into();
        assert!(!journal.is_bloated(&counts));
        let many: Vec<_> = (0..10_000).map(|amount| (key("acme"), used(amount))).collect();
        journal.append(&many).unwrap();
        assert!(journal.is_bloated(&counts));
        journal.compact(&counts).unwrap();
        assert!(!journal.is_bloated(&counts));
        assert_eq!(content(&dir), counts);
        assert!(!dir.path().join("quota.journal.new").exists());
    }

    #[test]
    fn a_lock_that_another_has_is_waited_for() {
        let (dir, mut one) = journal();
        let mut other = Journal::open(dir.path()).unwrap();
        let (told, tells) = std::sync::mpsc::channel();
        one.locked(|_| {
            let waiting = std::thread::spawn(move || {
                other.locked(|_| {
                    told.send(()).unwrap();
                    Ok(())
                })
            });
            assert!(tells.recv_timeout(Duration::from_millis(50)).is_err());
            Ok(waiting)
        })
        .unwrap()
        .join()
        .unwrap()
        .unwrap();
    }

    #[test]
    fn what_is_no_file_is_not_written_to() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/dev/null", file(&dir)).unwrap();
        assert_eq!(Journal::open(dir.path()).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert!(Journal::open(Path::new("/nowhere")).is_err());
    }
}
