//! The accounts of all consumers, and the thread that keeps them on the disk.
//!
//! Requests count in memory. Once a [`PERIOD`] the thread reads what another process wrote, adds it to ours, writes what all have used and waits until that
//! is on the disk. What a crash or a power loss takes is therefore the use of the last period; an orderly end takes nothing.

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use super::{
    account::{Account, Used},
    calendar,
    journal::{Counts, Journal},
    record::Key,
    wall,
};

/// How often use is written: what a power loss can take of it, and how far two processes can be apart that count side by side.
pub const PERIOD: Duration = Duration::from_secs(1);

/// How long the use of a period is kept after its start, in minutes: longer than a month, whoever is configured again meanwhile.
const KEPT: u32 = 62 * 24 * 60;

/// How far ahead of our clock a period may begin that another process counts in, in minutes.
const AHEAD: u32 = 5;

/// Every account, by whose it is. A clone is another handle to the same.
#[derive(Clone, Debug, Default)]
pub struct Ledger(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Where it is kept. None: nowhere.
    directory: Option<PathBuf>,
    book: Mutex<Book>,
    writer: Mutex<Option<Writer>>,
    failures: AtomicU64,
}

#[derive(Debug)]
struct Writer {
    ending: SyncSender<SyncSender<()>>,
}

/// What the thread works on. Requests never wait for it.
#[derive(Debug, Default)]
struct Book {
    accounts: BTreeMap<Key, Arc<Account>>,
    journal: Option<Journal>,
    /// What is on the disk.
    written: Counts,
    failing: bool,
}

/// The use of quotas cannot be kept.
#[derive(Debug, thiserror::Error)]
#[error("the use of quotas cannot be kept in {}", directory.display())]
pub struct OpenError {
    directory: PathBuf,
    source: io::Error,
}

impl OpenError {
    /// What the system said.
    pub const fn reason(&self) -> &io::Error {
        &self.source
    }
}

/// How the journal fares.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Status {
    /// There is a place for it.
    pub kept: bool,
    /// Attempts to write that came to nothing.
    pub failures: u64,
}

impl Ledger {
    /// To be kept in this directory, once it is [`open`](Self::open). None: a restart forgets all use.
    pub fn new(directory: Option<PathBuf>) -> Self {
        Self(Arc::new(Shared { directory, ..Shared::default() }))
    }

    /// Reads what was used, and keeps it from now on. Does nothing if it is open, or has no place.
    ///
    /// # Errors
    /// The directory or the journal in it cannot be used.
    pub fn open(&self) -> Result<(), OpenError> {
        let Some(directory) = self.0.directory.clone() else { return Ok(()) };
        let mut writer = lock(&self.0.writer);
        if writer.is_none() {
            *writer = Some(self.opened(directory.clone()).map_err(|source| OpenError { directory, source })?);
        }
        Ok(())
    }

    fn opened(&self, directory: PathBuf) -> io::Result<Writer> {
        let mut journal = Journal::open(&directory)?;
        let mut book = lock(&self.0.book);
        journal.locked(|journal| book.catch_up(journal))?;
        if journal.skipped() > 0 {
            tracing::warn!(lines = journal.skipped(), "lines of the quota journal cannot be read: torn by a crash, or changed");
        }
        book.journal = Some(journal);
        let (ending, end) = sync_channel(1);
        let ledger = self.clone();
        thread::Builder::new().name("quota".to_owned()).spawn(move || ledger.keep(&end))?;
        Ok(Writer { ending })
    }

    /// The account of a consumer; with what it has used, if that is known.
    pub fn account(&self, key: Key) -> Arc<Account> {
        let mut book = lock(&self.0.book);
        let known = book.written.get(&key).copied().unwrap_or_default();
        book.accounts.entry(key).or_insert_with(|| Arc::new(Account::with(known))).clone()
    }

    /// Forgets the accounts that nobody holds any more. What they have used stays on the disk for as long as it may matter.
    pub fn tidy(&self) {
        let mut book = lock(&self.0.book);
        // One without a journal is all that is known of it.
        if book.journal.is_some() {
            let Book { accounts, written, .. } = &mut *book;
            accounts.retain(|key, account| Arc::strong_count(account) > 1 || written.get(key) != Some(&account.used()));
        }
    }

    pub fn status(&self) -> Status {
        Status { kept: self.0.directory.is_some(), failures: self.0.failures.load(Relaxed) }
    }

    /// Writes what was not written yet, and ends the thread. `false`: it was not done within `patience`.
    pub fn close(&self, patience: Duration) -> bool {
        let Some(writer) = lock(&self.0.writer).take() else { return true };
        let (done, is_done) = sync_channel(1);
        writer.ending.send(done).is_ok() && is_done.recv_timeout(patience).is_ok()
    }

