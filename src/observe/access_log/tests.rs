use std::sync::mpsc::{Sender, channel};

use super::*;

/// Longer than any of these tests takes; what ends them is an event.
const PATIENCE: Duration = Duration::from_secs(30);

fn losses() -> Losses {
    let counter = |name| IntCounter::new(name, "for the test").unwrap();
    Losses { dropped: counter("dropped"), write_errors: counter("write_errors") }
}

fn counts(losses: &Losses) -> (u64, u64) {
    (losses.dropped.get(), losses.write_errors.get())
}

/// A place to write to that says when a write begins and does what the test tells it.
struct Stage {
    begun: Sender<()>,
    orders: Receiver<io::Result<usize>>,
    written: Arc<Mutex<Vec<u8>>>,
}

struct Director {
    begun: Receiver<()>,
    orders: Sender<io::Result<usize>>,
    written: Arc<Mutex<Vec<u8>>>,
}

impl Write for Stage {
    /// Without an order, once the director is gone: writes all.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.begun.send(());
        let length = self.orders.recv().unwrap_or(Ok(usize::MAX))?.min(bytes.len());
        self.written.lock().unwrap().extend_from_slice(&bytes[..length]);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn stage() -> (Stage, Director) {
    let (begun, sees_begun) = channel();
    let (gives_orders, orders) = channel();
    let written = Arc::<Mutex<Vec<u8>>>::default();
    let stage = Stage { begun, orders, written: written.clone() };
    (stage, Director { begun: sees_begun, orders: gives_orders, written })
}

fn staged(target: Target, queue: usize) -> (Sink, Director, Losses) {
    let (stage, director) = stage();
    let losses = losses();
    let sink = Sink::start(target, Box::new(stage), queue, losses.clone()).unwrap();
    (sink, director, losses)
}

fn disk_full() -> io::Result<usize> {
    Err(io::ErrorKind::StorageFull.into())
}

#[test]
fn closing_writes_what_is_queued() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    std::fs::write(&path, "before\n").unwrap();
    let losses = losses();
    let sink = Sink::open(Target::File(path.clone()), 1000, losses.clone()).unwrap();
    for n in 0..500 {
        sink.submit(format!("{n}\n").into_bytes());
    }
    assert!(sink.close(PATIENCE));
    let expected: String = std::iter::once("before\n".to_owned()).chain((0..500).map(|n| format!("{n}\n"))).collect();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), expected);
    assert_eq!(counts(&losses), (0, 0));

    sink.submit(b"late\n".to_vec());
    assert_eq!(counts(&losses), (1, 0));
    assert_eq!(sink.shared.queued_bytes.load(Ordering::Relaxed), 0);
    assert!(sink.close(PATIENCE), "closing twice is no harm");
}

#[test]
fn a_new_file_is_not_for_everyone() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    Sink::open(Target::File(path.clone()), 1, losses()).unwrap();
    assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o137, 0);
}

#[test]
fn a_target_that_cannot_be_opened_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let error = Sink::open(Target::File(folder.path().into()), 1, losses()).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot open access log `{}`", folder.path().display()));
}

#[test]
fn a_full_queue_drops_and_counts_and_never_waits() {
    let (sink, director, losses) = staged(Target::Stdout, 2);
    sink.submit(b"1\n".to_vec());
    director.begun.recv_timeout(PATIENCE).unwrap();
    for line in [b"2\n", b"3\n", b"4\n", b"5\n"] {
        sink.submit(line.to_vec());
    }
    assert_eq!(counts(&losses), (2, 0));
    let Director { written, orders, .. } = director;
    drop(orders);
    assert!(sink.close(PATIENCE));
    assert_eq!(*written.lock().unwrap(), b"1\n2\n3\n");
}

#[test]
fn queued_bytes_are_bounded_too() {
    let (sink, director, losses) = staged(Target::Stdout, 100);
    sink.submit(b"1\n".to_vec());
    director.begun.recv_timeout(PATIENCE).unwrap();
    sink.submit(vec![b'x'; QUEUED_BYTES_MAX]);
    sink.submit(b"y\n".to_vec());
    assert_eq!(counts(&losses), (1, 0));
    drop(director.orders);
    assert!(sink.close(PATIENCE));
    assert_eq!(director.written.lock().unwrap().len(), 2 + QUEUED_BYTES_MAX);
}

