//! The load-test suite (`loadtests/`), in short: that it measures, and that it does not where there is nothing to measure. Its unit tests run here too.

#[path = "../../loadtests/suite/mod.rs"]
#[allow(dead_code, reason = "its program calls more of it")]
mod suite;

use std::{fs, path::Path};

use clap::Parser;
use serde_json::Value;

use self::suite::cli::Arguments;

/// What is given to `loadtests/run`, with results in this folder. No rival, since the tests cannot count on any.
fn asked(line: &str, banyan: &Path, out: &Path) -> Arguments {
    let common = format!("--pairs 2 --duration 300ms --connections 8 --no-pin --name result --out {}", out.display());
    let words = format!("run {line} --banyan {} {common}", banyan.display());
    let mut asked = Arguments::try_parse_from(words.split_whitespace()).unwrap();
    asked.against = Some(Vec::new());
    asked
}

fn read(folder: &Path, ending: &str) -> String {
    fs::read_to_string(folder.join(format!("result.{ending}"))).unwrap()
}

#[test]
fn a_scenario_is_measured_from_start_to_report() {
    let out = tempfile::tempdir().unwrap();
    suite::run(&asked("plain tls --rate 200", env!("CARGO_BIN_EXE_banyan").as_ref(), out.path())).unwrap();
    let json: Value = serde_json::from_str(&read(out.path(), "json")).unwrap();
    for section in 0..2 {
        let [banyan, direct] =
            ["/rows/0", "/rows/1"].map(|row| &json.pointer(&format!("/sections/{section}{row}")).unwrap()["figures"]);
        let median = |of: &Value, figure: &str| of[figure]["median"].as_f64().unwrap();
        assert!(median(banyan, "rps") > 10.0 && median(banyan, "cpu_us") > 1.0, "{banyan}");
        assert!(median(banyan, "peak_rss_mib") > 1.0, "{banyan}");
        assert!(median(direct, "p50_us") > 0.0 && median(banyan, "p50_us") > median(direct, "p50_us"), "{banyan} {direct}");
        assert_eq!(banyan["rps"]["each"].as_array().unwrap().len(), 2, "as many runs as pairs");
        assert_eq!(json["sections"][section]["rate"], 200.0);
        assert_eq!(json["sections"][section]["rows"][0]["failed"], 0);
    }
    assert!(read(out.path(), "md").contains("| banyan |"));
    let page = read(out.path(), "html");
    assert!(page.contains("<polyline") && !page.contains("src=") && !page.contains("href="), "nothing from outside");
}

#[test]
fn a_gateway_that_does_not_route_is_not_measured() {
    use std::os::unix::fs::PermissionsExt;
    let out = tempfile::tempdir().unwrap();
    // It takes the routes for one that answers everything itself, so that nothing reaches the service.
    let faker = out.path().join("faker");
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = run ] && sed -i 's|to: {{ upstream: origin }}|to: {{ respond: {{ body: \"{}\" }} }}|' \"$3\"\nexec {} \"$@\"\n",
        "x".repeat(100),
        env!("CARGO_BIN_EXE_banyan"),
    );
    fs::write(&faker, script).unwrap();
    fs::set_permissions(&faker, fs::Permissions::from_mode(0o755)).unwrap();
    let error = suite::run(&asked("plain", &faker, out.path())).unwrap_err();
    assert_eq!(error.to_string(), "the premise did not hold: plain");
    assert_eq!(serde_json::from_str::<Value>(&read(out.path(), "json")).unwrap()["broken"][0], "plain");
}

#[test]
fn the_floor_has_sixty_lines_at_most() {
    let floor = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/loadtests/floor.rs")).unwrap();
    assert!(floor.lines().count() <= 60);
}
