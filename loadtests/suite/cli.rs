//! What the suite is asked to do.

use std::{path::PathBuf, str::FromStr, time::Duration};

use super::party::{Contestant, Kind};

/// Load tests of Banyan beside other proxies, on loopback. Started by `loadtests/run`, which builds what it needs.
#[derive(clap::Parser, Clone, Debug)]
#[command(name = "loadtests/run")]
pub struct Arguments {
    /// Scenarios to run; all if none is named.
    pub scenarios: Vec<String>,
    /// Tell which scenarios there are.
    #[arg(long)]
    pub list: bool,
    /// Measure nothing: start what a scenario needs and tell where it listens, for other tools, until standard input ends.
    #[arg(long)]
    pub hold: bool,
    /// Who runs beside Banyan: floor, nginx, nginx-log (with an access log), haproxy, or another build of Banyan as NAME=PATH.
    /// Default: floor, nginx and haproxy, those that are installed.
    #[arg(long, value_delimiter = ',')]
    pub against: Option<Vec<Rival>>,
    /// How long one run of one contestant is measured.
    #[arg(long, default_value = "2s", value_parser = duration)]
    pub duration: Duration,
    /// Requests a second of the open loop. Default: half of Banyan's capacity, as measured just before.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub rate: Option<u32>,
    /// How many times everyone has a turn. 95 % intervals need six at least.
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u16).range(1..=999))]
    pub pairs: u16,
    /// Connections, or streams of HTTP/2, of the load.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(8..=1024))]
    pub connections: u16,
    /// Idle connections held in the scenario `idle`.
    #[arg(long, default_value_t = 10_000)]
    pub idle: usize,
    /// The gateway under test.
    #[arg(long, default_value = "target/release/banyan")]
    pub banyan: PathBuf,
    /// The smallest proxy, built beside it.
    #[arg(long, default_value = "target/release/examples/floor")]
    pub floor: PathBuf,
    /// Folder of the results.
    #[arg(long, default_value = "loadtests/results")]
    pub out: PathBuf,
    /// Name of the result files. Default: date and time.
    #[arg(long)]
    pub name: Option<String>,
    /// Leave it to the system who runs on which core.
    #[arg(long)]
    pub no_pin: bool,
}

/// Who is named to `--against`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rival {
    Floor,
    Nginx,
    NginxLog,
    Haproxy,
    /// Another build of Banyan.
    Build {
        name: String,
        program: PathBuf,
    },
}

impl FromStr for Rival {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text.split_once('=') {
            Some((name, program)) if !name.is_empty() => Self::Build { name: name.to_owned(), program: program.into() },
            _ => match text {
                "floor" => Self::Floor,
                "nginx" => Self::Nginx,
                "nginx-log" => Self::NginxLog,
                "haproxy" => Self::Haproxy,
                _ => return Err("expected floor, nginx, nginx-log, haproxy or NAME=PATH".to_owned()),
            },
        })
    }
}

impl Arguments {
    /// Banyan first, then the others.
    ///
    /// # Errors
    /// Somebody who was named is not installed.
    pub fn contestants(&self) -> anyhow::Result<Vec<Contestant>> {
        let mut all =
            vec![Contestant { name: "banyan".to_owned(), kind: Kind::Banyan, program: self.banyan.clone(), threads: 1 }];
        let default = [Rival::Floor, Rival::Nginx, Rival::Haproxy];
        for rival in self.against.as_deref().unwrap_or(&default) {
            let rival = self.contestant(rival);
            match found(&rival.program) {
                Some(program) => all.push(Contestant { program, ..rival }),
                None if self.against.is_none() => eprintln!("{} is not installed, and left out", rival.name),
                None => anyhow::bail!("{} is not there: {}", rival.name, rival.program.display()),
            }
        }
        anyhow::ensure!(self.banyan.is_file(), "{} is not there: build it, or name it with --banyan", self.banyan.display());
        Ok(all)
    }

    fn contestant(&self, rival: &Rival) -> Contestant {
        let (name, kind, program) = match rival {
            Rival::Floor => ("floor", Kind::Floor, self.floor.clone()),
            Rival::Nginx => ("nginx", Kind::Nginx { is_logging: false }, "nginx".into()),
            Rival::NginxLog => ("nginx-log", Kind::Nginx { is_logging: true }, "nginx".into()),
            Rival::Haproxy => ("haproxy", Kind::Haproxy, "haproxy".into()),
            Rival::Build { name, program } => (name.as_str(), Kind::Banyan, program.clone()),
        };
        Contestant { name: name.to_owned(), kind, program, threads: 1 }
    }
}

/// A program by its path, or by its name where servers are installed.
fn found(program: &std::path::Path) -> Option<PathBuf> {
    if program.components().count() > 1 {
        return program.is_file().then(|| program.to_owned());
    }
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/sbin", "/usr/local/sbin"])
        .map(|folder| PathBuf::from(folder).join(program))
        .find(|file| file.is_file())
}

/// `10s`, `500ms`, `2m`.
fn duration(text: &str) -> Result<Duration, String> {
    let at = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let number: f64 = number.parse().map_err(|_| format!("expected a number and a unit, as 10s: {text}"))?;
    let seconds = match unit {
        "ms" => number / 1e3,
        "s" => number,
        "m" => number * 60.0,
        _ => return Err(format!("expected ms, s or m as the unit: {text}")),
    };
    let time = Duration::try_from_secs_f64(seconds).map_err(|e| e.to_string())?;
    if time < Duration::from_millis(100) || time > Duration::from_secs(600) {
        return Err("expected 100ms to 10m".to_owned());
    }
    Ok(time)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn parsed(line: &str) -> Result<Arguments, String> {
        Arguments::try_parse_from(std::iter::once("run").chain(line.split_whitespace())).map_err(|e| e.to_string())
    }

    #[test]
    fn the_line_of_the_readme_is_understood() {
        let asked = parsed("plain tls --against nginx,haproxy,floor --duration 10s --rate 5000 --pairs 11").unwrap();
        assert_eq!(asked.scenarios, ["plain", "tls"]);
        assert_eq!(asked.against, Some(vec![Rival::Nginx, Rival::Haproxy, Rival::Floor]));
        assert_eq!((asked.duration, asked.rate, asked.pairs), (Duration::from_secs(10), Some(5000), 11));
    }

    #[test]
    fn without_arguments_nine_pairs_are_run() {
        let asked = parsed("").unwrap();
        assert_eq!((asked.pairs, asked.rate, asked.against, asked.connections), (9, None, None, 64));
    }

    #[test]
    fn another_build_is_named_by_its_path() {
        let asked = parsed("--against old=/tmp/banyan").unwrap();
        assert_eq!(asked.against, Some(vec![Rival::Build { name: "old".to_owned(), program: "/tmp/banyan".into() }]));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in ["--duration 10", "--duration 1h", "--duration 1ms", "--rate 0", "--pairs 0", "--against apache", "--fast"] {
            assert!(parsed(line).is_err(), "{line}");
        }
    }

    #[test]
    fn a_rival_that_was_named_must_be_there() {
        let asked = parsed("--against old=/nowhere/banyan --banyan /bin/sh").unwrap();
        assert!(asked.contestants().unwrap_err().to_string().contains("/nowhere/banyan"));
    }
}