    fn keep(&self, end: &Receiver<SyncSender<()>>) {
        loop {
            let ended = end.recv_timeout(PERIOD);
            self.write(calendar::minute(wall()));
            match ended {
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
                Ok(done) => {
                    // Who waits may have lost patience.
                    let _ = done.send(());
                    return;
                }
            }
        }
    }

    fn write(&self, now: u32) {
        let mut book = lock(&self.0.book);
        let (outcome, failing) = (book.settle(now), book.failing);
        book.failing = outcome.is_err();
        match outcome {
            // Only the first of a series is logged: a full disk fails each time.
            Err(error) if !failing => tracing::error!(%error, "the use of quotas cannot be written; it is counted on"),
            Ok(()) if failing => tracing::info!("the use of quotas is written again"),
            _ => {}
        }
        self.0.failures.fetch_add(u64::from(book.failing), Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Book {
    /// Adds what others counted to ours, and writes what all have.
    fn settle(&mut self, now: u32) -> io::Result<()> {
        let Some(mut journal) = self.journal.take() else { return Ok(()) };
        let outcome =
            match journal.is_behind() || self.accounts.iter().any(|(key, account)| self.is_news(key, account.used(), now)) {
                true => journal.locked(|journal| {
                    self.catch_up(journal)?;
                    self.put_down(journal, now)
                }),
                false => Ok(()),
            };
        self.journal = Some(journal);
        outcome
    }

    fn catch_up(&mut self, journal: &mut Journal) -> io::Result<()> {
        for change in journal.read(&mut self.written)? {
            if let Some(account) = self.accounts.get(&change.key) {
                account.absorb(change.before, change.now);
            }
        }
        Ok(())
    }

    fn put_down(&mut self, journal: &mut Journal, now: u32) -> io::Result<()> {
        let used = self.accounts.iter().map(|(key, account)| (key, account.used()));
        let news: Vec<_> =
            used.filter(|(key, used)| self.is_news(key, *used, now)).map(|(key, used)| (key.clone(), used)).collect();
        if !news.is_empty() {
            journal.append(&news)?;
            self.written.extend(news);
        }
        if journal.is_bloated(&self.written) {
            self.written.retain(|_, used| used.start.saturating_add(KEPT) > now);
            journal.compact(&self.written)?;
        }
        Ok(())
    }

    /// Whether the disk should be told.
    fn is_news(&self, key: &Key, used: Used, now: u32) -> bool {
        match self.written.get(key) {
            // Another process is in the next period already, unless its clock was wrong.
            Some(written) if used.start < written.start => written.start > now.saturating_add(AHEAD),
            Some(written) => used != *written,
            None => used.amount > 0 && used.start.saturating_add(KEPT) > now,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Calendar, Period, Unit},
        *,
    };

    const NOON: u64 = 1_800_000_000;

    fn key(consumer: &str) -> Key {
        Key { consumer: consumer.into(), unit: Unit::Day }
    }

    fn day(days: u64) -> Period {
        Calendar::new(Unit::Day, "UTC").unwrap().at(NOON + days * 86_400)
    }

    fn now(days: u64) -> u32 {
        calendar::minute(NOON + days * 86_400)
    }

    /// A process that counts in this directory, whose thread does nothing unless told.
    fn process(dir: &tempfile::TempDir) -> Ledger {
        let ledger = Ledger::default();
        let mut journal = Journal::open(dir.path()).unwrap();
        let mut book = lock(&ledger.0.book);
        journal.locked(|journal| book.catch_up(journal)).unwrap();
        book.journal = Some(journal);
        drop(book);
        ledger
    }

    fn take(ledger: &Ledger, cost: u64, period: Period) -> Result<u64, u64> {
        ledger.account(key("acme")).take(cost, 100, period)
    }

    fn used(ledger: &Ledger) -> u64 {
        ledger.account(key("acme")).used().amount
    }

    #[test]
    fn use_survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let before = process(&dir);
        assert_eq!(take(&before, 60, day(0)), Ok(60));
        before.write(now(0));
        let after = process(&dir);
        assert_eq!(take(&after, 41, day(0)), Err(60));
        assert_eq!(take(&after, 40, day(0)), Ok(100));
        assert_eq!(take(&after, 100, day(1)), Ok(100));
    }

    #[test]
    fn what_was_not_written_is_written_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::new(Some(dir.path().to_owned()));
        ledger.open().unwrap();
        let today = Calendar::new(Unit::Day, "UTC").unwrap().at(wall());
        take(&ledger, 60, today).unwrap();
        assert!(ledger.close(Duration::from_secs(20)));
        assert!(ledger.close(Duration::ZERO), "a second time there is nothing to do");
        let after = Ledger::new(Some(dir.path().to_owned()));
        after.open().unwrap();
        assert_eq!(used(&after), 60);
    }

    #[test]
    fn processes_side_by_side_count_what_both_admit() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (process(&dir), process(&dir));
        take(&old, 30, day(0)).unwrap();
        take(&new, 20, day(0)).unwrap();
        old.write(now(0));
        new.write(now(0));
        old.write(now(0));
        assert_eq!((used(&old), used(&new)), (50, 50));
        take(&old, 1, day(0)).unwrap();
        take(&new, 1, day(0)).unwrap();
        for ledger in [&new, &old, &new] {
            ledger.write(now(0));
        }
        assert_eq!((used(&old), used(&new), used(&process(&dir))), (52, 52, 52));
    }

