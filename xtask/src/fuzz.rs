//! Fuzzing with cargo-fuzz: `fuzz/` wraps the targets of `crates/ubique-fuzz`.
//!
//! What is found new goes into a working corpus below the target directory; `--minimise` takes what of it adds coverage
//! into the committed one. No sanitizer: the code under test forbids `unsafe`, and runs twice as fast without.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::command::{self, root};

/// Longest input, octets, as `ubique_fuzz::MAX_INPUT`.
const MAX_INPUT: usize = 8 << 10;
/// An input that takes longer, seconds, is a finding.
const TIMEOUT_S: u32 = 20;
/// More memory, MiB, is a finding.
const MEMORY_MIB: u32 = 2048;
/// Committed corpus of one target: octets, and inputs.
const CORPUS_OCTETS: u64 = 80 << 10;
const CORPUS_INPUTS: usize = 250;

#[derive(clap::Args)]
pub struct Arguments {
    /// Targets; all of them, one after the other, when none is named.
    targets: Vec<String>,
    /// How long each runs.
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// Run this input only, to see what it does.
    #[arg(long, conflicts_with = "minutes")]
    input: Option<PathBuf>,
    /// Take what was found into the committed corpus, as little as keeps the coverage.
    #[arg(long, conflicts_with_all = ["minutes", "input"])]
    minimise: bool,
}

/// Does what the arguments ask; findings are errors.
pub fn run(arguments: &Arguments) -> Result<(), String> {
    installed()?;
    let all = targets()?;
    if let Some(unknown) = arguments.targets.iter().find(|name| !all.contains(name)) {
        return Err(format!("no target {unknown}; there are: {}", all.join(" ")));
    }
    let chosen = if arguments.targets.is_empty() { &all } else { &arguments.targets };
    cargo_fuzz(&["build"], &[])?;
    let mut findings = Vec::new();
    for target in chosen {
        let outcome = if arguments.minimise {
            minimise(target)
        } else if let Some(input) = &arguments.input {
            let input = std::path::absolute(input).map_err(|e| e.to_string())?;
            cargo_fuzz(&["run", target, &input.to_string_lossy()], &[])
        } else {
            let corpora = [work(target)?, committed(target)];
            let time = format!("-max_total_time={:.0}", arguments.minutes * 60.0);
            cargo_fuzz(&["run", target, &shown(&corpora[0]), &shown(&corpora[1])], &[&time])
        };
        findings.extend(outcome.err());
    }
    if findings.is_empty() { Ok(()) } else { Err(findings.join("\n")) }
}

/// What is needed beyond the toolchain of the workspace.
fn installed() -> Result<(), String> {
    let works = |arguments: &[&str]| {
        let mut command = Command::new("rustup");
        command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    if !works(&["run", "nightly", "rustc", "--version"]) {
        return Err("fuzzing needs a nightly toolchain: rustup toolchain install nightly --profile minimal".into());
    }
    if !works(&["run", "nightly", "cargo", "fuzz", "--version"]) {
        return Err("fuzzing needs cargo-fuzz: cargo install cargo-fuzz --locked".into());
    }
    Ok(())
}

/// The binaries of `fuzz/`.
fn targets() -> Result<Vec<String>, String> {
    let entries = fs::read_dir(root().join("fuzz/fuzz_targets")).map_err(|e| e.to_string())?;
    let stem = |entry: fs::DirEntry| Some(entry.path().file_stem()?.to_string_lossy().into_owned());
    let mut names: Vec<String> = entries.flatten().filter_map(stem).collect();
    names.sort();
    Ok(names)
}

fn committed(target: &str) -> PathBuf {
    root().join("fuzz/corpus").join(target)
}

fn built() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from).join("fuzz")
}

/// Where what is found new goes.
fn work(target: &str) -> Result<PathBuf, String> {
    let folder = built().join("corpus").join(target);
    fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    Ok(folder)
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn cargo_fuzz(arguments: &[&str], options: &[&str]) -> Result<(), String> {
    let built = shown(&built());
    let [verb, rest @ ..] = arguments else { return Ok(()) };
    let fuzz = shown(&root().join("fuzz"));
    let common = ["--fuzz-dir", &fuzz, "--sanitizer", "none", "--target-dir", &built];
    let mut all = vec!["-u", "CARGO_TARGET_DIR", "rustup", "run", "nightly", "cargo", "fuzz", verb];
    all.extend(common);
    all.extend(rest);
    let limits = [
        format!("-max_len={MAX_INPUT}"),
        format!("-timeout={TIMEOUT_S}"),
        format!("-rss_limit_mb={MEMORY_MIB}"),
        "-print_final_stats=1".into(),
    ];
    if *verb == "run" {
        all.push("--");
        all.extend(limits.iter().map(String::as_str));
        all.extend(options);
    }
    command::run("env", &all)
}

/// As few and as small inputs as reach what all reach, then the smallest of these.
fn minimise(target: &str) -> Result<(), String> {
    let (merged, committed) = (built().join("merged").join(target), committed(target));
    let failed = |e: std::io::Error| format!("{target}: {e}");
    let _ = fs::remove_dir_all(&merged);
    fs::create_dir_all(&merged).map_err(failed)?;
    let corpora = [shown(&merged), shown(&committed), shown(&work(target)?)];
    cargo_fuzz(&["run", target, &corpora[0], &corpora[1], &corpora[2]], &["-set_cover_merge=1"])?;
    let mut inputs = Vec::new();
    for entry in fs::read_dir(&merged).map_err(failed)?.flatten() {
        inputs.push((entry.metadata().map_err(failed)?.len(), entry.path()));
    }
    inputs.sort();
    // Of all lengths alike.
    let every = inputs.len().div_ceil(CORPUS_INPUTS).max(1);
    let inputs: Vec<_> = inputs.into_iter().step_by(every).collect();
    fs::remove_dir_all(&committed).map_err(failed)?;
    fs::create_dir_all(&committed).map_err(failed)?;
    let (mut octets, mut kept) = (0, 0);
    for (length, path) in &inputs {
        octets += length;
        if octets > CORPUS_OCTETS {
            break;
        }
        fs::copy(path, committed.join(path.file_name().unwrap_or_default())).map_err(failed)?;
        kept += 1;
    }
    eprintln!("{target}: {kept} of {} inputs kept", inputs.len());
    Ok(())
}
