//! Instructions per request, counted by callgrind: they repeat on a machine that is busy with other work, where times do not.
//!
//! `instructions BANYAN FLOOR [--save]` counts those of whole requests through the two programs, and those of a request's parts, and
//! compares them with `benches/instructions/baseline.txt`. It fails where one has grown by more than 3 %. `benches/instructions/run`
//! builds all of it; docs/performance.md tells more.

#![allow(clippy::unwrap_used, reason = "a bench may stop")]

use std::{collections::BTreeMap, fs, path::Path, process::ExitCode};

mod callgrind;
mod hop;
mod parts;

const BASELINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions/baseline.txt");

/// How the programs are linked, which changes the counts. Source: Cargo.toml, if the environment does not say otherwise.
const LTO: &str = match option_env!("CARGO_PROFILE_RELEASE_LTO") {
    Some(lto) => lto,
    None => "fat",
};

/// Growth that fails, in percent: a count differs from run to run by less than 1 %.
const GROWTH_MAX: f64 = 3.0;

type Counts = BTreeMap<String, u64>;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["part", name, times] => parts::repeat(name, times.parse().unwrap()),
        [banyan, floor] => return compare(&count(banyan, floor)),
        [banyan, floor, "--save"] => save(&count(banyan, floor)),
        _ => {
            eprintln!("instructions BANYAN FLOOR [--save]");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn count(banyan: &str, floor: &str) -> Counts {
    let mut counts = parts::counts();
    let hop = hop::count(Path::new(banyan), Path::new(floor));
    counts.extend([("hop".to_owned(), hop.banyan), ("floor".to_owned(), hop.floor)]);
    counts
}

/// Shows each beside its baseline.
fn compare(counts: &Counts) -> ExitCode {
    let baseline = baseline();
    let mut worst: f64 = 0.0;
    for (name, count) in counts {
        let change = baseline.get(name).map(|before| 100.0 * (*count as f64 / *before as f64 - 1.0));
        println!("{name:28} {count:8}  {}", change.map_or("new".to_owned(), |change| format!("{change:+.1} %")));
        worst = worst.max(change.unwrap_or_default());
    }
    if let (Some(hop), Some(floor)) = (counts.get("hop"), counts.get("floor")) {
        println!("{:28} {:8.2}", "hop / floor", *hop as f64 / *floor as f64);
    }
    if worst > GROWTH_MAX {
        println!("One has grown by more than {GROWTH_MAX} %. If that is meant: benches/instructions/run --save");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn baseline() -> Counts {
    let text = fs::read_to_string(BASELINE).unwrap_or_default();
    let line = |line: &str| {
        let (name, count) = line.rsplit_once(' ')?;
        Some((name.trim().to_owned(), count.parse().ok()?))
    };
    text.lines().filter(|line| !line.starts_with('#')).filter_map(line).collect()
}

fn save(counts: &Counts) {
    let lines = counts.iter().map(|(name, count)| format!("{name:28} {count}\n"));
    let head =
        format!("# Made by benches/instructions/run --save, with LTO {LTO}: instructions of a request, or of a run of a part.\n");
    fs::write(BASELINE, std::iter::once(head).chain(lines).collect::<String>()).unwrap();
}
