//! How much memory the process has, and may have.

use std::{fs, path::Path};

/// Most memory that the process may have: of its control group, or else of the machine. A configured figure stands for both.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Memory {
    /// Bytes.
    pub limit: u64,
}

impl Memory {
    /// What this system says. None: it says nothing.
    pub fn of_system() -> Option<Self> {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let groups = of_groups(&text("/proc/self/cgroup"), Path::new("/sys/fs/cgroup"));
        let machine = kibibytes(&text("/proc/meminfo"), "MemTotal:");
        groups.into_iter().chain(machine).min().map(|limit| Self { limit })
    }

    /// The share of it that the process has.
    pub fn share(self) -> Option<f64> {
        resident().map(|resident| resident as f64 / self.limit.max(1) as f64)
    }
}

/// Memory of the process that is in RAM, in bytes.
fn resident() -> Option<u64> {
    kibibytes(&fs::read_to_string("/proc/self/status").ok()?, "VmRSS:")
}

/// The least limit of a control group and of those around it. `/proc/self/cgroup` has a line `0::/path` for version 2, `7:memory:/path` for
/// version 1.
fn of_groups(groups: &str, root: &Path) -> Option<u64> {
    let limits = groups.lines().filter_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (kinds, path) = rest.split_once(':')?;
        let (root, file) = match kinds {
            "" => (root.to_owned(), "memory.max"),
            kinds if kinds.split(',').any(|kind| kind == "memory") => (root.join("memory"), "memory.limit_in_bytes"),
            _ => return None,
        };
        let group = root.join(path.trim_start_matches('/'));
        group.ancestors().take_while(|group| group.starts_with(&root)).filter_map(|group| number(&group.join(file))).min()
    });
    limits.min()
}

/// A number; none for `max`.
fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn kibibytes(text: &str, label: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(label))?;
    rest.split_ascii_whitespace().next()?.parse::<u64>().ok().map(|kib| kib.saturating_mul(1_024))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn the_least_limit_of_the_groups_around_counts() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        write(&root.join("system.slice/memory.max"), "1000\n");
        write(&root.join("system.slice/banyan.service/memory.max"), "max\n");
        assert_eq!(of_groups("0::/system.slice/banyan.service\n", root), Some(1_000));
        write(&root.join("system.slice/banyan.service/memory.max"), "500\n");
        assert_eq!(of_groups("0::/system.slice/banyan.service\n", root), Some(500));
        assert_eq!(of_groups("0::/\n", root), None, "what is no group of ours");
    }

    #[test]
    fn groups_of_version_1_are_read_too() {
        let root = tempfile::tempdir().unwrap();
        write(&root.path().join("memory/docker/abc/memory.limit_in_bytes"), "700\n");
        assert_eq!(of_groups("9:cpu,cpuacct:/x\n7:memory:/docker/abc\n", root.path()), Some(700));
        assert_eq!(of_groups("nonsense\n\n::\n", root.path()), None);
    }

    #[test]
    fn this_process_has_some_of_what_there_is() {
        let share = Memory::of_system().and_then(Memory::share).unwrap();
        assert!(share > 0.0 && share < 1.0, "{share}");
    }

    #[test]
    fn meminfo_is_read_by_its_manual() {
        assert_eq!(kibibytes("MemFree: 1 kB\nMemTotal:       2048 kB\n", "MemTotal:"), Some(2 << 20));
        assert_eq!(kibibytes("", "MemTotal:"), None);
    }
}