#[test]
fn closing_gives_up_on_a_writer_that_hangs() {
    let (sink, director, _) = staged(Target::Stdout, 2);
    sink.submit(b"1\n".to_vec());
    director.begun.recv_timeout(PATIENCE).unwrap();
    assert!(!sink.close(Duration::from_millis(1)));
}

#[test]
fn what_could_not_be_written_is_written_later_and_whole() {
    let (sink, director, losses) = staged(Target::Stdout, 100);
    sink.submit(b"one\n".to_vec());
    director.begun.recv_timeout(PATIENCE).unwrap();
    director.orders.send(Ok(2)).unwrap();
    director.begun.recv_timeout(PATIENCE).unwrap();
    director.orders.send(disk_full()).unwrap();
    director.orders.send(disk_full()).unwrap();
    sink.submit(b"two\n".to_vec());
    director.begun.recv_timeout(PATIENCE).unwrap();
    let Director { written, orders, .. } = director;
    drop(orders);
    assert!(sink.close(PATIENCE));
    assert_eq!(*written.lock().unwrap(), b"one\ntwo\n");
    assert_eq!(counts(&losses), (0, 2));
}

#[test]
fn while_writing_fails_a_bounded_rest_is_kept() {
    let (sink, director, losses) = staged(Target::Stdout, 1000);
    for _ in 0..1000 {
        director.orders.send(disk_full()).unwrap();
    }
    let line = vec![b'x'; BATCH / 4];
    for _ in 0..8 {
        sink.submit(line.clone());
    }
    assert!(sink.close(PATIENCE));
    assert_eq!(losses.dropped.get(), 4);
    assert!(director.written.lock().unwrap().is_empty());
}

#[test]
fn after_a_rotation_lines_go_to_the_new_file() {
    let folder = tempfile::tempdir().unwrap();
    let (path, old) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
    let sink = Sink::open(Target::File(path.clone()), 100, losses()).unwrap();
    sink.submit(b"before\n".to_vec());
    std::fs::rename(&path, &old).unwrap();
    sink.reopen();
    sink.submit(b"after\n".to_vec());
    assert!(sink.close(PATIENCE));
    let (old, new) = (std::fs::read_to_string(old).unwrap(), std::fs::read_to_string(path).unwrap());
    assert_eq!(old.clone() + &new, "before\nafter\n");
    assert!(new.ends_with("after\n"), "{old:?} {new:?}");
}

#[test]
fn a_new_file_does_not_begin_inside_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let (sink, director, losses) = staged(Target::File(path.clone()), 100);
    sink.submit(b"one\n".to_vec());
    director.begun.recv_timeout(PATIENCE).unwrap();
    director.orders.send(Ok(2)).unwrap();
    director.begun.recv_timeout(PATIENCE).unwrap();
    sink.submit(b"two\n".to_vec());
    sink.reopen();
    director.orders.send(disk_full()).unwrap();
    director.orders.send(disk_full()).unwrap();
    assert!(sink.close(PATIENCE));
    assert_eq!(*director.written.lock().unwrap(), b"on");
    assert_eq!(std::fs::read_to_string(path).unwrap(), "two\n");
    assert_eq!(losses.dropped.get(), 1);
}

#[test]
fn a_file_that_cannot_be_opened_anew_leaves_the_old_one_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let (path, old) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
    let losses = losses();
    let sink = Sink::open(Target::File(path.clone()), 100, losses.clone()).unwrap();
    std::fs::rename(&path, &old).unwrap();
    std::fs::create_dir(&path).unwrap();
    sink.reopen();
    sink.submit(b"after\n".to_vec());
    assert!(sink.close(PATIENCE));
    assert_eq!(std::fs::read_to_string(old).unwrap(), "after\n");
    assert_eq!(counts(&losses), (0, 1));
}

#[test]
fn the_configured_path_names_the_target() {
    assert_eq!(Target::of("off"), None);
    assert_eq!(Target::of("-"), Some(Target::Stdout));
    assert_eq!(Target::of("a/b.log"), Some(Target::File("a/b.log".into())));
}
