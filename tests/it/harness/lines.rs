//! Lines that a process writes, to be waited for.

use std::{
    io::{BufRead, BufReader, Read},
    sync::{Arc, Condvar, Mutex},
    time::{Duration, Instant},
};

use super::PATIENCE;

/// The lines so far. Clones share them.
#[derive(Clone, Default)]
pub struct Lines(Arc<(Mutex<Vec<String>>, Condvar)>);

/// Stands after the last line once the process closed the stream.
const END: &str = "\u{4}";

impl Lines {
    /// Collects the lines of `source` in a thread of its own, until it ends.
    pub fn of(source: impl Read + Send + 'static) -> Self {
        let lines = Self::default();
        let sink = lines.clone();
        std::thread::spawn(move || {
            let mut source = BufReader::new(source);
            let mut line = Vec::new();
            while source.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
                sink.push(String::from_utf8_lossy(&line).trim_end().to_owned());
                line.clear();
            }
            sink.push(END.to_owned());
        });
        lines
    }

    fn push(&self, line: String) {
        self.0.0.lock().unwrap().push(line);
        self.0.1.notify_all();
    }

    pub fn all(&self) -> Vec<String> {
        self.0.0.lock().unwrap().clone()
    }

    /// Everything, once the process closed the stream.
    pub fn ended(&self) -> String {
        self.wait(PATIENCE, |line| (line == END).then_some(())).expect("the process closed the stream");
        let mut lines = self.all();
        lines.pop();
        lines.iter().flat_map(|line| [line, "\n"]).collect()
    }

    pub fn text(&self) -> String {
        self.all().join("\n")
    }

    /// The last lines, for a message.
    pub fn last(&self, count: usize) -> String {
        let lines = self.all();
        lines[lines.len().saturating_sub(count)..].join("\n")
    }

    /// The first thing that `find` makes of a line, present or to come.
    pub fn wait<T>(&self, time: Duration, mut find: impl FnMut(&str) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + time;
        let (lines, arrived) = &*self.0;
        let mut lines = lines.lock().unwrap();
        let mut read = 0;
        loop {
            if let Some(found) = lines[read..].iter().find_map(|line| find(line)) {
                return Some(found);
            }
            read = lines.len();
            let left = deadline.checked_duration_since(Instant::now())?;
            lines = arrived.wait_timeout(lines, left).unwrap().0;
        }
    }
}
