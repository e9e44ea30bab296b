//! Figures of the process itself, read from `/proc` at each scrape, under the names that the field's dashboards expect.

use std::fs;

use prometheus::proto::MetricFamily;

use super::metrics::{counters, gauges};

/// Clock ticks a second in `/proc`: fixed by the kernel's interface on every architecture that we run on.
/// Source: proc_pid_stat(5), `USER_HZ`.
const TICKS_PER_SECOND: f64 = 100.0;

/// What `/proc` tells. A figure that cannot be read is absent.
#[derive(PartialEq, Debug, Default)]
struct Figures {
    cpu_seconds: Option<f64>,
    start_seconds: Option<f64>,
    threads: Option<f64>,
    resident_bytes: Option<f64>,
    open_fds: Option<f64>,
    max_fds: Option<f64>,
}

/// The process's metrics as of now. The family of a figure that cannot be read is empty.
pub(super) fn families() -> Vec<MetricFamily> {
    let figures = Figures::read();
    let one = |value: Option<f64>| value.map(|value| (Vec::new(), value)).into_iter();
    let cpu = counters("process_cpu_seconds_total", "CPU time used, user and system.", one(figures.cpu_seconds));
    let rest = [
        ("process_start_time_seconds", "When the process started, in Unix time.", figures.start_seconds),
        ("process_threads", "Threads of the process.", figures.threads),
        ("process_resident_memory_bytes", "Memory of the process that is in RAM.", figures.resident_bytes),
        ("process_open_fds", "File descriptors in use.", figures.open_fds),
        ("process_max_fds", "File descriptors that the process may use.", figures.max_fds),
    ];
    rest.into_iter().map(|(name, help, value)| gauges(name, help, one(value))).chain([cpu]).collect()
}

impl Figures {
    fn read() -> Self {
        let text = |path| fs::read_to_string(path).unwrap_or_default();
        let open_fds = fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count() as f64);
        Self {
            open_fds,
            ..Self::parse(&text("/proc/self/stat"), &text("/proc/self/status"), &text("/proc/self/limits"), &text("/proc/stat"))
        }
    }

    fn parse(stat: &str, status: &str, limits: &str, system: &str) -> Self {
        // The second field is the program's name in parentheses and may hold spaces: count from behind it, where field 3 is first.
        let fields: Vec<_> = stat.rsplit_once(')').map(|(_, rest)| rest.split_ascii_whitespace().collect()).unwrap_or_default();
        let field = |number: usize| fields.get(number - 3).and_then(|text| text.parse::<f64>().ok());
        let seconds = |ticks: f64| ticks / TICKS_PER_SECOND;
        let boot = word_after(system, "btime");
        Self {
            cpu_seconds: field(14).zip(field(15)).map(|(user, system)| seconds(user + system)),
            start_seconds: field(22).zip(boot).map(|(start, boot)| boot + seconds(start)),
            threads: field(20),
            resident_bytes: word_after(status, "VmRSS:").map(|kib| kib * 1024.0),
            open_fds: None,
            max_fds: word_after(limits, "Max open files"),
        }
    }
}

/// The first number behind the label that begins a line.
fn word_after(text: &str, label: &str) -> Option<f64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(label))?;
    rest.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_read_by_its_manual() {
        let stat = "42 (a b) c) S 1 42 42 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 7 0 12345 1000 200 0";
        let figures = Figures::parse(
            stat,
            "Name:\tx\nVmRSS:\t    2048 kB\n",
            "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024                 4096                 files\n",
            "cpu 1 2 3\nbtime 1700000000\n",
        );
        let expected = Figures {
            cpu_seconds: Some(3.0),
            start_seconds: Some(1_700_000_123.45),
            threads: Some(7.0),
            resident_bytes: Some(2_097_152.0),
            open_fds: None,
            max_fds: Some(1024.0),
        };
        assert_eq!(figures, expected);
        assert_eq!(Figures::parse("", "", "", ""), Figures::default());
    }

    #[test]
    fn this_process_has_figures() {
        let figures = Figures::read();
        assert!(figures.resident_bytes.unwrap() > 0.0);
        assert!(figures.open_fds.unwrap() >= 3.0);
        assert!(figures.threads.unwrap() >= 1.0);
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
        assert!((0.0..1e6).contains(&(now - figures.start_seconds.unwrap())));
    }
}
