//! The machine: who runs where on it, and what it is.

use std::{fs, path::PathBuf, process::Command};

use serde::Serialize;

/// How many cores this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Puts this process, clients and service that is, on all cores but the first, which are for who is measured. On one core there is nothing
/// to divide.
pub fn pin() {
    if all() > 1 {
        let cores = format!("1-{}", all() - 1);
        let _ = Command::new("taskset").args(["-acp", &cores, &std::process::id().to_string()]).output();
    }
}

/// Where a contestant with so many threads runs: on the first core with one. With more, wherever the system puts it, since on a small
/// machine clients and service need the same cores.
pub fn place(threads: usize) -> Option<String> {
    let all = all();
    (all > 1).then(|| if threads == 1 { "0".to_owned() } else { format!("0-{}", all - 1) })
}

/// Cores of the machine, wherever this process may run.
fn all() -> usize {
    fs::read_to_string("/proc/cpuinfo").map_or(1, |text| text.lines().filter(|line| line.starts_with("processor")).count().max(1))
}

/// Removes the folder when the process is told to end. Its children are killed by the kernel.
pub fn end_tidily(folder: PathBuf) {
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap();
            tokio::select! { _ = tokio::signal::ctrl_c() => {}, _ = term.recv() => {} }
        });
        let _ = fs::remove_dir_all(folder);
        eprintln!("\nended");
        std::process::exit(130);
    });
}

/// What figures depend on.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    pub processor: String,
    pub cores: usize,
    pub kernel: String,
    /// Over the last minute, before the run.
    pub load: String,
}

impl Machine {
    pub fn new() -> Self {
        let of = |file: &str| fs::read_to_string(file).unwrap_or_default();
        let info = of("/proc/cpuinfo");
        let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
        Self {
            processor: model.unwrap_or("unknown").to_owned(),
            cores: all(),
            kernel: of("/proc/sys/kernel/osrelease").trim().to_owned(),
            load: of("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned(),
        }
    }
}
