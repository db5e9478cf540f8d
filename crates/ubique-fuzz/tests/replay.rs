//! The corpora of the fuzz targets, replayed on stable: what was found once stays found.

use std::fs;
use std::path::{Path, PathBuf};

use ubique_fuzz::{MAX_INPUT, TARGETS, run};

/// All corpora together, octets: a clone must stay small.
const CORPUS_OCTETS: u64 = 2 << 20;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

fn names(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut names: Vec<PathBuf> = entries.map(|entry| entry.expect("readable").path()).collect();
    names.sort();
    names
}

#[test]
fn corpora_replay() {
    let mut octets = 0;
    for (name, _) in TARGETS {
        let inputs = names(&fuzz().join("corpus").join(name));
        assert!(!inputs.is_empty(), "{name} has a corpus");
        for path in &inputs {
            let input = fs::read(path).expect("readable");
            assert!(input.len() <= MAX_INPUT, "{}: {} octets", path.display(), input.len());
            octets += input.len() as u64;
            let outcome = std::panic::catch_unwind(|| run(name, &input));
            assert!(outcome.is_ok(), "{}: cargo xtask fuzz {name} --input {0}", path.display());
        }
        run(name, &[]);
    }
    assert!(octets <= CORPUS_OCTETS, "{octets} octets");
}

#[test]
fn every_target_has_a_binary_and_nothing_else_has() {
    let stems = |folder: &str| -> Vec<String> {
        let stem = |path: PathBuf| path.file_stem().expect("a name").to_string_lossy().into_owned();
        names(&fuzz().join(folder)).into_iter().map(stem).collect()
    };
    let mut targets: Vec<String> = TARGETS.iter().map(|(name, _)| name.to_string()).collect();
    targets.sort();
    assert_eq!(stems("fuzz_targets"), targets);
    assert_eq!(stems("corpus"), targets);
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).expect("a manifest");
    for name in targets {
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name} stands in fuzz/Cargo.toml");
    }
}
