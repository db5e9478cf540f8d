//! The unit of the Debian package, and the command line's own documents.

use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Worst score of `systemd-analyze security`, in tenths: 10 would be a service with no limits at all.
const EXPOSURE: &str = "20";

#[test]
fn the_unit_is_hardened() {
    let unit = root().join("pkg/systemd/ubique@.service");
    let arguments = ["security", "--offline=true", "--no-pager", "--threshold", EXPOSURE];
    let Ok(output) = Command::new("systemd-analyze").args(arguments).arg(unit).output() else {
        return eprintln!("skipped: needs systemd-analyze (Debian package systemd)");
    };
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    if said.contains("Unknown option") || said.contains("unrecognized option") {
        return eprintln!("skipped: this systemd-analyze has no --offline or --threshold");
    }
    assert!(said.contains("Overall exposure level"), "{said}");
    println!("{}", said.lines().last().unwrap_or_default());
    assert!(output.status.success(), "{said}");
}

#[test]
fn the_unit_says_what_the_program_takes() {
    let unit = std::fs::read_to_string(root().join("pkg/systemd/ubique@.service")).unwrap();
    let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/bin/ubique ")).unwrap();
    let file = root().join("examples/quickstart.toml");
    let mut arguments: Vec<String> = line
        .split(' ')
        .map(|word| word.replace("${UBIQUE_FILE}", &file.to_string_lossy()).replace("%i", "lon"))
        .collect();
    arguments.push("--dry-run".into());
    let output = Command::new(env!("CARGO_BIN_EXE_ubique")).args(&arguments).output().unwrap();
    let known = String::from_utf8_lossy(&output.stderr).into_owned();
    // The site may be another one; the words must be right.
    assert!(output.status.success() || known.contains("has no site"), "{arguments:?}: {known}");
}

#[test]
fn doctor_speaks_json_and_knows_its_exit_codes() {
    let doctor = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ubique"));
        let output = command.arg("doctor").args(arguments).current_dir(root()).output().unwrap();
        (
            output.status.code().unwrap(),
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (code, said, _) = doctor(&["--output", "json"]);
    let report: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(report["schema_version"], 1);
    let checks = report["checks"].as_array().unwrap();
    let serious = |check: &serde_json::Value| {
        check["findings"].as_array().unwrap().iter().any(|finding| finding["severity"] != "note")
    };
    assert_eq!(
        (code, report["ok"].as_bool().unwrap()),
        if checks.iter().any(serious) { (1, false) } else { (0, true) }
    );
    assert!(checks.len() > 10);
    // What is said about everything has a cure.
    assert!(
        checks.iter().flat_map(|c| c["findings"].as_array().unwrap()).all(|f| f["fix"].as_str().unwrap().len() > 5)
    );

    let (code, said, _) = doctor(&["examples/quickstart.toml", "--site", "nowhere"]);
    assert!(code == 2 && said.is_empty());
    let (code, _, words) = doctor(&["--upstream", "bird"]);
    assert!(code == 2 && words.contains("FILE"), "{words}");
    for router in ["bird", "frr", "junos", "ios-xr"] {
        let site = ["examples/quickstart.toml", "--site", "nowhere", "--upstream", router];
        assert_eq!(doctor(&site).0, 2, "{router}");
    }
}
