//! Wrong files with the findings they must give: `tests/bad/KIND/NAME.*` beside `NAME.expect`, one `CODE@LINE:COLUMN message`
//! for each finding. `UBIQUE_BLESS=1` rewrites the expectations; read the difference before committing it.

#![allow(clippy::unwrap_used)] // helpers of tests are not recognised as tests

use std::fs;
use std::path::{Path, PathBuf};

use ubique_model::internet::Internet;
use ubique_model::scenario::Scenario;
use ubique_model::service::Service;
use ubique_model::{Diagnostic, Parsed, Severity};

/// Fewest wrong files: a folder that was moved away must not pass.
const MIN_FILES: usize = 91;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bad")
}

fn findings(kind: &str, name: &str, text: &[u8]) -> Vec<Diagnostic> {
    fn of<T>(parsed: Parsed<T>) -> Vec<Diagnostic> {
        let failed = parsed.diagnostics.iter().any(|d| d.severity == Severity::Error);
        assert_eq!(parsed.value.is_none(), failed, "a value exactly when there is no error");
        parsed.diagnostics
    }
    match kind {
        "service" => of(Service::parse(name, text)),
        "scenario" => of(Scenario::parse(name, text)),
        _ => of(Internet::parse(name, text)),
    }
}

fn listed(diagnostics: &[Diagnostic]) -> String {
    let line = |d: &Diagnostic| format!("{}@{}:{} {}\n", d.code, d.line, d.column, d.message);
    diagnostics.iter().map(line).collect()
}

fn inputs() -> Vec<(String, PathBuf)> {
    let mut inputs = Vec::new();
    for kind in ["service", "scenario", "internet"] {
        for entry in fs::read_dir(root().join(kind)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|e| e != "expect") {
                inputs.push((kind.to_owned(), path));
            }
        }
    }
    inputs.sort();
    inputs
}

#[test]
fn wrong_files_give_exactly_these_findings() {
    let inputs = inputs();
    assert!(inputs.len() >= MIN_FILES, "only {} wrong files", inputs.len());
    let bless = std::env::var_os("UBIQUE_BLESS").is_some();
    let mut wrong = String::new();
    for (kind, path) in &inputs {
        let text = fs::read(path).unwrap();
        let name = path.file_name().unwrap().to_string_lossy();
        let found = findings(kind, &name, &text);
        assert!(!found.is_empty(), "{}: no finding", path.display());
        for d in &found {
            check_place(&text, d);
            assert!(d.fix.is_some(), "{}: {} without fix", path.display(), d.code);
        }
        let expected_path = path.with_extension("expect");
        if bless {
            fs::write(&expected_path, listed(&found)).unwrap();
        }
        let expected = fs::read_to_string(&expected_path).unwrap_or_default();
        if expected != listed(&found) {
            wrong += &format!("{}\n  expected:\n{expected}  found:\n{}\n", path.display(), listed(&found));
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// Line and column agree with the byte range, which lies within the file.
fn check_place(text: &[u8], d: &Diagnostic) {
    assert!(d.start <= d.end && d.end <= text.len(), "{d:?}");
    let before = &text[..d.start];
    assert_eq!(d.line, before.iter().filter(|&&b| b == b'\n').count() + 1, "{d:?}");
    let line = before.rsplit(|&b| b == b'\n').next().unwrap_or_default();
    assert_eq!(d.column, String::from_utf8_lossy(line).chars().count() + 1, "{d:?}");
}

#[test]
fn expectations_belong_to_files() {
    for kind in ["service", "scenario", "internet"] {
        for entry in fs::read_dir(root().join(kind)).unwrap() {
            let path = entry.unwrap().path();
            let inputs = ["toml", "bin"].map(|e| path.with_extension(e));
            assert!(inputs.iter().any(|i| i.exists()), "{} has no input", path.display());
        }
    }
}

/// Each code is shown by some wrong file, except those the other tests here give.
#[test]
fn every_code_is_exercised() {
    let mut seen: Vec<String> = Vec::new();
    for (kind, path) in inputs() {
        seen.extend(findings(&kind, "f", &fs::read(path).unwrap()).into_iter().map(|d| d.code));
    }
    let elsewhere = ["E0004", "E0013", "E0316", "E0402", "E0403", "E0407"];
    for code in ubique_model::diagnostic::CODES {
        let shown = seen.iter().any(|s| s == code.code) || elsewhere.contains(&code.code);
        assert!(shown, "no wrong file shows {} {}", code.code, code.title);
    }
}

#[test]
fn a_file_of_10_mb_is_refused_at_once() {
    let text = "# filler filler filler filler filler filler filler filler filler\n".repeat(160_000);
    assert!(text.len() > 10_000_000);
    for kind in ["service", "scenario", "internet"] {
        let found = findings(kind, "big.toml", text.as_bytes());
        assert_eq!(listed(&found), "E0004@1:1 the file has 10400000 bytes; the limit is 1048576\n");
    }
}

#[test]
fn findings_are_limited() {
    let text = "x = \n".repeat(100_000);
    let found = findings("service", "f", text.as_bytes());
    assert_eq!(found.len(), ubique_model::read::MAX_DIAGNOSTICS + 1);
    assert_eq!(found.last().unwrap().code, "E0013");
    assert!(found.windows(2).all(|w| w[0].start <= w[1].start));
}

#[test]
fn hostile_shapes_end_quickly() {
    for text in [
        "[".repeat(1 << 20),
        "{".repeat(1 << 20),
        "a=[".repeat(1 << 18),
        "a.".repeat(1 << 19),
        "[\n".repeat(1 << 19),
        format!("a = [{}]", "{b=1},".repeat(1 << 17)),
        format!("[service]\naddresses = [{}]", "7,".repeat(1 << 18)),
        format!("check = [{}]", "{x=1,y=2},".repeat(1 << 16)),
        format!("service = {{ {} }}", (0..60_000).map(|i| format!("k{i}=1,")).collect::<String>()),
        "a={\n".repeat(1 << 18),
        "\"".repeat(1 << 20),
        "[[a]]\n".repeat(1 << 17),
        "a=[\n".repeat(1 << 18),
        format!("a = {}", "9".repeat(1 << 20 >> 1)),
    ] {
        assert!(findings("service", "f", text.as_bytes()).iter().any(|d| d.severity == Severity::Error));
    }
}