    #[test]
    fn a_process_that_is_first_in_the_next_period_takes_the_other_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (process(&dir), process(&dir));
        take(&old, 30, day(0)).unwrap();
        old.write(now(0));
        take(&new, 20, day(1)).unwrap();
        new.write(now(1));
        take(&old, 1, day(0)).unwrap();
        old.write(now(1));
        assert_eq!(take(&old, 81, day(1)), Err(20));
        assert_eq!(used(&process(&dir)), 20);
    }

    #[test]
    fn a_reset_holds_in_both_processes() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (process(&dir), process(&dir));
        take(&old, 30, day(0)).unwrap();
        old.write(now(0));
        new.write(now(0));
        new.account(key("acme")).reset(day(0));
        take(&old, 5, day(0)).unwrap();
        new.write(now(0));
        old.write(now(0));
        new.write(now(0));
        assert_eq!((used(&old), used(&new)), (5, 5));
    }

    #[test]
    fn an_account_that_comes_by_a_reload_knows_what_was_used() {
        let dir = tempfile::tempdir().unwrap();
        let before = process(&dir);
        take(&before, 60, day(0)).unwrap();
        before.write(now(0));
        before.tidy();
        assert!(lock(&before.0.book).accounts.is_empty(), "nobody holds it");
        assert_eq!(take(&before, 41, day(0)), Err(60));
    }

    #[test]
    fn an_account_that_is_not_written_yet_is_not_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = process(&dir);
        take(&ledger, 60, day(0)).unwrap();
        ledger.tidy();
        assert_eq!(used(&ledger), 60);
        let nowhere = Ledger::default();
        take(&nowhere, 60, day(0)).unwrap();
        nowhere.tidy();
        assert_eq!(used(&nowhere), 60);
    }

    #[test]
    fn a_count_of_a_clock_that_was_wrong_becomes_one_of_today() {
        let dir = tempfile::tempdir().unwrap();
        let wrong = process(&dir);
        take(&wrong, 60, day(4_000)).unwrap();
        wrong.write(now(4_000));
        let right = process(&dir);
        assert_eq!(take(&right, 41, day(0)), Err(60));
        take(&right, 1, day(0)).unwrap();
        right.write(now(0));
        assert_eq!(take(&process(&dir), 40, day(1)), Ok(40));
    }

    #[test]
    fn a_journal_that_somebody_removed_is_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = process(&dir);
        take(&ledger, 60, day(0)).unwrap();
        ledger.write(now(0));
        std::fs::remove_file(dir.path().join("quota.journal")).unwrap();
        ledger.write(now(0));
        assert_eq!((used(&ledger), used(&process(&dir))), (60, 60));
    }

    #[test]
    fn what_cannot_be_written_is_counted_on_and_written_later() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = process(&dir);
        take(&ledger, 60, day(0)).unwrap();
        // The lock is held by another.
        let mut other = Journal::open(dir.path()).unwrap();
        other
            .locked(|_| {
                ledger.write(now(0));
                Ok(())
            })
            .unwrap();
        assert_eq!(ledger.status().failures, 1);
        assert_eq!(take(&ledger, 41, day(0)), Err(60));
        ledger.write(now(0));
        assert_eq!((ledger.status().failures, used(&process(&dir))), (1, 60));
    }

    #[test]
    fn a_journal_stays_small_however_long_it_counts() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = process(&dir);
        let (account, limit) = (ledger.account(key("acme")), 1_000_000);
        for _ in 0..6_000 {
            account.take(1, limit, day(0)).unwrap();
            ledger.0.book.lock().unwrap().settle(now(0)).unwrap();
        }
        assert!(std::fs::metadata(dir.path().join("quota.journal")).unwrap().len() < 300_000);
        assert_eq!(used(&process(&dir)), 6_000);
    }

    #[test]
    fn nothing_is_written_when_nothing_was_used() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = process(&dir);
        take(&ledger, 1, day(0)).unwrap();
        ledger.write(now(0));
        let length = || std::fs::metadata(dir.path().join("quota.journal")).unwrap().len();
        let before = length();
        (0..10).for_each(|_| ledger.write(now(0)));
        assert_eq!(length(), before);
    }

    #[test]
    fn a_place_that_is_not_there_is_told_when_it_is_opened() {
        let ledger = Ledger::new(Some("/nowhere".into()));
        assert_eq!(ledger.open().unwrap_err().to_string(), "the use of quotas cannot be kept in /nowhere");
        Ledger::new(None).open().unwrap();
    }
}
